"""Trainings of one recipe with many seeds, kept in a folder where every study finds them again.

    <root>/<recipe>-<digest>/<seed>/        a run folder

The digest stands for the recipe, resolved for the data, for the data, and for versions, processor and threads: whoever
asks for the same training again gets the one that is there. A recipe that trains on all training images is trained on
nine tenths of them, since studies choose, and choose by validation images; the test set is never opened here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from thirtytwo import environment, models, teacher
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source
from thirtytwo.evaluate import evaluate
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.train import Training, resume, train

ROOT = Path("runs/study")
"""Where trials are kept if nobody says otherwise."""
HELD_OUT = 0.1
"""Share of the training images that a study holds out where the recipe holds out none."""


@dataclass(frozen=True)
class Trial:
    """A training that has ended."""

    seed: int
    run: Run
    accuracy: float
    """On the validation images, of the weights that were kept, with the recipe's views."""
    loss: float
    """Cross-entropy there, in nats, calibrated."""
    seconds: float
    """Of training."""
    new: bool
    """Whether it was trained now, rather than found."""


class Interrupted(Exception):
    """Somebody asked the training under way to stop; it goes on where it was when the study is run again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        super().__init__(str(run.path))


@dataclass(frozen=True)
class Trials:
    """All trainings of one recipe on one data set."""

    recipe: Recipe
    """As it is trained: resolved for the data, with validation images."""
    source: Source
    """Whose training images are read once."""
    path: Path
    """Their folder."""
    device: str
    fingerprint: str
    """Of all training images."""

    @classmethod
    def of(cls, recipe: Recipe, source: Source, root: Path = ROOT, device: str = "auto") -> Trials:
        """The trainings of a recipe.

        Args:
            recipe: if it holds out no validation images, it is made to hold out `HELD_OUT` of them.
            source: the data.
            root: folder of all trials.
            device: ``auto``, ``cpu`` or ``cuda``.
        """
        source = source.in_memory()
        images = source.read_training()
        if not recipe.validation:
            recipe = recipe.replace(f"validation={HELD_OUT}")
        recipe = resolved(recipe, images, device)
        folder = root / f"{recipe.name}-{digest(recipe, images, device)}"
        return cls(recipe, source, folder, device, images.fingerprint)

    def run(self, seed: int) -> Run:
        """Folder of a seed's training, begun or not."""
        return Run(self.path / str(seed))

    def is_finished(self, seed: int) -> bool:
        """Whether a seed's training has ended and been scored."""
        path = self.run(seed).path
        return (path / "environment.json").exists() and "validation" in self.run(seed).result

    def trial(self, seed: int, watch: Callable[[Training], None] | None = None) -> Trial:
        """The training with a seed: found, gone on with, or begun, and scored on the validation images.

        Args:
            seed: decides everything that is random.
            watch: is given the training to iterate over it, and so sees it happen; None trains unseen.

        Raises:
            Interrupted: the training was asked to stop.
        """
        run, new = self.run(seed), not self.is_finished(seed)
        if new:
            self._train(run, seed, watch)
        result = run.result
        scores = result["validation"]
        return Trial(seed, run, scores["accuracy"], scores["loss"], result["train_seconds"], new)

    def _train(self, run: Run, seed: int, watch: Callable[[Training], None] | None) -> None:
        classifier = trained(run, self.recipe, self.source, seed=seed, device=self.device, watch=watch)
        scored = evaluate(classifier, self.source, split="validation", validation=self.recipe.validation)
        run.result = {**run.result, "validation": scored.summary()}
        shutil.rmtree(run.checkpoint_path.parent, ignore_errors=True)  # of hundreds of runs; they have ended


def trained(
    run: Run,
    recipe: Recipe,
    source: Source,
    *,
    seed: int,
    device: str,
    watch: Callable[[Training], None] | None = None,
) -> Classifier:
    """What training in a folder comes to: from the start, or on from where it was.

    Args:
        run: the folder, of a training that has begun or not.
        recipe: if it has begun, this is the one.
        source: the data.
        seed: decides everything that is random.
        device: ``auto``, ``cpu`` or ``cuda``.
        watch: see `Trials.trial`.

    Raises:
        Interrupted: the training was asked to stop.
    """
    if (run.path / "environment.json").exists():  # with which a folder becomes a run
        training = resume(run, source, teacher=recipe.teacher.model or None)
    else:
        training = train(recipe, source, seed=seed, out=run.path, device=device)
    if watch is not None:
        watch(training)
    else:
        training.finish()
    if training.interrupted or not run.result:
        raise Interrupted(run)
    return training.classifier


def resolved(recipe: Recipe, images: Images, device: str) -> Recipe:
    """A recipe as it is trained on these training images and this device, with the teacher's fingerprint in it."""
    return teacher.identified(recipe.for_device(environment.device(device).type).for_images(len(images)))


def digest(recipe: Recipe, images: Images, device: str, *more: int) -> str:
    """10 digits that stand for how a recipe is trained, on which images and where; names do not count.

    Args:
        recipe: resolved for the images; see `resolved`.
        images: the training images.
        device: ``auto``, ``cpu`` or ``cuda``.
        more: numbers that make other trainings.
    """
    said = json.loads(recipe.model_dump_json())
    said |= {"name": "unnamed", "description": "", "search": {}}
    if recipe.teacher.fingerprint:
        said["teacher"]["model"] = ""  # it is what it answers, wherever it lies
    elif not recipe.teacher.model:
        del said["teacher"]
    chosen = environment.device(device)
    facts = environment.describe(chosen)
    # What rounds otherwise makes other trainings: they are not mixed.
    where = [facts["device"], facts["device_name"], facts["threads"], facts["versions"]]
    kernels = models.kernels(recipe.model, chosen, "float32")
    told = json.dumps([tomli_w.dumps(said), images.fingerprint, where, kernels, *more])
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def repeat(trials: Trials, seeds: Sequence[int], watch: Callable[[Training], None] | None = None) -> Iterator[Trial]:
    """Train with each seed in turn; those that have been trained are found again.

    Args:
        trials: of the recipe.
        seeds: which.
        watch: see `Trials.trial`.
    """
    for seed in seeds:
        yield trials.trial(seed, watch)
