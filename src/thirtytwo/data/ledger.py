"""The ledger of openings: which test images this user has scored models on, and how often.

There are two files a test set, named by its pictures: ``<pictures>.jsonl``, a line an opening, and
``<pictures>.digests``, 8 bytes a picture (see `Images.digests`), ascending, little-endian. What counts is how often
pictures were shown, in whichever test set: a set that is a part of another one, or another one with a picture more,
goes on where that one stopped. A test set has been opened as often as its pictures have been shown on average.

Ledgers were once named by labels and class names, too; what such a ledger of the same images says is taken over.

Nothing here hands out images.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from thirtytwo.data.images import Images
from thirtytwo.errors import StorageError

WORTH_TELLING = 0.01
"""Share of some images from which on it is told that they are in other test sets, too."""
MANY = 0.1
"""Share of a test set from which on it is told that it is among training images."""
_NAMED = 3
"""Test sets that are named in one sentence."""
_DIGESTS = ".digests"


@dataclass(frozen=True)
class Opening:
    """A line of a ledger."""

    facts: dict[str, Any]
    """What it says; empty if it cannot be read, and then it counts all the same."""
    share: float
    """Of the images in question, how many it has shown."""
    place: str
    """The file and the number of the line."""


@dataclass(frozen=True)
class Relative:
    """A test set that was opened and holds some of the images in question."""

    name: str
    shared: int
    """Images in question that are in it."""
    share: float
    """Of its pictures, how many are among the images in question."""


@dataclass(frozen=True, eq=False)
class Known:
    """What the ledger says of some images."""

    shown: NDArray[np.int64]
    """(n,): how often a model was scored on each."""
    openings: list[Opening]
    """Those that have shown any of them, oldest first."""
    relatives: list[Relative]
    """Test sets that hold some of them, beside the one that they are themselves; most first."""
    shared: int
    """Images that are in any of these."""

    @property
    def count(self) -> int:
        """How often they were shown on average, to the nearest whole number."""
        return math.floor(float(self.shown.mean()) + 0.5) if len(self.shown) else 0

    @property
    def names(self) -> str:
        """The other test sets, at most a few of them."""
        names = list(dict.fromkeys(each.name for each in self.relatives))
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user has to know of how a test set's openings were counted, one sentence each."""
        unread = [opening for opening in self.openings if not opening.facts]
        said = [f"{opening.place} cannot be read; it counts as an opening" for opening in unread]
        if self.shared and self.shared >= WORTH_TELLING * len(self.shown):
            said.append(
                f"{_of(self.shared, len(self.shown))} test images {_are(self.shared)} in other test sets that were "
                f"opened, too ({self.names}); each opening counts by the share of these images that it has shown"
            )
        return tuple(said)


def times(number: int) -> str:
    """1 -> ``once``; 3 -> ``3 times``."""
    return "once" if number == 1 else f"{number:,} times"


def path_of(images: Images) -> Path:
    """Where openings of this test set are counted."""
    return _folder() / f"{images.pictures}.jsonl"


def read(images: Images) -> Known:
    """What is known of a test set; nothing is written.

    Raises:
        StorageError: there is a ledger, but it cannot be read.
    """
    path = path_of(images)
    try:
        return _known(images.digests, path, _not_taken_over(path, images))
    except OSError as error:
        raise _storage_error(path, error) from error


def enter(images: Images, *, key: str, model: str, facts: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Count an opening.

    Args:
        images: the test set.
        key: names the scoring.
        model: fingerprint of what is scored. The same key with the same model is the same opening.
        facts: kept beside these; they replace nothing that the ledger says itself.

    Returns:
        Its number, from 1 on, and what a user has to know of how it was counted, one sentence each.

    Raises:
        StorageError: the ledger cannot be written.
    """
    path = path_of(images)
    _ = images.fingerprint, images.digests  # computed before others have to wait
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):  # one for all sets, since openings of one count for others
            _append(path, [{**facts, "ledger": stem} for stem, facts in _not_taken_over(path, images)])
            # Before any entry: an opening that others do not know of would be worse than digests without one.
            _write_digests(path.with_suffix(_DIGESTS), images)
            for entry in _entries(path):
                if entry.get("key") == key and entry.get("model") == model and isinstance(entry.get("opening"), int):
                    return entry["opening"], tuple(map(str, entry.get("warnings", ())))
            known = _known(images.digests, path)
            number, warnings = known.count + 1, known.warnings
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            own: dict[str, Any] = {"opening": number, "date": date, "key": key, "model": model, "data": images.name}
            own |= {"warnings": warnings} if warnings else {}
            # The ledger's own come first, for the eye, and once more, since of two values the last one counts.
            _append(path, [{**own, **facts, **own}])
    except OSError as error:
        raise _storage_error(path, error) from error
    return number, warnings


def check_writable(images: Images) -> None:
    """Whether an opening could be counted.

    Args:
        images: the test set.

    Raises:
        StorageError: it could not.
    """
    path = path_of(images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            pass
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _storage_error(path, error) from error


def opened(digests: NDArray[np.uint64]) -> Known:
    """What is known of pictures that need not be a test set.

    Args:
        digests: (n,); see `Images.digests`.

    Raises:
        StorageError: a ledger cannot be read.
    """
    try:
        return _known(digests, None)
    except OSError as error:
        raise _storage_error(_folder(), error) from error


def among_training(images: Images) -> tuple[str, ...]:
    """That training images belong to a test set that was opened, in one sentence, if it is so.

    Told is a part of the training images, or of the test set, that is worth it. A ledger that cannot be read is told,
    too: it stops no training.
    """
    try:
        known = opened(images.digests)
    except StorageError as error:
        return (str(error),)
    much = known.shared >= WORTH_TELLING * len(images)
    if not known.shared or not (much or any(each.share >= MANY for each in known.relatives)):
        return ()
    return (
        f"{_of(known.shared, len(images))} training images belong to a test set that was opened ({known.names}): on "
        "that set, scores of a model trained on them say nothing; and what is chosen by validation images among them "
        "is chosen by the test set",
    )


def _folder() -> Path:
    state = os.environ.get("THIRTYTWO_STATE") or platformdirs.user_state_dir("thirtytwo")
    return Path(state) / "openings"


def _known(
    digests: NDArray[np.uint64], path: Path | None, more: list[tuple[str, dict[str, Any]]] | None = None
) -> Known:
    """What is known of pictures.

    Args:
        digests: (n,), theirs.
        path: the ledger of the test set that they are; None if they need not be one.
        more: what an old ledger of that set says.
    """
    shown = np.zeros(len(digests), dtype=np.int64)
    shared = np.zeros(len(digests), dtype=bool)
    openings: list[Opening] = []
    relatives = []
    if path is not None:
        openings += [_opening(path, line, facts, 1.0) for line, facts in enumerate(_entries(path), start=1)]
        openings += [Opening(facts, 1.0, stem) for stem, facts in more or []]
        shown += len(openings)
    for other in sorted(_folder().glob(f"*{_DIGESTS}")):
        if path is not None and other.stem == path.stem:
            continue
        theirs = _read_digests(other)
        among = _among(digests, theirs)
        ledger = other.with_suffix(".jsonl")
        if not among.any() or not (entries := _entries(ledger)):
            continue
        shared |= among
        shown[among] += len(entries)
        name = str(entries[-1].get("data") or other.stem[:12])
        relatives.append(Relative(name, int(among.sum()), len(np.unique(digests[among])) / len(theirs)))
        share = float(among.mean())
        openings += [_opening(ledger, line, facts, share) for line, facts in enumerate(entries, start=1)]
    openings.sort(key=lambda opening: str(opening.facts.get("date", "")))  # stable: of equal dates, as written
    relatives.sort(key=lambda each: -each.shared)
    return Known(shown, openings, relatives, int(shared.sum()))


def _opening(ledger: Path, line: int, facts: dict[str, Any], share: float) -> Opening:
    return Opening(facts, share, f"{ledger}: line {line}")


def _not_taken_over(path: Path, images: Images) -> list[tuple[str, dict[str, Any]]]:
    """What an old ledger of these images says that the one at `path` does not say yet; the old one stays as it is."""
    old = path.with_name(f"{images.fingerprint}.jsonl")
    taken = sum(entry.get("ledger") == old.stem for entry in _entries(path))
    return [(old.stem, facts) for facts in _entries(old)[taken:]]


def _append(path: Path, entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    with path.open("a", encoding="utf-8") as file:
        # A line that a crash cut short must not swallow these.
        file.write("" if _ends_with_newline(path) else "\n")
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def _entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; one that a crash cut short, which still counts as an opening, says nothing."""
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        facts: Any = None
        with contextlib.suppress(ValueError):
            facts = json.loads(line)
        entries.append(facts if isinstance(facts, dict) else {})
    return entries


def _among(digests: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,): which of these are among others, which are ascending."""
    if not len(theirs):
        return np.zeros(len(digests), dtype=bool)
    places = np.minimum(np.searchsorted(theirs, digests), len(theirs) - 1)
    return np.asarray(theirs[places] == digests)


def _read_digests(path: Path) -> NDArray[np.uint64]:
    """Ascending; none where the file is damaged, which the next opening of its own set mends."""
    content = path.read_bytes()
    if len(content) % 8:
        return np.empty(0, dtype=np.uint64)
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)


def _write_digests(path: Path, images: Images) -> None:
    content = np.sort(images.digests).astype("<u8").tobytes()
    if path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.part")  # the lock is held
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _ends_with_newline(path: Path) -> bool:
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def _of(some: int, number: int) -> str:
    return f"{some:,} of these {number:,}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be read or written ({error.strerror}); openings of the test set are counted there; "
        "expected a writable folder; set THIRTYTWO_STATE to one"
    )
