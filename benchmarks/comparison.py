"""Is one recipe better than another? What `thirtytwo compare` finds, for the record.

    python benchmarks/comparison.py A B [--data SPEC] [--set KEY=VALUE] [--runs N] [--first-seed S]

A and B are as `thirtytwo compare` takes them: a recipe, or a file of this repository, and changes after it. Pairs are
trained until the answer is clear, or there have been N of them. The test set is not opened.

What is run is a clone of the commit; see series.py. Trainings are kept in benchmarks/.work as soon as they end, and the
same command goes on where it was stopped. Results go to measured.json as an entry of kind `difference`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured
import runs
import series
from runs import Runs
from thirtytwo import Run, find, open_training
from thirtytwo import recipe as recipes

DATA = "cifar10:training=5000"
PAIRS = 20

TOLD = ("difference", "interval", "p_value", "better", "n", "values", "seeds", "diverged_seeds", "first", "second")
"""What an entry keeps of what `compare` says."""


@dataclass(frozen=True)
class Bench:
    """A study of some recipes: where it is kept, and what it is made with."""

    folder: Path
    """Of the series."""
    sources: Path
    """The checkout whose thirtytwo is run."""
    spec: str
    """Of the data."""
    overrides: Sequence[str]
    """Of all recipes."""
    device: str
    lock: int
    """See `series.alone`."""
    study: str = "study"
    """Folder within that of the series, in which what is compared is trained."""

    @classmethod
    def begin(cls, script: str, words: Sequence[str], arguments: argparse.Namespace, lock: int) -> Bench:
        """Find the series, or make it.

        Args:
            script: the benchmark's file name.
            words: the recipes, as typed.
            arguments: what `parser` has parsed.
            lock: see `series.alone`.

        Raises:
            RecipeError: there is no such recipe.
        """
        commit = series.commit_to_measure(False, arguments.commit)
        sources, source = series.clone(commit, lock), find(arguments.data)
        images, device, overrides = open_training(source.spec), arguments.device, arguments.overrides
        split = [shlex.split(within(sources, text)) for text in words]
        settings = [recipes.load(name, [*changes, *overrides]) for name, *changes in split]
        which = series.identify(commit, sources, settings=settings, images=images, device=device, rival="", lock=lock)
        folder = series.begin(which, series.WORK)
        series.note(folder, runs.typed(script, sys.argv[1:], arguments.data, source.spec, source.name))
        return cls(folder, sources, source.spec, tuple(overrides), device, lock)

    def ask(self, command: str, *words: str) -> dict[str, Any]:
        """What a command of thirtytwo answers."""
        changes = [word for override in self.overrides for word in ("--set", override)]
        words = (command, *words, *changes, "--data", self.spec, "--device", self.device)
        answer: dict[str, Any] = json.loads(series.thirtytwo(words, self.sources, self.lock))
        return answer

    def compare(self, first: str, second: str, pairs: int, first_seed: int) -> dict[str, Any]:
        """What `thirtytwo compare` finds out about two recipes in at most so many pairs; see `TOLD`."""
        options = ["--runs", str(pairs), "--first-seed", str(first_seed), "--out", str(self.folder / self.study)]
        said = self.ask("compare", within(self.sources, first), within(self.sources, second), *options)
        return {key: said[key] for key in TOLD}

    def shared(self, recipe: str) -> dict[str, Any]:
        """What an entry says of the trainings of a comparison."""
        trainings = [Run(path.parent) for path in sorted((self.folder / self.study).glob("*/*/result.json"))]
        measured.alike(trainings, but=("recipe", "precision"))
        facts = Runs(recipe, {0: trainings[0]}, []).shared(series.read(self.folder / "series.json"))
        images, held_out = trainings[0].result["images"], trainings[0].result["validation"]["images"]
        return {
            **{key: value for key, value in facts.items() if key != "settings"},
            "training_images": images - held_out,
            "validation_images": held_out,
            "set": list(self.overrides),
        }


def within(sources: Path, words: str) -> str:
    """A recipe and its changes; a file of this repository is taken from a clone of it."""
    if Path(words).is_absolute() and Path(words).is_file():
        return words
    name, *changes = shlex.split(words)
    return shlex.join([str(sources / name) if (sources / name).is_file() else name, *changes])


def parser(description: str, data: str, pairs: int, first_seed: int) -> argparse.ArgumentParser:
    """What benchmarks that end in a comparison are told, besides its recipes."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--data", default=data, metavar="SPEC", help=f"to judge by; default: {data}")
    result.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="changes every recipe"
    )
    result.add_argument("--runs", type=int, default=pairs, metavar="N", help=f"pairs at most; default: {pairs}")
    result.add_argument("--first-seed", type=int, default=first_seed, metavar="S", help=f"default: {first_seed}")
    result.add_argument("--device", default="auto", help="auto, cpu or cuda")
    series.add_commit(result)
    return result


def measure(arguments: argparse.Namespace, lock: int) -> int:
    """Compare and record; returns the exit status."""
    first, second = arguments.first, arguments.second
    bench = Bench.begin("comparison.py", [first, second], arguments, lock)
    found = bench.compare(first, second, arguments.runs, arguments.first_seed)
    entry = {"kind": "difference", **bench.shared(first), "a": first, "b": second, **found}
    measured.add(entry)
    print(json.dumps({key: entry[key] for key in ("a", "b", *TOLD)}))
    return 0


def main() -> int:
    """Measure; returns the exit status."""
    words = parser(str(__doc__), DATA, PAIRS, 0)
    words.add_argument("first", metavar="A", help="a recipe; changes may follow: 'classic epochs=4'")
    words.add_argument("second", metavar="B", help="another one")
    arguments = words.parse_args()
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
