"""Is a difference real? A test and an interval for paired differences that stay valid however often one looks.

The differences are taken as normal with unknown mean and standard deviation. The evidence against a mean of 0 is the
ratio of two likelihoods: of means that are drawn, in units of the standard deviation, from a normal distribution, and
of 0; both with the scale-free prior for the standard deviation. Where the mean is 0, it ever exceeds 1 / α with a
probability of at most α (after Lai 1976; Hendriksen, de Heide & Grünwald 2021, arXiv 1807.09077; Wang & Ramdas 2024,
arXiv 2310.03722), so that one may stop as soon as it does. That is what a fixed number of runs does not allow: who
looks after every run and stops at p < 0.05 finds differences where there are none, in the end always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from thirtytwo.study.spread import ROUNDING

PRIOR_VARIANCE = 1.0
"""Of the mean difference in units of the standard deviation: what differences one would look for."""
MOST_PAIRS = 10_000
"""More than anybody would train."""


def log_evidence(differences: Sequence[float]) -> float:
    """Natural logarithm of the evidence against a mean of 0: above 0 speaks against it, below 0 for it.

    Args:
        differences: of pairs; fewer than two say nothing.
    """
    n = len(differences)
    if n < 2:
        return 0.0
    return _log_evidence(fmean(differences), stdev(differences), n)


def _log_evidence(mean: float, deviation: float, n: int) -> float:
    grown = math.log1p(n * PRIOR_VARIANCE)
    # Of a normal distribution no two values are alike. Accuracies on few images often are, which makes nothing certain.
    if deviation < ROUNDING:
        return -grown / 2 if abs(mean) < ROUNDING else 0.0
    squared = n * (mean / deviation) ** 2 / (n - 1)  # t² by its degrees of freedom
    return n / 2 * (math.log1p(squared) - math.log1p(squared * math.exp(-grown))) - grown / 2


def p_value(differences: Sequence[float]) -> float:
    """That holds whenever one stops: 1 by the most evidence that there has been on the way, and at most 1."""
    most = max((log_evidence(differences[:n]) for n in range(2, len(differences) + 1)), default=0.0)
    return math.exp(-max(most, 0.0))


def settled_after(differences: Sequence[float], level: float = 0.95) -> int | None:
    """The number of pairs after which there first was as much evidence as a level asks for; None if there never was."""
    for n in range(2, len(differences) + 1):
        if log_evidence(differences[:n]) > -math.log1p(-level):
            return n
    return None


def fewest_pairs(level: float = 0.95) -> int:
    """Pairs without which nothing is settled, however large and alike their differences are."""
    n = 2
    while (n - 1) / 2 * math.log1p(n * PRIOR_VARIANCE) <= -math.log1p(-level):  # the limit of `_log_evidence`
        n += 1
    return n


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean differences that the evidence has not excluded after any number of these pairs.

    Args:
        differences: of pairs.
        level: the probability with which the true mean is in the intervals of all times, and so in what they share.

    Returns:
        Lower and upper end; infinite as long as nothing is known, such as how much pairs differ. Where the intervals of
        different times share nothing, which happens with a probability of at most 1 - level, the newest one.
    """
    low, high = -math.inf, math.inf
    newest = (low, high)
    for n in range(2, len(differences) + 1):
        newest = _interval(differences[:n], level)
        low, high = max(low, newest[0]), min(high, newest[1])
    return (low, high) if low <= high else newest


def _interval(differences: Sequence[float], level: float) -> tuple[float, float]:
    """Means m for which the evidence of (differences - m) stays below 1 / (1 - level): solved for t²."""
    n, mean, deviation = len(differences), fmean(differences), stdev(differences)
    if deviation < ROUNDING:  # see `_log_evidence`
        return -math.inf, math.inf
    spread = 1 + n * PRIOR_VARIANCE
    factor = (math.sqrt(spread) / (1 - level)) ** (2.0 / n)
    if factor >= spread:
        return -math.inf, math.inf
    reach = deviation * math.sqrt((n - 1) * (factor - 1) / (1 - factor / spread) / n)
    return mean - reach, mean + reach


def pairs_to_settle(difference: float, deviation: float, level: float = 0.95, most: int = MOST_PAIRS) -> int | None:
    """Pairs after which a true difference is typically found: that is, when pairs turn out just as expected.

    Args:
        difference: true mean of the pairs' differences.
        deviation: their standard deviation, above 0.
        level: 1 less the share of false findings that is accepted.
        most: give up here, and return None.
    """
    for n in range(2, most + 1):
        if _log_evidence(difference, deviation, n) > -math.log1p(-level):
            return n
    return None
