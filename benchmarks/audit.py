"""How good an audit of CIFAR-10 is: how long it takes, and how much of what it names is so.

    python benchmarks/audit.py --out DIR [--data SPEC] [--cifair CSV] [--people NPY] [--workers JSON]

`thirtytwo audit` is run from a clone of the commit; see series.py. The same --out goes on where it was stopped, and
finds again what an earlier audit of the same kind has trained and compared there. Judged is

- the search for duplicates by tests/study/judged_pairs.csv: pairs of CIFAR-10's images that were looked at, one by one.
  The file's first lines say how they were drawn, in four ways; a pair stands for as many as its column `weight` says;
- by --cifair, that search once more: duplicates_cifar10.csv of ciFAIR (Barz & Denzler 2020, arXiv 1902.00423), pairs of
  test and training images that were found and judged by others;
- by --people, the search for wrong labels: cifar10h-counts.npy of CIFAR-10H (Peterson et al. 2019, arXiv 1908.07086),
  what some fifty people each said of the test images. A label counts as wrong where another class got most votes;
- by --workers, the same once more: cifar10_mturk.json of "Pervasive label errors" (Northcutt, Athalye & Mueller 2021,
  arXiv 2103.14749), what five people each said of test images that another search had named. A label counts as wrong
  where fewer than three agree with it.

The last three are no part of this repository, and nothing was chosen by them. Results go to measured.json as an entry
of kind `audit`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import measured
import runs
import series
from measured import Refused
from thirtytwo import find
from thirtytwo.recipe import DEFAULT

JUDGED = measured.REPOSITORY / "tests" / "study" / "judged_pairs.csv"
FIRST = 100
"""Of the test images named for their labels, as many as are judged."""

Place = tuple[str, int]
"""Split and position."""


@dataclass(frozen=True)
class Judged:
    """A pair that somebody has looked at."""

    pair: frozenset[Place]
    drawn: str
    """From which pairs, see the list."""
    weight: float
    """How many of these it stands for."""
    verdict: str
    """``same``, ``similar`` (neither right nor wrong to name) or ``different``."""


def read_judged(path: Path = JUDGED) -> list[Judged]:
    """The pairs that were looked at."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Judged(
            frozenset({(row["split_a"], int(row["index_a"])), (row["split_b"], int(row["index_b"]))}),
            row["drawn"],
            float(row["weight"]),
            row["verdict"],
        )
        for row in csv.DictReader(lines)
    ]


def named(duplicates: Iterable[Mapping[str, Any]]) -> set[frozenset[Place]]:
    """The pairs that an audit names."""
    return {frozenset({(row["split_a"], row["index_a"]), (row["split_b"], row["index_b"])}) for row in duplicates}


def by_own_eyes(found: Collection[frozenset[Place]], judged: Iterable[Judged]) -> dict[str, Any]:
    """Precision and recall for each way in which pairs were drawn; a pair counts as many times as it stands for."""
    judged = list(judged)

    def share(part: Iterable[Judged], of: Iterable[Judged]) -> float:
        return sum(one.weight for one in part) / sum(one.weight for one in of)

    results = {}
    for drawn in dict.fromkeys(one.drawn for one in judged):
        sure = [one for one in judged if one.drawn == drawn and one.verdict != "similar"]
        same = [one for one in sure if one.verdict == "same"]
        said = [one for one in sure if one.pair in found]
        right = [one for one in same if one.pair in found]
        results[drawn] = {
            "pairs": sum(one.drawn == drawn for one in judged),
            "same": len(same),
            "named": len(said),
            "precision": share(right, said),
            "recall": share(right, same),
        }
    return results


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
    wrong, first = wrong_by_people(path, labels), _first(issues)
    return {"first": len(first), "wrong": len(wrong & first), "there_are": len(wrong)}


def wrong_by_people(path: Path, labels: np.ndarray[Any, Any]) -> set[int]:
    """Test images of which most people say another class."""
    counts = np.load(path, allow_pickle=False)  # (test images, classes)
    if counts.shape != (len(labels), labels.max() + 1):
        expected = (len(labels), labels.max() + 1)
        raise Refused(f"{path}: shape {counts.shape}; expected {expected}, votes for each class; fetch it again")
    return set(np.flatnonzero(counts.argmax(1) != labels).tolist())


def by_workers(issues: Iterable[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """Of the first test images that are named for their labels, those of which fewer than three of five agree."""
    (shown, wrong), first = wrong_by_workers(path), _first(issues)
    return {
        "first": len(first),
        "shown": len(first & shown),
        "wrong": len(first & wrong),
        "there_are": len(wrong),
    }


def wrong_by_workers(path: Path) -> tuple[set[int], set[int]]:
    """Test images that five people were shown, and those of them with whose label fewer than three agree."""
    agreeing = {int(row["id"]): row["mturk"]["given"] for row in json.loads(path.read_text(encoding="utf-8"))}
    return set(agreeing), {index for index, votes in agreeing.items() if votes < 3}


def _first(issues: Iterable[Mapping[str, Any]]) -> set[int]:
    return {row["index"] for row in [row for row in issues if row["split"] == "test"][:FIRST]}


def measure(arguments: argparse.Namespace, lock: int) -> dict[str, Any]:
    """The entry of kind ``audit``."""
    sources = series.clone(series.commit_to_measure(False), lock)
    source = find(arguments.data)
    said = json.loads(series.thirtytwo(["audit", source.spec, "--out", str(arguments.out)], sources, lock))
    pairs = named(said["duplicates"])
    judged = read_judged()
    files = (arguments.out, arguments.cifair, arguments.people, arguments.workers)
    entry = {
        "kind": "audit",
        "recipe": DEFAULT,
        "networks": said["recipe"],
        "series": f"audit-{said['commit'][:7]}",
        **{key: said[key] for key in ("commit", "machine", "device", "device_name", "versions")},
        "date": said["date"][:10],
        "command": runs.typed("audit.py", sys.argv[1:], arguments.data, source.spec, source.name, files),
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
    if arguments.workers:
        entry["workers"] = by_workers(said["label_issues"], arguments.workers)
    if arguments.people and arguments.workers:
        wrong = wrong_by_people(arguments.people, labels.reshape(-1)) | wrong_by_workers(arguments.workers)[1]
        entry["either"] = {"wrong": len(_first(said["label_issues"]) & wrong), "there_are": len(wrong)}
    return entry


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the audit")
    parser.add_argument("--data", default=None, metavar="SPEC", help="of CIFAR-10; default: wherever it is found")
    parser.add_argument("--cifair", type=Path, default=None, metavar="CSV", help="duplicates_cifar10.csv of ciFAIR")
    parser.add_argument("--people", type=Path, default=None, metavar="NPY", help="cifar10h-counts.npy of CIFAR-10H")
    parser.add_argument("--workers", type=Path, default=None, metavar="JSON", help="cifar10_mturk.json of label-errors")
    arguments = parser.parse_args()

    def work(lock: int) -> int:
        entry = measure(arguments, lock)
        measured.add(entry)
        shown = ("seconds", "named", "judged", "cifair", "people", "workers", "either")
        print(json.dumps({key: entry[key] for key in shown if key in entry}))
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
