"""What an audit says of a data set: values, and the tables that they are stored as."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thirtytwo import metrics
from thirtytwo.data.images import Split
from thirtytwo.run import storing, write_atomic

Kind = Literal["exact", "near"]

ENOUGH = 0.8
"""Share of training labels that networks have to agree with, or else many of the doubts are mistakes of theirs."""

ISSUE_COLUMNS = ("split", "index", "path", "given", "suggested", "score", "picture")
PAIR_COLUMNS = (
    "split_a", "index_a", "split_b", "index_b", "distance", "kind", "path_a", "path_b", "picture_a", "picture_b",
)  # fmt: skip
ODD_COLUMNS = ("split", "index", "path", "reason", "picture")
BROKEN_COLUMNS = ("split", "path", "reason")


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is probably wrong."""

    split: Split
    index: int
    """Position in the data set's own order of its split."""
    path: str
    """Its file; empty where images are not files of their own."""
    given: str
    """Class that it is said to belong to."""
    suggested: str
    """Class that the networks, none of which saw it, find most probable."""
    score: float
    """From 0 to 1: how much more probable they find the suggested class; 0.5 is equally probable."""
    picture: str = ""
    """Digest of its pixels, where it is no file; see `exclusion.picture_of`."""


@dataclass(frozen=True)
class Pair:
    """Two images that show the same."""

    split_a: Split
    """That of the training image where they are in different splits."""
    index_a: int
    split_b: Split
    index_b: int
    distance: float
    """How far their pixels are apart where they fit best; see `duplicates`. 0 is equal."""
    kind: Kind
    """``exact`` where all pixels are equal."""
    path_a: str = ""
    """Its file; empty where images are not files of their own."""
    path_b: str = ""
    picture_a: str = ""
    """Digest of its pixels, where it is no file; see `exclusion.picture_of`."""
    picture_b: str = ""

    @property
    def is_leak(self) -> bool:
        """Whether the test set holds what is trained on."""
        return self.split_a != self.split_b


@dataclass(frozen=True)
class OddImage:
    """An image that shows nothing."""

    split: Split
    index: int
    path: str
    reason: str
    """In words, such as ``one colour``."""
    picture: str = ""
    """Digest of its pixels, where it is no file; see `exclusion.picture_of`."""


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be read as an image. It has no position: images are counted as they are without it."""

    split: Split
    path: str
    reason: str


@dataclass(frozen=True)
class Overview:
    """What a split consists of."""

    images: int
    per_class: tuple[int, ...]
    """In label order."""
    sizes: Mapping[tuple[int, int], int]
    """(height, width) in pixels of the images as they are stored -> how many, most frequent first."""


@dataclass(frozen=True, eq=False)
class Audit:
    """Everything that was found."""

    name: str
    spec: str
    location: str
    notice: str
    """Empty, or what has to be told before anything else."""
    warnings: tuple[str, ...]
    classes: tuple[str, ...]
    splits: Mapping[Split, Overview]
    issues: tuple[LabelIssue, ...]
    """Most suspicious first."""
    pairs: tuple[Pair, ...]
    """Leaks first, then by distance."""
    odd: tuple[OddImage, ...]
    broken: tuple[BrokenFile, ...]
    """What is no image, and so was left out of everything else."""
    recipe: str
    """What the networks were trained with, in words: as it was asked for, and what that came to for these data."""
    recipe_digest: str
    """Of the recipe that the first network was trained with; see `Recipe.digest`."""
    recipe_words: tuple[str, ...]
    """What was asked for as the recipe: its name, or path, and changes such as ``epochs=8``; empty where a program gave
    a recipe and no words for it."""
    epochs: int
    """That the recipe asks for; for few images there are more."""
    folds: int
    """Number of these networks; each was trained without its share of the training images."""
    accuracy: Mapping[Split, float]
    """Share of labels that the networks agree with; on training images, those that had not seen them."""
    test_opening: int
    seconds: float
    """That everything took, interruptions left out."""
    pixels: Mapping[tuple[Split, int], NDArray[np.uint8]]
    """Images that are named above, uint8 (height, width, 3)."""
    labels: Mapping[tuple[Split, int], str]
    """Their given classes."""
    paths: Mapping[tuple[Split, int], str]
    """Their files; none where images are not files of their own."""
    same_picture: float
    """Distance below which two images count as the same picture."""
    environment: Mapping[str, Any]
    """What it ran on and with; see `environment.describe`."""
    network_commits: tuple[str, ...] = ()
    """Of the program, that trained the networks, each once: they may be older than the rest."""

    @property
    def leaks(self) -> tuple[Pair, ...]:
        """Pairs across the splits."""
        return tuple(pair for pair in self.pairs if pair.is_leak)

    @property
    def leaked(self) -> frozenset[int]:
        """Test images that are in the training set too."""
        return frozenset(pair.index_b for pair in self.leaks)

    @property
    def is_weak(self) -> bool:
        """Whether the networks are too often wrong for their doubts to be worth much."""
        return self.accuracy["training"] < ENOUGH or self.is_at_baseline

    @property
    def is_at_baseline(self) -> bool:
        """Whether they agree with no more training labels than always naming the most frequent class would."""
        overview = self.splits["training"]
        baseline = metrics.majority_baseline(overview.per_class)
        return metrics.is_at_baseline(self.accuracy["training"], baseline, overview.images)

    def issues_in(self, split: Split) -> tuple[LabelIssue, ...]:
        """Doubtful labels of a split, most suspicious first."""
        return tuple(issue for issue in self.issues if issue.split == split)

    def pairs_in(self, split: Split) -> tuple[Pair, ...]:
        """Pairs within a split, nearest first."""
        return tuple(pair for pair in self.pairs if pair.split_a == pair.split_b == split)

    def odd_in(self, split: Split) -> tuple[OddImage, ...]:
        """Images of a split that show nothing."""
        return tuple(image for image in self.odd if image.split == split)

    def broken_in(self, split: Split) -> tuple[BrokenFile, ...]:
        """Files of a split that cannot be read as images."""
        return tuple(file for file in self.broken if file.split == split)

    @property
    def tables(self) -> dict[str, bytes]:
        """What is named, as CSV files by name."""
        return {
            "label_issues.csv": table(ISSUE_COLUMNS, self.issues),
            "duplicates.csv": table(PAIR_COLUMNS, self.pairs),
            "odd_images.csv": table(ODD_COLUMNS, self.odd),
            "broken_files.csv": table(BROKEN_COLUMNS, self.broken),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but pixels, as ``audit --json`` prints it."""
        return {
            "data": self.name,
            "spec": self.spec,
            "warnings": list(self.warnings),
            "splits": {
                split: {
                    "images": overview.images,
                    "per_class": dict(zip(self.classes, overview.per_class, strict=True)),
                    "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in overview.sizes.items()],
                }
                for split, overview in self.splits.items()
            },
            "label_issues": [asdict(issue) for issue in self.issues],
            "duplicates": [asdict(pair) for pair in self.pairs],
            "odd_images": [asdict(image) for image in self.odd],
            "broken_files": [asdict(file) for file in self.broken],
            "leaked_test_images": len(self.leaked),
            "recipe": self.recipe,
            "recipe_digest": self.recipe_digest,
            "folds": self.folds,
            "network_commits": list(self.network_commits),
            "accuracy": dict(self.accuracy),
            "is_weak": self.is_weak,
            "test_opening": self.test_opening,
            "seconds": self.seconds,
            **{
                key: self.environment[key]
                for key in ("machine", "device", "device_name", "versions", "commit", "command", "date")
            },
        }


def table(columns: Sequence[str], rows: Iterable[LabelIssue | Pair | OddImage | BrokenFile]) -> bytes:
    """Rows as CSV, with the columns as its first line."""
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in vars(row).items()}
        )
    return content.getvalue().encode(errors="backslashreplace")  # see `exclusion.written`


DIGESTS = "tables.json"
"""Beside the tables: SHA-256 of everything that was ever written as each of them."""


def write_tables(folder: Path, tables: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write tables into a folder, but for those that somebody has changed since they were written there.

    Args:
        folder: where; the one in which it lies exists.
        tables: contents by file name.

    Returns:
        The names of those that were left as they are.

    Raises:
        StorageError: one cannot be written.
    """
    digests = _digests(folder / DIGESTS)
    edited = tuple(
        name for name, content in tables.items() if _is_edited(folder / name, content, digests.get(name, []))
    )
    for name, content in tables.items():
        if name not in edited:
            digests[name] = list(dict.fromkeys([*digests.get(name, []), _digest(content)]))
    # Before the tables, so that one which a crash lets come to its place, or not, is known either way.
    write_atomic(folder / DIGESTS, (json.dumps(digests, indent=1) + "\n").encode())
    for name, content in tables.items():
        if name not in edited:
            write_atomic(folder / name, content)
    return edited


def _is_edited(path: Path, content: bytes, written: Sequence[str]) -> bool:
    """Whether a table holds something that is neither what it is to hold nor what was ever written as it."""
    with storing(str(path)):
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            return False
    return found != content and _digest(found) not in written


def _digests(path: Path) -> dict[str, list[str]]:
    """What was written, by name; nothing where that is not known: then every table counts as somebody's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [str(digest) for digest in digests] for name, digests in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
