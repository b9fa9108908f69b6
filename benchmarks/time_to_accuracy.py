"""How accurate a recipe is and how long it takes, over many seeds; beside another recipe, if there is one to beat.

    python benchmarks/time_to_accuracy.py RECIPE --runs N [--against RECIPE] [--first-seed 0] [--data SPEC]

Every run is a process of its own, scored once on the test set; on a GPU, where a training takes less time than its
kernels take to be compiled, one process takes all. The machine should have nothing else to do. Runs are interleaved:
with --against, each seed is run by both recipes, the first one first for even seeds and second for odd ones, so that
what drifts in a machine over hours helps each as often as the other.

The clock of a race is `train_seconds` plus, where a recipe averages several views of a test image, `scoring_seconds`.
    In it: computing the first layer from training images; order, batches and changes; every step; the views.
    Not in it: start, imports, compilation; reading the images and moving them to the device; validation; checkpoints.
`cold_seconds` is everything from the start of the process to the end of training.

What is run is a clone of the commit; see series.py. Runs are kept in benchmarks/.work, and the same command goes on
where it was stopped. Each run is recorded in measured.json as soon as it ends: an entry `training` for each recipe, and
an entry `comparison` with the ratio of the clocks, pair by pair. No run is left out: seeds that began and did not end
are named.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import measured
import runs
import series
from measured import Refused
from runs import Runs
from thirtytwo import Run, environment, find, open_training
from thirtytwo import recipe as recipes


def order(recipe: str, rival: str | None, seed: int) -> list[str]:
    """Who is run for a seed, and in which order."""
    if rival is None:
        return [recipe]
    return list(series.in_turn(recipe, rival, seed))


def clock(run: Run) -> float:
    """Seconds of a finished run that a race counts; see above."""
    result = run.result
    return float(result["train_seconds"] + (result["scoring_seconds"] if run.recipe.views.several else 0.0))


def comparison(ours: Path, rival: Path, recipe: str, against: str) -> dict[str, Any] | None:
    """The entry of kind ``comparison``: every seed that both recipes have finished; None if there is none.

    Args:
        ours: folder of the recipe's series.
        rival: folder of the other one's.
        recipe: the recipe.
        against: the other one.
    """
    facts, rival_facts = series.read(ours / "series.json"), series.read(rival / "series.json")
    first, second = Runs.within(ours, recipe), Runs.within(rival, against)
    both = [seed for seed in first.scored if seed in second.scored]
    if not both:
        return None
    pairs = [
        {
            "seed": seed,
            "first": order(recipe, against, seed)[0],
            "seconds": clock(first.scored[seed]),
            "rival_seconds": clock(second.scored[seed]),
            "test_accuracy": first.scored[seed].result["test"]["accuracy"],
            "rival_test_accuracy": second.scored[seed].result["test"]["accuracy"],
            **{
                key: run.result["cold_seconds"]
                for key, run in (("cold_seconds", first.scored[seed]), ("rival_cold_seconds", second.scored[seed]))
                if "cold_seconds" in run.result
            },
        }
        for seed in both
    ]
    # Each computes in what is quickest for it: the rival in half precision, ours, with kernels of its own, in single.
    measured.alike([*first.scored.values(), *second.scored.values()], but=("recipe", "precision"))
    return {
        "kind": "comparison",
        **first.shared(facts),
        "series": f"{facts['id']} against {rival_facts['id']}",
        "n": len(pairs),
        "against": against,
        "rival_precision": second.scored[both[0]].environment["precision"],
        "ratio": measured.spread([pair["seconds"] / pair["rival_seconds"] for pair in pairs]),
        "pairs": pairs,
    }


def record(folders: dict[str, Path], recipe: str, path: Path = measured.PATH) -> dict[str, dict[str, Any]]:
    """Put what has been shown so far into measured.json; returns an entry for each recipe, and one for both."""
    found = {}
    for name, folder in folders.items():
        finished = Runs.within(folder, name)
        if finished.scored:
            found[name] = finished.entry(series.read(folder / "series.json"))
    for rival in folders.keys() - {recipe}:
        if both := comparison(folders[recipe], folders[rival], recipe, rival):
            found[f"{recipe} against {rival}"] = both
    for entry in found.values():
        measured.add(entry, path)
    return found


def told(entry: dict[str, Any]) -> str:
    """One line about an entry."""
    if entry["kind"] == "comparison":
        return f"{entry['recipe']} takes {_spread(entry['ratio'], '.3f')} of {entry['against']}'s time"
    accuracy, seconds = _spread(entry["accuracy"], ".4f"), _spread(entry["train_seconds"], ".1f")
    return f"{entry['recipe']}: test accuracy {accuracy}; training {seconds} s"


def _spread(values: dict[str, Any], form: str) -> str:
    text = f"{values['mean']:{form}}"
    if (deviation := values["standard_deviation"]) is not None:
        text += f" ± {deviation:{form}}"
    if values["interval"] is not None:
        low, high = values["interval"]
        text += f" (95% interval {low:{form}} to {high:{form}})"
    return f"{text}, n = {values['n']}"


def measure(arguments: argparse.Namespace, lock: int) -> int:
    """Run what is missing and record it; returns the exit status."""
    for recipe in filter(None, [arguments.recipe, arguments.against]):
        if recipe not in recipes.names():
            raise Refused(f"{recipe}: no shipped recipe; expected one of {', '.join(recipes.names())}")
    if arguments.recipe == arguments.against:
        raise Refused(f"{arguments.recipe} against itself; expected another recipe after --against")
    commit = series.commit_to_measure(arguments.dirty, arguments.commit)
    sources = series.clone(commit, lock)
    source = find(arguments.data)
    images = open_training(source)
    on_gpu = environment.device(arguments.device).type == "cuda"
    folders = {}
    for recipe in order(arguments.recipe, arguments.against, 0):
        device = arguments.device
        which = series.identify(
            commit, sources, settings=[recipes.load(recipe)], images=images, device=device, rival="", lock=lock
        )
        folders[recipe] = series.begin(which)
    del images  # 150 MB that the trainings may need
    jobs = [
        (folders[recipe], recipe, seed)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.runs)
        for recipe in order(arguments.recipe, arguments.against, seed)
    ]
    command = runs.typed("time_to_accuracy.py", sys.argv[1:], arguments.data, source.spec, source.name)
    for folder, recipe, seed in jobs:
        if seed not in Runs.within(folder, recipe).scored:
            series.note(folder, command)
    train_all = runs.train_together if on_gpu else runs.train_apart
    for _ in train_all(jobs, sources=sources, spec=source.spec, device=arguments.device, lock=lock):
        for entry in record(folders, arguments.recipe).values():
            print(told(entry), file=sys.stderr, flush=True)
    for folder, recipe, seed in jobs:
        print(json.dumps({"seed": seed, **_numbers(folder / f"{recipe}-{seed}")}))
    record(folders, arguments.recipe)
    return 0


def _numbers(path: Path) -> dict[str, Any]:
    run = Run.open(path)
    result = run.result
    return {"recipe": run.recipe.name, "test_accuracy": result["test"]["accuracy"], "seconds": clock(run)}


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a shipped one")
    parser.add_argument("--runs", type=int, required=True, help="number of seeds")
    parser.add_argument("--against", default=None, metavar="RECIPE", help="another shipped one, run beside it")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", default=None, metavar="SPEC", help="of CIFAR-10; default: wherever it is found")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dirty", action="store_true", help="measure changes that are not committed")
    series.add_commit(parser)
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.first_seed < 0:
        parser.error("expected at least one run, and seeds from 0 on")
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
