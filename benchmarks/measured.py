"""Appends benchmark results to the package's measured.json, which README, recipes and planner quote."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from thirtytwo import environment
from thirtytwo.run import write_atomic

REPOSITORY = Path(__file__).parent.parent
PATH = REPOSITORY / "src" / "thirtytwo" / "measured.json"


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation, 95% interval of the mean (Student's t), n and the values themselves."""
    numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return {"n": len(numbers), "mean": mean, "standard_deviation": None, "interval": None, "values": list(values)}
    deviation = float(numbers.std(ddof=1))
    half = float(special.stdtrit(len(numbers) - 1, 0.975)) * deviation / len(numbers) ** 0.5
    return {
        "n": len(numbers),
        "mean": mean,
        "standard_deviation": deviation,
        "interval": [mean - half, mean + half],
        "values": list(values),
    }


def add(entry: dict[str, Any]) -> None:
    """Append an entry, with the machine, commit and date; nothing that was measured before is changed."""
    entries = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else []
    entries.append(
        {
            **entry,
            "machine": environment.machine(),
            "commit": environment.commit(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
    )
    write_atomic(PATH, (json.dumps(entries, indent=1) + "\n").encode())
