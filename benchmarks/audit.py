"""How good an audit of CIFAR-10 is: how long it takes, and how much of what it names is so.

    python benchmarks/audit.py --out DIR [--data SPEC] [--cifair CSV] [--people NPY]

`thirtytwo audit` is run from a clone of the commit; see series.py. The same --out goes on where it was stopped, and
finds again what an earlier audit of the same kind has trained and compared there. Judged is

- the search for duplicates by tests/study/judged_pairs.csv: pairs of CIFAR-10's images that were looked at, one by one;
  the file's first lines say how they were drawn. A pair stands for as many as its column `weight` says;
- by --cifair, that search once more: duplicates_cifar10.csv of ciFAIR (Barz & Denzler 2020, arXiv 1902.00423), pairs of
  test and training images that were found and judged by others;
- by --people, the search for wrong labels: cifar10h-counts.npy of CIFAR-10H (Peterson et al. 2019, arXiv 1908.07086),
  what some fifty people each said of the test images. A label counts as wrong where another class got most votes.

The last two are no part of this repository, and nothing was chosen by them. Results go to measured.json as an entry of
kind `audit`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import measured
import runs
import series
from measured import Refused
from thirtytwo import find

JUDGED = measured.REPOSITORY / "tests" / "study" / "judged_pairs.csv"
FIRST = 100
"""Of the test images named for their labels, as many as are judged."""

Place = tuple[str, int]
"""Split and position."""


@dataclass(frozen=True)
class Judged:
    """A pair that somebody has looked at."""

    pair: frozenset[Place]
    is_same: bool
    """Whether both show the same picture."""
    weight: float
    """How many pairs like it there are."""


def read_judged(path: Path = JUDGED) -> list[Judged]:
    """The pairs that were looked at."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Judged(
            frozenset({(row["split_a"], int(row["index_a"])), (row["split_b"], int(row["index_b"]))}),
            {"same": True, "different": False}[row["verdict"]],
            float(row["weight"]),
        )
        for row in csv.DictReader(lines)
    ]


def named(duplicates: Iterable[Mapping[str, Any]]) -> set[frozenset[Place]]:
    """The pairs that an audit names."""
    return {frozenset({(row["split_a"], row["index_a"]), (row["split_b"], row["index_b"])}) for row in duplicates}


def by_own_eyes(found: set[frozenset[Place]], judged: Iterable[Judged]) -> dict[str, Any]:
    """Precision and recall among pairs that were judged, each as many as it stands for."""
    judged = list(judged)
    weights = {
        (said, true): sum(one.weight for one in judged if (one.pair in found, one.is_same) == (said, true))
        for said in (True, False)
        for true in (True, False)
    }
    right = weights[True, True]
    return {
        "pairs": len(judged),
        "same": sum(one.is_same for one in judged),
        "named": sum(one.pair in found for one in judged),
        "precision": right / max(right + weights[True, False], 1e-9),
        "recall": right / max(right + weights[False, True], 1e-9),
    }


def by_cifair(found: set[frozenset[Place]], path: Path) -> dict[str, Any]:
    """What of ciFAIR's list is named: all, and those that it judges to be of one camera shot."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    leaks = [pair for pair in found if {split for split, _ in pair} == {"training", "test"}]
    leaked = {index for pair in leaks for split, index in pair if split == "test"}
    listed = {int(row["TestID"]) for row in rows}
    shots = {int(row["TestID"]) for row in rows if row["Judgment"] in ("0", "1")}
    return {
        "test_images": len(listed),
        "recall": len(leaked & listed) / len(listed),
        "same_shot": len(shots),
        "recall_of_same_shot": len(leaked & shots) / len(shots),
        "named": len(leaked),
        "named_and_listed": len(leaked & listed),
    }


def by_people(issues: Iterable[Mapping[str, Any]], path: Path, labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Of the first test images that are named for their labels, those of which most people say another class."""
    counts = np.load(path, allow_pickle=False)  # (test images, classes)
    if counts.shape != (len(labels), labels.max() + 1):
        expected = (len(labels), labels.max() + 1)
        raise Refused(f"{path}: shape {counts.shape}; expected {expected}, votes for each class; fetch it again")
    wrong = set(np.flatnonzero(counts.argmax(1) != labels).tolist())
    first = [row["index"] for row in issues if row["split"] == "test"][:FIRST]
    return {"first": len(first), "wrong_by_most_votes": len(wrong & set(first)), "of": len(wrong)}


def measure(arguments: argparse.Namespace, lock: int) -> dict[str, Any]:
    """The entry of kind ``audit``."""
    sources = series.clone(series.commit_to_measure(False), lock)
    source = find(arguments.data)
    # -P: a folder called thirtytwo where the user happens to be is not imported.
    program = [sys.executable, "-P", "-m", "thirtytwo", "audit", source.spec, "--out", str(arguments.out), "--json"]
    said = json.loads(series.call(program, lock, series.variables_for(sources)))
    pairs = named(said["duplicates"])
    judged = read_judged()
    entry = {
        "kind": "audit",
        "recipe": said["recipe"],
        "series": f"audit-{said['commit'][:7]}",
        **{key: said[key] for key in ("commit", "machine", "device", "versions")},
        "date": said["date"][:10],
        "command": runs.typed("audit.py", sys.argv[1:], arguments.data, source.spec, source.name),
        "data": said["data"],
        "n": len(judged),
        "seconds": said["seconds"],
        "accuracy": said["accuracy"],
        "named": {
            "label_issues": dict(Counter(row["split"] for row in said["label_issues"])),
            "pairs": len(pairs),
            "leaked_test_images": said["leaked_test_images"],
        },
        "judged": by_own_eyes(pairs, judged),
    }
    if arguments.cifair:
        entry["cifair"] = by_cifair(pairs, arguments.cifair)
    if arguments.people:
        from thirtytwo import load_data

        _, (_, labels) = load_data(source.spec)
        entry["people"] = by_people(said["label_issues"], arguments.people, labels.reshape(-1))
    return entry


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the audit")
    parser.add_argument("--data", default=None, metavar="SPEC", help="of CIFAR-10; default: wherever it is found")
    parser.add_argument("--cifair", type=Path, default=None, metavar="CSV", help="duplicates_cifar10.csv of ciFAIR")
    parser.add_argument("--people", type=Path, default=None, metavar="NPY", help="cifar10h-counts.npy of CIFAR-10H")
    arguments = parser.parse_args()

    def work(lock: int) -> int:
        entry = measure(arguments, lock)
        measured.add(entry)
        shown = ("seconds", "named", "judged", "cifair", "people")
        print(json.dumps({key: entry[key] for key in shown if key in entry}))
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
