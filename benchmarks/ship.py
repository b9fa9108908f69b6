"""Puts the weights of a finished run into the package, where `Classifier.load("pretrained")` finds them.

    python benchmarks/ship.py RUN

Which run that is has to be settled before its score is known, such as the first seed of a series: the best of several
would promise more than it keeps. Kernels are stored as float16, and the stored weights are what is scored on the test
set, once and counted. The file's header carries that score, the recipe, the seed and the fingerprint of the images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import measured
import series
from thirtytwo import Classifier, Run, evaluate, find
from thirtytwo.data import Sketch, Source

PATH = measured.REPOSITORY / "src" / "thirtytwo" / "pretrained.safetensors"

MOST_BYTES = 24_000_000

KEPT = ("recipe", "seed", "epochs", "flops", "parameters", "train_seconds", "fingerprint", "validation_fraction")
"""What the header says of the training, beside the commit; not where it lay on the machine that did it."""


def ship(run: Run, source: Source, name: str, path: Path) -> Classifier:
    """Score the weights as they will be stored, and store them.

    Args:
        run: a finished training, scored or not.
        source: what it was trained on.
        name: the SPEC by which anyone has that data.
        path: of the model file.

    Raises:
        Refused: the run was trained on something else, or the file would be too large.
    """
    classifier = Classifier.load(run)
    training = source.read_training()
    if (trained_on := classifier.facts.get("fingerprint")) != training.fingerprint:
        raise measured.Refused(
            f"{run.path}: was trained on images with fingerprint {trained_on}; expected those of {source.location}, "
            f"{training.fingerprint}; choose a run that was trained on them"
        )
    if "start" in classifier.facts:
        raise measured.Refused(
            f"{run.path}: began with the weights of {classifier.facts['start']['model']}; expected a training from "
            "scratch, so that these are all the pictures that the weights know; choose another run"
        )
    facts = {key: classifier.facts[key] for key in KEPT if key in classifier.facts}
    seen = Sketch.of(training.digests).to_json()
    classifier.facts = {**facts, "spec": name, "commit": run.environment["commit"], "seen": seen}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / path.name
        classifier.save(file, half=True)
        if (size := file.stat().st_size) > MOST_BYTES:
            raise measured.Refused(f"{run.path}: {size:,} bytes of weights; expected at most {MOST_BYTES:,}")
        stored = Classifier.load(file)
        scored = evaluate(stored, source, facts={"run": run.environment["run_id"], "purpose": "ship"})
        summary = scored.summary()
        stored.facts = {**stored.facts, "test": {key: summary[key] for key in ("images", "accuracy", "loss", "ece")}}
        stored.save(file, half=True)  # float16 numbers are float16 numbers: the weights stay what was scored
        file.replace(path)
    return Classifier.load(path)


def main() -> int:
    """Ship; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data", default="cifar10", help="SPEC of what it was trained on")
    arguments = parser.parse_args()

    def work(_: int) -> int:
        classifier = ship(Run.open(arguments.run), find(arguments.data), "cifar10", PATH)
        print(f"{PATH.stat().st_size:,} bytes, {classifier.facts['test']['accuracy']:.2%} on the test set")
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
