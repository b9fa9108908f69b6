"""Which images to leave out: those that a table names, such as an audit's.

A table is a CSV file with a first line that names its columns. It names

- images: ``split`` and ``index``, with ``path``, ``picture`` and ``given`` (the label) where there are any, as
  label_issues.csv and odd_images.csv do; all of them are left out;
- or pairs of images that show the same: ``split_a``, ``index_a``, ``split_b`` and ``index_b``, with ``path_a`` and
  ``picture_a`` and the same of b where there are any, as duplicates.csv does. Of two training images the second is left
  out. Of a training and a test image, the training image is left out of a training, and the test image where a model is
  scored: either way, no image is on both sides.

An index is the position in the data set's own order of its split. What else is said of an image, its file, a digest of
its pixels (`picture_of`), its label, is compared: so a table that was made for other images is noticed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from thirtytwo.data.images import Images, Split
from thirtytwo.errors import DataError

IMAGES = ("split", "index")
"""Columns of a table of images."""
PAIRS = ("split_a", "index_a", "split_b", "index_b")
"""Columns of a table of pairs."""
MANY = 0.1
"""Share of the training images that is more than there are likely to be wrong labels: in the test sets of ten known
data sets, people found some 3%, and 10% in the worst of them (Northcutt, Athalye & Mueller 2021, arXiv 2103.14749)."""
MOST = 0.5
"""The same of the images of a class, which wrong labels and duplicates need not hit evenly."""
FEW = 3
"""Classes that are named."""
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
    named: tuple[int, ...] = ()
    """How many of them each table names; empty where that is not known, as of runs of earlier versions."""

    def __bool__(self) -> bool:
        """Whether anybody asked for images to be left out, be it that none was named."""
        return bool(self.files or self.indices)

    @property
    def tables(self) -> str:
        """The tables, in few words: ``label_issues.csv (12), duplicates.csv (3)``."""
        names = [Path(file).name for file in self.files]
        if len(self.named) == len(names):
            names = [f"{name} ({number:,})" for name, number in zip(names, self.named, strict=True)]
        return ", ".join(names)

    def applied(self, images: Images) -> Images:
        """The images that stay; if they are suspiciously few, `Images.warnings` says so.

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
        stay = images.take(np.delete(np.arange(len(images)), self.indices))
        return replace(stay, warnings=(*images.warnings, *self._warnings(images, stay)))

    def _warnings(self, images: Images, stay: Images) -> Iterator[str]:
        """What there is to be told if more is left out than a table is likely to be right about."""
        found: list[str] = []
        if (share := len(self.indices) / len(images)) > MANY:
            found.append(f"{len(self.indices):,} of {len(images):,} training images ({share:.1%})")
        classes = list(zip(images.classes, images.per_class, stay.per_class, strict=True))
        lost = [f"{had - has:,} of {had:,} of class {name}" for name, had, has in classes if had - has > MOST * had]
        found += lost[:FEW]
        if (more := len(lost) - FEW) > 0:
            found.append(f"most of {more:,} more {'class' if more == 1 else 'classes'}")
        if found:
            by = f", named in {self.tables}" if self.files else ""
            yield (
                f"{images.name}: left out are {', '.join(found)}{by}; expected at most a tenth of all, and half of any "
                "class: wrong labels and duplicates are rarely more, but an audit whose networks agree with few of "
                "the labels doubts many that are right; look at the images that the tables name, and delete the lines "
                "of those that are as they should be"
            )

    def to_json(self) -> dict[str, list[Any]]:
        """As environment.json and model files hold it; `recalled` reads it back."""
        return {"files": list(self.files), "indices": list(self.indices), "named": list(self.named)}


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
    picture: str
    """Digest of its pixels; likewise."""


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
    each = [table.indices(images, "training") for table in tables]
    return Exclusion(
        files=tuple(str(table.path.absolute()) for table in tables),
        indices=tuple(sorted({index for indices in each for index in indices})),
        named=tuple(map(len, each)),
    )


def recalled(facts: Mapping[str, Any]) -> Exclusion:
    """What ``excluded`` says in the facts of a run's data, or of a model; nothing where that is missing.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    said = facts.get("excluded") or {"files": [], "indices": []}
    return Exclusion(
        files=tuple(map(str, said["files"])),
        indices=tuple(sorted(map(int, said["indices"]))),
        named=tuple(map(int, said.get("named", []))),
    )


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


def picture_of(images: Images, index: int) -> str:
    """Stands for an image's pixels: x and 16 hexadecimal digits; empty where it is a file, which has a name instead.

    The letter keeps spreadsheets from taking it for a number.
    """
    return "" if images.paths else f"x{images.digests[index]:016x}"


def file_of(images: Images, index: int) -> str:
    """The file of an image; empty where images are not files of their own."""
    return images.paths[index] if images.paths else ""


def written(name: str) -> str:
    """A file's name as tables and pages hold it: what is no text in it, as on disks of other systems, is escaped."""
    return name.encode(errors="backslashreplace").decode()


Values = Mapping[str, str | None]


def _image(path: Path, line: int, values: Values) -> Iterator[_Row]:
    split, index = _place(path, line, values, "")
    said = [values.get(column) or "" for column in ("path", "given", "picture")]
    yield _Row(line, split, index, *said)


def _pair(path: Path, line: int, values: Values) -> Iterator[_Row]:
    first, second = (_place(path, line, values, ending) for ending in ("_a", "_b"))
    if first == second:
        raise DataError(f"{path}, line {line}: pairs an image with itself; expected two images; correct the line")
    splits = {first[0], second[0]}
    one, other = (
        _Row(line, *place, values.get("path" + ending) or "", "", values.get("picture" + ending) or "")
        for place, ending in ((first, "_a"), (second, "_b"))
    )
    if splits == {"training"}:
        yield other
    elif len(splits) == 2:
        yield from (one, other)


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
    # By its name and its folder's, since the data may have been moved, or named in another way.
    if row.path and Path(row.path).parts[-2:] != Path(own := written(images.paths[row.index])).parts[-2:]:
        return f"is {row.path} there, but {own} in {images.name}"
    if row.picture and not images.paths and row.picture != picture_of(images, row.index):
        return f"is another picture there than in {images.name}"
    label = images.classes[images.labels[row.index]]
    if row.given and row.given != label:
        return f"is labelled {row.given} there, but {label} in {images.name}"
    return ""
