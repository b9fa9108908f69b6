"""Trainings of ours in a series' folder: each in a process of its own, and what they have shown so far."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured
import series
from measured import Refused
from thirtytwo import Run
from thirtytwo.errors import RunError

CURVE = ("seconds", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
"""Columns of a run's metrics.csv that its entry has as well; seconds are those since its training began."""


@dataclass(frozen=True)
class Runs:
    """The trainings of one recipe in a folder, by seed."""

    recipe: str
    scored: dict[int, Run]
    """Those that ended and were scored on the test set."""
    unfinished: list[int]
    """Seeds of those that began and did not."""

    @classmethod
    def within(cls, folder: Path, recipe: str) -> Runs:
        """Find them."""
        begun = by_seed(path.parent for path in folder.glob(f"{recipe}-*/environment.json"))
        scored = {seed: Run(path) for seed, path in begun.items() if is_scored(Run(path))}
        return cls(recipe, scored, [seed for seed in begun if seed not in scored])

    def entry(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The entry of kind ``training`` in measured.json; there is at least one scored run.

        Args:
            facts: what series.json says.

        Raises:
            Refused: the runs were made under different conditions, or others than the series's.
        """
        results = [run.result for run in self.scored.values()]
        cold = [result["cold_seconds"] for result in results if "cold_seconds" in result]  # of a process's first run
        return {
            "kind": "training",
            **self.shared(facts),
            "n": len(results),
            "accuracy": measured.spread([result["test"]["accuracy"] for result in results]),
            "ece": measured.spread([result["test"]["ece"] for result in results]),
            "train_seconds": measured.spread([result["train_seconds"] for result in results]),
            "cold_seconds": measured.spread(cold) if cold else None,
            "flops": sum(result["flops"] for result in results) / len(results),
            "parameters": results[0]["parameters"],
            "peak_memory_bytes": max(result["peak_memory_bytes"] for result in results),
            "epochs": [result["epochs"] for result in results],
            "curve": self.curve(),
            "seeds": list(self.scored),
            "unfinished_seeds": self.unfinished,
        }

    def curve(self) -> dict[str, Any]:
        """How the first of them learned: a number for each epoch, of validation None where nothing was validated."""
        seed, run = next(iter(self.scored.items()))
        return {"seed": seed, **{key: [row[key] for row in run.metrics] for key in CURVE}}

    def shared(self, facts: dict[str, Any]) -> dict[str, Any]:
        """What all entries say that are made of these runs; see `entry`."""
        runs = list(self.scored.values())
        found = measured.conditions(runs[0])
        for key in ("commit", "machine", "device", "device_name", "threads", "versions", "data"):
            if found[key] != facts[key]:
                raise Refused(
                    f"{runs[0].path}: {key} is {found[key]!r}; expected {facts[key]!r}, as in the series that it lies "
                    "in; move it out of the folder"
                )
        return {
            "recipe": self.recipe,
            "settings": runs[0].recipe.digest,
            "series": facts["id"],
            **measured.common(runs),
            "command": " && ".join(facts["commands"]),
            "data": runs[0].result["data"],
        }


def train(folder: Path, recipe: str, seed: int, *, sources: Path, spec: str, device: str, lock: int) -> None:
    """One training, to its end, scored once on the test set; goes on with one that was begun.

    Args:
        folder: of the series.
        recipe: a shipped one.
        seed: also names the run.
        sources: the checkout whose thirtytwo trains.
        spec: of the data.
        device: as ``--device`` takes it.
        lock: see `series.alone`.
    """
    out = folder / f"{recipe}-{seed}"
    if not is_begun(out):
        words = [recipe, "--seed", str(seed), "--out", str(out), "--device", device]
    elif is_scored(Run(out)):
        return
    else:
        words = ["--resume", str(out)]
    series.thirtytwo(["train", *words, "--data", spec, "--corrupted", "0"], sources, lock)


def train_apart(
    jobs: Sequence[tuple[Path, str, int]], *, sources: Path, spec: str, device: str, lock: int
) -> Iterator[None]:
    """`train` for each of these: the folder of its series, its recipe and its seed; says whenever one has ended."""
    for folder, recipe, seed in jobs:
        print(f"seed {seed}: {recipe}", file=sys.stderr, flush=True)
        train(folder, recipe, seed, sources=sources, spec=spec, device=device, lock=lock)
        yield


def train_together(
    jobs: Sequence[tuple[Path, str, int]], *, sources: Path, spec: str, device: str, lock: int
) -> Iterator[None]:
    """As `train`, many in one process; says whenever one has ended.

    Args:
        jobs: for each training the folder of its series, its recipe and its seed.
        sources: see `train`, as for the rest.
        spec: of the data.
        device: as ``--device`` takes it.
        lock: see `series.alone`.
    """
    missing = [
        (recipe, seed, str(folder / f"{recipe}-{seed}"))
        for folder, recipe, seed in jobs
        if not (is_begun(folder / f"{recipe}-{seed}") and is_scored(Run(folder / f"{recipe}-{seed}")))
    ]
    if missing:
        program = str(sources / "benchmarks" / "together.py")
        words = [sys.executable, "-P", program, spec, device, json.dumps(missing)]
        for _ in series.lines(words, lock, series.variables_for(sources)):
            yield


def is_begun(out: Path) -> bool:
    """Whether there is a training in this folder; a folder whose making was killed is removed."""
    try:
        Run.open(out)
    except RunError:
        shutil.rmtree(out, ignore_errors=True)
        return False
    return True


def is_scored(run: Run) -> bool:
    """Whether a training has ended and has been scored on the test set."""
    return "test" in run.result


def by_seed(paths: Iterable[Path]) -> dict[int, Path]:
    """Those whose names end in a dash and a seed, in the order of seeds."""
    endings = [(path.name.removesuffix(".json").rpartition("-")[2], path) for path in paths]
    return dict(sorted((int(seed), path) for seed, path in endings if seed.isdecimal()))


def typed(
    script: str, words: Sequence[str], given: str | None, spec: str, name: str, files: Iterable[Path | None] = ()
) -> str:
    """The command as it was typed, with names in place of where data and files lie on this machine.

    Args:
        script: the benchmark's file name.
        words: the arguments.
        given: SPEC as typed, if it was.
        spec: what that came to: an absolute path, or a name with its options.
        name: what the data are called.
        files: others that may be named there.
    """
    names = {str(path): path.name for path in files if path}
    words = [names.get(word, word) for word in words]
    if given and Path(spec).is_absolute():
        words = [
            word.removesuffix(given) + name if word == given or word.endswith(f"={given}") else word for word in words
        ]
    return shlex.join(["python", f"benchmarks/{script}", *words])
