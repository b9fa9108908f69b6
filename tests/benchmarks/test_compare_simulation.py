"""The simulation shows what `compare` promises, and what an ordinary test does when it is looked at too often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docs import measurements

import compare_simulation
import measured
import series
from thirtytwo import planner

STUDIES = 400


@pytest.fixture(scope="module")
def found() -> dict[float, dict[str, float]]:
    return {one: compare_simulation.simulate(one, 0.002, pairs=20, studies=STUDIES) for one in (0.0, 0.001, 0.003)}


def test_a_difference_that_is_not_there_is_seldom_found_however_often_one_looks(
    found: dict[float, dict[str, float]],
) -> None:
    assert found[0.0]["found"] <= 0.05
    assert found[0.0]["found_by_an_ordinary_test"] > 0.1


def test_larger_differences_are_found_more_often_and_sooner(found: dict[float, dict[str, float]]) -> None:
    rates, pairs = ([found[one][key] for one in sorted(found)] for key in ("found", "pairs"))
    assert rates == sorted(rates)
    assert rates[-1] > 0.9
    assert pairs == sorted(pairs, reverse=True)


def test_the_same_seed_draws_the_same_studies() -> None:
    once, again = (compare_simulation.simulate(0.001, 0.002, pairs=10, studies=50) for _ in range(2))
    assert once == again


SERIES = {"a": [0.898, 0.902], "b": [0.9]}


def test_a_simulation_says_how_many_runs_its_spread_stands_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = []
    trainings = [{"series": name, "accuracy": {"values": values}} for name, values in SERIES.items()]
    monkeypatch.setattr(planner, "every", lambda *_: trainings)
    monkeypatch.setattr(measured, "add", entries.append)
    monkeypatch.setattr(series, "WORK", tmp_path)  # a benchmark may be running
    monkeypatch.setattr("sys.argv", ["compare_simulation.py", "--pairs", "3", "--studies", "5"])
    assert compare_simulation.main() == 0
    (entry,) = entries
    assert entry["spread_n"] == 3
    monkeypatch.setattr(planner, "measured", lambda: (entry | {"commit": "0123456789abcdef"},))
    deviation = "differences within pairs have a standard deviation of 0.28 points"
    assert f"`fast94` was measured to have (n = 3): {deviation}" in measurements.simulation_table()
    del entry["spread_n"]  # as older entries are
    assert f"`fast94` was measured to have: {deviation}" in measurements.simulation_table()
