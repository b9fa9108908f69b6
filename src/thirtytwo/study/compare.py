"""Is recipe A better than recipe B? Trainings in pairs, one of each with the same seed, until the answer is clear."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from thirtytwo.errors import InputError
from thirtytwo.study import sequential
from thirtytwo.study.pool import Local, Pool, in_order
from thirtytwo.study.spread import Spread
from thirtytwo.study.task import Task
from thirtytwo.study.trials import Trial, Trials

LEVEL = 0.95
SIZES = (0.001, 0.003, 0.01)
"""Differences in accuracy for which is told how many pairs would settle them."""


@dataclass(frozen=True)
class Pair:
    """A training of each recipe with the same seed."""

    first: Trial
    second: Trial

    @property
    def difference(self) -> float:
        """By which the second one's validation accuracy is higher."""
        return self.second.accuracy - self.first.accuracy


@dataclass(frozen=True)
class Comparison:
    """What pairs say together."""

    pairs: tuple[Pair, ...]

    @property
    def differences(self) -> list[float]:
        """One a pair, in the order of the seeds."""
        return [pair.difference for pair in self.pairs]

    @property
    def first(self) -> Spread:
        """Accuracies of recipe A."""
        return Spread.of([pair.first.accuracy for pair in self.pairs])

    @property
    def second(self) -> Spread:
        """Accuracies of recipe B."""
        return Spread.of([pair.second.accuracy for pair in self.pairs])

    @property
    def p_value(self) -> float:
        """Valid whenever one stops; 1 where there is no difference at all."""
        return sequential.p_value(self.differences)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean difference, valid whenever one stops; infinite as long as nothing is known."""
        return sequential.interval(self.differences, LEVEL)

    @property
    def better(self) -> Literal["A", "B"] | None:
        """Which recipe is better, beyond reasonable doubt; None as long as that is open."""
        pairs = sequential.settled_after(self.differences, LEVEL)
        if pairs is None:
            return None
        return "B" if fmean(self.differences[:pairs]) > 0 else "A"

    @property
    def is_settled(self) -> bool:
        """Whether there is a difference, beyond reasonable doubt."""
        return self.better is not None

    def needed(self, difference: float) -> int | None:
        """Pairs that would typically settle a difference of this size; None while nothing is known of their spread."""
        if len(self.pairs) < 2 or not (deviation := stdev(self.differences)):
            return None
        return sequential.pairs_to_settle(difference, deviation, LEVEL)

    def to_json(self) -> dict[str, Any]:
        """Everything, as ``compare --json`` prints it."""
        differences = Spread.of(self.differences)
        low, high = self.interval
        finite = low > float("-inf")
        return {
            **differences.to_json(),
            "difference": differences.mean,
            "interval": [low, high] if finite else None,
            "p_value": self.p_value,
            "better": self.better,
            "pairs_needed": {f"{size:g}": self.needed(size) for size in SIZES},
            "seeds": [pair.first.seed for pair in self.pairs],
            "first": self.first.to_json(),
            "second": self.second.to_json(),
        }


def compare(
    first: Trials,
    second: Trials,
    seeds: Sequence[int],
    *,
    stop_early: bool = True,
    pool: Pool | None = None,
) -> Iterator[Comparison]:
    """Train pair after pair; yields what is known after each.

    The pairs are judged by their validation accuracies with a test that may be looked at after every pair (see
    `sequential`): it stops as soon as a difference is beyond doubt. That the accuracies of one seed are paired takes
    away what both share, such as which images are held out. Pairs are looked at in the order of the seeds, whichever of
    them ends first: where the trainings run changes nothing about what is found.

    Args:
        first: of recipe A.
        second: of recipe B, on the same data.
        seeds: at most these.
        stop_early: end when the difference is settled.
        pool: where they run; None is here, one after another.

    Raises:
        Interrupted: they were asked to stop.
        InputError: they are not judged on the same images.
    """
    shares = first.recipe.validation, second.recipe.validation
    if shares[0] != shares[1] or first.fingerprint != second.fingerprint:
        raise InputError(
            f"A holds out {shares[0]:.0%} of {first.source.name}, B {shares[1]:.0%} of {second.source.name}; expected "
            "both to be judged on the same images; give them the same data and the same validation"
        )
    comparison = Comparison(())
    pair: dict[int, Trial] = {}
    with contextlib.closing(in_order(pool or Local(), _in_turn(first, second, seeds))) as done:
        for task, ended in done:
            ended.check()
            pair[task.number] = (first, second)[task.number].ended(task.seed, ended.how == "trained")
            if len(pair) < 2:
                continue
            comparison, pair = Comparison((*comparison.pairs, Pair(pair[0], pair[1]))), {}
            yield comparison
            if stop_early and comparison.is_settled:
                return


def _in_turn(first: Trials, second: Trials, seeds: Sequence[int]) -> Iterator[Task]:
    """Pair after pair; in turn, so that what drifts in a machine over hours troubles both alike."""
    for place, seed in enumerate(seeds):
        for number in (0, 1) if place % 2 == 0 else (1, 0):
            yield (first, second)[number].task(seed, number, f"{'AB'[number]} with seed {seed}")
