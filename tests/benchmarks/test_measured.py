from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import measured
from tests.benchmarks.facts import FACTS
from thirtytwo import Run
from thirtytwo import recipe as recipes


def entry(kind: str = "training", series: str = "a", n: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "recipe": "classic",
        "series": series,
        "device": "cpu",
        "machine": "8 × a processor",
        "n": n,
        "versions": {"torch": "2.11.0"},
        "commit": "1" * 40,
        "command": "python it.py",
        "date": "2026-01-01",
        **more,
    }


def run(path: Path, recipe: str = "classic", overrides: tuple[str, ...] = (), **changes: Any) -> Run:
    return Run.create(path, recipes.load(recipe, overrides), {**FACTS, **changes})


def pieces(path: Path) -> list[str]:
    """The text of each entry."""
    text = path.read_text(encoding="utf-8").removeprefix("[\n {\n").removesuffix("\n }\n]\n")
    return text.split("\n },\n {\n")


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "half"),
    [
        # Student's t with 1 and 3 degrees of freedom, two-sided 5%: 12.7062 and 3.18245, from printed tables.
        ([0.0, 2.0], 1.0, 1.4142136, 12.7062),
        ([1.0, 2.0, 3.0, 4.0], 2.5, 1.2909944, 3.18245 * 1.2909944 / 2),
    ],
)
def test_spread_is_the_sample_deviation_and_students_interval(
    values: list[float], mean: float, deviation: float, half: float
) -> None:
    found = measured.spread(values)
    assert (found["n"], found["values"]) == (len(values), values)
    assert found["mean"] == pytest.approx(mean)
    assert found["standard_deviation"] == pytest.approx(deviation, rel=1e-6, abs=1e-9)
    assert found["interval"] == pytest.approx([mean - half, mean + half], rel=1e-4)


def test_one_value_has_no_spread() -> None:
    found = measured.spread([0.5])
    assert (found["n"], found["mean"]) == (1, 0.5)
    assert found["standard_deviation"] is None
    assert found["interval"] is None


def test_values_that_are_all_alike_have_no_interval() -> None:
    found = measured.spread([0.9, 0.9, 0.9])
    assert (found["n"], found["mean"], found["standard_deviation"]) == (3, pytest.approx(0.9), 0)
    assert found["interval"] is None


def test_an_entry_added_leaves_the_others_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    measured.add(entry(series="a", seconds=[0.1 + 0.2, 1e-300, 1e22, None]), path)
    measured.add(entry(series="b", kind="race", command="zwölf"), path)
    before = path.read_bytes()
    measured.add(entry(series="c"), path)
    assert path.read_bytes().startswith(before.removesuffix(b"\n]\n") + b",\n {")
    assert [old["series"] for old in json.loads(path.read_text())] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_series_that_has_grown_takes_its_own_place_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    for kind in ("training", "race"):
        for series in ("a", "b"):
            measured.add(entry(kind, series), path)
    _, training_b, race_a, race_b = pieces(path)
    measured.add(entry("training", "a", n=2), path)
    assert pieces(path)[:3] == [training_b, race_a, race_b]
    newest = json.loads(path.read_text())[3:]
    assert [(new["kind"], new["series"], new["n"]) for new in newest] == [("training", "a", 2)]


def test_the_same_entry_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    for series in ("a", "b", "a"):
        measured.add(entry(series=series), path)
    assert [old["series"] for old in json.loads(path.read_text())] == ["a", "b"]


def test_what_was_recorded_cannot_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    measured.add(entry(n=3), path)
    before = path.read_bytes()
    with pytest.raises(measured.Refused, match="not thrown away"):
        measured.add(entry(n=2), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", measured.REQUIRED)
def test_an_entry_says_where_it_comes_from(tmp_path: Path, key: str) -> None:
    path = tmp_path / "measured.json"
    with pytest.raises(measured.Refused, match=f"without {key};"):
        measured.add({name: value for name, value in entry().items() if name != key}, path)
    assert not path.exists()


def test_conditions_are_what_the_runs_recorded_not_what_holds_now(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "late", date="2026-01-02T09:00:00+00:00", seed=0),
        run(tmp_path / "early", date="2026-01-01T23:59:59+00:00", seed=1),
    ]
    found = measured.common(runs)
    assert found == {**{key: FACTS[key] for key in measured.CONDITIONS}, "date": "2026-01-02"}


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("commit", "2" * 40),
        ("commit", "1" * 40 + "+"),
        ("machine", "another"),
        ("device", "cuda"),
        ("threads", 1),
        ("versions", {"python": "3.11.7", "torch": "2.12.0"}),
        ("data", {"fingerprint": "e" * 64}),
    ],
)
def test_a_mix_of_conditions_is_refused(tmp_path: Path, key: str, other: Any) -> None:
    runs = [run(tmp_path / "0"), run(tmp_path / "1"), run(tmp_path / "2", **{key: other})]
    with pytest.raises(measured.Refused, match=rf"2: {key} is "):
        measured.common(runs)


def test_a_mix_of_recipes_is_refused(tmp_path: Path) -> None:
    runs = [run(tmp_path / "0"), run(tmp_path / "1", overrides=("optimizer.learning_rate=0.001",))]
    with pytest.raises(measured.Refused, match="recipe is "):
        measured.common(runs)


@pytest.mark.parametrize("told", ["seeds", "pairs"])
def test_no_result_is_replaced_by_one_of_another_seed(tmp_path: Path, told: str) -> None:
    def of(*seeds: int) -> dict[str, Any]:
        results: Any = list(seeds) if told == "seeds" else [{"seed": seed} for seed in seeds]
        return {**entry(n=len(seeds)), told: results}

    path = tmp_path / "measured.json"
    measured.add(of(0, 1), path)
    before = path.read_bytes()
    for others in ((0, 2), (2, 3, 4), (0,)):
        with pytest.raises(measured.Refused, match="what was measured is not thrown away"):
            measured.add(of(*others), path)
    assert path.read_bytes() == before
    measured.add(of(0, 1, 2), path)
    assert json.loads(path.read_bytes())[0]["n"] == 3
