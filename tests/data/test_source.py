from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from pooch.hashes import file_hash

from thirtytwo.data import source
from thirtytwo.data.download import Archive, Patience
from thirtytwo.data.official import Layout
from thirtytwo.data.shapes import draw
from thirtytwo.data.source import Source
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
    assert found == Source("cifar10", "cifar10", str(path), "", found.reader) == find()
    assert len(found.read("training")) == 35
    assert len(found.read("test")) == 5
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
        find(layout.folder).read("training")


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
    assert len(fetched.read("training")) == 7


def test_damaged_cache_is_fetched_anew(home: Path, find: Find, served: Archive) -> None:
    fetched = find("cifar100", archives={"cifar100": served})
    (Path(fetched.location) / "train").unlink()
    assert find("cifar100", archives={"cifar100": served}) == fetched
    assert len(fetched.read("training")) == 7


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
    assert found.read("training").fingerprint == wanted.images.fingerprint
    test = draw(20, 7, split="test", label_errors=0.1, duplicates=0.2, training_number=40)
    assert found.read("test").fingerprint == test.images.fingerprint


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
    images = found.read("test")
    assert found.name == images.name == (name or "cifar100-coarse")
    assert found.spec == (name or spec)
    assert len(images.classes) == classes


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
        ("cifar10:labels=coarse", ["no such option 'labels'", "expected none"]),
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
        assert found.name == found.read("test").name == "pets"
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
    assert len(found.read("test")) == 5


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


def test_finding_data_loads_neither_torch_nor_a_network_library() -> None:
    code = (
        "import sys; from thirtytwo.data import source; source.find('shapes'); "
        "sys.exit(bool({'torch', 'requests', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_cifar10_is_found_by_name(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source.find("cifar10")
    assert Path(found.location).parent == cifar10
    assert np.bincount(found.read("test").labels).tolist() == [1000] * 10
