from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.early_stopping import improvements, is_over, kept_epoch
from thirtytwo.settings import EarlyStopping

LOSSES = st.lists(st.floats(0, 5) | st.sampled_from([1.0, 1.05, 1.1, math.nan]), min_size=1, max_size=30)


@given(losses=LOSSES)
def test_the_first_of_the_lowest_losses_is_kept(losses: list[float]) -> None:
    finite = [loss for loss in losses if not math.isnan(loss)]
    expected = (
        losses.index(min(finite)) + 1 if finite else len(losses)
    )  # nothing better: left as the last epoch made it
    assert kept_epoch(losses, EarlyStopping()) == expected


@given(losses=LOSSES, minimum=st.sampled_from([0.0, 0.1]))
def test_each_improvement_is_lower_by_more_than_the_minimum(losses: list[float], minimum: float) -> None:
    numbers = improvements(losses, EarlyStopping(minimum_improvement=minimum))
    improved = [losses[number - 1] for number in numbers]
    assert all(later < earlier - minimum for earlier, later in itertools.pairwise(improved))
    for number, loss in enumerate(losses, start=1):
        if number not in numbers:
            best = min((losses[n - 1] for n in numbers if n < number), default=math.inf)
            assert not loss < best - minimum


@given(losses=LOSSES, patience=st.integers(1, 5))
def test_it_is_over_at_the_first_wait_of_patience_epochs_and_not_before(losses: list[float], patience: int) -> None:
    settings = EarlyStopping(patience=patience)
    waited = 0
    for number in range(1, len(losses) + 1):
        so_far = losses[:number]
        waited = 0 if improvements(so_far, settings)[-1:] == [number] else waited + 1
        assert is_over(so_far, settings) == (waited >= patience)


@given(losses=st.lists(st.none() | st.floats(0, 5), max_size=30), patience=st.integers(0, 5))
def test_without_a_look_nothing_improves_and_nothing_is_over(losses: list[float | None], patience: int) -> None:
    settings = EarlyStopping(patience=patience)
    assert all(losses[number - 1] is not None for number in improvements(losses, settings))
    assert not is_over([*losses, None], settings)


def test_one_bad_look_ends_nothing_where_looks_are_rarer_than_patience() -> None:
    settings = EarlyStopping(patience=3)
    looks: list[float | None] = [1.0, None, None, None, 1.1]
    assert not is_over(looks, settings)
    assert not is_over([*looks, None, None, None], settings)
    assert is_over([*looks, None, None, None, 1.2], settings)
    assert not is_over([*looks, None, None, None, 0.9], settings)


@given(epochs=st.integers(0, 30), patience=st.integers(0, 3))
def test_without_validation_the_last_weights_are_kept_and_it_is_never_over(epochs: int, patience: int) -> None:
    settings = EarlyStopping(patience=patience)
    assert kept_epoch([None] * epochs, settings) == epochs
    assert not is_over([None] * epochs, settings)
    assert kept_epoch([1.0, 2.0], EarlyStopping(patience=0)) == 2
    assert not is_over([1.0] + [2.0] * epochs, EarlyStopping(patience=0))
