"""A series that one process trains: nothing is trained twice, everything is scored, and one run alone was cold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runs
from measured import REPOSITORY
from thirtytwo import Run

SPEC = "shapes:training=60,test=20"


@pytest.mark.slow
def test_one_process_trains_and_scores_what_is_missing(tmp_path: Path) -> None:
    jobs = [(tmp_path, "classic", seed) for seed in (0, 1)]

    def train() -> int:
        with (tmp_path / "lock").open("w") as lock:
            ended = runs.train_together(jobs, sources=REPOSITORY, spec=SPEC, device="cpu", lock=lock.fileno())
            return sum(1 for _ in ended)

    assert train() == 2
    results = [Run(tmp_path / f"classic-{seed}").result for seed in (0, 1)]
    assert [result["seed"] for result in results] == [0, 1]
    assert all(result["test"]["images"] == 20 for result in results)
    assert ["cold_seconds" in result for result in results] == [True, False]
    assert train() == 0
    # One that was stopped before it was scored goes on.
    stored = tmp_path / "classic-1" / "result.json"
    stored.write_text(json.dumps({key: value for key, value in results[1].items() if key != "test"}))
    assert train() == 1
    assert Run(tmp_path / "classic-1").result["test"]["accuracy"] == results[1]["test"]["accuracy"]
    assert runs.Runs.within(tmp_path, "classic").scored.keys() == {0, 1}
