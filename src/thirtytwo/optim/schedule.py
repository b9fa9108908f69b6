"""Learning-rate schedules: pure functions from "where are we" to a factor in [0, 1] of the peak rate.

They keep no state: the same step gives the same rate, in whatever process it is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def warmup(step: int, warmup_steps: float) -> float:
    """Linear rise over `warmup_steps` steps: 1 / warmup_steps at step 0, 1 from the end of the rise on."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0


def staircase(step: int, *, every_steps: float, factor: float) -> float:
    """`factor` raised to the number of whole intervals behind us."""
    return float(factor ** int(step / every_steps))


def cosine(step: int, steps: float, *, warmup_steps: float = 0.0, final_factor: float = 0.0) -> float:
    """1 at the end of the warm-up, `final_factor` from the last of the steps on, half a cosine in between."""
    return _between(1.0, final_factor, (step - warmup_steps) / max(steps - 1 - warmup_steps, 1.0))


def linear(step: int, steps: float, *, warmup_steps: float = 0.0, final_factor: float = 0.0) -> float:
    """1 at the end of the warm-up, on a straight line to `final_factor` from the step after the last of them on."""
    share = min(max((step - warmup_steps) / max(steps - warmup_steps, 1.0), 0.0), 1.0)
    return 1.0 + (final_factor - 1.0) * share


def one_cycle(step: int, steps: int, *, warmup_fraction: float, initial_factor: float, final_factor: float) -> float:
    """`initial_factor` at step 0, 1 after `warmup_fraction` of the steps, `final_factor` at the last step."""
    position = step / max(steps - 1, 1)
    if position < warmup_fraction:
        return _between(initial_factor, 1.0, position / warmup_fraction)
    return _between(1.0, final_factor, (position - warmup_fraction) / (1.0 - warmup_fraction))


def plateau(losses: Sequence[float], *, patience: int, factor: float, minimum_factor: float) -> float:
    """The factor after these validation losses, one an epoch, oldest first.

    It is multiplied by `factor` whenever `patience` epochs in a row brought no new lowest loss; the count of such
    epochs then starts again.
    """
    rate, best, waited = 1.0, math.inf, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= patience:
            rate, waited = max(rate * factor, minimum_factor), 0
    return rate


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1), constant outside."""
    return end + (start - end) * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2.0
