from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import measured
import series
import time_to_accuracy
from measured import Refused
from series import Series
from tests.benchmarks.facts import FACTS
from thirtytwo import Run
from thirtytwo import recipe as recipes


def begin(work: Path, recipe: str) -> Path:
    """A recipe's series in which nothing has run yet."""
    facts = {key: FACTS[key] for key in ("commit", "machine", "device", "device_name", "threads", "versions")}
    digest = measured.digest(recipes.load(recipe).to_toml())
    made = series.begin(
        Series(**facts, sources=FACTS["commit"], recipe=digest, data=FACTS["data"]["fingerprint"], rival=""), work
    )
    series.note(made, "python benchmarks/time_to_accuracy.py")
    return made


def ended(folder: Path, recipe: str, seed: int, seconds: float, accuracy: float = 0.9, **changes: Any) -> Run:
    run = Run.create(folder / f"{recipe}-{seed}", recipes.load(recipe), {**FACTS, "seed": seed, **changes})
    run.result = {
        "data": "cifar10",
        "epochs": 8,
        "train_seconds": seconds,
        "cold_seconds": seconds + 10,
        "scoring_seconds": 4.0,
        "flops": 1e12,
        "parameters": 1000,
        "peak_memory_bytes": 10**9,
        "test": {"accuracy": accuracy, "ece": 0.01},
    }
    return run


def recorded(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(entry["kind"], entry["recipe"]): entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def test_who_goes_first_alternates_and_alone_nobody_else_runs() -> None:
    assert [time_to_accuracy.order("a", "b", seed) for seed in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]
    assert time_to_accuracy.order("a", None, 1) == ["a"]


def test_scoring_counts_where_several_views_are_averaged(tmp_path: Path) -> None:
    assert time_to_accuracy.clock(ended(begin(tmp_path, "airbench94"), "airbench94", 0, 100.0)) == 104.0
    assert time_to_accuracy.clock(ended(begin(tmp_path, "classic"), "classic", 0, 100.0)) == 100.0


def test_every_run_of_both_is_recorded_and_pairs_give_the_ratio(tmp_path: Path) -> None:
    folders = {name: begin(tmp_path, name) for name in ("classic", "airbench94")}
    path = tmp_path / "measured.json"
    assert time_to_accuracy.record(folders, "classic", path) == {}
    learned = {"seconds": 52.0, "train_loss": 1.0, "train_accuracy": 0.7, "validation_loss": None}
    ended(folders["classic"], "classic", 0, 52.0).metrics = [{"epoch": 1, **learned, "validation_accuracy": 0.8}]
    time_to_accuracy.record(folders, "classic", path)
    assert recorded(path).keys() == {("training", "classic")}
    curve = {"seed": 0, **{key: [value] for key, value in learned.items()}, "validation_accuracy": [0.8]}
    assert recorded(path)["training", "classic"]["curve"] == curve
    ended(folders["classic"], "classic", 1, 26.0, accuracy=0.8)
    ended(folders["airbench94"], "airbench94", 0, 100.0)
    ended(folders["airbench94"], "airbench94", 1, 100.0)
    ended(folders["airbench94"], "airbench94", 2, 100.0)
    time_to_accuracy.record(folders, "classic", path)
    found = recorded(path)
    assert found["training", "classic"]["accuracy"]["values"] == [0.9, 0.8]
    assert found["training", "airbench94"]["n"] == 3
    assert found["comparison", "classic"]["ratio"]["values"] == [0.5, 0.25]
    assert found["comparison", "classic"]["against"] == "airbench94"
    assert [pair["seed"] for pair in found["comparison", "classic"]["pairs"]] == [0, 1]
    assert "takes 0.375" in time_to_accuracy.told(found["comparison", "classic"])
    assert "95% interval" in time_to_accuracy.told(found["training", "classic"])
    assert "training 100.0 ± 0.0, n = 3" in time_to_accuracy.told(found["training", "airbench94"])


def test_each_recipe_computes_in_its_own_precision(tmp_path: Path) -> None:
    folders = {name: begin(tmp_path, name) for name in ("classic", "airbench94")}
    ended(folders["classic"], "classic", 0, 50.0)
    ended(folders["airbench94"], "airbench94", 0, 100.0, precision="bfloat16")
    found = time_to_accuracy.comparison(folders["classic"], folders["airbench94"], "classic", "airbench94")
    assert found is not None
    assert (found["precision"], found["rival_precision"]) == ("float32", "bfloat16")


def test_recipes_that_ran_on_different_machines_are_not_compared(tmp_path: Path) -> None:
    folders = {name: begin(tmp_path, name) for name in ("classic", "airbench94")}
    ended(folders["classic"], "classic", 0, 52.0)
    ended(folders["airbench94"], "airbench94", 0, 100.0, threads=4)
    with pytest.raises(Refused, match="threads"):
        time_to_accuracy.comparison(folders["classic"], folders["airbench94"], "classic", "airbench94")
