"""Several measurements of one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Self

from scipy import special

ROUNDING = 1e-9
"""Standard deviation below which values are alike but for how numbers round: far below what one image counts."""


@dataclass(frozen=True)
class Spread:
    """Values, and what they say together."""

    n: int
    mean: float
    standard_deviation: float | None
    """Of the values, with n - 1 in the denominator; None for a single one."""
    interval: tuple[float, float] | None
    """95% interval of the mean, by Student's t. None for a single value; where all are alike, since a few such values
    tell nothing about how much others would differ; or where the values had a say in how many of them there are: then
    it would not keep its promise."""
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """At least one value."""
        n, mean = len(values), fmean(values)
        if n < 2:
            return cls(n, mean, None, None, tuple(values))
        deviation = stdev(values)
        if deviation < ROUNDING:
            return cls(n, mean, deviation, None, tuple(values))
        half = float(special.stdtrit(n - 1, 0.975)) * deviation / n**0.5
        return cls(n, mean, deviation, (mean - half, mean + half), tuple(values))

    def to_json(self) -> dict[str, Any]:
        """As results and measured.json hold it."""
        found = asdict(self)
        return {**found, "interval": self.interval and list(self.interval), "values": list(self.values)}
