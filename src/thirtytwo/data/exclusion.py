"""Which images to leave out: those that a table names, such as an audit's.

A table is a CSV file with a first line that names its columns. It names

- images: ``split`` and ``index``, with ``path`` and ``given`` (the label) where there are any, as label_issues.csv and
  odd_images.csv do; all of them are left out;
- or pairs of images that show the same: ``split_a``, ``index_a``, ``split_b`` and ``index_b``, as duplicates.csv does.
  Of two training images the second is left out. Of a training and a test image, the training image is left out of a
  training, and the test image where a model is scored: either way, no image is on both sides.

An index is the position in the data set's own order of its split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from thirtytwo.data.images import Images, Split
from thirtytwo.errors import DataError

IMAGES = ("split", "index")
"""Columns of a table of images."""
PAIRS = ("split_a", "index_a", "split_b", "index_b")
"""Columns of a table of pairs."""
_EXPECTED = (
    "expected a table as `thirtytwo audit` writes them (label_issues.csv, duplicates.csv, odd_images.csv), or one of "
    "your own with the columns split and index"
)


@dataclass(frozen=True)
class Exclusion:
    """Training images that are left out."""

    files: tuple[str, ...] = ()
    """The tables that name them."""
    indices: tuple[int, ...] = ()
    """Positions in the data set's own order, ascending, each once."""

    def __bool__(self) -> bool:
        """Whether anybody asked for images to be left out, be it that none was named."""
        return bool(self.files or self.indices)

    def applied(self, images: Images) -> Images:
        """The images that stay.

        Raises:
            DataError: there are not as many images as those to be left out are counted among.
        """
        if not self.indices:
            return images
        if self.indices[-1] >= len(images):
            raise DataError(
                f"{images.name}: {len(images):,} training images, counted from 0, but number {self.indices[-1]:,} is "
                "to be left out; expected the same images as when that was decided; name where they are"
            )
        return images.take(np.delete(np.arange(len(images)), self.indices))

    def to_json(self) -> dict[str, list[Any]]:
        """As environment.json and model files hold it; `recalled` reads it back."""
        return {"files": list(self.files), "indices": list(self.indices)}


@dataclass(frozen=True)
class _Row:
    """An image that a table names."""

    line: int
    """Of the file, from 1."""
    split: Split
    index: int
    path: str
    given: str
    """Its label; empty where the table does not tell."""


@dataclass(frozen=True)
class Table:
    """A table that was read; whether it belongs to some data is asked later."""

    path: Path
    rows: tuple[_Row, ...]

    def indices(self, images: Images, split: Split) -> tuple[int, ...]:
        """The images to leave out of a split: positions in its own order, ascending, each once.

        Raises:
            DataError: the table belongs to other images: an index is too large, or a path or a label is another one.
        """
        rows = [row for row in self.rows if row.split == split]
        for row in rows:
            if problem := _problem(row, images):
                raise DataError(
                    f"{self.path}, line {row.line}: {split} image {row.index} {problem}; expected a table of these "
                    "images; audit them anew, or name the data that the table was made for"
                )
        return tuple(sorted({row.index for row in rows}))


Tables = Iterable[Table | str | Path]
"""Tables, or their paths."""


def read(given: Tables | Table | str | Path) -> tuple[Table, ...]:
    """Read tables; those that have been read are passed through.

    Raises:
        DataError: a file cannot be read, or is no such table; the line is named.
    """
    each = [given] if isinstance(given, Table | str | Path) else given
    return tuple(one if isinstance(one, Table) else _read(Path(one)) for one in each)


def of_other_split(tables: tuple[Table, ...], split: Split) -> list[str]:
    """What is to be said of tables that name images of the other split only, and so none to leave out of this one."""
    other, command = ("test", "evaluate") if split == "training" else ("training", "train")
    return [
        f"{table.path}: names {other} images only; expected {split} images, so it leaves out none here; "
        f"`thirtytwo {command} --exclude` leaves out {other} images"
        for table in tables
        if table.rows and all(row.split == other for row in table.rows)
    ]


def training(tables: tuple[Table, ...], images: Images) -> Exclusion:
    """The training images that tables name, all together.

    Raises:
        DataError: a table belongs to other images.
    """
    named = {index for table in tables for index in table.indices(images, "training")}
    return Exclusion(tuple(str(table.path.absolute()) for table in tables), tuple(sorted(named)))


def recalled(facts: Mapping[str, Any]) -> Exclusion:
    """What ``excluded`` says in the facts of a run's data, or of a model; nothing where that is missing.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    said = facts.get("excluded") or {"files": [], "indices": []}
    return Exclusion(tuple(map(str, said["files"])), tuple(sorted(map(int, said["indices"]))))


def _read(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if set(IMAGES) <= set(columns):
                parse = _image
            elif set(PAIRS) <= set(columns):
                parse = _pair
            else:
                found = ", ".join(columns)[:100] or "nothing"
                remedy = "put commas between the columns" if ";" in found or "\t" in found else "name such a file"
                raise DataError(f"{path}: columns are {found}; {_EXPECTED}; {remedy}")
            rows = [row for values in reader for row in parse(path, reader.line_num, values)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}; check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV file ({error}); {_EXPECTED}; name such a file") from None
    return Table(path, tuple(rows))


Values = Mapping[str, str | None]


def _image(path: Path, line: int, values: Values) -> Iterator[_Row]:
    split, index = _place(path, line, values, "")
    yield _Row(line, split, index, values.get("path") or "", values.get("given") or "")


def _pair(path: Path, line: int, values: Values) -> Iterator[_Row]:
    first, second = (_place(path, line, values, ending) for ending in ("_a", "_b"))
    if first == second:
        raise DataError(f"{path}, line {line}: pairs an image with itself; expected two images; correct the line")
    splits = {first[0], second[0]}
    if splits == {"training"}:
        yield _Row(line, *second, "", "")
    elif len(splits) == 2:
        for place in (first, second):
            yield _Row(line, *place, "", "")


def _place(path: Path, line: int, values: Values, ending: str) -> tuple[Split, int]:
    """The split and the index that a line gives in the columns with this ending."""
    split, index = values["split" + ending], values["index" + ending]
    for known in get_args(Split):
        if split == known and index and len(index) < 19 and index.isascii() and index.isdecimal():
            return known, int(index)
    raise DataError(
        f"{path}, line {line}: split{ending} is {split!r} and index{ending} is {index!r}; expected training or test, "
        "and a whole number from 0; correct the line"
    )


def _problem(row: _Row, images: Images) -> str:
    """Why a row does not belong to images; empty if it may."""
    if row.index >= len(images):
        return f"is named, but {images.name} holds {len(images):,}, counted from 0"
    if row.path and not images.paths:
        return f"is {row.path} there, but {images.name} is not made of image files"
    if row.path and row.path != images.paths[row.index]:
        return f"is {row.path} there, but {images.paths[row.index]} in {images.name}"
    label = images.classes[images.labels[row.index]]
    if row.given and row.given != label:
        return f"is labelled {row.given} there, but {label} in {images.name}"
    return ""
