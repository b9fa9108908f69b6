"""Is a network that an ensemble has taught better than the same network untaught? `thirtytwo compare` says.

    python benchmarks/distilling.py [RECIPE] [--teacher RECIPE] [--networks N] [--data SPEC] [--hold-out SHARE]
        [--set KEY=VALUE] [--runs N]

Some networks are trained, and answer as one (`thirtytwo ensemble`). Then the recipe is trained in pairs, with the
ensemble for its teacher and without, with other seeds than those of the networks, until the answer is clear, or there
have been N pairs. All of them hold out the same images, and it is these that judge. They have also chosen how much each
network of the ensemble counts, which is N numbers at most. The test set is not opened.

Teachers know the images that they were trained on by heart, and say little more of them than the labels do. Of mixed
images they say more ("function matching", Beyer et al. 2022, arXiv 2106.05237), so by default all networks learn from
such, taught or not.

More images are held out than learned from: where networks err on a quarter of their images, most of what differs from
pair to pair is which ones were held out.

What is run is a clone of the commit; see series.py. Trainings are kept in benchmarks/.work as soon as they end, and the
same command goes on where it was stopped. Results go to measured.json as an entry of kind `distillation`.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from typing import Any

import measured
import runs
import series
from comparison import TOLD, Bench, parser, within

RECIPE = "fast94 epochs=60 augmentation.mixup_alpha=1"
DATA = "cifar10:training=10000"
HOLD_OUT = 0.85
NETWORKS = 3
PAIRS = 12
APART = 1000
"""Seeds of the networks begin here, those of pairs at 0."""


def ensemble(bench: Bench, recipe: str, networks: int) -> dict[str, Any]:
    """What `thirtytwo ensemble` says of some networks of a recipe.

    Args:
        bench: where, and with what.
        recipe: as typed.
        networks: how many.

    Returns:
        Also `folder`, in which the model lies.
    """
    folder = bench.folder / f"teacher-{measured.digest(f'{recipe} {networks}')}"
    answer, model = folder / "answer.json", folder / "ensemble"
    if not answer.exists():
        seeds = ["--runs", str(networks), "--first-seed", str(APART)]
        bench.ask("repeat", within(bench.sources, recipe), *seeds, "--out", str(folder / "networks"))
        trained = runs.by_seed(path.parent for path in (folder / "networks").glob("*/*/result.json"))
        shutil.rmtree(model, ignore_errors=True)  # killed before it had told anything
        # What --set changes is in what was trained.
        words = [*map(str, trained.values()), "--out", str(model)]
        series.write(answer, replace(bench, overrides=()).ask("ensemble", *words))
    return {**series.read(answer), "folder": model}


def measure(arguments: Namespace, lock: int) -> int:
    """Train, compare and record; returns the exit status."""
    recipe, teacher = arguments.recipe, arguments.teacher or arguments.recipe
    if any(word.partition("=")[0].strip() == "validation" for word in arguments.overrides):
        raise measured.Refused("--set validation: expected --hold-out, which says how many images judge")
    arguments.overrides.append(f"validation={arguments.hold_out}")
    bench = Bench.begin("distilling.py", [recipe, teacher], arguments, lock)
    said = ensemble(bench, teacher, arguments.networks)
    taught = shlex.join([*shlex.split(recipe), f"teacher.model={json.dumps(str(said['folder']))}"])
    found = bench.compare(recipe, taught, arguments.runs, arguments.first_seed)
    shared, members = bench.shared(recipe), [member for member in said["members"] if member["weight"]]
    entry = {
        "kind": "distillation",
        **shared,
        "series": f"{shared['series']} {said['folder'].parent.name}",  # other teachers are another result
        **found,
        "teacher": teacher,
        "networks": len(members),
        "teacher_accuracy": said["validation"]["accuracy"],
        "network_accuracies": [member["accuracy"] for member in members],
        "gain": said["gain"],
    }
    measured.add(entry)
    print(json.dumps({key: entry[key] for key in ("teacher_accuracy", "network_accuracies", *TOLD)}))
    return 0


def main() -> int:
    """Measure; returns the exit status."""
    words = parser(str(__doc__), DATA, PAIRS, 0)
    words.add_argument("recipe", nargs="?", default=RECIPE, metavar="RECIPE", help=f"default: '{RECIPE}'")
    words.add_argument("--teacher", metavar="RECIPE", help="of the ensemble's networks; default: the same")
    words.add_argument(
        "--hold-out",
        type=float,
        default=HOLD_OUT,
        metavar="SHARE",
        help=f"of the images, to judge by; default: {HOLD_OUT}",
    )
    words.add_argument("--networks", type=int, default=NETWORKS, metavar="N", help=f"default: {NETWORKS}")
    arguments = words.parse_args()
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
