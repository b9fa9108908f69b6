from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thirtytwo.data import cifar
from thirtytwo.data.images import Split
from thirtytwo.data.official import CIFAR10_CLASSES, LabelKind, Layout
from thirtytwo.errors import DataError

Make = Callable[..., dict[str, object]]
SPLITS: tuple[Split, Split] = ("training", "test")


def official(layout: Layout, folder: Path) -> Layout:
    """The same layout, with the checksums of the files as they are."""

    def checksum(content: bytes) -> str:
        if layout.binary:
            return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return hashlib.md5(content).hexdigest()

    return replace(layout, checksums={file: checksum((folder / file).read_bytes()) for file in layout.files})


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_images_are_those_in_the_files(
    layout: Layout, make: Make, tmp_path: Path, split: Split, labels: LabelKind
) -> None:
    contents = make(tmp_path, layout)
    if labels == "coarse" and layout.name == "cifar10":
        with pytest.raises(DataError, match="only CIFAR-100"):
            cifar.read(tmp_path, split, labels, layouts=[layout])
        return
    images = cifar.read(tmp_path, split, labels, layouts=[layout])
    files = [contents[file] for file in (layout.training if split == "training" else layout.test)]
    planes = np.concatenate([file.planes for file in files])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(images.pixels, planes.transpose(0, 2, 3, 1))
    assert images.labels.tolist() == [label for file in files for label in file.labels[labels]]  # type: ignore[attr-defined]
    assert images.name == (layout.name if labels == "fine" else "cifar100-coarse")
    assert len(images.classes) == {"cifar10": 10, "cifar100": 100, "cifar100-coarse": 20}[images.name]


def test_one_label_byte_comes_first_and_the_red_plane_next(
    layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-10-batches-bin")
    make(tmp_path, layout)
    record = bytes([3]) + b"\xff" + bytes(3071)  # class 3, one red pixel at the upper left
    file = tmp_path / layout.folder / "data_batch_1.bin"
    file.write_bytes(record + file.read_bytes()[3073:])
    images = cifar.read(tmp_path, "training", layouts=[layout])
    assert images.classes[images.labels[0]] == "cat"
    assert images.pixels[0, 0, 0].tolist() == [255, 0, 0]
    assert images.pixels[0].sum() == 255


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_versions_of_a_set_are_the_same_images(
    name: str, layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    versions = [layout for layout in layouts if layout.name == name]
    for layout in versions:
        make(tmp_path, layout, seed=5)
    for split in SPLITS:
        fingerprints = {cifar.read(tmp_path, split, layouts=[layout]).fingerprint for layout in versions}
        assert len(fingerprints) == 1


def test_folder_and_the_folder_that_holds_it_are_recognised(layout: Layout, make: Make, tmp_path: Path) -> None:
    make(tmp_path, layout)
    assert cifar.recognise(tmp_path, [layout]) == cifar.recognise(tmp_path / layout.folder, [layout])
    renamed = tmp_path / "renamed"
    (tmp_path / layout.folder).rename(renamed)
    assert cifar.recognise(renamed, [layout]) == cifar.Copy(renamed, layout)
    assert cifar.recognise(tmp_path, [layout]) is None


@pytest.mark.parametrize("split", SPLITS)
def test_files_of_the_other_split_stay_closed(
    layout: Layout, make: Make, tmp_path: Path, opened: list[Path], split: Split
) -> None:
    make(tmp_path, layout)
    opened.clear()
    cifar.read(tmp_path, split, layouts=[layout])
    names = {path.name for path in opened if tmp_path in path.parents}
    wanted, other = (layout.training, layout.test) if split == "training" else (layout.test, layout.training)
    assert set(wanted) <= names
    assert not set(other) & names


def test_one_split_is_read_without_the_files_of_the_other(layout: Layout, make: Make, tmp_path: Path) -> None:
    make(tmp_path, layout)
    for file in layout.test:
        (tmp_path / layout.folder / file).unlink()
    assert len(cifar.read(tmp_path, "training", layouts=[layout])) == sum(layout.training.values())
    with pytest.raises(DataError, match=f"{next(iter(layout.test))} missing"):
        cifar.read(tmp_path, "test", layouts=[layout])


def test_only_contents_that_are_not_official_are_warned_of(layout: Layout, make: Make, tmp_path: Path) -> None:
    make(tmp_path, layout)
    folder = tmp_path / layout.folder
    layout = official(layout, folder)
    assert cifar.read(tmp_path, "training", layouts=[layout]).warnings == ()
    altered = list(layout.training)[-1]
    content = bytearray((folder / altered).read_bytes())
    content[2000] ^= 1  # a pixel
    (folder / altered).write_bytes(content)
    (warning,) = cifar.read(tmp_path, "training", layouts=[layout]).warnings
    assert f"{layout.folder}: {altered} is not the official file" in warning
    assert cifar.read(tmp_path, "test", layouts=[layout]).warnings == ()


def test_contents_nobody_published_a_checksum_for_are_said_to_be_unknown(
    layout: Layout, make: Make, tmp_path: Path
) -> None:
    make(tmp_path, layout)
    (warning,) = cifar.read(tmp_path, "test", layouts=[layout]).warnings
    assert "no checksum is published for " + next(iter(layout.test)) in warning


def test_other_class_names_than_the_official_ones_are_warned_of(
    layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-10-batches-bin")
    make(tmp_path, layout)
    layout = official(layout, tmp_path / layout.folder)
    (tmp_path / layout.folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    images = cifar.read(tmp_path, "test", layouts=[layout])
    assert images.classes == tuple("abcdefghij")
    assert "batches.meta.txt" in images.warnings[0]


def test_missing_names_are_replaced_where_everybody_knows_them(layout: Layout, make: Make, tmp_path: Path) -> None:
    make(tmp_path, layout)
    file = tmp_path / layout.folder / layout.labellings[-1].names_file
    file.unlink()
    if layout.name == "cifar10":
        assert cifar.read(tmp_path, "test", layouts=[layout]).classes == CIFAR10_CLASSES
    else:
        with pytest.raises(DataError, match=f"{file.name}: missing; expected the names of 100 classes"):
            cifar.read(tmp_path, "test", layouts=[layout])


@pytest.mark.parametrize("content", [b"", b"cat\ndog\n", b"\xff\xfe\x00", b"cat\n" * 10])
def test_damaged_names_are_refused(layout: Layout, make: Make, tmp_path: Path, content: bytes) -> None:
    make(tmp_path, layout)
    file = layout.labellings[-1].names_file
    (tmp_path / layout.folder / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file}: .*expected .*thirtytwo data {layout.name}"):
        cifar.read(tmp_path, "test", layouts=[layout])


def test_a_set_whose_files_are_all_missing_names_them(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / layout.folder).mkdir()
    with pytest.raises(DataError, match=f"{', '.join(layout.training)} missing; expected .*; put"):
        cifar.read(tmp_path / layout.folder, "training", layouts=[layout])


def test_a_folder_without_cifar_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no CIFAR files; expected official ones"):
        cifar.read(tmp_path, "training")


def test_a_folder_with_both_sets_has_to_be_told_apart(layouts: Sequence[Layout], make: Make, tmp_path: Path) -> None:
    make(tmp_path, layouts[0])
    make(tmp_path, layouts[2])
    with pytest.raises(DataError, match=r"CIFAR-10 and CIFAR-100; .*cifar-10-batches-bin and .*cifar-100-binary"):
        cifar.recognise(tmp_path, layouts)


def test_of_two_versions_the_whole_one_is_taken(layouts: Sequence[Layout], make: Make, tmp_path: Path) -> None:
    binary, python = layouts[:2]
    make(tmp_path, binary)
    make(tmp_path, python)
    assert cifar.recognise(tmp_path, layouts) == cifar.Copy(tmp_path / binary.folder, binary)
    os.truncate(tmp_path / binary.folder / "data_batch_3.bin", 100)
    assert cifar.recognise(tmp_path, layouts) == cifar.Copy(tmp_path / python.folder, python)


def test_a_copy_without_its_class_names_is_not_whole_unless_everybody_knows_them(
    layout: Layout, make: Make, tmp_path: Path
) -> None:
    make(tmp_path, layout)
    copy = cifar.Copy(tmp_path / layout.folder, layout)
    assert copy.is_whole()
    for labelling in layout.labellings:
        file = copy.folder / labelling.names_file
        content = file.read_bytes()
        file.unlink()
        assert copy.is_whole() == (layout.name == "cifar10")
        file.write_bytes(content)


def test_class_names_of_another_size_than_the_official_ones_are_not_whole(
    layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-100-python")
    make(tmp_path, layout)
    file = tmp_path / layout.folder / "meta"
    layout = replace(layout, sizes={"meta": file.stat().st_size})
    assert cifar.Copy(file.parent, layout).is_whole()
    os.truncate(file, file.stat().st_size - 1)
    assert not cifar.Copy(file.parent, layout).is_whole()


@pytest.mark.parametrize("split", SPLITS)
def test_files_that_are_missing_or_of_an_impossible_size_are_told_without_opening_any(
    layout: Layout, make: Make, tmp_path: Path, opened: list[Path], split: Split
) -> None:
    make(tmp_path, layout)
    copy = cifar.Copy(tmp_path / layout.folder, layout)
    file = copy.folder / list(layout.training if split == "training" else layout.test)[-1]
    opened.clear()
    copy.check()
    os.truncate(file, 40_000_000)  # a hole: takes no room
    with pytest.raises(DataError, match=rf"{file.name}: too long: 40,000,000 bytes; expected .*; put"):
        copy.check()
    os.truncate(file, 3000)
    with pytest.raises(DataError, match=rf"{file.name}: cut short: 3,000 bytes; expected .*; put"):
        copy.check()
    file.unlink()
    with pytest.raises(DataError, match=rf"{file.name} missing; expected .*; put"):
        copy.check()
    assert not [path for path in opened if tmp_path in path.parents]


def test_altered_pickles_of_another_size_are_still_a_data_set(
    layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-10-batches-py")
    make(tmp_path, layout)
    copy = cifar.Copy(tmp_path / layout.folder, replace(layout, sizes={"test_batch": 1}))
    assert not copy.is_whole()
    copy.check()


def test_what_is_damaged_is_to_be_moved_away_by_the_name_of_its_folder(
    layout: Layout, make: Make, tmp_path: Path
) -> None:
    make(tmp_path, layout)
    folder = tmp_path / layout.folder
    os.truncate(folder / next(iter(layout.training)), 3000)
    with pytest.raises(
        DataError, match=re.escape(f"move the folder {folder} away and let `thirtytwo data {layout.name}`")
    ):
        cifar.read(folder, "training", layouts=[layout])


@pytest.mark.parametrize("size", [0, 1, 3000, -1])
def test_truncated_file_is_named_with_its_size(layout: Layout, make: Make, tmp_path: Path, size: int) -> None:
    make(tmp_path, layout)
    file = tmp_path / layout.folder / list(layout.training)[-1]
    size = size if size >= 0 else file.stat().st_size - 1
    os.truncate(file, size)
    with pytest.raises(DataError, match=f"{file.name}: .*cut short.*\\b{size:,} bytes.*expected .*thirtytwo data"):
        cifar.read(tmp_path, "training", layouts=[layout])


def test_file_that_is_too_long_is_named(layout: Layout, make: Make, tmp_path: Path) -> None:
    make(tmp_path, layout)
    file = tmp_path / layout.folder / next(iter(layout.training))
    with file.open("ab") as end:
        end.truncate(40_000_000)  # a hole: takes no room
    with pytest.raises(DataError, match=f"{file.name}: (too long|more than).* bytes; expected"):
        cifar.read(tmp_path, "training", layouts=[layout])


def test_label_out_of_range_is_named_with_its_record(
    layout: Layout, make: Make, tmp_path: Path, python_two: Callable[[object], bytes]
) -> None:
    contents = make(tmp_path, layout)
    name = next(iter(layout.test))
    file = tmp_path / layout.folder / name
    classes = 10 if layout.name == "cifar10" else 100
    if layout.binary:
        content = bytearray(file.read_bytes())
        record = len(content) // 5
        content[3 * record + len(layout.labellings) - 1] = classes
        file.write_bytes(content)
    else:
        made = contents[name]
        labels = {each.key: list(made.labels[each.kind]) for each in layout.labellings}  # type: ignore[attr-defined]
        labels[layout.labellings[-1].key][3] = classes
        file.write_bytes(python_two({**labels, "data": made.planes.reshape(5, -1)}))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=f"{name}: 1 labels out of range, .*record 3; expected 0 to {classes - 1}"):
        cifar.read(tmp_path, "test", layouts=[layout])


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": np.zeros((7, 3072), dtype=np.uint8)},  # seven where five belong
        {"data": np.zeros((5, 3072), dtype=np.float32)},
        {"data": np.zeros(5 * 3072, dtype=np.uint8)},
        {"data": [0] * 5},
        {"labels": None},
        {"labels": [1, 2, 3, 4]},
        {"labels": [1, 2, 3, 4, 5.5]},
        {"labels": [1, 2, 3, 4, True]},
        {"labels": [1, 2, 3, 4, 10**30]},
        {"labels": [1, 2, 3, 4, -1]},
    ],
)
def test_pickle_of_other_things_is_refused(
    change: dict[str, object], layouts: Sequence[Layout], make: Make, tmp_path: Path
) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-10-batches-py")
    make(tmp_path, layout)
    good = {"data": np.zeros((5, 3072), dtype=np.uint8), "labels": [1, 2, 3, 4, 5]}
    file = tmp_path / layout.folder / "test_batch"
    file.write_bytes(pickle.dumps(good, 2))
    assert cifar.read(tmp_path, "test", layouts=[layout]).labels.tolist() == [1, 2, 3, 4, 5]
    file.write_bytes(pickle.dumps({**good, **change}, 2))
    with pytest.raises(DataError, match=r"test_batch: .*expected .*; put the official file there"):
        cifar.read(tmp_path, "test", layouts=[layout])


def test_pickle_that_would_run_something_is_refused(layouts: Sequence[Layout], make: Make, tmp_path: Path) -> None:
    layout = next(each for each in layouts if each.folder == "cifar-10-batches-py")
    make(tmp_path, layout)
    trace = tmp_path / "trace"
    attack = b"\x80\x02cos\nmkdir\nX" + len(str(trace)).to_bytes(4, "little") + str(trace).encode() + b"\x85R."
    (tmp_path / layout.folder / "test_batch").write_bytes(attack)
    with pytest.raises(DataError, match=r"asks for os\.mkdir; expected .*; nothing in it was run"):
        cifar.read(tmp_path, "test", layouts=[layout])
    assert not trace.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    length=st.floats(0, 1) | st.just(1.0),
    near_the_start=st.booleans(),
)
def test_any_file_is_read_or_is_a_data_error(
    layout: Layout,
    make: Make,
    tmp_path: Path,
    edits: list[tuple[float, int]],
    length: float,
    near_the_start: bool,
) -> None:
    folder = tmp_path / layout.folder
    if not folder.exists():
        make(tmp_path, layout)
        shutil.copytree(folder, tmp_path / "whole")
    for file in (next(iter(layout.test)), layout.labellings[-1].names_file):
        content = bytearray((tmp_path / "whole" / file).read_bytes())
        for place, byte in edits:
            content[int(place * min(len(content) - 1, 300 if near_the_start else len(content)))] = byte
        (folder / file).write_bytes(content[: round(length * len(content))])
    try:
        images = cifar.read(tmp_path, "test", layouts=[layout])
    except DataError:
        return
    assert len(images) == 5
    assert images.size == (32, 32)


def test_reading_holds_at_most_twice_the_images(layout: Layout, make: Make, tmp_path: Path) -> None:
    large = replace(layout, training={file: 3000 // len(layout.training) for file in layout.training}, test={})
    make(tmp_path, large)
    tracemalloc.start()
    images = cifar.read(tmp_path, "training", layouts=[large])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2.1 * images.pixels.nbytes + 4 * 2**20  # a chunk or two are under way


def test_real_cifar10_has_5000_and_1000_images_of_each_class(cifar10: Path) -> None:
    for split, count in (("training", 5000), ("test", 1000)):
        images = cifar.read(cifar10, split)  # type: ignore[arg-type]
        assert np.bincount(images.labels).tolist() == [count] * 10
        assert images.classes == CIFAR10_CLASSES
        # The mean of each channel, as everybody who standardises CIFAR-10 has it: 0.491, 0.482, 0.447 in training.
        np.testing.assert_allclose(images.pixels.mean(axis=(0, 1, 2)) / 255, (0.4914, 0.4822, 0.4465), atol=0.006)
