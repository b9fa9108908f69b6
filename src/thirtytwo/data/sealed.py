"""The one door to test images; see `data.ledger` for the book that lies beside it.

A test set measures a model only as long as nothing was chosen by looking at it. So each scoring of a model on it is
counted, per test set and user, wherever the results go. The entry is written before the images are handed out, so a
run that crashes while it scores has been counted as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thirtytwo.data import ledger
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source


@dataclass(frozen=True)
class Opening:
    """One opening of a test set."""

    images: Images
    """The test images."""
    number: int
    """1 for the first model that this user scored on this test set, and so on."""
    warnings: tuple[str, ...] = ()
    """What a user has to know of how it was counted, one sentence each."""


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
    number, warnings = ledger.enter(images, key=key, model=model, facts=facts)
    return Opening(images, number, warnings)


def read_unscored(source: Source) -> Images:
    """The test images for `load_data` alone, which scores nothing and so counts nothing."""
    return source._sealed_read("test")


def known(source: Source) -> ledger.Known:
    """What the ledger says of the test images.

    All are read, but no image is handed out, and so nothing is counted.

    Raises:
        DataError: there are none, or some cannot be read.
        StorageError: the ledger cannot be read.
    """
    return ledger.read(source._sealed_read("test"))


def check_readable(source: Source) -> None:
    """Whether there are test images, and all can be read, before hours are spent on what is to be scored on them.

    No image is handed out, and so nothing is counted; but whether it could be is looked at, too.

    Raises:
        DataError: there are none, or some cannot be read.
        StorageError: the ledger cannot be written.
    """
    ledger.check_writable(source._sealed_read("test"))
