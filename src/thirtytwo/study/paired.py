"""How much better one of two classifiers is, if both have answered for the same images."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special


def interval(won: int, lost: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """An interval for the difference of two accuracies on the same images.

    What both name rightly, or neither, says nothing of a difference; the rest does. A difference belongs to the
    interval if the score test does not reject it (T. Tango, "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design", Statistics in Medicine 17, 1998); of no difference at all,
    that is McNemar's test. It keeps its promise for few images too, and stays within [-1, 1].

    Args:
        won: images that the first one names rightly and the second one does not.
        lost: images that the second one names rightly and the first one does not.
        images: all of them, at least one.
        level: share of such intervals that hold the true difference.
    """
    reach = float(special.ndtri((1 + level) / 2))

    def score(difference: float) -> float:
        """How many standard deviations the count lies above what this difference lets expect; falls with it."""
        # The likeliest share of images that are lost, if the difference is this one: a root of a quadratic.
        a = 2 * images
        b = -won - lost + (2 * images - won + lost) * difference
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = images * (2 * share + difference * (1 - difference))
        above = won - lost - images * difference
        if variance <= 0:  # then only one count is possible
            return above * math.inf if above else 0.0
        return above / math.sqrt(variance)

    return _where(lambda difference: score(difference) <= reach), _where(lambda difference: score(difference) <= -reach)


def _where(is_beyond: Callable[[float], bool]) -> float:
    """The place in [-1, 1] from which on something holds."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    return (low + high) / 2
