"""What a search for better values has found, as one HTML page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from thirtytwo.report import charts, html, wording

if TYPE_CHECKING:
    from thirtytwo.study import Tuned, TuningTrial

LISTED = 15
"""Trials in the table, best first."""


def render(found: Tuned) -> str:
    """The page.

    Args:
        found: all that it tells.
    """
    best, own = found.best, found.own
    most = max(found.importances.values(), default=0.0) or 1.0
    ranked = sorted(found.trials, key=lambda trial: (trial.state != "complete", -(trial.accuracy or 0.0)))
    keys = list(best.values)
    states = [trial.state for trial in found.trials]
    facts = {
        "notice": "",
        "warnings": (),
        "name": found.name,
        "is_better": found.is_better,
        "is_hint": found.is_hint,
        "accuracy": wording.percent(best.accuracy or 0.0),
        # What was not trained to the end reached less than it would have.
        "own": wording.percent(own.accuracy or 0.0) if own is not None and own.state == "complete" else None,
        "data": found.data,
        "number": len(found.trials),
        "images": found.images,
        "counts": {state: states.count(state) for state in ("complete", "pruned", "failed")},
        "chart": charts.trials([trial.accuracy for trial in found.trials], states),
        "importances": [(key, share, share / most) for key, share in found.importances.items()],
        "changes": [(key, _told(own, key) if own else "–", _told(best, key)) for key in keys],
        "keys": keys,
        "rows": [
            (
                trial.number,
                "–" if trial.accuracy is None else wording.percent(trial.accuracy),
                trial.state,
                [_told(trial, key) for key in keys],
            )
            for trial in ranked[:LISTED]
        ],
        "file": found.path.name,
        "unseen": bool(found.others),
        "command": shlex.join(found.comparison),
    }
    return html.render("tuning.html.jinja", facts)


def _told(trial: TuningTrial, key: str) -> str:
    value = trial.values.get(key, "–")
    return f"{value:.3g}" if isinstance(value, float) else str(value)
