"""The ledger of openings: which test sets this user has scored models on, and how often.

There are two files a test set, named by its pictures: ``<pictures>.jsonl``, a line an opening, and
``<pictures>.digests``, 8 bytes a picture (see `Images.digests`), ascending, little-endian. An opening counts for every
test set of whose pictures it has shown at least half, so neither one picture more nor one pixel that differs makes a
new test set of an old one. Where fewer pictures are shared, this is told.

Ledgers were once named by labels and class names, too; what such a ledger of the same images says is taken over.

Nothing here hands out images.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from thirtytwo.data.images import Images
from thirtytwo.errors import StorageError

SAME = 0.5
"""Share of a test set's pictures from which on an opening that has shown them counts for it."""

WORTH_TELLING = 0.01
"""Share of a test set's pictures from which on it is told that other test sets hold them."""


@dataclass(frozen=True)
class Entry:
    """A line of a ledger: an opening."""

    path: Path
    line: int
    """From 1."""
    facts: dict[str, Any]
    """What it says; empty if it cannot be read, and then it counts all the same."""


@dataclass(frozen=True)
class Relative:
    """Another test set that holds some of the same pictures."""

    name: str
    shared: int
    """Pictures of the set in question that are in this one, too."""
    images: int
    """Pictures of the set in question."""
    entries: list[Entry] = field(repr=False)

    @property
    def share(self) -> float:
        """Of the pictures of the set in question."""
        return self.shared / self.images

    @property
    def counts(self) -> bool:
        """Whether an opening of this set is one of the set in question."""
        return self.share >= SAME

    @property
    def words(self) -> str:
        """What a user has to know, in one sentence."""
        counted = "which counts here, too" if self.counts else "which is not counted here"
        return (
            f"{self.shared:,} of these {self.images:,} test images are also in another test set, {self.name}, opened "
            f"{times(len(self.entries))} so far, {counted}"
        )


@dataclass(frozen=True)
class Known:
    """What the ledger says of a test set."""

    openings: list[Entry]
    """Those that count for it, oldest first."""
    relatives: list[Relative]
    """Other test sets that were opened and hold some of its pictures, most first."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user has to know of how openings were counted, one sentence each."""
        unreadable = [
            f"{entry.path}: line {entry.line} cannot be read; it counts as an opening"
            for entry in self.openings
            if not entry.facts
        ]
        return (*unreadable, *(each.words for each in self.relatives if each.share >= WORTH_TELLING))


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
        return _known(path, images, _not_taken_over(path, images))
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
        Its number, from 1 on, and `Known.warnings`.

    Raises:
        StorageError: the ledger cannot be written.
    """
    path = path_of(images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):  # one for all sets, since openings of one count for others
            _append(path, [{**entry.facts, "ledger": entry.path.stem} for entry in _not_taken_over(path, images)])
            known = _known(path, images)
            for entry in known.openings:
                if entry.path == path and entry.facts.get("key") == key and entry.facts.get("model") == model:
                    return int(entry.facts["opening"]), known.warnings
            number = len(known.openings) + 1
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            own = {"opening": number, "date": date, "key": key, "model": model, "data": images.name}
            # Before the entry: an opening that others do not know of would be worse than digests without one.
            _write_digests(path.with_suffix(_DIGESTS), images)
            # The ledger's own come first, for the eye, and once more, since of two values the last one counts.
            _append(path, [{**own, **facts, **own}])
    except OSError as error:
        raise _storage_error(path, error) from error
    return number, known.warnings


def opened(digests: NDArray[np.uint64]) -> list[Relative]:
    """Test sets that were opened and hold some of these pictures, most first.

    Args:
        digests: of pictures, (n,) with n ≥ 1; see `Images.digests`.

    Raises:
        StorageError: a ledger cannot be read.
    """
    folder = _folder()
    try:
        return _relatives(folder, digests, without=None)
    except OSError as error:
        raise _storage_error(folder, error) from error


_DIGESTS = ".digests"


def _folder() -> Path:
    state = os.environ.get("THIRTYTWO_STATE") or platformdirs.user_state_dir("thirtytwo")
    return Path(state) / "openings"


def _known(path: Path, images: Images, more: list[Entry] | None = None) -> Known:
    """What is known of the set whose ledger is at `path`, and `more` of it."""
    relatives = _relatives(path.parent, images.digests, without=path.stem)
    openings = [*_entries(path), *(more or [])]
    openings += [entry for each in relatives if each.counts for entry in each.entries]
    openings.sort(key=lambda entry: str(entry.facts.get("date", "")))  # stable: of equal dates, as they were written
    return Known(openings, relatives)


def _relatives(folder: Path, digests: NDArray[np.uint64], *, without: str | None) -> list[Relative]:
    found = []
    for path in sorted(folder.glob(f"*{_DIGESTS}")):
        if path.stem == without:
            continue
        shared = int(np.isin(digests, np.frombuffer(path.read_bytes(), dtype="<u8")).sum())
        if shared and (entries := _entries(path.with_suffix(".jsonl"))):
            name = str(entries[-1].facts.get("data") or path.stem[:12])
            found.append(Relative(name, shared, len(digests), entries))
    return sorted(found, key=lambda each: -each.shared)


def _not_taken_over(path: Path, images: Images) -> list[Entry]:
    """What an old ledger of these images says that the one at `path` does not say yet; the old one stays as it is."""
    old = path.with_name(f"{images.fingerprint}.jsonl")
    taken = sum(entry.facts.get("ledger") == old.stem for entry in _entries(path))
    return _entries(old)[taken:]


def _append(path: Path, entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    with path.open("a", encoding="utf-8") as file:
        # A line that a crash cut short must not swallow these.
        file.write("" if _ends_with_newline(path) else "\n")
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def _entries(path: Path) -> list[Entry]:
    """The lines of a ledger; one that a crash cut short still counts as an opening."""
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        facts: Any = None
        with contextlib.suppress(ValueError):
            facts = json.loads(line)
        entries.append(Entry(path, number, facts if isinstance(facts, dict) else {}))
    return entries


def _write_digests(path: Path, images: Images) -> None:
    content = np.sort(images.digests).astype("<u8").tobytes()
    if path.exists() and path.stat().st_size == len(content):
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


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be read or written ({error.strerror}); openings of the test set are counted there; "
        "expected a writable folder; set THIRTYTWO_STATE to one"
    )
