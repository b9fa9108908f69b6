from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pooch.hashes import file_hash

from thirtytwo.data import from_arrays, load_data, sealed, source
from thirtytwo.data.download import Archive, Patience
from thirtytwo.data.official import Layout
from thirtytwo.data.shapes import draw
from thirtytwo.data.source import MOST_CLASSES, Source
from thirtytwo.errors import ChecksumMismatch, DataError, DownloadError, StorageError

Make = Callable[..., object]
Find = Callable[..., Source]


def unreachable(name: str) -> Archive:
    """An archive that no host has: nothing listens at port 9 of this machine."""
    return Archive(f"{name}.tar.gz", ("http://127.0.0.1:9/made.tar.gz",), "0" * 32, 1000, name, {"meta": 10})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, in which the working directory is `work`; no environment variable names any data."""
    for name in ("THIRTYTWO_DATA", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def find(home: Path, layouts: Sequence[Layout]) -> Find:
    """`find`, for the small made files, and with nothing to be had from the network."""

    def small(
        spec: str | None = None, *, archives: Mapping[str, Archive] | None = None, fallback: bool = False
    ) -> Source:
        archives = archives or {name: unreachable(name) for name in ("cifar10", "cifar100")}
        return source.find(
            spec, layouts=layouts, archives=archives, fallback=fallback, patience=Patience(pause_seconds=0)
        )

    return small


def named(layouts: Sequence[Layout], folder: str) -> Layout:
    return next(layout for layout in layouts if layout.folder == folder)


def fill(place: Path, classes: Sequence[str] = ("cat", "dog")) -> None:
    for name in classes:
        (place / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(place / name / f"{index}.png")


# Where CIFAR is found ------------------------------------------------------------------------------------------------

PLACES = {
    "the package's cache": "cache/cifar-10-batches-py",
    "what old versions of Keras left": ".keras/datasets/cifar-10-batches-py",
    "what Keras left": ".keras/datasets/cifar-10-batches-py-target/cifar-10-batches-py",
    "what torchvision left": "work/data/cifar-10-batches-py",
    "here": "work/cifar-10-batches-py",
    "data at home": "data/cifar-10-batches-py",
    "the binary version here": "work/cifar-10-batches-bin",
}


@pytest.mark.parametrize("place", PLACES)
def test_copy_on_this_machine_is_found(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make, place: str
) -> None:
    path = home / PLACES[place]
    make(path.parent, named(layouts, path.name))
    found = find("cifar10")
    assert (found.spec, found.name, found.location, found.notice) == ("cifar10", "cifar10", str(path), "")
    assert found == find()
    assert len(found.read_training()) == 35
    assert len(sealed.read_unscored(found)) == 5
    with pytest.raises(DownloadError):
        find("cifar100")


def test_keras_may_live_elsewhere(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(home / "elsewhere"))
    make(home / "elsewhere" / "datasets", named(layouts, "cifar-100-python"))
    assert find("cifar100").location == str(home / "elsewhere" / "datasets" / "cifar-100-python")


def test_places_are_searched_in_the_order_that_is_promised(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = named(layouts, "cifar-10-batches-py")
    places = [home / "given", home / "cache", home / ".keras" / "datasets", home / "work" / "data"]
    for place in places:
        make(place, layout)
    monkeypatch.setenv("THIRTYTWO_DATA", str(places[0]))
    for place in places:
        assert find("cifar10").location == str(place / layout.folder)
        (place / layout.folder / "test_batch").unlink()  # no longer whole
        monkeypatch.delenv("THIRTYTWO_DATA", raising=False)


def test_half_a_copy_that_somebody_left_is_passed_over(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make
) -> None:
    layout = named(layouts, "cifar-10-batches-bin")
    make(home / "work", layout)
    os.truncate(home / "work" / layout.folder / "data_batch_2.bin", 1000)
    with pytest.raises(DownloadError):
        find("cifar10")


def test_half_a_copy_that_was_asked_for_is_an_error(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make
) -> None:
    layout = named(layouts, "cifar-10-batches-bin")
    make(home / "work", layout)
    os.truncate(home / "work" / layout.folder / "data_batch_2.bin", 1000)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: cut short"):
        find(layout.folder)


@pytest.fixture
def served(home: Path, layouts: Sequence[Layout], make: Make) -> Iterator[Archive]:
    """CIFAR-100, small, to be had from a server on this machine."""
    layout = named(layouts, "cifar-100-python")
    make(home / "packed", layout)
    unpacked = home / "packed" / layout.folder
    path = home / "packed" / "made.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(unpacked, layout.folder)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=str(path.parent)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield Archive(
        name="made.tar.gz",
        hosts=(f"http://127.0.0.1:{server.server_port}/made.tar.gz",),
        md5=file_hash(str(path), alg="md5"),  # type: ignore[no-untyped-call]
        size_bytes=path.stat().st_size,
        folder=layout.folder,
        files={file.name: file.stat().st_size for file in unpacked.iterdir()},
    )
    server.shutdown()
    server.server_close()


def test_what_is_nowhere_is_fetched_and_then_found(home: Path, find: Find, served: Archive) -> None:
    fetched = find("cifar100", archives={"cifar100": served})
    assert fetched.location == str(home / "cache" / "cifar-100-python")
    assert find("cifar100") == fetched  # from the cache: nothing can be fetched any more
    assert len(fetched.read_training()) == 7


def test_damaged_cache_is_fetched_anew(home: Path, find: Find, served: Archive) -> None:
    fetched = find("cifar100", archives={"cifar100": served})
    (Path(fetched.location) / "train").unlink()
    assert find("cifar100", archives={"cifar100": served}) == fetched
    assert len(fetched.read_training()) == 7


# The environment -----------------------------------------------------------------------------------------------------


def test_environment_names_the_data_unless_somebody_says_otherwise(
    home: Path, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home / "pets")
    monkeypatch.setenv("THIRTYTWO_DATA", str(home / "pets"))
    assert find().spec == str(home / "pets")
    assert find("shapes").name == "shapes"
    monkeypatch.setenv("THIRTYTWO_DATA", "shapes:seed=3")
    assert find().spec == "shapes:seed=3"


def test_environment_that_names_nothing_is_never_passed_over(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_DATA", "/no/such/folder")
    for spec in (None, "cifar10"):
        with pytest.raises(DataError, match=r"\$THIRTYTWO_DATA: .*no such folder"):
            find(spec, fallback=True)
    assert find("shapes").name == "shapes"


@pytest.mark.parametrize("value", ["", "cifar10"])
def test_environment_may_be_empty_or_name_cifar(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    make(home / "work", named(layouts, "cifar-10-batches-bin"))
    monkeypatch.setenv("THIRTYTWO_DATA", value)
    assert find().name == find("cifar10").name == "cifar10"


# Shapes stand in -----------------------------------------------------------------------------------------------------


def test_shapes_stand_in_only_when_nobody_said_what_to_use(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(fallback=True)
    assert (found.spec, found.name) == ("shapes", "shapes")
    for part in ("CIFAR-10 was not found", "127.0.0.1:9", "refused", "say nothing about CIFAR-10", "--data FOLDER"):
        assert part in found.notice
    assert "\n" not in found.notice
    for spec, fallback in ((None, False), ("cifar10", True), ("cifar10", False)):
        with pytest.raises(DownloadError, match="--data shapes"):
            find(spec, fallback=fallback)
    monkeypatch.setenv("THIRTYTWO_DATA", "cifar10")
    with pytest.raises(DownloadError):
        find(fallback=True)


def test_shapes_stand_in_where_nothing_can_be_stored(
    home: Path, find: Find, served: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("THIRTYTWO_CACHE", str(home / "file" / "cache"))
    assert "cannot be written" in find(archives={"cifar10": served}, fallback=True).notice
    with pytest.raises(StorageError):
        find(archives={"cifar10": served})


def test_shapes_stand_in_where_every_host_sends_something_else(find: Find, served: Archive) -> None:
    wrong = Archive(**{**vars(served), "md5": "0" * 32})
    assert "MD5" in find(archives={"cifar10": wrong}, fallback=True).notice
    with pytest.raises(ChecksumMismatch):
        find(archives={"cifar10": wrong})


def test_shapes_have_a_notice_only_as_stand_in(find: Find) -> None:
    assert find("shapes").notice == ""


def test_shapes_are_drawn_as_asked(find: Find) -> None:
    found = find("shapes:training=40,test=20,seed=7,label_errors=0.1,duplicates=0.2")
    wanted = draw(40, 7, label_errors=0.1, duplicates=0.2)
    assert found.read_training().fingerprint == wanted.images.fingerprint
    test = draw(20, 7, split="test", label_errors=0.1, duplicates=0.2, training_number=40)
    assert sealed.read_unscored(found).fingerprint == test.images.fingerprint


# What a SPEC may say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "normal"),
    [
        ("shapes", "shapes"),
        (" shapes ", "shapes"),
        ("shapes:", "shapes"),
        ("shapes:seed=1,training=20", "shapes:training=20,seed=1"),
        ("shapes: test = 10 , label_errors=.05", "shapes:test=10,label_errors=0.05"),
        ("shapes:training=5000,test=1000,seed=0,label_errors=0,duplicates=0.0", "shapes"),
    ],
)
def test_normal_form_of_a_spec_finds_the_same(find: Find, spec: str, normal: str) -> None:
    assert find(spec).spec == normal
    assert find(normal) == find(spec)


@pytest.mark.parametrize(
    ("spec", "name", "classes"),
    [("cifar100", "cifar100", 100), ("cifar100:labels=fine", "cifar100", 100), ("cifar100:labels=coarse", None, 20)],
)
def test_cifar100_has_fine_and_coarse_labels(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make, spec: str, name: str | None, classes: int
) -> None:
    make(home / "work", named(layouts, "cifar-100-binary"))
    found = find(spec)
    images = sealed.read_unscored(found)
    assert found.name == images.name == (name or "cifar100-coarse")
    assert found.spec == (name or spec)
    assert len(images.classes) == classes


def test_fewer_training_images_are_always_the_same_and_as_many_of_each_class() -> None:
    whole = source.find("shapes:training=200,test=20")
    found = source._fewer(whole, 100, 0)
    images = found.read_training()
    assert found.name == images.name == "shapes-100"
    halves = np.array(whole.read_training().per_class) / 2
    assert (np.abs(np.array(images.per_class) - halves) <= 1).all()
    for number in (10, 15, 99, 101):
        some = source._fewer(whole, number, 0).read_training()
        assert len(some) == number
        assert max(some.per_class) - min(some.per_class) <= 1
    assert images.fingerprint == source._fewer(whole, 100, 0).read_training().fingerprint
    assert {pixels.tobytes() for pixels in images.pixels} < {
        pixels.tobytes() for pixels in whole.read_training().pixels
    }
    assert (sealed.read_unscored(found).pixels == sealed.read_unscored(whole).pixels).all()


def test_what_is_skipped_and_what_is_taken_make_up_the_whole() -> None:
    whole = source.find("shapes:training=200,test=20")
    first, second, rest = (source._fewer(whole, *which) for which in ((80, 0), (80, 80), (None, 160)))
    assert (second.name, rest.name) == ("shapes-80-skip-80", "shapes-skip-160")
    parts = [part.read_training() for part in (first, second, rest)]
    assert [len(part) for part in parts] == [80, 80, 40]
    assert all(max(part.per_class) - min(part.per_class) <= 1 for part in parts[:2])
    pixels = [image.tobytes() for part in parts for image in part.pixels]
    assert sorted(pixels) == sorted(image.tobytes() for image in whole.read_training().pixels)
    assert source._fewer(whole, None, 0) is whole
    for number, skip in ((200, 0), (101, 100), (None, 200), (10, 1000)):
        with pytest.raises(DataError, match="expected training and skip to add up to fewer"):
            source._fewer(whole, number, skip).read_training()


def test_fewer_of_cifar_are_a_spec_of_its_own(home: Path, find: Find, layouts: Sequence[Layout], make: Make) -> None:
    make(home / "work", named(layouts, "cifar-100-binary"))
    found = find("cifar100: training=10 , labels=coarse")
    assert (found.spec, found.name) == ("cifar100:labels=coarse,training=10", "cifar100-coarse-10")
    assert find("cifar100:training=10,labels=coarse,skip=0").spec == found.spec
    assert find("cifar100:training=10,skip=5").spec == "cifar100:skip=5,training=10"
    with pytest.raises(DataError, match="to add up to fewer"):  # it is a small copy
        found.read_training()


@pytest.mark.parametrize(
    ("spec", "others"),
    [
        ("cifar10:training=5000", "cifar10:training=5000,skip=5000"),
        ("cifar100:training=10,labels=coarse", "cifar100:labels=coarse,training=10,skip=10"),
        ("cifar10:training=5000,skip=5000", "cifar10:training=5000,skip=10000"),
        ("cifar10:training=25000", "cifar10:training=25000,skip=25000"),
        ("cifar10:training=40000", "cifar10:skip=40000"),  # all that there are
        ("cifar10:training=40000,skip=10000", ""),
        ("cifar10", ""),
        ("cifar10:skip=5000", ""),
        ("shapes:training=5000", ""),
    ],
)
def test_others_are_images_of_the_same_set_that_are_none_of_these(spec: str, others: str) -> None:
    options = source._options(spec, spec.partition(":")[2], {**source._CIFAR100, **source._SHAPES})
    name = spec.partition(":")[0]
    assert (source._others(name, options, 50_000) if name != "shapes" else source.find(spec).others) == others


def test_others_of_some_cifar_images_can_be_found(
    home: Path, find: Find, layouts: Sequence[Layout], make: Make
) -> None:
    make(home / "work", named(layouts, "cifar-10-batches-bin"))
    found = find("cifar10:training=10")
    others = find(found.others)
    pixels = [{image.tobytes() for image in each.read_training().pixels} for each in (found, others)]
    assert [len(each) for each in pixels] == [10, 10]
    assert not pixels[0] & pixels[1]
    assert found.in_memory().others == found.others


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ("cifar-10", ["no such folder", "did you mean cifar10?"]),
        ("cifar1000", ["did you mean cifar100?"]),
        ("shape", ["did you mean shapes?"]),
        ("nothing/like/it", ["no such folder, and no known name", "cifar10, cifar100, shapes or a path"]),
        ("", ["nothing", "cifar10, cifar100, shapes or a path"]),
        ("x" * 5000, ["cannot be read"]),
        (" ", ["nothing", "cifar10, cifar100, shapes or a path"]),
        ("cifar10:labels=coarse", ["no such option 'labels'", "expected one of training"]),
        ("cifar10:training=5", ["training is '5' (expected a whole number from 10"]),
        ("cifar10:skip=-1", ["skip is '-1' (expected a whole number from 0"]),
        ("cifar100:labels=rough", ["labels is 'rough' (expected fine or coarse)"]),
        ("cifar100:label=coarse", ["no such option 'label'", "did you mean labels?"]),
        ("shapes:trainig=5", ["did you mean training?"]),
        ("shapes:training=many,test=5", ["training is 'many' (expected a whole number", "test is '5' (expected"]),
        (
            "shapes:label_errors=2,duplicates=nan,seed=-1",
            ["label_errors is '2'", "duplicates is 'nan'", "seed is '-1'"],
        ),
        ("shapes:training", ["training is ''"]),
        ("shapes:,", ["no such option ''"]),
        ("arrays", ["from_arrays(training, test)", "./arrays"]),
    ],
)
def test_spec_that_means_nothing_is_explained(find: Find, spec: str, problems: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        find(spec)
    for problem in problems:
        assert problem in str(caught.value)
    assert "expected" in str(caught.value)


# Paths ---------------------------------------------------------------------------------------------------------------


def test_path_may_be_relative_or_begin_with_the_home(home: Path, find: Find) -> None:
    fill(home / "work" / "pets")
    for spec in ("pets", "./pets", "~/work/pets", str(home / "work" / "pets")):
        found = find(spec)
        assert found.spec == found.location == str(home / "work" / "pets")
        assert found.name == sealed.read_unscored(found).name == "pets"
    assert find(found.spec) == found


def test_known_names_win_over_folders_of_that_name(home: Path, find: Find) -> None:
    fill(home / "work" / "shapes")
    assert find("shapes").location == "drawn by the package"
    assert find("./shapes").name == "shapes-folder"


@pytest.mark.parametrize("place", ["official folder", "the folder that holds it"])
def test_path_to_official_files_is_that_set(home: Path, find: Find, layout: Layout, make: Make, place: str) -> None:
    make(home / "sets", layout)
    path = home / "sets" / layout.folder if place == "official folder" else home / "sets"
    found = find(str(path))
    assert (found.spec, found.name) == (str(path), layout.name)
    assert found.location == str(home / "sets" / layout.folder)
    assert len(sealed.read_unscored(found)) == 5


@pytest.mark.parametrize("name", ["empty", "made.tar.gz"])
def test_path_that_holds_no_data_is_explained_before_it_is_read(home: Path, find: Find, name: str) -> None:
    (home / "work" / "empty").mkdir()
    (home / "work" / "made.tar.gz").touch()
    with pytest.raises(DataError, match=r"nothing in it; expected .*CIFAR|a file; expected a folder; unpack it"):
        find(name)


def test_finding_opens_no_image(home: Path, find: Find, layout: Layout, make: Make, opened: list[Path]) -> None:
    make(home / "sets", layout)
    fill(home / "pets")
    opened.clear()
    find(str(home / "sets"))
    find(str(home / "pets"))
    assert [path for path in opened if path.is_file() and home in path.parents] == []


def test_pictures_added_during_a_training_change_nothing_for_it(home: Path, find: Find) -> None:
    fill(home / "pets")
    found = find(str(home / "pets"))
    training, test = found.read_training().fingerprint, sealed.read_unscored(found).fingerprint
    for index in range(20):
        Image.new("RGB", (32, 32), (0, index, 0)).save(home / "pets" / "cat" / f"new {index}.png")
    assert (found.read_training().fingerprint, sealed.read_unscored(found).fingerprint) == (training, test)
    assert find(found.spec).read_training().fingerprint != training


def test_training_in_the_folder_of_the_images_leaves_them_the_same_data(home: Path, find: Find) -> None:
    fill(home / "work")
    before = find(".").read_training()
    run = home / "work" / "runs" / "classic-1"
    run.mkdir(parents=True)
    for name in ("recipe.toml", "environment.json", "report.html"):
        (run / name).write_text("")
    assert find(".").read_training().fingerprint == before.fingerprint


# Faults of the test split are told before a training, not after it ---------------------------------------------------


@pytest.mark.parametrize("named", ["by path", "by the environment"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_test_files_that_cannot_be_right_are_found_at_once(
    home: Path,
    find: Find,
    layout: Layout,
    make: Make,
    opened: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    damage: str,
) -> None:
    make(home / "sets", layout)
    file = home / "sets" / layout.folder / next(iter(layout.test))
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 3000)
    if named == "by the environment":
        monkeypatch.setenv("THIRTYTWO_DATA", str(home / "sets"))
    opened.clear()
    with pytest.raises(DataError, match=rf"{file.name}:? {damage}.* or move the folder"):
        find(layout.name if named == "by the environment" else str(home / "sets"))
    assert file not in opened


def test_remedy_for_a_damaged_copy_works(home: Path, find: Find, served: Archive) -> None:
    fetched = find("cifar100", archives={"cifar100": served})
    file = Path(fetched.location) / "train"
    content = bytearray(file.read_bytes())
    content[3] ^= 0xFF  # of the right size still, so that it is found again
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"or move the folder {fetched.location} away"):
        find("cifar100", archives={"cifar100": served}).read_training()
    Path(fetched.location).rename(home / "away")
    assert len(find("cifar100", archives={"cifar100": served}).read_training()) == 7


def test_class_without_test_images_is_found_at_once(home: Path, find: Find) -> None:
    fill(home / "pets" / "train")
    fill(home / "pets" / "test")
    for path in (home / "pets" / "test" / "dog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="test: no images in dog"):
        find(str(home / "pets"))


def test_shapes_that_cannot_be_drawn_are_found_at_once(find: Find) -> None:
    with pytest.raises(DataError, match=r"duplicates is 0\.5; choose a share of the test images from 0 to 0\.2, since"):
        find("shapes:training=200,test=1000,duplicates=0.5")


# Arrays --------------------------------------------------------------------------------------------------------------


def arrays(number: int, size: int = 8, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels = np.random.default_rng(seed).integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    return pixels, np.arange(number, dtype=np.int64) % 3


def test_arrays_become_a_data_set(find: Find) -> None:
    training, test = arrays(30), arrays(12, seed=1)
    found = from_arrays(training, test)
    assert (found.spec, found.name, found.location, found.notice) == ("arrays", "arrays", "memory", "")
    for images, (pixels, labels) in ((found.read_training(), training), (sealed.read_unscored(found), test)):
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(images.labels, labels)
        assert images.labels.dtype == np.int64
        assert images.classes == ("0", "1", "2")
        assert images.name == "arrays"
    with pytest.raises(DataError, match="expected these arrays again"):
        find(found.spec)


def test_what_load_data_returns_becomes_the_same_data_set(find: Find) -> None:
    drawn = find("shapes:training=20,test=10")
    training, test = load_data(drawn.spec)
    found = from_arrays(training, test, classes=drawn.read_training().classes, name="mine")
    assert found.name == found.read_training().name == "mine"
    assert found.read_training().fingerprint == drawn.read_training().fingerprint
    assert sealed.read_unscored(found).fingerprint == sealed.read_unscored(drawn).fingerprint


def test_a_class_may_occur_in_the_test_images_alone() -> None:
    pixels, labels = arrays(12)
    assert from_arrays((pixels[labels < 2], labels[labels < 2]), (pixels, labels)).read_training().per_class == [
        4,
        4,
        0,
    ]


def test_arrays_that_tensors_cannot_share_are_copied() -> None:
    pixels, labels = arrays(6)
    pixels.flags.writeable = False
    for given in (pixels, pixels[:, ::-1], pixels[..., ::-1]):
        read = from_arrays((given, labels)).read_training().pixels
        np.testing.assert_array_equal(read, given)
        assert read.flags.c_contiguous
        assert read.flags.writeable


def test_without_test_arrays_there_is_nothing_to_score() -> None:
    found = from_arrays(arrays(6))
    assert len(found.read_training()) == 6
    with pytest.raises(DataError, match=r"holds no test images; expected some to score; give .*training, test"):
        sealed.open_test(found, key="a", model="m", facts={})


PIXELS, LABELS = arrays(6)


@pytest.mark.parametrize(
    ("training", "test", "options", "problem"),
    [
        ((PIXELS / 255, LABELS), None, {}, r"training pixels are float64 \(6, 8, 8, 3\); expected uint8"),
        ((PIXELS[..., 0], LABELS), None, {}, r"training pixels are uint8 \(6, 8, 8\); expected uint8"),
        ((PIXELS.transpose(0, 3, 1, 2), LABELS), None, {}, r"uint8 \(6, 3, 8, 8\); expected .*height, width, 3"),
        ((PIXELS[:0], LABELS[:0]), None, {}, r"uint8 \(0, 8, 8, 3\); expected .*one image at least"),
        ((PIXELS, LABELS / 1), None, {}, r"training labels are float64 \(6,\); expected whole numbers"),
        ((PIXELS, np.eye(6, dtype=int)), None, {}, r"labels are int64 \(6, 6\); expected .*argmax"),
        ((PIXELS, LABELS[:5]), None, {}, "6 training images but 5 labels; expected one label for each"),
        ((PIXELS, LABELS - 1), None, {}, "training labels from -1 to 1; expected class numbers from 0"),
        ((PIXELS, LABELS + MOST_CLASSES), None, {}, "expected class numbers from 0 to 65535"),
        ((PIXELS, LABELS * 0), None, {}, r"1 class names \(0\) and labels up to 0; expected two classes"),
        ((PIXELS, LABELS), (PIXELS, LABELS[:5]), {}, "6 test images but 5 labels"),
        ((PIXELS, LABELS), (PIXELS[:, :6], LABELS), {}, "test images of 6 × 8 pixels; expected 8 × 8"),
        (
            (PIXELS, LABELS),
            (PIXELS, LABELS + 1),
            {"classes": ["a", "b", "c"]},
            "3 class names .* labels up to 3; expected",
        ),
        ((PIXELS, LABELS), None, {"classes": ["a", "b", "a"]}, "a, b, a.* expected .* different names"),
        ((PIXELS, LABELS), None, {"classes": []}, "0 class names .*; expected two classes or more"),
        ((PIXELS, LABELS), None, {"name": "cifar10"}, "name is 'cifar10'; expected one that no known set has"),
        ((PIXELS, LABELS), None, {"name": " "}, "name is ' '; expected"),
        (PIXELS, None, {}, r"training is not what it should be .*; expected a pair of arrays"),
        (None, None, {}, r"training is not what it should be .*; expected a pair of arrays"),
        ((PIXELS, [[1, 2], [3]]), None, {}, r"training is not what it should be .*; expected a pair of arrays"),
    ],
)
def test_arrays_that_will_not_do_are_explained(training: Any, test: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        from_arrays(training, test, **options)


def test_finding_data_loads_neither_torch_nor_a_network_library() -> None:
    code = (
        "import sys; from thirtytwo.data import source; source.find('shapes'); "
        "sys.exit(bool({'torch', 'requests', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_cifar10_is_found_by_name(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source.find("cifar10")
    assert Path(found.location).parent == cifar10
    assert np.bincount(sealed.read_unscored(found).labels).tolist() == [1000] * 10


@pytest.mark.parametrize("name", ["shapes", "shapes:training=50,test=10"])
def test_a_folder_that_is_called_like_data_is_told_not_to_be_meant(name: str) -> None:
    assert source.find(name).notice == ""
    Path("shapes").mkdir()
    said = "The folder shapes in the current folder is not meant by shapes; ./shapes would name it."
    assert source.find(name).notice == said
