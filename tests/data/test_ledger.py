from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thirtytwo.data import find, ledger, sealed
from thirtytwo.data.images import Images
from thirtytwo.data.sketch import SIZE, Sketch
from thirtytwo.data.source import Source


@pytest.fixture
def images() -> Images:
    return sealed.read_unscored(find("shapes:training=20,test=40"))


@pytest.fixture
def strangers() -> Images:
    """Pictures that are none of the others."""
    return sealed.read_unscored(find("shapes:training=20,test=40,seed=1"))


def source_of(images: Images) -> Source:
    return Source(spec="made", name="made", location="memory", notice="", reader=lambda _: images)


def opened(images: Images, key: str) -> sealed.Opening:
    return sealed.open_test(source_of(images), key=key, model="m", facts={})


def joined(one: Images, other: Images) -> Images:
    return replace(
        one,
        pixels=np.concatenate([one.pixels, other.pixels]),
        labels=np.concatenate([one.labels, other.labels]),
    )


def with_a_changed_pixel(images: Images) -> Images:
    pixels = images.pixels.copy()
    pixels[3, 4, 5, 0] ^= 1
    return replace(images, pixels=pixels)


# A test set that is nearly another one --------------------------------------------------------------------------------


def test_neither_a_picture_more_nor_fewer_nor_another_pixel_makes_a_new_test_set(
    images: Images, strangers: Images
) -> None:
    variants = [images, joined(images, strangers.take([0])), images.take(range(39)), with_a_changed_pixel(images)]
    assert [opened(each, str(number)).number for number, each in enumerate(variants)] == [1, 2, 3, 4]
    assert opened(images, "last").number == 5


def test_a_test_set_has_been_opened_as_often_as_its_pictures_have_been_shown_on_average(
    images: Images, strangers: Images
) -> None:
    thirds = [images.take(range(start, 40, 3)) for start in range(3)]
    assert [opened(third, str(number)).number for number, third in enumerate(thirds)] == [1, 1, 1]
    assert opened(images, "whole").number == 2
    assert [opened(third, f"again {number}").number for number, third in enumerate(thirds)] == [3, 3, 3]
    # Of these, four sevenths have been shown three times.
    assert opened(joined(images, strangers.take(range(30))), "diluted").number == 3
    assert opened(strangers.take(range(30, 40)), "never shown").number == 1


def test_what_is_shared_is_told_in_one_sentence(images: Images, strangers: Images) -> None:
    assert opened(images, "a").warnings == ()
    assert opened(images, "b").warnings == ()
    for key in ("c", "d"):
        opened(strangers, key)
    mixed = joined(images.take(range(10)), strangers)
    (told,) = opened(mixed, "e").warnings
    assert told.startswith("50 of these 50 test images are in other test sets that were opened, too (made)")
    (told,) = opened(joined(images.take([0]), strangers_of(2)), "f").warnings
    assert told.startswith("1 of these 41 test images is in other test sets")
    again = opened(mixed, "e")  # taken up again, after a crash that may have lost what was said
    assert again.warnings[0].startswith("50 of these 50")


def strangers_of(seed: int) -> Images:
    return sealed.read_unscored(find(f"shapes:training=20,test=40,seed={seed}"))


def test_a_scoring_taken_up_again_keeps_its_number_whatever_was_opened_between(
    images: Images, strangers: Images
) -> None:
    more = joined(images, strangers.take([0]))
    assert [opened(each, key).number for each, key in ((images, "a"), (more, "b"), (more, "c"))] == [1, 2, 3]
    assert opened(images, "a").number == 1
    assert opened(more, "b").number == 2


def test_lines_that_cannot_be_read_count_and_are_told(images: Images) -> None:
    opened(images, "a")
    path = ledger.path_of(images)
    path.write_text(path.read_text() + "no json\n[]\n")
    opening = opened(images, "b")
    assert opening.number == 4
    assert opening.warnings == tuple(f"{path}: line {line} cannot be read; it counts as an opening" for line in (2, 3))


def test_reading_the_ledger_counts_nothing_and_writes_nothing(images: Images) -> None:
    assert ledger.read(images).count == 0
    assert not ledger.path_of(images).parent.exists()
    opened(images, "a")
    before = {path: path.read_bytes() for path in ledger.path_of(images).parent.iterdir()}
    known = ledger.read(images.take(range(30)))
    assert [opening.facts["key"] for opening in known.openings] == ["a"]
    assert known.count == 1
    assert {path: path.read_bytes() for path in ledger.path_of(images).parent.iterdir()} == before


def test_single_pictures_of_an_opened_test_set_are_known(images: Images, strangers: Images) -> None:
    assert ledger.opened(images.digests).shared == 0
    opened(images, "a")
    opened(images, "b")
    some = joined(images.take(range(3)), strangers.take(range(7)))
    known = ledger.opened(some.digests)
    assert known.shown.tolist() == [2, 2, 2, 0, 0, 0, 0, 0, 0, 0]
    assert (known.shared, known.names) == (3, "made")


def test_training_images_that_belong_to_an_opened_test_set_are_told(images: Images, strangers: Images) -> None:
    assert ledger.among_training(images) == ()
    opened(images, "a")
    assert ledger.among_training(strangers) == ()
    (told,) = ledger.among_training(joined(images.take(range(4)), strangers))
    assert told.startswith("4 of these 44 training images belong to a test set that was opened (made)")
    many = sealed.read_unscored(find("shapes:training=20,test=1000,seed=3"))
    assert ledger.among_training(joined(images.take(range(3)), many)) == ()
    assert ledger.among_training(joined(images.take(range(5)), many)) != ()  # an eighth of the test set


def test_openings_from_before_there_were_digests_count_for_others_once_the_set_is_opened_again(images: Images) -> None:
    opened(images, "a")
    ledger.path_of(images).with_suffix(".digests").unlink()
    assert opened(images.take(range(30)), "part").number == 1
    assert opened(images, "a").number == 1  # the same opening, taken up again
    assert opened(images.take(range(20)), "less").number == 3


def test_damaged_digests_stop_nobody_and_are_mended_by_the_next_opening(images: Images, strangers: Images) -> None:
    opened(images, "a")
    path = ledger.path_of(images).with_suffix(".digests")
    whole = path.read_bytes()
    for damage in (whole[:-3], whole[:-8] + bytes(8), b""):
        path.write_bytes(damage)
        assert ledger.among_training(strangers_of(4)) == ()
        assert opened(strangers, f"b{len(damage)}").number > 0
        opened(images, "a")
        assert path.read_bytes() == whole


# What a model was trained on ------------------------------------------------------------------------------------------


def digests(seed: int, number: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.random.default_rng(seed).integers(0, 2**64, number, dtype=np.uint64)


def test_a_sketch_of_a_small_set_is_exact(images: Images, strangers: Images) -> None:
    sketch = Sketch.of(images.digests)
    assert sketch.look_up(images.digests) == (40, 40)
    assert sketch.look_up(joined(images.take([1, 1, 5]), strangers).digests) == (3, 43)
    assert sketch.look_up(with_a_changed_pixel(images).digests) == (39, 40)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_sketch_of_a_large_set_estimates_the_share(share: float) -> None:
    trained, test = digests(0, 50_000), digests(1, 10_000)
    test[: round(share * 10_000)] = trained[: round(share * 10_000)]
    found, asked = Sketch.of(trained).look_up(test)
    assert asked == pytest.approx(10_000 * SIZE / 50_000, rel=0.2)
    assert found / asked == pytest.approx(share, abs=0.05)
    assert share not in (0, 1) or found / asked == share


@pytest.mark.parametrize("sizes", [(100, 200), (100, 9_000), (20_000, 9_000)])
def test_sketches_of_sets_make_the_sketch_of_all_of_them(sizes: tuple[int, int]) -> None:
    parts = [digests(seed, size) for seed, size in enumerate(sizes)]
    merged, whole = Sketch.merged([Sketch.of(part) for part in parts]), Sketch.of(np.concatenate(parts))
    assert merged.is_whole == whole.is_whole
    assert merged.digests[:SIZE].tolist() == whole.digests[: len(merged.digests)].tolist()


@pytest.mark.parametrize("number", [1, SIZE, SIZE + 1])
def test_a_sketch_is_read_as_it_was_written(number: int) -> None:
    sketch = Sketch.of(digests(0, number))
    again = Sketch.recalled(sketch.to_json())
    assert again.digests.tolist() == sketch.digests.tolist()
    assert again.is_whole == sketch.is_whole == (number <= SIZE)
