from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from thirtytwo.study import sequential

NUMBERS = st.lists(st.floats(-5, 5), min_size=5, max_size=12).filter(lambda numbers: np.std(numbers) > 1e-3)


def test_no_difference_at_all_gives_1() -> None:
    assert sequential.p_value([0.0] * 20) == 1
    assert sequential.p_value([]) == 1
    assert sequential.p_value([0.7]) == 1


@given(NUMBERS, st.sampled_from([0.01, 3.0, 1000.0]))
def test_units_and_sign_do_not_matter(differences: list[float], factor: float) -> None:
    expected = pytest.approx(sequential.log_evidence(differences), abs=1e-6)
    assert sequential.log_evidence([factor * one for one in differences]) == expected
    assert sequential.log_evidence([-one for one in differences]) == expected


def test_it_is_the_ratio_of_the_two_likelihoods() -> None:
    x = np.array([0.3, -0.1, 0.8, 0.4])

    def likelihood(effect: float) -> float:
        """Of the differences, with the standard deviation integrated out over dσ / σ."""

        def at(log_sigma: float) -> float:
            sigma = math.exp(log_sigma)
            return float(sigma ** -len(x) * np.exp(-(((x - effect * sigma) / sigma) ** 2).sum() / 2))

        return float(integrate.quad(at, -6, 6)[0])

    def weighted(effect: float) -> float:
        return likelihood(effect) * math.exp(-(effect**2) / 2) / math.sqrt(2 * math.pi)

    ratio = integrate.quad(weighted, -8, 8)[0] / likelihood(0)
    assert math.exp(sequential.log_evidence(list(x))) == pytest.approx(ratio, rel=1e-4)


def test_looking_after_every_pair_finds_nothing_more_often_than_promised() -> None:
    draws = np.random.default_rng(1).standard_normal((2_000, 30))
    assert np.mean([sequential.p_value(list(row)) < 0.05 for row in draws]) < 0.05


def test_the_truth_is_in_the_interval_at_all_times() -> None:
    draws = np.random.default_rng(3).normal(0.4, 1, (500, 20))
    held = [low <= 0.4 <= high for low, high in (sequential.interval(list(row)) for row in draws)]
    assert np.mean(held) >= 0.95


def test_what_is_there_is_found() -> None:
    draws = np.random.default_rng(2).normal(2, 1, (300, 12))
    assert np.mean([sequential.p_value(list(row)) < 0.05 for row in draws]) > 0.9


@given(NUMBERS)
def test_the_newest_interval_holds_what_the_evidence_does_not_exclude(differences: list[float]) -> None:
    low, high = sequential._interval(differences, 0.95)
    assert low <= fmean(differences) <= high
    if math.isinf(low):
        return
    for edge, inward in ((low, 1e-3), (high, -1e-3)):
        inside = edge + inward * (high - low)
        outside = edge - inward * (high - low)
        assert sequential.log_evidence([one - inside for one in differences]) < math.log(20)
        assert sequential.log_evidence([one - outside for one in differences]) > math.log(20)


def test_once_settled_the_interval_leaves_out_nothing_again() -> None:
    found = [1.0, 1.1, 0.9, 1.0, 1.2, -3.0, -3.0]
    n = sequential.settled_after(found)
    assert n is not None
    assert n < 6
    assert sequential.p_value(found) < 0.05
    low, high = sequential.interval(found)
    assert low > 0 or high < 0 or sequential.interval(found) == sequential._interval(found, 0.95)


@pytest.mark.parametrize("alike", [0.0, 0.1])
def test_pairs_that_all_differ_alike_narrow_no_interval(alike: float) -> None:
    assert sequential.interval([alike] * 30) == (-math.inf, math.inf)
    assert sequential.settled_after([alike] * 30) is None  # for accuracies are whole numbers of images
    assert sequential.p_value([alike] * 30) == 1
    # Nor do they afterwards, when others have shown how much pairs differ.
    found = [*[alike] * 10, 0.3, -0.2]
    low, high = sequential.interval(found)
    assert low < fmean(found) < high


def test_smaller_differences_take_more_pairs() -> None:
    needed = [sequential.pairs_to_settle(difference, 0.2) for difference in (1.0, 0.3, 0.1, 0.05)]
    assert None not in needed
    assert needed == sorted(needed, key=lambda one: one or 0)
    assert sequential.pairs_to_settle(0.0, 0.2, most=200) is None


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_fewer_pairs_than_the_fewest_settle_nothing_however_clear_they_are(level: float) -> None:
    fewest = sequential.fewest_pairs(level)
    clear = [1 + 1e-6 * (number % 2) for number in range(fewest)]
    assert sequential.settled_after(clear, level) == fewest


def test_many_nearly_equal_differences_overflow_nothing() -> None:
    found = [0.1 + 1e-6 * (number % 2) for number in range(400)]
    assert sequential.p_value(found) == pytest.approx(0, abs=1e-100)
    assert sequential.settled_after(found) == 5  # (1 + n) ** ((n - 1) / 2) first exceeds 20
