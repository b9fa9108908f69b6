"""What every process does on its CPU for each batch and each epoch, however many devices share the work.

    python benchmarks/loader.py [--recipe fast94] [--images 10000000] [--batch 1000] [--repeats 15]

Two things: drawing the chance of a batch, which images are shifted, turned and changed, and how; and drawing the order
of an epoch, and dividing it into batches. Neither looks at pixels, so images are of one pixel. Both are computed by one
thread, as by processes that share a processor; quoted are medians, of as many as --repeats for a batch, and of 3 for an
epoch.

The numbers stand in docs/scaling.md, with the machine and the commit that are printed with them; nothing goes to
measured.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

import runs
import series
from thirtytwo import Images, environment, planner
from thirtytwo import recipe as recipes
from thirtytwo.data import augmenter, mixer, standardiser
from thirtytwo.data.loader import Loader
from thirtytwo.recipe import Recipe

BATCHES = (1_000, 8_000, 64_000)
"""Images of a whole batch: that of one device with `fast94`'s, of eight, and of 64."""
EPOCHS = 3
"""How often the order of an epoch is drawn."""


def loader(recipe: Recipe, images: int, batch_size: int) -> Loader:
    """The loader of a training with so many images, of one pixel each."""
    pixels, labels = np.zeros((images, 1, 1, 3), np.uint8), np.zeros(images, np.int64)
    return Loader(
        Images(pixels, labels, ("a", "b"), "of one pixel"),
        batch_size=batch_size,
        seed=0,
        standardise=standardiser(recipe.pixels),
        augment=augmenter(recipe.augmentation, recipe.pixels),
        alternating_flip=recipe.augmentation.alternating_flip,
        translate_pixels=recipe.augmentation.translate_pixels,
        mixing=mixer(recipe.augmentation),
        drop_last=recipe.drop_last,
    )


def median(work: Callable[[int], object], repeats: int) -> float:
    """Seconds that some work takes, told how often it was done before; the first time loads code and does not count."""
    seconds = []
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work(turn)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def of_batches(recipe: Recipe, batches: Sequence[int], repeats: int) -> dict[int, float]:
    """Seconds to draw the chance of a batch, by the number of its images."""
    return {
        batch: median(partial(loader(recipe, batch, batch).draw, 0, chosen=torch.arange(batch)), repeats)
        for batch in batches
    }


def of_epoch(recipe: Recipe, images: int, batch_size: int) -> float:
    """Seconds to draw the order of an epoch, and to divide it."""
    return median(loader(recipe, images, batch_size).plan, EPOCHS)


def told(recipe: Recipe, batches: Sequence[int], images: int, batch_size: int, repeats: int) -> Iterator[str]:
    """Line by line, what docs/scaling.md says, and what it was measured on."""
    for batch, seconds in of_batches(recipe, batches, repeats).items():
        yield f"chance of a batch of {batch:,} images ({recipe.name}): {1e3 * seconds:.3g} ms"
    seconds = of_epoch(recipe, images, batch_size)
    yield f"order of an epoch of {images:,} images, in {-(-images // batch_size):,} batches: {seconds:.3g} s"
    facts = environment.describe(torch.device("cpu"))
    yield f"{planner.where(facts)}; commit {facts['commit']}; {runs.typed('loader.py', sys.argv[1:], None, '', '')}"


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fast94")
    parser.add_argument("--images", type=int, default=10_000_000, help="of an epoch")
    parser.add_argument("--batch", type=int, default=1_000, help="images of each of its batches")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if min(arguments.images, arguments.batch, arguments.repeats) < 1:
        parser.error("expected at least one image, in a batch, too, and one repeat")

    def work(_: int) -> int:
        torch.set_num_threads(1)
        recipe = recipes.load(arguments.recipe)
        for line in told(recipe, BATCHES, arguments.images, arguments.batch, arguments.repeats):
            print(line, flush=True)
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
