"""Early stopping: whose weights are kept, and when a training gives up. Functions of the validation losses so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thirtytwo.settings import EarlyStopping


def improvements(losses: Sequence[float | None], settings: EarlyStopping) -> list[int]:
    """Numbers, counted from 1, of the epochs that lowered the validation loss by enough.

    Args:
        losses: one an epoch, in nats; None where nobody looked at the validation images.
        settings: a recipe's `early_stopping` section.
    """
    best, numbers = math.inf, []
    for number, loss in enumerate(losses, start=1):
        if loss is not None and loss < best - settings.minimum_improvement:
            best = loss
            numbers.append(number)
    return numbers


def best_epoch(losses: Sequence[float | None], settings: EarlyStopping) -> int | None:
    """Number of the epoch whose weights are selected: the last that improved; None if none is selected."""
    improved = improvements(losses, settings) if settings.patience else []
    return improved[-1] if improved else None


def kept_epoch(losses: Sequence[float | None], settings: EarlyStopping) -> int:
    """Number of the epoch whose weights are kept: the selected one, or the last if none is selected."""
    return best_epoch(losses, settings) or len(losses)


def is_over(losses: Sequence[float | None], settings: EarlyStopping) -> bool:
    """Whether `patience` epochs have gone by without an improvement; only a look at the validation images can tell.

    Where looks are rarer than that, one that improves nothing is not enough: a single one may be bad luck.
    """
    if not settings.patience or not losses or losses[-1] is None:
        return False
    since = losses[best_epoch(losses, settings) or 0 :]
    looks = sum(loss is not None for loss in since)
    return len(since) >= settings.patience and looks >= min(2, settings.patience)
