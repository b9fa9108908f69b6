"""Made data sets of the official layouts, with a handful of images, and a record of which files are opened."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from thirtytwo.data import official

SMALL_LAYOUTS = tuple(
    replace(
        layout,
        training=dict.fromkeys(layout.training, 7),
        test=dict.fromkeys(layout.test, 5),
        checksums={},
        sizes={},
    )
    for layout in official.LAYOUTS
)


@dataclass(frozen=True)
class Contents:
    """What one made file holds."""

    planes: NDArray[np.uint8]  # (n, 3, 32, 32)
    labels: dict[str, list[int]]  # kind -> n labels


class PythonTwo:
    """Writes pickles instruction by instruction as cPickle of Python 2 does, protocol 2."""

    def __init__(self) -> None:
        self._content = bytearray(b"\x80\x02")
        self._places = 0

    def put(self) -> None:
        self._places += 1
        self._content += b"q" + bytes([self._places]) if self._places < 256 else b"r" + struct.pack("<I", self._places)

    def write(self, value: object) -> None:
        match value:
            case str():
                self._content += b"U" + bytes([len(value)]) + value.encode()
                self.put()
            case bool() | None:
                raise NotImplementedError
            case int() if 0 <= value < 256:
                self._content += b"K" + bytes([value])
            case int() if 0 <= value < 65_536:
                self._content += b"M" + struct.pack("<H", value)
            case int():
                self._content += b"J" + struct.pack("<i", value)
            case list():
                self._content += b"]"
                self.put()
                self._content += b"("
                for item in value:
                    self.write(item)
                self._content += b"e"
            case dict():
                self._content += b"}"
                self.put()
                self._content += b"("
                for key, item in value.items():
                    self.write(key)
                    self.write(item)
                self._content += b"u"
            case np.ndarray():
                self._array(value)
            case _:
                raise NotImplementedError(type(value))

    def _array(self, array: NDArray[np.uint8]) -> None:
        raw = array.tobytes()
        self._content += b"cnumpy.core.multiarray\n_reconstruct\n"
        self.put()
        self._content += b"cnumpy\nndarray\n"
        self.put()
        self._content += b"K\x00\x85U\x01b\x87R"
        self.put()
        self._content += b"(K\x01" + b"".join(b"M" + struct.pack("<H", length) for length in array.shape) + b"\x86"
        self._content += b"cnumpy\ndtype\n"
        self.put()
        self._content += b"U\x02u1K\x00K\x01\x87R"
        self.put()
        self._content += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        self._content += b"T" + struct.pack("<i", len(raw)) + raw
        self.put()
        self._content += b"tb"

    def finish(self) -> bytes:
        return bytes(self._content) + b"."


def pickled(value: object) -> bytes:
    writer = PythonTwo()
    writer.write(value)
    return writer.finish()


def make_cifar(parent: Path, layout: official.Layout, seed: int = 0) -> dict[str, Contents]:
    """Write a whole set into its official subfolder; returns what is in each file. Same seed, same images."""
    folder = parent / layout.folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    contents: dict[str, Contents] = {}
    for file, count in layout.files.items():
        planes = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        fine_classes = 10 if layout.name == "cifar10" else 100
        fine = random.integers(0, fine_classes, count)
        labels = {"coarse": (fine // 5).tolist(), "fine": fine.tolist()}
        contents[file] = Contents(planes, labels)
        if layout.binary:
            bytes_ = np.stack([labels[each.kind] for each in layout.labellings], axis=1).astype(np.uint8)
            (folder / file).write_bytes(np.concatenate([bytes_, planes.reshape(count, -1)], axis=1).tobytes())
        else:
            names = [f"word_s_{index:06}.png" for index in range(count)]
            values = {each.key: labels[each.kind] for each in layout.labellings}
            values |= {"batch_label": f"of {file}", "data": planes.reshape(count, -1), "filenames": names}
            (folder / file).write_bytes(pickled(values))
    lists = {each.kind: class_names(layout, each) for each in layout.labellings}
    if layout.binary:
        for each in layout.labellings:
            (folder / each.names_file).write_text("\n".join(lists[each.kind]) + "\n\n")
    else:
        values = {each.names_key: lists[each.kind] for each in layout.labellings}
        (folder / layout.labellings[0].names_file).write_bytes(pickled(values))
    return contents


def class_names(layout: official.Layout, labelling: official.Labelling) -> list[str]:
    if layout.name == "cifar10":
        return list(official.CIFAR10_CLASSES)
    return [f"{labelling.kind}_{number}" for number in range(labelling.classes)]


_opened: list[Path] | None = None


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes):
        _opened.append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_record)


@pytest.fixture
def opened() -> Iterator[list[Path]]:
    """Every file that this process opens during the test."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


@pytest.fixture
def layouts() -> tuple[official.Layout, ...]:
    return SMALL_LAYOUTS


@pytest.fixture(params=SMALL_LAYOUTS, ids=lambda layout: layout.folder)
def layout(request: pytest.FixtureRequest) -> official.Layout:
    """Each official layout, with 7 images a file in training and 5 in test."""
    chosen: official.Layout = request.param
    return chosen


@pytest.fixture
def make() -> Callable[..., dict[str, Contents]]:
    return make_cifar


@pytest.fixture
def python_two() -> Callable[[object], bytes]:
    return pickled
