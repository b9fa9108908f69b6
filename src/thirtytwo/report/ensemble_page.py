"""What several models gain by answering together, as one HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.report import charts, html, wording

if TYPE_CHECKING:
    from thirtytwo.study import Chosen, Gain, Student

MOST_COMPARED = 12
"""Models of which each two are compared in a table; of more, those that count most."""


def render(folder: Path, found: Chosen, students: Sequence[Student]) -> str:
    """The page.

    Args:
        folder: of the ensemble.
        found: all that it tells of it.
        students: networks that have learned from it.
    """
    images, gain, chosen = found.images, found.gain, [member for member in found.members if member.weight]
    ranked = _ranked(found)
    most = max(member.weight for member in found.members)
    full = [member.name for member in found.members]
    short = dict(zip(full, _short(full), strict=True))
    others = [each.other_accuracy for each in found.additions if each.other_accuracy is not None]
    facts = {
        "notice": found.notice,
        "warnings": found.warnings,
        "found": found,
        "images": images,
        "chosen": len(chosen),
        "asked": len(found.members),
        "gain": None if gain is None else _gain(gain),
        "accuracy": wording.precise_percent(found.accuracy, images),
        "best": {"name": short[found.best.name], "accuracy": wording.precise_percent(found.best.accuracy, images)},
        "points": _points(found.accuracy - found.best.accuracy, images),
        "key_facts": list(_key_facts(found)),
        "rows": [
            {
                "name": short[member.name],
                "full": member.name,
                "weight": member.weight,
                "width": member.weight / most,
                "accuracy": wording.precise_percent(member.accuracy, images),
                "loss": f"{member.loss:.4f}",
                "ece": wording.percent(member.ece),
                "parameters": wording.scaled(member.parameters, ""),
            }
            for member in (found.members[number] for number in ranked)
        ],
        "together": {
            "accuracy": wording.precise_percent(found.accuracy, images),
            "loss": f"{found.loss:.4f}",
            "ece": wording.percent(found.ece),
            "parameters": wording.scaled(sum(member.parameters for member in chosen), ""),
        },
        "chart": charts.rounds(
            [short[each.name] for each in found.additions],
            [each.accuracy for each in found.additions],
            others if len(others) == len(found.additions) else None,
        ),
        "rounds": len(found.additions),
        "apart": _apart(found, ranked[:MOST_COMPARED], short),
        "left_out": max(len(found.members) - MOST_COMPARED, 0),
        "students": [_student(student, found) for student in students],
        "provenance": list(_provenance(found)),
        "command": shlex.join(["thirtytwo", "evaluate", str(folder)]),
        "distil": shlex.join(["thirtytwo", "ensemble", *full, "--distil", "fast94", "--out", str(folder)]),
    }
    return html.render("ensemble.html.jinja", facts)


def _short(names: Sequence[str]) -> list[str]:
    """What tells paths apart: without the folders that all of them share."""
    parts = [Path(name).parts for name in names]
    shared = 0
    while all(len(one) > shared + 1 for one in parts) and len({one[shared] for one in parts}) == 1:
        shared += 1
    return [str(Path(*one[shared:])) for one in parts]


def _points(difference: float, images: int) -> str:
    """A difference of shares in points, with as many decimals as one image can change."""
    return wording.signed(100 * difference, 2 if images > 1000 else 1).replace("-", "−")  # as wide as a plus


def _gain(gain: Gain) -> dict[str, Any]:
    low, high = gain.interval
    return {
        "difference": _points(gain.difference, gain.images),
        "low": _points(low, gain.images),
        "high": _points(high, gain.images),
        "verdict": "better" if low > 0 else "worse" if high < 0 else "open",
        "accuracy": wording.precise_percent(gain.accuracy, gain.images),
        "best": wording.precise_percent(gain.best_accuracy, gain.images),
        "loss": f"{gain.loss:.4f}",
        "best_loss": f"{gain.best_loss:.4f}",
        "won": gain.won,
        "lost": gain.lost,
    }


def _key_facts(found: Chosen) -> Iterator[tuple[str, str, str]]:
    """Name, value and meaning of the most important numbers."""
    chosen = [member for member in found.members if member.weight]
    rest = "" if len(chosen) == len(found.members) else "; the others add nothing"
    yield "Members", f"{len(chosen)} of {len(found.members)}", f"models were chosen{rest}"
    yield "Loss", f"{found.loss:.3f}", "mean of −log p(true class), in nats"
    yield "Calibration error", wording.percent(found.ece), "gap between its confidence and its accuracy (ECE)"
    if len(chosen) > 1:
        yield "Disagreement", wording.percent(found.disagreement), "of images, on average, on which two members differ"
    parameters, most = sum(member.parameters for member in chosen), found.best.parameters
    factor = f"{parameters / max(most, 1):.1f} times those of the best single model"
    yield "Parameters", wording.scaled(parameters, ""), factor


def _ranked(found: Chosen) -> list[int]:
    """Numbers of the models: those that count most first, then the most accurate."""
    members = found.members
    return sorted(range(len(members)), key=lambda number: (-members[number].weight, -members[number].accuracy))


def _apart(found: Chosen, numbers: Sequence[int], short: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each of some models: on how many images each other one says something else."""
    most = max((found.apart[one][other] for one in numbers for other in numbers), default=0.0) or 1.0
    return [
        {
            "name": short[found.members[one].name],
            "cells": [
                None
                if one == other
                else (wording.percent(found.apart[one][other]), f"{found.apart[one][other] / most:.2f}")
                for other in numbers
            ],
        }
        for one in numbers
    ]


def _student(student: Student, found: Chosen) -> dict[str, Any]:
    trial = student.trial
    return {
        "name": f"{student.recipe.name}, seed {trial.seed}",
        "accuracy": wording.precise_percent(trial.accuracy, found.images),
        "loss": f"{trial.loss:.4f}",
        "ece": wording.percent(student.ece),
        "agreement": wording.percent(student.agreement),
        "parameters": wording.scaled(student.parameters, ""),
        "work": wording.percent(student.work, 0 if student.work >= 0.1 else 1),
        "command": shlex.join(["thirtytwo", "train", "--resume", str(trial.run.path)]),
        "comparison": student.comparison(found),
    }


def _provenance(found: Chosen) -> Iterator[tuple[str, str]]:
    """What was asked, and of what."""
    ensemble = found.ensemble
    share = wording.percent(float(ensemble.facts["validation_fraction"]), 0)
    yield "Data", f"{found.data}; {share} of its training images, {found.images:,}, held out by every model"
    if left_out := ensemble.exclusion:
        names = ", ".join(Path(file).name for file in left_out.files)
        yield "Left out", f"{wording.plural(len(left_out.indices), 'training image')}, named in {names}"
    yield "Data fingerprint", str(ensemble.facts["fingerprint"])
    yield "Models asked", ", ".join(member.name for member in found.members)
    yield "Temperature", f"{ensemble.temperature:.3f}, for the mean of the members' calibrated probabilities"
    yield "Fingerprint", ensemble.fingerprint
    yield from wording.circumstances(found.environment, "Chosen")
