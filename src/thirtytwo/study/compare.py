"""Is recipe A better than recipe B? Trainings in pairs, one of each with the same seed, until the answer is clear."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal

from thirtytwo import metrics
from thirtytwo.errors import Diverged, InputError
from thirtytwo.study import sequential
from thirtytwo.study.pool import Local, Pool, in_order
from thirtytwo.study.spread import ROUNDING, Spread
from thirtytwo.study.task import Task
from thirtytwo.study.trials import Trial, Trials, commits

LEVEL = 0.95
SIZES = (0.001, 0.003, 0.01)
"""Differences in accuracy for which is told how many pairs would settle them, if nobody names one."""
FEWEST_PAIRS = sequential.fewest_pairs(LEVEL)
"""Fewer settle nothing."""
FEW_PAIRS = 5
"""From fewer, their standard deviation may be more than three times what it seems to be (95%)."""


@dataclass(frozen=True)
class Pair:
    """A training of each recipe with the same seed."""

    first: Trial
    second: Trial

    @property
    def seed(self) -> int:
        """Of both."""
        return self.first.seed

    @property
    def difference(self) -> float:
        """By which the second one's validation accuracy is higher."""
        return self.second.accuracy - self.first.accuracy


@dataclass(frozen=True)
class Unpaired:
    """A seed that makes no pair, because a training with it diverged."""

    seed: int
    first: Diverged | None
    """What became of A; None if it did not diverge."""
    second: Diverged | None
    """What became of B."""


@dataclass(frozen=True)
class Needed:
    """How many pairs would typically settle a difference, if they go on to differ as those do that there are."""

    pairs: int | None
    """In all; None if they are more than `sequential.MOST_PAIRS`."""
    more: int | None
    """Of these, how many there are not yet."""
    is_rough: bool
    """Whether fewer than `FEW_PAIRS` tell how much pairs differ."""


@dataclass(frozen=True)
class Comparison:
    """What trainings in pairs say together."""

    outcomes: tuple[Pair | Unpaired, ...]
    """One a seed, in the order of the seeds."""
    is_same: bool = False
    """Whether A and B are the same recipe and so end with the same bits: each difference is 0 by construction."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Of all seeds with which neither recipe diverged. Everything below is about these."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Pair))

    @property
    def diverged(self) -> tuple[list[int], list[int]]:
        """Seeds with which A diverged, and those with which B did."""
        lost = [outcome for outcome in self.outcomes if isinstance(outcome, Unpaired)]
        return [one.seed for one in lost if one.first], [one.seed for one in lost if one.second]

    @property
    def differences(self) -> list[float]:
        """One a pair, in the order of the seeds."""
        return [pair.difference for pair in self.pairs]

    @property
    def first(self) -> Spread:
        """Accuracies of recipe A; without an interval, since they had a say in how many of them there are."""
        return replace(Spread.of([pair.first.accuracy for pair in self.pairs]), interval=None)

    @property
    def second(self) -> Spread:
        """Accuracies of recipe B; without an interval, too."""
        return replace(Spread.of([pair.second.accuracy for pair in self.pairs]), interval=None)

    @property
    def p_value(self) -> float:
        """Valid whenever one stops; 1 where there is no difference at all."""
        return sequential.p_value(self.differences)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean difference, valid whenever one stops; infinite as long as nothing is known.

        That is so of few pairs, and of pairs that all differ alike.
        """
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

    @property
    def images(self) -> int:
        """How many validation images judge: the same ones for every pair."""
        return self.pairs[0].first.images

    @property
    def margin_of_images(self) -> float:
        """How far at most (95%) the draw of the validation images moves the mean difference; `interval` omits that.

        If a pair disagrees about a share d of n images, one right and the other one wrong, that is at most 1.96 √(d/n).
        Which images a training names rightly is not kept, but d is at most the sum of the pair's errors, and at most
        the sum of its accuracies; and what bounds each pair bounds their mean. As d, too, is only known of these
        images, it is the upper end of its interval that counts. A recipe never disagrees with itself.
        """
        if self.is_same:
            return 0.0
        both = [pair.first.accuracy + pair.second.accuracy for pair in self.pairs]
        disagreement = fmean(min(one, 2 - one) for one in both)
        highest = metrics.wilson(disagreement * self.images, self.images)[1]
        return metrics.NORMAL_95 * math.sqrt(highest / self.images)

    @property
    def commits(self) -> list[str]:
        """Those of the program that the trainings were made by; what differs between them may be what was found."""
        return commits(trial for pair in self.pairs for trial in (pair.first, pair.second))

    @property
    def majority_baseline(self) -> float:
        """The accuracy of always naming the most frequent class of the validation images."""
        return self.pairs[0].first.majority_baseline

    @property
    def at_baseline(self) -> tuple[bool, bool]:
        """Whether the mean accuracy of A is no better than that, as far as so many images can tell; the same of B."""
        one, other = (
            metrics.is_at_baseline(spread.mean, self.majority_baseline, self.images)
            for spread in (self.first, self.second)
        )
        return one, other

    def needed(self, difference: float) -> Needed | None:
        """What would typically settle a true difference of this size; None while nothing is known of pairs' spread."""
        there = len(self.pairs)
        if there < 2 or (deviation := stdev(self.differences)) < ROUNDING:
            return None
        pairs = sequential.pairs_to_settle(difference, deviation, LEVEL)
        return Needed(pairs, None if pairs is None else max(pairs - there, 0), there < FEW_PAIRS)

    def to_json(self, sizes: Sequence[float] = SIZES) -> dict[str, Any]:
        """Everything, as ``compare --json`` prints it; there has to be a pair.

        Args:
            sizes: differences for which is told what would settle them.
        """
        differences = Spread.of(self.differences)
        needed = {f"{size:g}": self.needed(size) for size in sizes}
        low, high = self.interval
        finite = low > float("-inf")
        return {
            **differences.to_json(),
            "difference": differences.mean,
            "interval": [low, high] if finite else None,
            "p_value": self.p_value,
            "better": self.better,
            "same_recipe": self.is_same,
            "diverged_seeds": dict(zip("AB", self.diverged, strict=True)),
            "pairs_needed": {size: found and asdict(found) for size, found in needed.items()},
            "images": self.images,
            "margin_of_images": self.margin_of_images,
            "majority_baseline": self.majority_baseline,
            "at_baseline": dict(zip("AB", self.at_baseline, strict=True)),
            "seeds": [pair.seed for pair in self.pairs],
            "commits": self.commits,
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
    """Train pair after pair; yields what is known after each seed.

    The pairs are judged by their validation accuracies with a test that may be looked at after every pair (see
    `sequential`): it stops as soon as a difference is beyond doubt. That the accuracies of one seed are paired takes
    away what both share, such as which images are held out. Pairs are looked at in the order of the seeds, whichever of
    them ends first: where the trainings run changes nothing about what is found. A seed with which one diverges makes
    no pair, and the next one is begun; both are trained with it all the same, so that each recipe's share of such seeds
    is known. Of a recipe beside itself, which differs from itself in nothing, one pair is enough.

    Args:
        first: of recipe A.
        second: of recipe B, on the same data.
        seeds: at most these.
        stop_early: end when the difference is settled; after one pair if both are the same recipe.
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
    comparison = Comparison((), is_same=first.is_same_as(second))
    ends: dict[int, Trial | Diverged] = {}
    # Where the first pair is to be the last one, a cluster is not to begin others beside it.
    rounds: list[Sequence[int]] = [[seed] for seed in seeds] if comparison.is_same and stop_early else [seeds]
    for some in rounds:
        with contextlib.closing(in_order(pool or Local(), _in_turn(first, second, some))) as done:
            for task, ended in done:
                if isinstance(ended.error, Diverged):
                    ends[task.number] = ended.error
                else:
                    ended.check()
                    ends[task.number] = (first, second)[task.number].ended(task.seed, ended.how == "trained")
                if len(ends) < 2:
                    continue
                outcome, ends = _outcome(task.seed, ends[0], ends[1]), {}
                comparison = replace(comparison, outcomes=(*comparison.outcomes, outcome))
                yield comparison
                if stop_early and (comparison.is_settled or (comparison.is_same and comparison.pairs)):
                    return


def _outcome(seed: int, first: Trial | Diverged, second: Trial | Diverged) -> Pair | Unpaired:
    if isinstance(first, Trial) and isinstance(second, Trial):
        return Pair(first, second)
    lost = [end if isinstance(end, Diverged) else None for end in (first, second)]
    return Unpaired(seed, lost[0], lost[1])


def _in_turn(first: Trials, second: Trials, seeds: Sequence[int]) -> Iterator[Task]:
    """Pair after pair; in turn, so that what drifts in a machine over hours troubles both alike."""
    for place, seed in enumerate(seeds):
        for number in (0, 1) if place % 2 == 0 else (1, 0):
            yield (first, second)[number].task(seed, number, f"{'AB'[number]} with seed {seed}")
