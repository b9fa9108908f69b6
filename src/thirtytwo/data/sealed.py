"""The one door to test images, and the ledger beside it.

A test set measures a model only as long as nothing was chosen by looking at it. So each scoring of a model on it is
counted, per test set and user: in ``$THIRTYTWO_STATE/openings/<pictures>.jsonl``, by default in the user's state
folder, wherever the results go. The entry is written before the images are handed out, so a run that crashes while it
scores has been counted as well.

A test set is its pictures, whatever their labels, the names of their classes and their order: none of these makes a new
test set of an old one. Ledgers were once named by labels and class names, too; what such a ledger of the same images
says is taken over into the new one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.errors import StorageError


@dataclass(frozen=True)
class Opening:
    """One opening of a test set."""

    images: Images
    """The test images."""
    number: int
    """1 for the first model that this user scored on this test set, and so on."""


def open_test(
    source: Source,
    *,
    key: str,
    model: str,
    facts: dict[str, Any],
    check: Callable[[Images], None] = lambda _: None,
) -> Opening:
    """Count an opening, then hand out the test images.

    Args:
        source: the data set.
        key: names the scoring.
        model: fingerprint of the classifier that is scored. The same key with the same model is the same scoring, taken
            up after an interruption: it gets its old number. Another model under that key is a scoring of its own.
        facts: kept in the ledger beside these: recipe, run, …; they replace nothing that the ledger says itself.
        check: raises an error if the images are not what they have to be; then nothing is counted, and no image is
            handed out.

    Raises:
        StorageError: the ledger cannot be written; then no image is handed out.
    """
    images = source._sealed_read("test")
    check(images)
    path = ledger_path(images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            _take_over(path.with_name(f"{images.fingerprint}.jsonl"), path)
            entries = _entries(path)
            for entry in entries:
                if entry.get("key") == key and entry.get("model") == model:
                    return Opening(images, int(entry["opening"]))
            number = len(entries) + 1
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            own = {"opening": number, "date": date, "key": key, "model": model, "data": images.name}
            # The ledger's own come first, for the eye, and once more, since of two values the last one counts.
            _append(path, [{**own, **facts, **own}])
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); openings of the test set are counted there; "
            "expected a writable folder; set THIRTYTWO_STATE to one"
        ) from error
    return Opening(images, number)


def read_unscored(source: Source) -> Images:
    """The test images for `load_data` alone, which scores nothing and so counts nothing."""
    return source._sealed_read("test")


def check_readable(source: Source) -> None:
    """Whether there are test images, and all can be read, before hours are spent on what is to be scored on them.

    No image is handed out, and so nothing is counted.

    Raises:
        DataError: there are none, or some cannot be read.
    """
    source._sealed_read("test")


def ledger_path(images: Images) -> Path:
    """Where openings of this test set are counted."""
    state = os.environ.get("THIRTYTWO_STATE") or platformdirs.user_state_dir("thirtytwo")
    return Path(state) / "openings" / f"{images.pictures}.jsonl"


def _take_over(old: Path, path: Path) -> None:
    """Append to a ledger what an old one says that it does not say yet; the old one stays as it is."""
    taken = sum(entry.get("ledger") == old.stem for entry in _entries(path))
    if more := _entries(old)[taken:]:
        _append(path, [{**entry, "ledger": old.stem} for entry in more])


def _append(path: Path, entries: list[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        # A line that a crash cut short must not swallow these.
        file.write("" if _ends_with_newline(path) else "\n")
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def _entries(path: Path) -> list[dict[str, Any]]:
    """The ledger's entries; a line that a crash cut short still counts as an opening."""
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry: Any = None
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
        entries.append(entry if isinstance(entry, dict) else {})
    return entries


def _ends_with_newline(path: Path) -> bool:
    content = path.read_bytes()
    return not content or content.endswith(b"\n")
