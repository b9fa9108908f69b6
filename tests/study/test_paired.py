"""Intervals for the difference of two accuracies on the same images: they hold it as often as they promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.study.paired import interval

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 500)).filter(lambda each: sum(each) > 0)


@given(COUNTS)
def test_it_holds_the_difference_and_mirrors_when_the_two_change_places(counts: tuple[int, int, int]) -> None:
    won, lost, rest = counts
    images = won + lost + rest
    low, high = interval(won, lost, images)
    assert -1 <= low <= (won - lost) / images <= high <= 1
    assert interval(lost, won, images) == pytest.approx((-high, -low), abs=1e-9)


@given(COUNTS)
def test_it_leaves_out_no_difference_exactly_where_mcnemars_test_does(counts: tuple[int, int, int]) -> None:
    won, lost, rest = counts
    if not won + lost:
        return
    low, high = interval(won, lost, won + lost + rest)
    statistic = (won - lost) / math.sqrt(won + lost)
    if abs(abs(statistic) - 1.959964) > 1e-4:
        assert (low > 0 or high < 0) == (abs(statistic) > 1.959964)


@pytest.mark.parametrize(
    ("gains", "loses", "images", "most"),
    [(0.1, 0.1, 40, 0.97), (0.15, 0.05, 40, 0.97), (0.4, 0.2, 40, 0.97), (0.02, 0.01, 60, 1.0)],
)
def test_it_holds_the_truth_in_about_95_of_100_cases(gains: float, loses: float, images: int, most: float) -> None:
    """Exactly: over everything that can be counted, with its probability. Where little differs, it is cautious."""
    held = 0.0
    for won in range(images + 1):
        for lost in range(images + 1 - won):
            rest = images - won - lost
            ways = math.comb(images, won) * math.comb(images - won, lost)
            probability = ways * gains**won * loses**lost * (1 - gains - loses) ** rest
            if probability > 1e-9:
                low, high = interval(won, lost, images)
                held += probability * (low <= gains - loses <= high)
    assert 0.94 < held < most
