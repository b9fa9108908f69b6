"""Does `thirtytwo compare` keep its promises, with the spread that a recipe was measured to have?

    python benchmarks/compare_simulation.py [--recipe fast94] [--pairs 30] [--studies 20000]

Studies are drawn, not trained: accuracies are normal around their recipe's mean, with the standard deviation of all
runs that measured.json has of the recipe, and each study looks after every pair and stops as `compare` does. Told is
how often a difference is found where there is none, how often one of 0.3 points is found, and after how many pairs;
and, beside it, what an ordinary t test does that is looked at just as often. Results go to measured.json as an entry of
kind `simulation`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from statistics import stdev
from typing import Any

import numpy as np
import torch
from scipy import special

import measured
import runs
import series
from measured import Refused
from thirtytwo import environment, planner
from thirtytwo.study import sequential
from thirtytwo.study.compare import LEVEL

DIFFERENCES = (0.0, 0.001, 0.003, 0.01)


def simulate(difference: float, deviation: float, pairs: int, studies: int, seed: int = 0) -> dict[str, Any]:
    """What becomes of studies in which B is better by `difference`, and pairs differ by this standard deviation."""
    draws = np.random.default_rng(seed).normal(difference, deviation, (studies, pairs))
    ends, found, naive = [], 0, 0
    for row in draws:
        end = sequential.settled_after(list(row), LEVEL)
        found += end is not None
        ends.append(end or pairs)
        naive += _peeked(row)
    return {
        "difference": difference,
        "found": found / studies,
        "pairs": measured.spread(ends)["mean"],
        "found_by_an_ordinary_test": naive / studies,
    }


def _peeked(row: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether a t test, looked at after every pair from the second on, once says p < 0.05."""
    n = np.arange(2, len(row) + 1)
    sums, squares = row.cumsum()[1:], (row**2).cumsum()[1:]
    variance = (squares - sums**2 / n) / (n - 1)
    t = sums / np.sqrt(n * np.maximum(variance, 1e-300))
    return bool((np.abs(t) > special.stdtrit(n - 1, 0.5 + LEVEL / 2)).any())


def main() -> int:
    """Simulate; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fast94")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--studies", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.pairs < 2 or arguments.studies < 1:
        parser.error("expected at least two pairs and one study")

    def work(_: int) -> int:
        trainings = planner.every("training", arguments.recipe)
        accuracies = [value for entry in trainings for value in entry["accuracy"]["values"]]
        if len(accuracies) < 2:
            raise Refused(f"{arguments.recipe}: its spread has not been measured; expected a recipe of which it has")
        deviation = stdev(accuracies) * 2**0.5
        rows = [simulate(one, deviation, arguments.pairs, arguments.studies) for one in DIFFERENCES]
        facts = environment.describe(torch.device("cpu"))
        measured.add(
            {
                "kind": "simulation",
                "recipe": arguments.recipe,
                "series": f"compare-{trainings[-1]['series']}",
                **{key: facts[key] for key in measured.CONDITIONS},
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "command": runs.typed("compare_simulation.py", sys.argv[1:], None, "", ""),
                "data": "drawn",
                "n": arguments.studies,
                "deviation_of_differences": deviation,
                "spread_n": len(accuracies),  # that deviation is itself a guess, from so many runs
                "pairs": arguments.pairs,
                "rows": rows,
            }
        )
        for row in rows:
            print(
                f"difference {100 * row['difference']:.1f} points: found in {row['found']:.1%}, "
                f"after {row['pairs']:.1f} pairs on average (an ordinary test: {row['found_by_an_ordinary_test']:.1%})"
            )
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
