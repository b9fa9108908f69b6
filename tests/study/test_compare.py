"""What pairs say together, to programs, on a screen and in a plot; of trainings whose accuracies are made up here."""

from __future__ import annotations

import itertools
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo import metrics, report
from thirtytwo.cli.show import Screen
from thirtytwo.errors import Diverged
from thirtytwo.report import figures, wording
from thirtytwo.run import Run
from thirtytwo.study import Comparison, Pair, Trial, Unpaired, sequential

NEAR = (0.002, 0.005, 0.003, 0.004, -0.001, 0.003)
"""Differences that leave open which recipe is better."""
CLEAR = (0.011, 0.009, 0.010, 0.012, 0.010, 0.011)
"""Differences that settle it."""
WORDS = ("classic", "classic model.dropout=0.4")
"""What A and B are."""


def trial(seed: int, accuracy: float, images: int = 5000) -> Trial:
    return Trial(seed, Run(Path("unseen")), accuracy, 0.2, 1.0, True, images, majority_baseline=0.1)


def pair(seed: int, difference: float) -> Pair:
    return Pair(trial(seed, 0.93), trial(seed, 0.93 + difference))


def pairs(differences: Sequence[float]) -> Comparison:
    return Comparison(tuple(pair(seed, difference) for seed, difference in enumerate(differences)))


def without(comparison: Comparison, *lost: Unpaired) -> Comparison:
    """The same pairs, and seeds that make none among them."""
    outcomes = list(comparison.outcomes)
    for place, one in enumerate(lost):
        outcomes.insert(1 + 2 * place, one)
    return replace(comparison, outcomes=tuple(outcomes))


def lost(seed: int, recipes: str) -> Unpaired:
    error = Diverged("the loss is nan")
    return Unpaired(seed, error if "A" in recipes else None, error if "B" in recipes else None)


def told(capsys: pytest.CaptureFixture[str], comparison: Comparison, difference: float | None = None) -> str:
    """What the screen says in the end."""
    Screen().comparison(comparison, Path("plot.svg"), difference)
    return capsys.readouterr().out


# Seeds that make no pair ---------------------------------------------------------------------------------------------


def test_seeds_that_diverge_change_nothing_about_the_pairs_and_are_told() -> None:
    whole = pairs(CLEAR)
    found = without(whole, lost(40, "B"), lost(41, "A"), lost(42, "AB"))
    assert found.pairs == whole.pairs
    assert found.diverged == ([41, 42], [40, 42])
    facts = found.to_json()
    assert facts == whole.to_json() | {"diverged_seeds": {"A": [41, 42], "B": [40, 42]}}
    assert facts["better"] == "B"
    assert facts["seeds"] == [0, 1, 2, 3, 4, 5]
    json.dumps(facts, allow_nan=False)


def test_who_diverged_stands_beside_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, without(pairs(CLEAR), lost(7, "B"), lost(9, "AB"))).splitlines()
    assert lines[0].startswith("B is better than A, where neither diverged: difference +1.05 points")
    assert lines[0].endswith("n = 6 pairs")
    assert lines[1].startswith("A diverged with 1 of 8 seeds (9); B diverged with 2 of 8 seeds (7, 9)")
    assert "diverged" not in told(capsys, pairs(CLEAR))


def test_what_became_of_each_seed_is_told_when_it_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    found = Comparison((pair(3, 0.01), lost(4, "AB")))
    Screen().outcome(Comparison(found.outcomes[:1]))
    Screen().outcome(found)
    assert capsys.readouterr().out.splitlines() == [
        "seed 3: A 93.00%, B 94.00%, difference +1.00 points",
        "seed 4: no pair, A diverged: the loss is nan",
        "seed 4: no pair, B diverged: the loss is nan",
    ]


def test_what_all_pairs_say_is_told_after_each(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 7):
        found = pairs(CLEAR[:number])
        Screen().outcome(found)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        low, high = found.interval
        assert math.isfinite(low) is (number >= 5)
        reach = f", 95% interval {100 * low:+.2f} to {100 * high:+.2f}" if math.isfinite(low) else ""
        mean = f"{100 * fmean(CLEAR[:number]):+.2f} points"
        assert lines[1:] == ([f"  so far: {mean}{reach}, p = {found.p_value:.3g}"] if number > 1 else [])


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [(True, True, ""), (False, False, " (trained before)"), (False, True, " (A trained before)")],
)
def test_what_was_trained_before_is_called_that(
    capsys: pytest.CaptureFixture[str], first: bool, second: bool, said: str
) -> None:
    both = Pair(replace(trial(0, 0.93), new=first), replace(trial(0, 0.94), new=second))
    Screen().outcome(Comparison((both,)))
    assert capsys.readouterr().out == f"seed 0: A 93.00%, B 94.00%, difference +1.00 points{said}\n"


def test_of_a_recipe_beside_itself_the_other_training_was_not_there_before(capsys: pytest.CaptureFixture[str]) -> None:
    one, found = trial(0, 0.93), replace(trial(0, 0.93), new=False)
    for both in (Pair(one, found), Pair(found, one)):
        Screen().outcome(Comparison((both,), is_same=True))
    assert "trained before" not in capsys.readouterr().out
    Screen().outcome(Comparison((Pair(found, found),), is_same=True))
    assert "points (trained before)" in capsys.readouterr().out


# How many more pairs -------------------------------------------------------------------------------------------------


def test_more_pairs_are_those_in_all_without_those_there_are() -> None:
    found = pairs(NEAR)
    for size in (0.001, 0.05):
        needed, pairs_in_all = found.needed(size), sequential.pairs_to_settle(size, stdev(found.differences))
        assert needed is not None
        assert pairs_in_all is not None
        assert (pairs_in_all > 6) is (size == 0.001)
        assert (needed.pairs, needed.more) == (pairs_in_all, max(pairs_in_all - 6, 0))


def test_too_many_pairs_are_told_apart_from_an_unknown_spread() -> None:
    needed = pairs(NEAR).needed(1e-6)
    assert needed is not None
    assert needed.pairs is needed.more is None
    for unknown in ([], [0.01], [0.01, 0.01, 0.01]):
        exact = Comparison(tuple(Pair(trial(seed, 0.5), trial(seed, 0.5 + one)) for seed, one in enumerate(unknown)))
        assert exact.needed(0.01) is None
    rounded = Comparison((Pair(trial(0, 0.93), trial(0, 0.94)), Pair(trial(1, 0.94), trial(1, 0.95))))
    assert len(set(rounded.differences)) == 2
    assert rounded.needed(0.01) is None


@pytest.mark.parametrize("number", range(2, 7))
def test_what_few_pairs_tell_is_called_rough(capsys: pytest.CaptureFixture[str], number: int) -> None:
    needed = pairs(NEAR[:number]).needed(0.001)
    assert needed is not None
    assert needed.is_rough is (number < 5)
    assert (f"a rough guess: {number} pairs" in told(capsys, pairs(NEAR[:number]))) is (number < 5)


def test_the_difference_that_is_asked_for_replaces_the_usual_ones(capsys: pytest.CaptureFixture[str]) -> None:
    found = pairs(NEAR)
    usual = told(capsys, found)
    assert [size in usual for size in ("0.1 points", "0.3 points", "1 point ")] == [True] * 3
    needed = found.needed(0.0012)
    assert needed is not None
    asked = told(capsys, found, 0.12)
    assert asked.count("a true difference of") == 1
    assert f"a true difference of 0.12 points would show after about {needed.more} more pairs\n" in asked
    assert list(found.to_json([0.0012])["pairs_needed"]) == ["0.0012"]
    wide = told(capsys, pairs([0.02, -0.03, 0.01]), 0.01)
    assert "a true difference of 0.01 points would take more than 10,000 pairs to show\n" in wide
    assert "a true difference of 5 points would probably have shown by now\n" in told(capsys, found, 5)
    # Who asks is answered, also where everything is settled.
    assert "a true difference of" not in told(capsys, pairs(CLEAR))
    assert "a true difference of 0.1 points" in told(capsys, pairs(CLEAR), 0.1)


def test_where_the_spread_is_unknown_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a single pair does not tell how many more" in told(capsys, pairs([0.01]))
    assert "3 pairs that all differ alike do not tell how many more" in told(capsys, pairs([0, 0, 0]))
    assert "None" not in told(capsys, pairs([0, 0, 0]), 0.3)


@pytest.mark.parametrize("alike", [0.0, 0.01])
def test_pairs_that_all_differ_alike_have_no_interval(capsys: pytest.CaptureFixture[str], alike: float) -> None:
    found = pairs([alike] * 8)
    assert found.to_json()["interval"] is None
    assert f"difference {wording.signed(100 * alike)} points, p = " in told(capsys, found)
    assert "no interval yet" in figures.comparison(found, WORDS).axes[1].get_title(loc="left")
    json.dumps(found.to_json(), allow_nan=False)


# The draw of images --------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_draw_of_images_is_never_larger_than_told(images: int, number: int, random: object) -> None:
    """Of made-up answers, whose disagreement is known here."""
    generator = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    right = generator.random((number, 2, images)) < generator.random((number, 2, 1))
    found = Comparison(
        tuple(Pair(*(trial(seed, float(one.mean()), images) for one in both)) for seed, both in enumerate(right))
    )
    gained = (right[:, 1].astype(float) - right[:, 0]).mean(0)  # of each image, over the seeds
    assert 1.96 * gained.std() / images**0.5 <= found.margin_of_images + 1e-4
    disagreement = (right[:, 0] != right[:, 1]).mean()
    assert 1.96 * (disagreement / images) ** 0.5 <= found.margin_of_images + 1e-4


def test_the_draw_of_images_is_told_for_the_most_disagreement_that_they_allow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Comparison((Pair(trial(0, 0.95, 400), trial(0, 0.91, 400)),))
    highest = metrics.wilson(0.14 * 400, 400)[1]
    assert found.margin_of_images == pytest.approx(1.96 * math.sqrt(highest / 400), rel=1e-4)
    assert Comparison((Pair(trial(0, 1.0, 15), trial(0, 1.0, 15)),)).margin_of_images > 0.2  # none was wrong so far
    facts = found.to_json()
    assert (facts["images"], facts["margin_of_images"]) == (400, found.margin_of_images)
    assert "the 400 validation images that all pairs share, which adds ± 4.13 points (95%) at most" in told(
        capsys, found
    )


# A recipe beside itself, and at the baseline ------------------------------------------------------------------------


def test_a_recipe_beside_itself_is_called_that_and_nothing_more_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Comparison((pair(0, 0.0),), is_same=True)
    for difference in (None, 0.1):
        assert told(capsys, found, difference).splitlines() == [
            "A and B are the same recipe: difference 0, p = 1, n = 1 pair",
            "Plot: plot.svg",
        ]
    facts = found.to_json()
    assert (facts["same_recipe"], facts["difference"], facts["p_value"], facts["margin_of_images"]) == (True, 0, 1, 0)
    json.dumps(facts, allow_nan=False)
    assert "(the same recipe); n = 1 pair" in figures.comparison(found, WORDS).axes[1].get_title(loc="left")
    assert pairs([0.0]).to_json()["same_recipe"] is False  # which made-up numbers cannot tell
    diverged = told(capsys, without(Comparison((pair(0, 0.0),), is_same=True), lost(1, "AB")))
    assert diverged.startswith("A and B are the same recipe: difference 0, p = 1, n = 1 pair\nA diverged with 1 of 2")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [(0.12, 0.93, "A is"), (0.93, 0.12, "B is"), (0.12, 0.04, "A and B are"), (0.93, 0.30, "")],
)
def test_who_is_no_better_than_the_baseline_is_told(
    capsys: pytest.CaptureFixture[str], first: float, second: float, said: str
) -> None:
    found = Comparison((Pair(trial(0, first, 100), trial(0, second, 100)),))  # the baseline is 10%
    warning = "no better than always naming the most frequent class, which would be right"
    assert (f"warning {said} {warning}" if said else "") in told(capsys, found)
    assert ("no better than" in told(capsys, found)) is bool(said)
    facts = found.to_json()
    assert facts["majority_baseline"] == 0.1
    assert facts["at_baseline"] == {"A": first < 0.2, "B": second < 0.2}


# The plot ------------------------------------------------------------------------------------------------------------


def lines(panel: int, comparison: Comparison) -> list[tuple[list[float], list[float], str]]:
    """Where the lines of a panel are, and their markers."""
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())), str(line.get_marker()))  # type: ignore[arg-type]
        for line in figures.comparison(comparison, WORDS).axes[panel].lines
    ]


@pytest.mark.parametrize("differences", [CLEAR, NEAR, NEAR[:2], NEAR[:1], (0, 0, 0, 0)])
def test_each_difference_is_a_dot_beside_zero(differences: Sequence[float]) -> None:
    found = pairs(differences)
    drawn = lines(1, found)
    assert [x for x, _, marker in drawn if marker == "o"] == [[100 * one for one in found.differences]]
    assert ([0, 0], [0, 1]) in [(x, y) for x, y, _ in drawn]
    reaches = [x for x, y, marker in drawn if marker == "None" and y[0] == y[1]]
    low, high = found.interval
    assert reaches == ([[100 * low, 100 * high]] if math.isfinite(low) else [])


def test_a_and_b_have_no_interval_of_their_own() -> None:
    found = pairs(CLEAR)
    assert found.first.interval is found.second.interval is None
    assert found.to_json()["first"]["interval"] is found.to_json()["second"]["interval"] is None
    drawn = lines(0, found)
    assert [x for x, _, marker in drawn if marker == "o"] == [list(found.first.values), list(found.second.values)]
    joined = [(x, y) for x, y, marker in drawn if marker == "None"]
    assert joined == [([one.first.accuracy, one.second.accuracy], [1, 0]) for one in found.pairs]
    assert [x for x, _, marker in drawn if marker == "|"] == [[found.first.mean], [found.second.mean]]


def test_the_plot_says_what_a_and_b_are_and_in_what_unit_they_differ() -> None:
    upper, lower = figures.comparison(pairs(NEAR), WORDS).axes
    assert upper.get_title(loc="left").splitlines()[:2] == ["A: classic", "B: classic model.dropout=0.4"]
    assert "percentage points" in lower.get_xlabel()
    long = f"classic {' '.join(f'model.stages=[[{number}]]' for number in range(20))}"
    wrapped = figures.comparison(pairs(NEAR), (long, "b")).axes[0].get_title(loc="left").splitlines()
    assert " ".join(line.strip() for line in wrapped[:-2]) == f"A: {long}"
    assert max(map(len, wrapped)) <= 80


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    ElementTree.parse(report.write_comparison(tmp_path, pairs(NEAR), (r"$\frac$.toml", "$_$"), "figure"))


@pytest.mark.parametrize("differences", [NEAR, NEAR[:1]])
def test_no_line_that_joins_a_pair_crosses_the_number_of_a_mean(differences: Sequence[float]) -> None:
    upper = figures.comparison(pairs(differences), WORDS).axes[0]
    below, above = sorted(text.get_position()[1] for text in upper.texts)
    assert below < 0
    assert above > 1  # lines go from 0 to 1
    assert upper.get_ylim()[0] < below
    assert above < upper.get_ylim()[1]


def test_the_plot_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = without(pairs(CLEAR), lost(7, "B"))
    path = report.write_comparison(tmp_path, found, WORDS, "against-classic-0123456789")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "against-classic-0123456789.png",
        "against-classic-0123456789.svg",
    ]
    ElementTree.parse(path)
    title = figures.comparison(found, WORDS).axes[1].get_title(loc="left")
    assert title.startswith(f"B − A: +{100 * fmean(CLEAR):.2f} points (95% interval +")
    assert title.endswith("n = 6 pairs\nB diverged with 1 of 7 seeds (7), not drawn")


@given(st.lists(st.integers(0, 20).map(float), min_size=1), st.floats(0.5, 5))
def test_no_dot_covers_another_one(places: list[float], width: float) -> None:
    levels = figures._stacked(places, width)
    for level in range(max(levels) + 1):
        row = sorted(place for place, found in zip(places, levels, strict=True) if found == level)
        assert row
        assert all(other - one >= width * (1 - 1e-9) for one, other in itertools.pairwise(row))
