"""Benchmarks that end in a comparison: real trainings on drawn shapes, what is recorded of them, what pages tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docs import measurements

import comparison
import distilling
import measured
import series
import tuning
from comparison import DATA, PAIRS
from measured import REPOSITORY
from thirtytwo import Run, environment, planner
from thirtytwo import recipe as recipes

Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Measure with this checkout as it is; returns the entry."""
    path, commit = tmp_path / "measured.json", environment.commit()
    monkeypatch.setattr(series, "WORK", tmp_path / "work")
    monkeypatch.setattr(series, "commit_to_measure", lambda *_: commit)
    monkeypatch.setattr(series, "clone", lambda *_: REPOSITORY)
    add = measured.add
    monkeypatch.setattr(measured, "add", lambda entry: add(entry, path))

    def measured_now(program: Any, *words: str) -> dict[str, Any]:
        script = Path(program.__file__).name
        monkeypatch.setattr("sys.argv", [script, *words, "--device", "cpu"])
        assert program.main() == 0
        assert json.loads(capsys.readouterr().out)
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        monkeypatch.setattr(planner, "measured", lambda: tuple(entries))
        return entries[-1]

    return measured_now


def test_a_comparison_is_recorded_with_all_that_it_stands_on(measure: Measure) -> None:
    """And once recorded it is found again, not trained."""
    words = ["docs/improving/plain.toml", "docs/improving/plain.toml loss.label_smoothing=0.1"]
    words += ["--data", "shapes:training=60,test=20", "--set", "epochs=1", "--runs", "2", "--first-seed", "4"]
    entry = measure(comparison, *words)
    assert (entry["kind"], entry["a"], entry["b"], entry["set"]) == ("difference", words[0], words[1], ["epochs=1"])
    assert (entry["n"], entry["seeds"], entry["diverged_seeds"]) == (2, [4, 5], {"A": [], "B": []})
    assert (entry["training_images"], entry["validation_images"]) == (30, 30)
    differences = [two - one for one, two in zip(entry["first"]["values"], entry["second"]["values"], strict=True)]
    assert entry["values"] == pytest.approx(differences)
    assert entry["difference"] == pytest.approx(sum(differences) / 2)
    assert "python benchmarks/comparison.py docs/improving/plain.toml" in entry["command"]
    trained = {path: path.stat().st_mtime_ns for path in series.WORK.rglob("result.json")}
    assert len(trained) == 4
    assert measure(comparison, *words) == entry
    assert {path: path.stat().st_mtime_ns for path in series.WORK.rglob("result.json")} == trained
    told = measurements.difference_sentence()
    assert f"A {measurements.percent(entry['first']['mean'])}" in told
    assert "after n = 2 pairs" in told
    assert entry["commit"][:12] in told


def test_what_a_search_has_found_is_judged_on_other_images_and_with_other_seeds(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["classic", "--trials", "3", "--set", "epochs=1", "--set", "validation=0.5", "--runs", "1"]
    words += ["--search-data", "shapes:training=60,test=20", "--data", "shapes:training=80,test=20,seed=7"]
    words += ["--hold-out", "0.75"]
    entry = measure(tuning, *words)
    assert (entry["kind"], entry["recipe"], entry["trials"]) == ("tuning", "classic", 3)
    assert sum(entry["states"].values()) == 3
    assert (entry["training_images"], entry["validation_images"]) == (20, 60)  # of those that the search has not seen
    assert entry["seeds"] == [1]
    assert entry["own"]["number"] == 0
    assert entry["own"]["values"].keys() == entry["best"]["values"].keys() == recipes.load("classic").search.keys()
    assert entry["best"]["accuracy"] >= entry["own"]["accuracy"]
    assert len(entry["first"]["values"]) == len(entry["second"]["values"]) == entry["n"] == 1
    entry["best"] = {**entry["best"], "number": 1}
    monkeypatch.setattr(planner, "measured", lambda: (entry,))
    rows = measurements.tuning_table().splitlines()
    assert "3 trials of `classic`" in rows[0]
    assert "neither is shown to be better" in rows[0]
    assert len(rows) == 6 + len(entry["own"]["values"])
    entry["best"] = entry["own"]
    assert "found nothing better than the recipe's own settings" in measurements.tuning_table()


def test_a_network_is_taught_by_others_and_compared_with_itself_untaught(measure: Measure) -> None:
    """And once recorded, nothing of it is trained again."""
    words = ["docs/improving/plain.toml", "--networks", "2", "--data", "shapes:training=60,test=20", "--runs", "1"]
    words += ["--set", "epochs=1", "--hold-out", "0.7"]
    entry = measure(distilling, *words)
    assert (entry["kind"], entry["n"], entry["seeds"]) == ("distillation", 1, [0])
    assert (entry["training_images"], entry["validation_images"]) == (20, 40)
    assert entry["networks"] == len(entry["network_accuracies"]) in (1, 2)  # those that count in the ensemble
    recipes_trained = [Run(path.parent).recipe for path in series.WORK.rglob("study/*/*/result.json")]
    assert sorted(bool(recipe.teacher.model) for recipe in recipes_trained) == [False, True]
    trained = {path: path.stat().st_mtime_ns for path in series.WORK.rglob("result.json")}
    assert measure(distilling, *words) == entry
    assert {path: path.stat().st_mtime_ns for path in series.WORK.rglob("result.json")} == trained
    told = measurements.distillation_sentence()
    assert f"taught by {entry['networks']} of them" in told
    assert measurements.percent(entry["teacher_accuracy"]) in told
    assert "neither is shown to be better" in told


def test_what_was_not_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measured", lambda: ())
    assert "not yet measured" in measurements.difference_sentence()
    assert "not yet measured" in measurements.tuning_table()
    assert "not been measured yet" in measurements.distillation_sentence()


def test_the_images_of_a_search_are_not_those_that_judge_it() -> None:
    images = tuning.SEARCH_DATA.removeprefix("cifar10:training=")
    assert tuning.DATA.endswith(f",skip={images}")
    assert (DATA, PAIRS) == (tuning.SEARCH_DATA, 20)


def test_a_better_one_is_named(measure: Measure) -> None:
    spread = {"mean": 0.5, "standard_deviation": None, "n": 1, "interval": None, "values": [0.5]}
    entry = {"first": spread, "second": spread, "validation_images": 9, "training_images": 9, "difference": 0.02}
    entry |= {"interval": [0.01, 0.03], "p_value": 0.001, "n": 6, "better": "B"}
    assert "**+2.00** points (+1.00 to +3.00), p = 0.001, after n = 6 pairs: found is better" in measurements.judged(
        entry, "own", "found"
    )
    entry["diverged_seeds"] = {"A": [], "B": [3, 5]}
    assert measurements.judged(entry, "own", "found").endswith(
        "found is better; without seeds 3, 5, where found diverged"
    )
