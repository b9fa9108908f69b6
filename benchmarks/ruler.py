"""Proves the ruler: our recipe `airbench94` takes no longer than the script that it stands for.

    python benchmarks/ruler.py airbench94_muon.py [--pairs 3] [--images 4000] [--first-seed 0] [--data SPEC]

Everything here is measured against `airbench94`, so a slow one would prove nothing. The script is K. Jordan's
(github.com/KellerJordan/cifar10-airbench, commit of your choice), run on the CPU by airbench_original.py; both train
for the eight epochs of its settings, batches of 2,000, on the same images and in the same precision: bfloat16 where
the processor has it, float32 elsewhere. Each run is a process of its own; the original goes first in pairs with an even
seed. The machine should have nothing else to do.

Clocks: the script's own, before its evaluation, and `train_seconds` of ours. In both: computing the first layer; order,
changes and batches; every step. In neither: start, imports, reading images, evaluation. Neither compiles anything.

With --images 45000, which takes hours, the accuracies can be compared as well: on 5,000 validation images, the views
averaged. Results go to measured.json as an entry of kind `ruler`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import measured
import runs
import series
from measured import Refused
from thirtytwo import Images, environment, evaluate, find, open_training, train
from thirtytwo import recipe as recipes
from thirtytwo.data import from_arrays

RECIPE = "airbench94"
ORIGINAL = "airbench94_muon.py"


def order(seed: int) -> tuple[str, str]:
    """Who goes first, and who second."""
    return series.in_turn("original", "ours", seed)


def run_ours(images: Path, seed: int) -> dict[str, Any]:
    """Train our recipe once on the stored images; returns what came of it."""
    arrays = np.load(images)
    source = from_arrays((arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"]), name="ruler")
    with tempfile.TemporaryDirectory() as work:
        # As many epochs as the script has, however few images there are.
        recipe = recipes.load(RECIPE, ["fewer_images.exponent=0"])
        training = train(recipe, source, seed=seed, out=Path(work) / "run", device="cpu")
        scored = evaluate(training.finish(), source)
        return {
            "seconds": training.run.result["train_seconds"],
            "accuracy": scored.summary()["accuracy"],
            "precision": training.precision,
            "date": training.run.environment["date"][:10],
        }


def store_images(folder: Path, images: Images, number: int) -> Path:
    """What both train on, and the validation images that both are scored on."""
    path = folder / f"images-{number}.npz"
    if not path.exists():
        kept, held_out = images.split(0.1)
        series.store_arrays(
            path,
            {
                "x_train": images.pixels[kept[:number]],
                "y_train": images.labels[kept[:number]],
                "x_test": images.pixels[held_out],
                "y_test": images.labels[held_out],
            },
        )
    return path


def entry(folder: Path, number: int) -> dict[str, Any] | None:
    """What the pairs in a folder have shown, as an entry of measured.json; None if there is none yet."""
    facts = series.read(folder / "series.json")
    found = {
        side: {seed: series.read(path) for seed, path in runs.by_seed(folder.glob(f"{side}-*.json")).items()}
        for side in ("original", "ours")
    }
    seeds = [seed for seed in found["ours"] if seed in found["original"]]
    if not seeds:
        return None
    precisions = {side[seed]["precision"] for side in found.values() for seed in seeds}
    if len(precisions) != 1:
        raise Refused(f"{folder}: runs in {' and '.join(sorted(precisions))}; expected one kind; delete the folder")
    ratios = [found["ours"][seed]["seconds"] / found["original"][seed]["seconds"] for seed in seeds]
    return {
        "kind": "ruler",
        "recipe": RECIPE,
        "series": facts["id"],
        **{key: facts[key] for key in ("commit", "machine", "device", "device_name", "threads", "versions")},
        "precision": precisions.pop(),
        "date": max(found["ours"][seed]["date"] for seed in seeds),
        "command": " && ".join(facts["commands"]),
        "data": f"{number} training images of cifar10",
        "n": len(seeds),
        "against": f"{ORIGINAL} ({facts['rival'].partition(' ')[2]})",
        "ratio": measured.spread(ratios),
        "pairs": [
            {"seed": seed, "first": order(seed)[0], "original": found["original"][seed], "ours": found["ours"][seed]}
            for seed in seeds
        ],
    }


def measure(arguments: argparse.Namespace, lock: int) -> int:
    """Run what is missing and record it; returns the exit status."""
    script: Path = arguments.script.resolve()
    if not script.is_file():
        raise Refused(f"{script}: no such file; expected {ORIGINAL}, from a clone of cifar10-airbench")
    commit = series.commit_to_measure(arguments.dirty)
    sources = series.clone(commit, lock)
    source = find(arguments.data)
    images = open_training(source)
    rival = f"{ORIGINAL} {measured.digest(script.read_text(encoding='utf-8'))}, {arguments.images} images"
    folder = series.begin(
        series.identify(
            commit, sources, settings=[recipes.load(RECIPE)], images=images, device="cpu", rival=rival, lock=lock
        )
    )
    stored = store_images(folder, images, arguments.images)
    half = ["--half"] if environment.has_bfloat16(torch.device("cpu")) else []
    series.note(
        folder, runs.typed("ruler.py", sys.argv[1:], arguments.data, source.spec, source.name, [arguments.script])
    )
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.pairs):
        for side in order(seed):
            path = folder / f"{side}-{seed}.json"
            if path.exists():
                continue
            print(f"seed {seed}: {side}", file=sys.stderr, flush=True)
            words: list[str | Path] = [sys.executable, "-P"]
            if side == "ours":
                words += [sources / "benchmarks" / "ruler.py", "--run", stored, str(seed)]
            else:
                words += [sources / "benchmarks" / "airbench_original.py", script, stored, str(seed), *half]
            printed = series.call(words, lock, series.variables_for(sources))
            series.write(path, json.loads(printed.strip().splitlines()[-1]))
        if found := entry(folder, arguments.images):
            measured.add(found)
            print(json.dumps(found["pairs"][-1]), flush=True)
    return 0


def main() -> int:
    """Measure; returns the exit status."""
    if sys.argv[1:2] == ["--run"]:  # what each run of ours is a process of
        print(json.dumps(run_ours(Path(sys.argv[2]), int(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path, help=f"{ORIGINAL}, from a clone of cifar10-airbench")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--images", type=int, default=4000, help="training images; steps take 2,000 each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", default=None, metavar="SPEC", help="of CIFAR-10; default: wherever it is found")
    parser.add_argument("--dirty", action="store_true", help="measure changes that are not committed")
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.first_seed < 0 or not 2000 <= arguments.images <= 45_000:
        parser.error("expected at least one pair, seeds from 0 on, and 2,000 to 45,000 images")
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
