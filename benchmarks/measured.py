"""Puts benchmark results into the package's measured.json, which README, recipes and planner quote.

What an entry says of commit, machine, versions and date is what its runs recorded of themselves when they ran, not what
holds where and when the entry is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from thirtytwo.errors import InputError
from thirtytwo.run import Run, write_atomic
from thirtytwo.study import Spread

REPOSITORY = Path(__file__).resolve().parent.parent
PATH = REPOSITORY / "src" / "thirtytwo" / "measured.json"

CONDITIONS = ("commit", "machine", "device", "device_name", "precision", "threads", "versions")
"""Keys of a run's environment.json that have to be the same in all runs of an entry."""

REQUIRED = ("kind", "recipe", "series", "device", "machine", "n", "versions", "commit", "command", "date")
"""Keys that every entry has."""


class Refused(InputError):
    """Results that cannot be recorded as what they were asked to be."""


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation, 95% interval of the mean (Student's t), n and the values; see `Spread`."""
    return Spread.of(values).to_json()


def conditions(run: Run) -> dict[str, Any]:
    """What decides a run's numbers, apart from its seed, as the run itself recorded it."""
    facts = run.environment
    return {
        **{key: facts.get(key) for key in CONDITIONS},
        "data": facts.get("data", {}).get("fingerprint"),
        "recipe": digest(run.recipe.to_toml()),
    }


def common(runs: Sequence[Run]) -> dict[str, Any]:
    """What the runs of one entry share: the values of `CONDITIONS`, and the day of the newest run as `date`.

    Raises:
        Refused: they are a mix of conditions, recipes or data.
    """
    expected = alike(runs)
    return {
        **{key: expected[key] for key in CONDITIONS},
        "date": max(str(run.environment["date"]) for run in runs)[:10],
    }


def alike(runs: Sequence[Run], *, but: Collection[str] = ()) -> dict[str, Any]:
    """The `conditions` of runs that share them.

    Args:
        runs: at least one.
        but: keys that they need not share.

    Raises:
        Refused: they do not.
    """
    first, *others = runs
    expected = conditions(first)
    for run in others:
        for key, found in conditions(run).items():
            if found != expected[key] and key not in but:
                raise Refused(
                    f"{run.path}: {key} is {found!r}; expected {expected[key]!r}, as in {first.path}: the runs of an "
                    "entry are made under the same conditions; move those that are not out of the folder"
                )
    return expected


def digest(text: str) -> str:
    """Names a text by its content: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seeds(entry: Mapping[str, Any]) -> set[int]:
    """Of the trainings, or pairs of them, that an entry says single values of."""
    return {*entry.get("seeds", []), *(pair["seed"] for pair in entry.get("pairs", []) if "seed" in pair)}


def add(entry: Mapping[str, Any], path: Path = PATH) -> None:
    """Put an entry at the end of measured.json; it takes the place of one of the same kind and series, if there is one.

    Every other entry is left as it is.

    Raises:
        Refused: keys are missing, or the entry lacks results that the one has whose place it would take.
        StorageError: the file cannot be written; it is as it was.
    """
    if missing := [key for key in REQUIRED if key not in entry]:
        raise Refused(f"entry without {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    new = json.loads(json.dumps(entry))
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if new in entries:
        return
    earlier = [old for old in entries if (old["kind"], old.get("series")) == (new["kind"], new["series"])]
    if any(old["n"] > new["n"] or _seeds(old) - _seeds(new) for old in earlier):
        raise Refused(
            f"series {new['series']}: {new['n']} results of kind {new['kind']}, but more are in {path} already; "
            "expected all of those as well: what was measured is not thrown away; put the missing ones back"
        )
    kept = [old for old in entries if old not in earlier]
    write_atomic(path, (json.dumps([*kept, new], indent=1) + "\n").encode())
