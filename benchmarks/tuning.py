"""Does a search for better values find any? `thirtytwo tune`, and what `thirtytwo compare` says of what it found.

    python benchmarks/tuning.py [RECIPE] [--trials N] [--set KEY=VALUE] [--search-data SPEC] [--data SPEC]
        [--hold-out SHARE] [--runs N]

A recipe's [search] section is searched in N trials, all with one seed and on the same images. Then the recipe as it was
and the one that was found are trained in pairs, with other seeds and on other images (--data), so that neither the luck
by which a trial was chosen counts, nor what suits some images only; until the answer is clear, or there have been N
pairs. Of these images more may be held out (--hold-out): where networks err on a quarter of their images, most of what
differs from pair to pair is which ones were held out, and answering costs a third of learning. The test set is not
opened.

What is run is a clone of the commit; see series.py. Trials and trainings are kept in benchmarks/.work as soon as they
end, and the same command goes on where it was stopped. Results go to measured.json as an entry of kind `tuning`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import measured
import series
from comparison import TOLD, Bench, parser, within
from thirtytwo import find

RECIPE = "classic"
SEARCH_DATA, DATA = "cifar10:training=5000", "cifar10:training=12000,skip=5000"
TRIALS = 40
PAIRS = 20


def search(bench: Bench, recipe: str, trials: int, data: str) -> dict[str, Any]:
    """What `thirtytwo tune` answers.

    Args:
        bench: where, and with what.
        recipe: as typed.
        trials: how many.
        data: SPEC of the images to search with.

    Returns:
        Also `folder`, in which the search is kept.
    """
    folder = bench.folder / f"tune-{measured.digest(f'{data} {trials} {recipe} {shlex.join(bench.overrides)}')}"
    answer = folder / "answer.json"
    if not answer.exists():
        words = ["tune", within(bench.sources, recipe), "--trials", str(trials), "--out", str(folder)]
        series.write(answer, replace(bench, spec=data).ask(*words))
    return {**series.read(answer), "folder": folder}


def measure(arguments: argparse.Namespace, lock: int) -> int:
    """Search, compare and record; returns the exit status."""
    bench = Bench.begin("tuning.py", [arguments.recipe], arguments, lock)
    said = search(bench, arguments.recipe, arguments.trials, arguments.search_data)
    own, tuned = (str(said["folder"] / f"{said['recipe']}-{end}.toml") for end in ("own", "tuned"))
    # What --set changes is in both files.
    judges = replace(bench, overrides=())
    if (share := arguments.hold_out) is not None:
        judges = replace(judges, overrides=(f"validation={share}",), study=f"study-{share}")
    found = judges.compare(own, tuned, arguments.runs, arguments.first_seed)
    shared = judges.shared(arguments.recipe)
    entry = {
        "kind": "tuning",
        **shared,
        # Another search, or judging by more images, is another result.
        "series": f"{shared['series']} {said['folder'].name} {judges.study}",
        "set": list(bench.overrides),
        "hold_out": share,
        **found,
        "search_data": find(arguments.search_data).name,
        "trials": said["n"],
        "states": dict(Counter(trial["state"] for trial in said["trials"])),
        "own": said["own"],
        "best": said["best"],
        "importances": said["importances"],
    }
    measured.add(entry)
    print(json.dumps({key: entry[key] for key in ("own", "best", "importances", *TOLD)}))
    return 0


def main() -> int:
    """Measure; returns the exit status."""
    words = parser(str(__doc__), DATA, PAIRS, 1)
    words.add_argument("recipe", nargs="?", default=RECIPE, metavar="RECIPE", help=f"default: {RECIPE}")
    words.add_argument("--search-data", default=SEARCH_DATA, metavar="SPEC", help=f"default: {SEARCH_DATA}")
    words.add_argument(
        "--hold-out", type=float, metavar="SHARE", help="of --data, to judge by; default: as much as the search"
    )
    words.add_argument("--trials", type=int, default=TRIALS, metavar="N", help=f"default: {TRIALS}")
    arguments = words.parse_args()
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
