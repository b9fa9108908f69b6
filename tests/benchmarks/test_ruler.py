from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import airbench_original
import ruler
import series
from measured import Refused
from series import Series
from tests.benchmarks.facts import FACTS

STAND_IN = """
import sys
with open(sys.argv[0]) as f:
    code = f.read()
import torch
import torchvision.transforms as T
from torch import nn

class CifarNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 10).half()

def print_training_details(variables, is_final_entry):
    raise AssertionError("is replaced")

def main(run, model):
    model = model.cuda()
    starter, ender = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    data = torch.load("cifar10/train.pt", map_location=torch.device("cuda"))
    images = T.Normalize(torch.tensor([0.5] * 3), torch.tensor([0.25] * 3))(
        (data["images"].half() / 255).permute(0, 3, 1, 2))
    time_seconds = 0.0
    for epoch in (0, 1, "eval"):
        starter.record()
        scores = model.dense(images.mean((2, 3)))
        ender.record()
        torch.cuda.synchronize()
        time_seconds += 1e-3 * starter.elapsed_time(ender)
        print_training_details(locals(), is_final_entry=epoch == "eval")
    assert code.strip().endswith("raise SystemExit")
    assert scores.dtype == images.dtype
    return float(images.mean())

if __name__ == "__main__":
    raise SystemExit
"""


@pytest.mark.parametrize("half", [False, True])
def test_a_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path, half: bool) -> None:
    script, images = tmp_path / "script.py", tmp_path / "images.npz"
    script.write_text(STAND_IN, encoding="utf-8")
    white = np.full((4, 32, 32, 3), 255, np.uint8)
    np.savez(images, x_train=white, y_train=np.arange(4), x_test=white, y_test=np.arange(4))
    words = [sys.executable, airbench_original.__file__, str(script), str(images), "0", *(["--half"] if half else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    result = json.loads(done.stdout)
    assert result["accuracy"] == 2.0  # (1 - 0.5) / 0.25: the arrays arrived, standardised
    assert 0 < result["seconds"] < result["seconds_with_views"]
    assert result["precision"] == ("bfloat16" if half else "float32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npz", "script.py"]


def run(seconds: float, precision: str = "float32") -> dict[str, Any]:
    return {"seconds": seconds, "accuracy": 0.9, "precision": precision, "date": "2026-01-01"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {key: FACTS[key] for key in ("commit", "machine", "device", "device_name", "threads", "versions")}
    rival = "airbench94_muon.py 0123456789abcdef, 4000 images"
    made = series.begin(Series(**facts, sources=FACTS["commit"], recipe="r", data="d", rival=rival), tmp_path)
    series.note(made, "python benchmarks/ruler.py")
    return made


def test_the_ratio_is_ours_over_the_original_pair_by_pair(folder: Path) -> None:
    assert ruler.entry(folder, 4000) is None
    for seed, (ours, original) in enumerate([(9.0, 10.0), (12.0, 10.0)]):
        series.write(folder / f"ours-{seed}.json", run(ours))
        series.write(folder / f"original-{seed}.json", run(original))
    series.write(folder / "original-2.json", run(10.0))  # its rival has not run yet
    found = ruler.entry(folder, 4000)
    assert found is not None
    assert found["ratio"]["values"] == [0.9, 1.2]
    assert found["n"] == 2
    assert [pair["first"] for pair in found["pairs"]] == ["original", "ours"]
    assert found["against"] == "airbench94_muon.py (0123456789abcdef, 4000 images)"
    assert found["commit"] == FACTS["commit"]


def test_runs_of_different_precision_are_not_compared(folder: Path) -> None:
    series.write(folder / "ours-0.json", run(9.0))
    series.write(folder / "original-0.json", run(9.0, "bfloat16"))
    with pytest.raises(Refused, match="bfloat16 and float32"):
        ruler.entry(folder, 4000)
