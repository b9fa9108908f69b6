from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import classic_vs_keras as race
import measured
import runs
import series
from series import Series
from tests.benchmarks.facts import FACTS
from thirtytwo import Run
from thirtytwo import recipe as recipes
from thirtytwo.run import Row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series in which nothing has run yet."""
    made = series.begin(
        Series(
            commit=FACTS["commit"],
            sources=FACTS["commit"],
            recipe="0" * 16,
            data=FACTS["data"]["fingerprint"],
            machine=FACTS["machine"],
            device=FACTS["device"],
            device_name=FACTS["device_name"],
            threads=FACTS["threads"],
            versions=FACTS["versions"],
            rival=race.TENSORFLOW,
        ),
        tmp_path,
    )
    series.note(made, "python benchmarks/classic_vs_keras.py --pairs 2")
    return made


LEARNED: Row = {"train_loss": 1.0, "train_accuracy": 0.5, "validation_loss": 1.0}


def ours(folder: Path, seed: int, accuracies: Sequence[float], *, scored: bool = True, **changes: Any) -> Run:
    """A training whose epochs took ten seconds each."""
    run = Run.create(folder / f"classic-{seed}", recipes.load("classic"), {**FACTS, "seed": seed, **changes})
    rows: list[Row] = [
        {"epoch": number, "validation_accuracy": accuracy, "seconds": 10.0 * number, **LEARNED}
        for number, accuracy in enumerate(accuracies, start=1)
    ]
    run.metrics = rows
    if scored:
        run.result = {
            "data": "cifar10",
            "epochs": len(rows),
            "train_seconds": 9.0 * len(rows),
            "cold_seconds": 11.0 * len(rows),
            "flops": 1e12,
            "parameters": 1000,
            "peak_memory_bytes": 10**9 + seed,
            "test": {"accuracy": accuracies[-1] - 0.01, "ece": 0.01},
        }
    return run


def keras(folder: Path, seed: int, accuracy: float, seconds: float = 100.0, version: str = "3.14.0") -> None:
    facts = {"seconds": seconds, "validation_accuracy": accuracy, "versions": {"keras": version}}
    series.write(folder / f"keras-{seed}.json", facts)


def recorded(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["kind"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def test_our_clock_stops_at_the_first_epoch_that_is_as_good(folder: Path) -> None:
    run = ours(folder, 0, [0.5, 0.7612, 0.7, 0.9])
    assert race.seconds_to_reach(run, 3806 / 5000) == 20.0  # a tie is good enough
    assert race.seconds_to_reach(run, 3807 / 5000) == 40.0
    assert race.seconds_to_reach(run, 0.91) is None


def test_a_won_race_gives_its_ratio(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    for seed, seconds in ((0, 100.0), (1, 200.0)):
        keras(folder, seed, 0.75, seconds)
        ours(folder, seed, [0.5, 0.8, 0.9])
    race.record(folder, path)
    training, contest = recorded(path)["training"], recorded(path)["race"]
    assert contest["ratio"]["values"] == [0.2, 0.1]
    assert contest["ratio"]["n"] == contest["n"] == 2
    assert contest["lost_seeds"] == []
    assert [pair["first"] for pair in contest["pairs"]] == ["keras", "classic"]
    assert contest["versions"] == {**FACTS["versions"], "keras": "3.14.0"}
    assert training["accuracy"]["values"] == pytest.approx([0.89, 0.89])
    assert training["train_seconds"]["mean"] == 27.0
    assert training["peak_memory_bytes"] == 10**9 + 1
    for entry in (training, contest):
        assert entry["commit"] == FACTS["commit"]
        assert entry["machine"] == "one"
        assert entry["date"] == "2026-01-01"
        assert entry["command"] == "python benchmarks/classic_vs_keras.py --pairs 2"


def test_a_lost_pair_stays_in_the_record(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    keras(folder, 0, 0.75)
    ours(folder, 0, [0.5, 0.74, 0.73])
    race.record(folder, path)
    keras(folder, 1, 0.75)
    ours(folder, 1, [0.5, 0.8, 0.9])
    race.record(folder, path)
    contest = recorded(path)["race"]
    assert contest["lost_seeds"] == [0]
    assert contest["pairs"][0]["seconds"] is None
    assert contest["pairs"][0]["best_validation_accuracy"] == 0.74
    assert contest["ratio"] is None
    assert recorded(path)["training"]["accuracy"]["values"] == pytest.approx([0.72, 0.89])


def test_a_lost_pair_that_was_taken_out_of_the_folder_is_missed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    for seed, accuracies in ((0, [0.5, 0.6]), (1, [0.5, 0.8])):
        keras(folder, seed, 0.75)
        ours(folder, seed, accuracies)
    race.record(folder, path)
    before = path.read_bytes()
    (folder / "classic-0").rename(tmp_path / "aside")
    with pytest.raises(measured.Refused, match="not thrown away"):
        race.record(folder, path)
    assert path.read_bytes() == before


def test_a_training_is_recorded_before_its_rival_has_run(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    race.record(folder, path)
    assert not path.exists()
    ours(folder, 1, [0.5, 0.8])
    race.record(folder, path)
    assert list(recorded(path)) == ["training"]


def test_a_training_that_never_ended_is_not_hushed_up(folder: Path) -> None:
    keras(folder, 0, 0.75)
    ours(folder, 0, [0.5], scored=False)
    assert race.entries(folder) == {}
    keras(folder, 1, 0.75)
    ours(folder, 1, [0.5, 0.8])
    found = race.entries(folder)
    assert (found["training"]["seeds"], found["training"]["unfinished_seeds"]) == ([1], [0])
    assert [pair["seed"] for pair in found["race"]["pairs"]] == [1]


def test_seeds_are_in_the_order_of_numbers(folder: Path) -> None:
    for seed in (10, 9, 2):
        keras(folder, seed, 0.75)
        ours(folder, seed, [0.8])
    found = race.entries(folder)
    assert found["training"]["seeds"] == [2, 9, 10]
    assert [pair["seed"] for pair in found["race"]["pairs"]] == [2, 9, 10]


@pytest.mark.parametrize(
    ("key", "other"), [("commit", "2" * 40), ("machine", "another"), ("versions", {"torch": "2.12.0"}), ("threads", 1)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_made_elsewhere_is_refused(folder: Path, key: str, other: Any, seed: int) -> None:
    for each in (0, 1):
        ours(folder, each, [0.8], **({key: other} if each == seed else {}))
    with pytest.raises(measured.Refused, match=rf"classic-{seed}: {key} is "):
        race.entries(folder)


def test_a_mix_of_rivals_is_refused(folder: Path) -> None:
    for seed, version in ((0, "3.14.0"), (1, "3.15.0")):
        ours(folder, seed, [0.8])
        keras(folder, seed, 0.75, version=version)
    with pytest.raises(measured.Refused, match=r"3\.15\.0"):
        race.entries(folder)


def test_a_folder_whose_making_was_killed_is_removed_and_a_training_is_not(folder: Path) -> None:
    begun = ours(folder, 0, [], scored=False)
    killed = folder / "classic-1"
    killed.mkdir()
    (killed / ".lock").touch()
    assert runs.is_begun(begun.path)
    assert not runs.is_begun(killed)
    assert not runs.is_begun(folder / "classic-2")
    assert begun.path.exists()
    assert not killed.exists()


def test_each_side_goes_first_in_every_other_pair() -> None:
    assert [race.order(seed)[0] for seed in range(4)] == ["keras", "classic", "keras", "classic"]
    assert all(sorted(race.order(seed)) == ["classic", "keras"] for seed in range(4))


@pytest.mark.parametrize(
    ("words", "given", "spec", "expected"),
    [
        ([], None, "/data/cifar", ""),
        (["--pairs", "5"], None, "cifar10", " --pairs 5"),
        (["--data", "../cifar", "--dirty"], "../cifar", "/data/cifar", " --data cifar10 --dirty"),
        (["--data=/data/cifar"], "/data/cifar", "/data/cifar", " --data=cifar10"),
        (["--data", "shapes:seed=1"], "shapes:seed=1", "shapes:seed=1", " --data shapes:seed=1"),
    ],
)
def test_the_command_is_recorded_as_it_was_typed(words: list[str], given: str | None, spec: str, expected: str) -> None:
    assert (
        runs.typed("classic_vs_keras.py", words, given, spec, "cifar10")
        == f"python benchmarks/classic_vs_keras.py{expected}"
    )
