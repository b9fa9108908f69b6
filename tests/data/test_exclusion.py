"""Tables of images to leave out: what they name goes, and a table of other images is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.data import Exclusion, Images, exclusion, find
from thirtytwo.data.source import Source
from thirtytwo.errors import DataError


def table(text: str, path: Path = Path("table.csv")) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def source(images: Images) -> Source:
    return Source(spec="made", name=images.name, location="memory", notice="", reader=lambda split: images)


def test_images_of_each_split_are_named_for_that_split(small_images: Images) -> None:
    path = table("score,split,index\n0.9,training,7\n0.8,test,3\n0.7,training,2\n0.6,training,7\n")
    (read,) = exclusion.read(path)
    assert read.indices(small_images, "training") == (2, 7)
    assert read.indices(small_images, "test") == (3,)
    (again,) = exclusion.read([read])
    assert again is read


@given(pairs=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1])))
def test_what_is_left_has_no_pair_in_training_and_none_across(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    """Numbers up to 7 are training images, the others test images."""

    def place(number: int) -> str:
        return f"training,{number}" if number < 8 else f"test,{number - 8}"

    lines = [f"{place(one)},{place(other)},0.01,near" for one, other in pairs]
    path = tmp_path_factory.mktemp("pairs") / "duplicates.csv"
    table("\n".join(["split_a,index_a,split_b,index_b,distance,kind", *lines]), path)
    images = Images(np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8, np.int64), ("a", "b"), "made")
    (read,) = exclusion.read(path)
    trained = set(range(8)) - set(read.indices(images, "training"))
    scored = set(range(8, 12)) - {index + 8 for index in read.indices(images, "test")}
    assert not [pair for pair in pairs if set(pair) <= trained]
    across = [pair for pair in pairs if pair[0] < 8 <= pair[1]]
    # Either side alone is enough: whoever trains on everything may still score the rest, and the other way round.
    assert not [pair for pair in across if pair[1] in scored]
    assert not [pair for pair in across if pair[0] in trained]
    # Nothing else goes.
    assert trained >= set(range(8)) - {number for pair in pairs for number in pair}
    assert scored >= set(range(8, 12)) - {other for one, other in across}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("training,200,,", "is named, but small holds 200, counted from 0"),
        ("training,3,,c", "is labelled c there, but d in small"),
        ("training,3,dog/1.png,", "small is not made of image files"),
    ],
)
def test_a_table_of_other_images_is_refused(small_images: Images, row: str, problem: str) -> None:
    path = table(f"split,index,path,given\ntraining,0,,a\n{row}\n")
    (read,) = exclusion.read(path)
    with pytest.raises(DataError, match=rf"table\.csv, line 3: .*{problem}; expected a table of these images"):
        read.indices(small_images, "training")
    assert read.indices(small_images, "test") == ()


def test_a_picture_that_has_moved_is_not_taken_for_another(small_images: Images) -> None:
    images = replace(small_images, paths=tuple(f"/pets/{number}.png" for number in range(200)))
    (read,) = exclusion.read(table("split,index,path\ntraining,4,/pets/4.png\ntraining,5,/pets/6.png\n"))
    with pytest.raises(DataError, match=r"line 3: training image 5 is /pets/6\.png there, but /pets/5\.png in small"):
        read.indices(images, "training")
    assert read.indices(images.take([*range(5), 6]), "training") == (4, 5)


def test_a_table_of_pictures_that_are_no_files_fits_these_pictures_only(small_images: Images) -> None:
    names = [exclusion.picture_of(small_images, index) for index in range(8)]
    assert len(set(names)) == 8
    columns = "split_a,index_a,split_b,index_b,picture_a,picture_b"
    (read,) = exclusion.read(table(f"{columns}\ntraining,1,training,2,{names[1]},{names[2]}\n"))
    assert read.indices(small_images, "training") == (2,)
    (read,) = exclusion.read(table(f"split,index,picture\ntraining,2,{names[2]}\ntraining,4,{names[3]}\n"))
    with pytest.raises(DataError, match=r"line 3: training image 4 is another picture there than in small"):
        read.indices(small_images, "training")
    (read,) = exclusion.read(table(f"{columns}\ntraining,1,test,2,{names[1]},{names[3]}\n"))
    assert read.indices(small_images, "training") == (1,)
    with pytest.raises(DataError, match="test image 2 is another picture"):
        read.indices(small_images, "test")


def test_pairs_of_files_are_told_by_their_names_wherever_the_folder_lies(small_images: Images) -> None:
    images = replace(small_images, paths=tuple(f"/pets/cat/{number}.png" for number in range(200)))
    columns = "split_a,index_a,split_b,index_b,path_a,path_b"
    (read,) = exclusion.read(table(f"{columns}\ntraining,1,training,2,/a/../moved/cat/1.png,/moved/cat/2.png\n"))
    assert read.indices(images, "training") == (2,)
    (read,) = exclusion.read(table(f"{columns}\ntraining,1,training,2,/pets/cat/1.png,/pets/dog/2.png\n"))
    with pytest.raises(DataError, match=r"is /pets/dog/2\.png there, but /pets/cat/2\.png in small"):
        read.indices(images, "training")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "columns are nothing"),
        (b"a,b\n1,2\n", "columns are a, b"),
        (b"split,index\ntraining,-1\n", "line 2: split is 'training' and index is '-1'"),
        (b"split,index\ntraining,\n", "line 2: .* index is ''"),
        (b"split,index\ntraining\n", "line 2: .* index is None"),
        (b"split,index\ntraining,1e3\n", "line 2: .* index is '1e3'"),
        (b"split,index\nvalidation,1\n", "line 2: split is 'validation'"),
        (b"split,index\ntraining," + b"9" * 5000 + b"\n", "line 2: "),
        (b"split_a,index_a,split_b,index_b\ntest,3,test,3\n", "line 2: pairs an image with itself"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "no CSV file"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, problem: str) -> None:
    Path("table.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"table.csv.*{problem}.*expected"):
        exclusion.read("table.csv")


def test_a_table_whose_columns_are_not_divided_by_commas_is_told_from_one_of_something_else() -> None:
    with pytest.raises(DataError, match=r"columns are split;index; expected .*; put commas between the columns$"):
        exclusion.read(table("split;index\ntraining;1\n"))
    with pytest.raises(DataError, match=r"columns are name, size; expected .* split and index; name such a file$"):
        exclusion.read(table("name,size\na,1\n"))


def test_of_tables_that_name_images_of_the_other_split_only_that_is_said() -> None:
    tables = exclusion.read(
        [
            table("split,index\ntest,1\ntest,2\n", Path("test.csv")),
            table("split,index\ntraining,1\ntest,2\n", Path("both.csv")),
            table("split,index\n", Path("nothing.csv")),
            table("split_a,index_a,split_b,index_b\ntraining,1,training,2\n", Path("pairs.csv")),
        ]
    )
    (said,) = exclusion.of_other_split(tables, "training")
    assert said.startswith("test.csv: names test images only; expected training images")
    (said,) = exclusion.of_other_split(tables, "test")
    assert said.startswith("pairs.csv: names training images only; expected test images")


@pytest.mark.parametrize("name", [".", "nowhere.csv"])
def test_what_is_no_file_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        exclusion.read(name)


def test_a_table_that_names_nothing_leaves_out_nothing(small_images: Images) -> None:
    chosen = exclusion.training(exclusion.read(table("split,index\n")), small_images)
    assert chosen  # somebody asked
    assert chosen.indices == ()
    assert source(small_images).without(chosen).read_training().fingerprint == small_images.fingerprint


def test_a_source_leaves_out_what_it_is_told_last(small_images: Images) -> None:
    whole = source(small_images)
    less = whole.without(Exclusion(indices=(0, 5, 199)))
    rest = [number for number in range(200) if number not in (0, 5, 199)]
    for each in (less, less.in_memory(), whole.in_memory().without(less.exclusion)):
        assert each.read_training().fingerprint == small_images.take(rest).fingerprint
    assert less.without(Exclusion()).read_training().fingerprint == small_images.fingerprint
    with pytest.raises(DataError, match="number 200 is to be left out"):
        whole.without(Exclusion(indices=(200,))).read_training()


def test_each_table_is_told_with_how_many_training_images_it_names(small_images: Images) -> None:
    first = table("split,index\ntraining,4\ntraining,9\ntraining,9\ntest,1\n", Path("first.csv"))
    second = table("split_a,index_a,split_b,index_b\ntraining,2,training,9\ntest,1,test,2\n", Path("second.csv"))
    chosen = exclusion.training(exclusion.read([first, second]), small_images)
    assert (chosen.indices, chosen.named) == ((4, 9), (2, 1))
    assert chosen.tables == "first.csv (2), second.csv (1)"


def warnings(images: Images, indices: Sequence[int]) -> tuple[str, ...]:
    """What is told if these are left out."""
    return Exclusion(("/a/table.csv",), tuple(indices), (len(indices),)).applied(images).warnings


def test_more_than_a_tenth_left_out_is_warned_of(small_images: Images) -> None:
    assert warnings(small_images, range(20)) == ()
    (told,) = warnings(small_images, range(21))
    assert told.startswith(
        "small: left out are 21 of 200 training images (10.5%), named in table.csv (21); expected at most a tenth"
    )
    own = replace(small_images, warnings=("one of its own",))
    assert warnings(own, range(20)) == ("one of its own",)
    assert warnings(own, range(21)) == ("one of its own", told)


def test_more_than_half_of_a_class_left_out_is_warned_of(small_images: Images) -> None:
    uneven = small_images.take([*range(0, 40, 4), *(number for number in range(200) if number % 4)])
    assert uneven.per_class == [10, 50, 50, 50]
    assert warnings(uneven, range(5)) == ()
    (told,) = warnings(uneven, range(6))
    assert told.startswith("small: left out are 6 of 10 of class a, named in table.csv (6); expected")


def test_of_many_classes_that_lose_most_of_their_images_a_few_are_named(small_images: Images) -> None:
    (told,) = warnings(small_images, range(120))
    lost = ", ".join(f"30 of 50 of class {name}" for name in "abc")
    assert f"120 of 200 training images (60.0%), {lost}, most of 1 more class, named in" in told


def test_what_is_recorded_is_recalled() -> None:
    chosen = Exclusion(("/a.csv",), (1, 4), (2,))
    assert exclusion.recalled({"excluded": chosen.to_json()}) == chosen
    assert not exclusion.recalled({})
    earlier = exclusion.recalled({"excluded": {"files": ["/a.csv", "/b.csv"], "indices": [1, 4]}})
    assert (earlier.indices, earlier.tables) == ((1, 4), "a.csv, b.csv")


def test_test_images_are_never_left_out_by_a_source() -> None:
    whole = find("shapes:training=30,test=10")
    less = whole.without(Exclusion(indices=tuple(range(15))))
    assert len(less.read_training()) == 15
    assert len(less._sealed_read("test")) == 10
