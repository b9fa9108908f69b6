"""Races `classic` against the usual Keras notebook, on the same 45,000 training and 5,000 validation images.

    python benchmarks/classic_vs_keras.py [--data SPEC] [--pairs 3] [--first-seed 0]

Pairs are interleaved: Keras, then ours, and again. Keras's clock runs from the first to the last line of `fit`, so to
its early stop. Ours stops at the end of the first epoch whose validation accuracy is at least what Keras's restored
weights have, validation and checkpoints included. Our training then goes on to its end and is scored once on the test
set, so that the same runs also give the accuracy of the recipe. Every pair is kept; results are appended to
measured.json.

Each rival run is kept in benchmarks/.work, so a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import measured
import numpy as np

from thirtytwo import Run, evaluate_run, report, resume, train
from thirtytwo.data import find
from thirtytwo.train import Training

WORK = Path(__file__).parent / ".work"
TENSORFLOW = "tensorflow-cpu==2.21.0"


def rival_python() -> Path:
    """An environment of its own for TensorFlow, which the product does not depend on."""
    folder = WORK / "keras"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", TENSORFLOW], check=True)
        (folder / "ready").touch()
    return python


def store_images(spec: str | None, validation: float) -> Path:
    """The two parts that our training uses, as arrays for the rival."""
    images = find(spec).read("training")
    kept, held_out = images.split(validation)
    path = WORK / f"{images.fingerprint[:12]}.npz"
    if not path.exists():
        np.savez(
            path,
            x_train=images.pixels[kept],
            y_train=images.labels[kept],
            x_validation=images.pixels[held_out],
            y_validation=images.labels[held_out],
        )
    return path


def run_rival(images: Path, seed: int) -> dict[str, Any]:
    """One training of the Keras notebook."""
    stored = WORK / f"keras-{seed}.json"
    if not stored.exists():
        script = Path(__file__).parent / "keras_notebook.py"
        done = subprocess.run(
            [rival_python(), script, images, str(seed)], check=True, stdout=subprocess.PIPE, text=True
        )
        stored.write_text(done.stdout.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(stored.read_text())
    return result


def run_ours(spec: str | None, seed: int) -> tuple[Run, dict[str, Any]]:
    """One training of `classic`, to its end, scored once on the test set."""
    out = WORK / f"classic-{seed}"
    training: Training = resume(out, spec) if out.exists() else train("classic", spec, seed=seed, out=out, device="cpu")
    classifier = training.finish()
    result = evaluate_run(training.run, training.source, classifier)
    report.write(training.run)
    return training.run, result


def seconds_to_reach(run: Run, accuracy: float) -> float | None:
    """Clock at the end of the first epoch that validates at least this well."""
    for row in run.metrics:
        if (row["validation_accuracy"] or 0.0) >= accuracy:
            return row["seconds"]
    return None


def main() -> None:
    """Run the race and append what it showed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="SPEC of CIFAR-10; default: wherever it is found")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    images = store_images(arguments.data, validation=0.1)
    rival_python()
    pairs, results = [], []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.pairs):
        keras = run_rival(images, seed)
        run, result = run_ours(arguments.data, seed)
        ours = seconds_to_reach(run, keras["validation_accuracy"])
        pairs.append({"seed": seed, "keras": keras, "seconds": ours, "test_accuracy": result["test"]["accuracy"]})
        results.append(result)
        print(json.dumps(pairs[-1]), flush=True)
    if any(pair["seconds"] is None for pair in pairs):
        sys.exit(
            "classic did not reach Keras's validation accuracy in every pair: the race is lost, nothing is recorded"
        )
    facts = run.environment
    accuracy = measured.spread([result["test"]["accuracy"] for result in results])
    seconds = measured.spread([result["train_seconds"] for result in results])
    ratio = measured.spread([pair["seconds"] / pair["keras"]["seconds"] for pair in pairs])
    command = "python benchmarks/classic_vs_keras.py"
    common = {"recipe": "classic", "device": "cpu", "n": len(pairs), "versions": facts["versions"], "command": command}
    measured.add(
        {
            "kind": "training",
            **common,
            "data": result["data"],
            "accuracy": accuracy,
            "train_seconds": seconds,
            "flops": result["flops"],
            "parameters": result["parameters"],
            "peak_memory_bytes": max(result["peak_memory_bytes"] for result in results),
            "epochs": [result["epochs"] for result in results],
            "seeds": [pair["seed"] for pair in pairs],
        }
    )
    measured.add(
        {
            "kind": "race",
            **common,
            "data": result["data"],
            "against": f"the Keras notebook ({TENSORFLOW}) to its early stop; ours to the same validation accuracy",
            "ratio": ratio,
            "pairs": pairs,
        }
    )


if __name__ == "__main__":
    main()
