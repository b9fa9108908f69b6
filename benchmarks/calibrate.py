"""Fits what a recipe without validation images has to carry: the section [calibration].

    python benchmarks/calibrate.py RECIPE [--seed 1000] [--data SPEC] [--out DIR]

A twin of the recipe is trained with a tenth of the training images held out, which is what temperature and probability
are fitted to, as at the end of any training that has such images. The test set is not touched. What is printed belongs
into the recipe file. --out keeps the run; it goes on with one that was interrupted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import series
from measured import Refused
from thirtytwo import Epoch, find, resume, train
from thirtytwo import recipe as recipes
from thirtytwo.train import Training

HELD_OUT = 0.1


def twin(recipe: str, spec: str | None, seed: int, out: Path) -> Training:
    """The training, ready to begin or to go on.

    Raises:
        Refused: the recipe holds images out already, and so is calibrated by itself.
    """
    if (settings := recipes.load(recipe)).validation:
        raise Refused(
            f"{recipe}: holds out {settings.validation:.0%} of its images, so each of its trainings is calibrated by "
            "itself; expected a recipe with validation = 0"
        )
    settings, source = settings.replace(f"validation={HELD_OUT}"), find(spec)
    if not (out / "environment.json").exists():
        return train(settings, source, seed=seed, out=out)
    training = resume(out, source)
    expected = settings.for_device(training.device).for_images(training.data["images"])
    if training.recipe != expected or training.seed != seed:
        raise Refused(f"{out}: holds another training; expected {recipe} with seed {seed}; choose another --out")
    return training


def section(training: Training, recipe: str) -> str:
    """The recipe's section, as a finished twin has it."""
    classifier = training.finish()
    settings = recipes.load(recipe).for_device(training.device).for_images(training.data["images"])
    return (
        "[calibration]\n"
        f"coverage = {settings.calibration.coverage:g}\n"
        f"temperature = {classifier.temperature:.3f}\n"
        f"unknown_below = {classifier.unknown_below:.3f}\n"
        f'data = "{training.data["name"]}"\n'
        f'settings = "{settings.digest}"'
    )


def main() -> int:
    """Fit; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a shipped one, or a .toml file")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--data", default=None, metavar="SPEC")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="keep the run here")
    arguments = parser.parse_args()

    def work(_: int) -> int:
        with tempfile.TemporaryDirectory() as folder:
            training = twin(arguments.recipe, arguments.data, arguments.seed, arguments.out or Path(folder) / "twin")
            for event in training:
                if isinstance(event, Epoch):
                    print(f"epoch {event.epoch}: validation loss {event.validation_loss:.4f}", file=sys.stderr)
            print(section(training, arguments.recipe))
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
