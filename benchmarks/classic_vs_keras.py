"""Races `classic` against the usual Keras notebook, on the same 45,000 training and 5,000 validation images.

    python benchmarks/classic_vs_keras.py [--data SPEC] [--pairs 3] [--first-seed 0] [--dirty] [--commit REV]

A pair is one training of each with the same seed, each in a process of its own; the machine should have nothing else
to do. Keras goes first in pairs with an even seed, ours in those with an odd one. The question: how long does ours take
to validate at least as well as the weights that Keras's early stopping restores? Ours then goes on to its end and is
scored once on the test set, so that the same runs also give the accuracy of the recipe.

Keras's clock runs while `fit` does.
    In it: every step; tracing the graph; validation after every epoch; the epochs of patience before it stops.
    Not in it: start and imports; reading the images and making them float32; building and compiling the network.
Ours is `seconds` in metrics.csv, of the first epoch whose validation_accuracy is at least Keras's.
    In it: everything from the first use of training data on: order, batches, augmentation, every step; validation after
    every epoch, the deciding one included; checkpoints and metrics.csv of the epochs before; the progress display.
    Not in it: start and imports; reading the images; building the network; the checkpoint before the first step; the
    deciding epoch's own copy of its weights and its checkpoint; for a training that was interrupted, the time that it
    lay still, and the first doing of steps that had to be done again because a kill undid them.

What is raced is a clone of the commit, so that editing does not change a race that takes hours; uncommitted changes are
refused or, with --dirty, copied into the clone as they are now and recorded as such. Runs are kept in benchmarks/.work,
in a folder for each commit, recipe, data, machine, number of threads and versions: see series.py. A benchmark that was
stopped goes on in it: a training of ours from its checkpoint, one of Keras anew.

Each run is recorded in measured.json as soon as it ends, in two entries that grow with the series. `training` holds
every training of ours that ended, and the seeds of those that began and did not. `race` holds every pair; a lost one,
in which ours never got to Keras's accuracy, has `seconds` null and the best accuracy that ours had. With a lost pair
`ratio` is null: a mean over the pairs that were won would flatter. Exit status: 0 if ours won every pair of the series,
1 if it lost one or something failed, 2 if what was asked for was refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measured
import runs
import series
from measured import Refused
from runs import Runs
from thirtytwo import Images, Run, find, open_training
from thirtytwo import recipe as recipes

RECIPE = "classic"
TENSORFLOW = "tensorflow-cpu==2.21.0"


# The race ------------------------------------------------------------------------------------------------------------


def order(seed: int) -> tuple[str, str]:
    """Who goes first, and who second."""
    return series.in_turn("keras", RECIPE, seed)


def rival_python(lock: int) -> Path:
    """An environment of its own for TensorFlow, which the product does not depend on."""
    folder = series.WORK / TENSORFLOW.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        series.call([python, "-m", "pip", "install", "--quiet", TENSORFLOW], lock)
        (folder / "ready").touch()
    return python


def store_images(folder: Path, images: Images) -> None:
    """The two parts that our training uses, as arrays for the rival."""
    path = folder / "images.npz"
    if path.exists():
        return
    kept, held_out = images.split(recipes.load(RECIPE).validation)
    series.store_arrays(
        path,
        {
            "x_train": images.pixels[kept],
            "y_train": images.labels[kept],
            "x_validation": images.pixels[held_out],
            "y_validation": images.labels[held_out],
        },
    )


def run_rival(folder: Path, seed: int, sources: Path, lock: int) -> None:
    """One training of the Keras notebook."""
    stored = folder / f"keras-{seed}.json"
    if not stored.exists():
        script = sources / "benchmarks" / "keras_notebook.py"
        # Isolated: what is meant for our Python stays away from the rival's.
        words: list[str | Path] = [rival_python(lock), "-I", script, folder / "images.npz", str(seed)]
        series.write(stored, json.loads(series.call(words, lock).strip().splitlines()[-1]))


# The record ----------------------------------------------------------------------------------------------------------


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What a series has shown so far, as entries of measured.json by their kind: every run that is in its folder.

    Raises:
        Refused: its runs were made under different conditions, or others than the series's.
    """
    facts = series.read(folder / "series.json")
    ours = Runs.within(folder, RECIPE)
    if not ours.scored:
        return {}
    training = ours.entry(facts)
    stored = runs.by_seed(folder.glob("keras-*.json"))
    rivals = {seed: series.read(path) for seed, path in stored.items() if seed in ours.scored}
    if not rivals:
        return {"training": training}
    pairs = [_pair(seed, rival, ours.scored[seed]) for seed, rival in rivals.items()]
    lost = [pair["seed"] for pair in pairs if pair["seconds"] is None]
    shared = ours.shared(facts)
    contest: dict[str, Any] = {
        "kind": "race",
        **shared,
        "versions": {**shared["versions"], **_rival_versions(folder, pairs)},
        "n": len(pairs),
        "against": f"the Keras notebook ({facts['rival']}) to its early stop; ours to the same validation accuracy",
        "ratio": None if lost else measured.spread([pair["seconds"] / pair["keras"]["seconds"] for pair in pairs]),
        "lost_seeds": lost,
        "pairs": pairs,
    }
    return {"training": training, "race": contest}


def _rival_versions(folder: Path, pairs: Sequence[dict[str, Any]]) -> dict[str, str]:
    expected: dict[str, str] = pairs[0]["keras"]["versions"]
    for pair in pairs:
        if pair["keras"]["versions"] != expected:
            raise Refused(
                f"{folder}: Keras ran with {pair['keras']['versions']} for seed {pair['seed']}; expected {expected}, "
                "as before; move what ran with other versions out of the folder"
            )
    return expected


def _pair(seed: int, rival: dict[str, Any], run: Run) -> dict[str, Any]:
    return {
        "seed": seed,
        "first": order(seed)[0],
        "keras": rival,
        "seconds": seconds_to_reach(run, rival["validation_accuracy"]),
        "best_validation_accuracy": max(row["validation_accuracy"] or 0.0 for row in run.metrics),
        "test_accuracy": run.result["test"]["accuracy"],
    }


def seconds_to_reach(run: Run, accuracy: float) -> float | None:
    """Clock at the end of the first epoch that validates at least this well; None if none did."""
    for row in run.metrics:
        if (row["validation_accuracy"] or 0.0) >= accuracy:
            return row["seconds"]
    return None


def record(folder: Path, path: Path = measured.PATH) -> dict[str, dict[str, Any]]:
    """Put what a series has shown so far into measured.json; returns its entries by kind."""
    found = entries(folder)
    for entry in found.values():
        measured.add(entry, path)
    return found


# The command ---------------------------------------------------------------------------------------------------------


def race(spec: str | None, seeds: Sequence[int], dirty: bool, named: str | None, lock: int) -> int:
    """Run what is missing of these pairs and record it; returns the exit status."""
    commit = series.commit_to_measure(dirty, named)
    sources = series.clone(commit, lock)
    source = find(spec)
    images = open_training(source)
    folder = series.begin(
        series.identify(
            commit, sources, settings=[recipes.load(RECIPE)], images=images, device="cpu", rival=TENSORFLOW, lock=lock
        )
    )
    store_images(folder, images)
    del images  # 150 MB that the trainings may need
    rival_python(lock)
    kept = {pair["seed"] for pair in entries(folder).get("race", {"pairs": []})["pairs"]}
    if not kept.issuperset(seeds):
        series.note(folder, runs.typed("classic_vs_keras.py", sys.argv[1:], spec, source.spec, source.name))
    recorded: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        for side in order(seed):
            print(f"seed {seed}: {side}", file=sys.stderr, flush=True)
            if side == "keras":
                run_rival(folder, seed, sources, lock)
            else:
                runs.train(folder, RECIPE, seed, sources=sources, spec=source.spec, device="cpu", lock=lock)
            recorded = record(folder)
        print(json.dumps(next(pair for pair in recorded["race"]["pairs"] if pair["seed"] == seed)), flush=True)
    lost, pairs = recorded["race"]["lost_seeds"], recorded["race"]["n"]
    print(f"{RECIPE} lost {len(lost)} of {pairs} pairs; recorded in {measured.PATH}", file=sys.stderr)
    return 1 if lost else 0


def main() -> int:
    """Run the race; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, metavar="SPEC", help="of CIFAR-10; default: wherever it is found")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--dirty", action="store_true", help="race changes that are not committed")
    series.add_commit(parser)
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.first_seed < 0:
        parser.error("expected at least one pair, and seeds from 0 on")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.pairs)
    return series.command(lambda lock: race(arguments.data, seeds, arguments.dirty, arguments.commit, lock))


if __name__ == "__main__":
    sys.exit(main())
