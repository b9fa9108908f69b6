"""CIFAR-10 and CIFAR-100: official files -> Images.

Both sets are A. Krizhevsky's ("Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html describes the layouts): 60,000 colour images of 32 × 32 pixels in files of

- the *binary* version: records of label bytes (CIFAR-10: one; CIFAR-100: coarse, then fine), then 3,072 pixel bytes,
  a plane of red, of green and of blue, each row by row;
- the *Python* version: pickles, written by Python 2, of a dictionary with the same planes and with labels. They are
  taken apart without running anything: see `unpickle`.

Only the files of the split that is asked for are opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import Images, Split
from thirtytwo.data.official import CIFAR10_CLASSES, LAYOUTS, PIXEL_BYTES, LabelKind, Labelling, Layout
from thirtytwo.data.unpickle import Array, Damaged, Refused, as_text, take_apart
from thirtytwo.errors import DataError, OutOfMemory

_CHUNK = 1024
"""Images converted at a time: about 3 MB, which stays near the processor."""


@dataclass(frozen=True)
class Copy:
    """A copy of a set on this machine."""

    folder: Path
    layout: Layout

    def is_whole(self) -> bool:
        """Whether every file that is needed is there, and has its official size where that is known; opens none."""
        try:
            return all(
                self.layout.size_bytes(file) in (None, (self.folder / file).stat().st_size)
                for file in self.layout.needed
            )
        except OSError:
            return False

    def check(self) -> None:
        """Whether the files of both splits can be what they are called, as far as that shows without opening any.

        Altered files of the Python version may have another size than the official ones, and are read all the same.

        Raises:
            DataError: some are missing, or have a size that such a file cannot have.
        """
        _refuse_missing(self, self.layout.files)
        for file, images in self.layout.files.items():
            path = self.folder / file
            if problem := _size_problem(self.layout, images, path.stat().st_size):
                raise _damaged(path, self.layout, problem)


def recognise(folder: Path, layouts: Sequence[Layout] = LAYOUTS) -> Copy | None:
    """Find official files in a folder, or in the official subfolder one level below it.

    One file with images is enough, so that the rest can be reported as missing. Of two versions of the same set the
    whole one is taken, and the first where both are.

    Raises:
        DataError: the folder holds both sets.
    """
    copies = [
        Copy(place, layout)
        for layout in layouts
        for place in (folder, folder / layout.folder)
        if any(_is_file(place / file) for file in layout.files) or (place.name == layout.folder and _is_empty(place))
    ]
    if len({copy.layout.name for copy in copies}) > 1:
        found = " and ".join(dict.fromkeys(str(copy.folder) for copy in copies))
        raise DataError(f"{folder}: holds CIFAR-10 and CIFAR-100; expected one set; give one of: {found}")
    return next((copy for copy in copies if copy.is_whole()), copies[0] if copies else None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be entered
        return False


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def read(folder: Path, split: Split, labels: LabelKind = "fine", *, layouts: Sequence[Layout] = LAYOUTS) -> Images:
    """The images of one split.

    Holds little more than the images themselves, and at most twice that for CIFAR-100's Python version.

    Args:
        folder: anything that `recognise` recognises.
        split: only this split's files are opened.
        labels: CIFAR-100 has 100 "fine" classes and 20 "coarse" ones.
        layouts: how the files may lie.

    Returns:
        For the official files, uint8 (50000, 32, 32, 3) or (10000, 32, 32, 3). `Images.warnings` names each file whose
        contents are not the official ones.

    Raises:
        DataError: a file is missing, damaged, or of another kind.
    """
    copy = recognise(folder, layouts)
    if copy is None:
        expected = ", ".join(sorted({next(iter(layout.training)) for layout in layouts}))
        raise DataError(
            f"{folder}: holds no CIFAR files; expected official ones ({expected}, …); give the folder that holds them"
        )
    layout = copy.layout
    index = next((i for i, each in enumerate(layout.labellings) if each.kind == labels), None)
    if index is None:
        raise DataError(f"{layout.title} has no {labels} labels; only CIFAR-100 does; leave the option out")
    labelling = layout.labellings[index]
    files = layout.training if split == "training" else layout.test
    _refuse_missing(copy, files)
    classes = _class_names(copy, labelling)

    count = sum(files.values())
    try:
        pixels = np.empty((count, 32, 32, 3), dtype=np.uint8)
        found_labels = np.empty(count, dtype=np.int64)
    except MemoryError:
        raise OutOfMemory(
            f"{copy.folder}: {count * PIXEL_BYTES / 2**20:,.0f} MiB of images do not fit in memory"
        ) from None
    stops = np.cumsum(list(files.values()))
    parts = [slice(stop - images, stop) for stop, images in zip(stops.tolist(), files.values(), strict=True)]

    def read_file(file: str, part: slice) -> str:
        reader = _read_binary if layout.binary else _read_python
        return reader(copy, file, index, pixels[part], found_labels[part])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing and copying let go of the interpreter
        digests = dict(zip(files, pool.map(read_file, files, parts), strict=True))
    return Images(
        pixels=pixels,
        labels=found_labels,
        classes=classes,
        name=layout.name if labels == "fine" else f"{layout.name}-{labels}",
        warnings=_warnings(copy, labelling, digests, classes),
    )


def _warnings(
    copy: Copy, labelling: Labelling, digests: Mapping[str, str], classes: tuple[str, ...]
) -> tuple[str, ...]:
    """What there is to say about contents that are not, or not known to be, the official ones."""
    layout, warnings = copy.layout, []
    altered = [file for file, digest in digests.items() if layout.checksums.get(file, digest) != digest]
    if layout.name == "cifar10" and classes != CIFAR10_CLASSES:
        altered.append(labelling.names_file)
    if altered:
        verb = "is not the official file" if len(altered) == 1 else "are not the official files"
        warnings.append(
            f"{layout.title} in {copy.folder}: {', '.join(altered)} {verb} (by checksum), "
            "so results hold for these contents, not for the published data set."
        )
    if unknown := [file for file in digests if file not in layout.checksums]:
        warnings.append(
            f"{layout.title} in {copy.folder}: no checksum is published for {', '.join(unknown)}, "
            "so nothing tells whether the contents are the official ones."
        )
    return tuple(warnings)


def _refuse_missing(copy: Copy, files: Mapping[str, int]) -> None:
    if missing := [file for file in files if not _is_file(copy.folder / file)]:
        raise DataError(
            f"{copy.folder}: {', '.join(missing)} missing; expected {', '.join(files)}; "
            f"{_remedy(copy.layout, copy.folder)}"
        )


def _remedy(layout: Layout, folder: Path) -> str:
    # Moved away, since a copy that looks whole is taken again and nothing is fetched.
    return (
        f"put the official file there, or move the folder {folder} away and let `thirtytwo data {layout.name}` "
        "fetch the set"
    )


def _damaged(path: Path, layout: Layout, problem: str) -> DataError:
    return DataError(f"{path}: {problem}; {_remedy(layout, path.parent)}")


def _size_problem(layout: Layout, images: int, size_bytes: int) -> str:
    """What is wrong with the size of a file with this many images; empty if nothing is."""
    if layout.binary:
        record = len(layout.labellings) + PIXEL_BYTES
        least = most = images * record
        expected = f"{least:,} ({images:,} records of {record:,} bytes)"
    else:
        least, most = images * PIXEL_BYTES, _most_bytes(images)
        expected = f"about {images * 3105:,}"
    if least <= size_bytes <= most:
        return ""
    return f"{'cut short' if size_bytes < least else 'too long'}: {size_bytes:,} bytes; expected {expected}"


def _most_bytes(images: int) -> int:
    """The most that is read of a file of the Python version."""
    return images * 4096 + 2**20


def _read_binary(copy: Copy, file: str, index: int, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Fill pixels (n, 32, 32, 3) and labels (n,) from a file of the binary version; returns its git blob id."""
    path, layout, label_bytes = copy.folder / file, copy.layout, len(copy.layout.labellings)
    record, expected = label_bytes + PIXEL_BYTES, len(labels) * (label_bytes + PIXEL_BYTES)
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            for start in range(0, len(labels) if size == expected else 0, _CHUNK):
                rows = slice(start, min(start + _CHUNK, len(labels)))
                content = source.read((rows.stop - start) * record)
                digest.update(content)
                if len(content) < (rows.stop - start) * record:  # the file shrank while it was read
                    size = start * record + len(content)
                    break
                table = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
                labels[rows] = table[:, index]
                _interleave(table[:, label_bytes:], pixels[rows])
    except OSError as error:
        raise _damaged(path, layout, f"cannot be read ({error.strerror}); expected a readable file") from error
    if problem := _size_problem(layout, len(labels), size):
        raise _damaged(path, layout, problem)
    _check_labels(path, layout, labels, layout.labellings[index])
    return digest.hexdigest()


def _read_python(copy: Copy, file: str, index: int, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Fill pixels (n, 32, 32, 3) and labels (n,) from a file of the Python version; returns its MD5."""
    path, layout, labelling = copy.folder / file, copy.layout, copy.layout.labellings[index]
    values, digest = _load(path, layout, images=len(labels))
    data, given = values.get("data"), values.get(labelling.key)
    try:
        planes: NDArray[Any] = data.values() if isinstance(data, Array) else np.empty(0)
    except Damaged as error:
        raise _damaged(path, layout, f"damaged: {error}; expected an array of pixels") from None
    if planes.dtype != np.uint8 or planes.shape != (len(labels), PIXEL_BYTES):
        found = f"{planes.dtype} {planes.shape}" if planes.ndim > 1 else "no table"
        raise _damaged(path, layout, f"data is {found}; expected uint8 ({len(labels)}, {PIXEL_BYTES})")
    if not isinstance(given, list) or len(given) != len(labels) or any(type(label) is not int for label in given):
        found = f"{len(given)} values" if isinstance(given, list) else "no list"
        raise _damaged(path, layout, f"{labelling.key} is {found}; expected {len(labels)} whole numbers")
    labels[:] = [label if 0 <= label < labelling.classes else -1 for label in given]
    _check_labels(path, layout, labels, labelling)
    for start in range(0, len(labels), _CHUNK):
        _interleave(planes[start : start + _CHUNK], pixels[start : start + _CHUNK])
    return digest


def _interleave(planes: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Planes of red, green and blue (n, 3072) -> pixels (n, 32, 32, 3)."""
    triples = pixels.reshape(len(pixels), 32 * 32, 3)
    for channel in range(3):  # one strided copy a plane: five times as fast as a transposed copy of all three
        triples[:, :, channel] = planes[:, channel * 1024 : (channel + 1) * 1024]


def _check_labels(path: Path, layout: Layout, labels: NDArray[np.int64], labelling: Labelling) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= labelling.classes))
    if len(wrong):
        raise _damaged(
            path,
            layout,
            f"{len(wrong):,} labels out of range, the first in record {wrong[0]:,}; "
            f"expected 0 to {labelling.classes - 1} ({labelling.kind} labels of {layout.title})",
        )


def _class_names(copy: Copy, labelling: Labelling) -> tuple[str, ...]:
    path, layout = copy.folder / labelling.names_file, copy.layout
    if not _is_file(path):
        if layout.name == "cifar10":
            return CIFAR10_CLASSES
        raise DataError(
            f"{path}: missing; expected the names of {labelling.classes} classes; {_remedy(layout, copy.folder)}"
        )
    names: list[str] | None = None
    if layout.binary:
        try:
            with path.open("rb") as file:
                text = file.read(65_536).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(path, layout, f"cannot be read ({error}); expected one class name a line") from None
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found = _load(path, layout, images=0)[0].get(labelling.names_key)
        if isinstance(found, list) and all(isinstance(name, bytes | str) for name in found):
            names = [as_text(name).strip() for name in found]
    if names is None or len(names) != labelling.classes or len(set(names)) != len(names) or not all(names):
        count = "no list of names" if names is None else f"{len(set(names) - {''})} different names"
        raise _damaged(path, layout, f"{count}; expected {labelling.classes}, one for each class")
    return tuple(names)


def _load(path: Path, layout: Layout, *, images: int) -> tuple[dict[str, Any], str]:
    """The dictionary in a file of the Python version, and the file's MD5."""
    most_bytes = _most_bytes(images)
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise _damaged(path, layout, f"cannot be read ({error.strerror}); expected a readable file") from error
    if len(content) > most_bytes:
        raise _damaged(path, layout, f"more than {most_bytes:,} bytes; expected about {images * 3105:,}")
    try:
        values = take_apart(content, most_parts=images * 16 + 10_000)
    except Refused as error:
        raise _damaged(path, layout, f"{error}; expected numbers, text and arrays; nothing in it was run") from None
    except Damaged as error:
        raise _damaged(
            path,
            layout,
            f"damaged or cut short: {error} ({len(content):,} bytes); expected a file of the Python version",
        ) from None
    if not isinstance(values, dict):
        raise _damaged(path, layout, f"holds a {type(values).__name__}; expected a dictionary")
    return values, hashlib.md5(content, usedforsecurity=False).hexdigest()
