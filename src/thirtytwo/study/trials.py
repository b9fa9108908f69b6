"""Trainings of one recipe with many seeds, kept in a folder where every study finds them again.

    <root>/<recipe>-<digest>/<seed>/        a run folder

The digest stands for the recipe, resolved for the data, for the data, and for versions, processor and threads: whoever
asks for the same training again gets the one that is there. A recipe that trains on all training images is trained on
nine tenths of them, since studies choose, and choose by validation images; the test set is never opened here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo import environment, metrics, models, references
from thirtytwo.data import Images, Source
from thirtytwo.errors import Diverged
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.spread import Spread
from thirtytwo.study.task import Task
from thirtytwo.train import precision

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
    images: int
    """How many validation images there are."""
    majority_baseline: float
    """The accuracy of always naming the most frequent class of these."""
    commit: str = ""
    """Of the program that trained it; empty where that is not known."""


def commits(trainings: Iterable[Trial | Run]) -> list[str]:
    """Those of the program that some trainings were made by, each once; without those that are not known."""
    return list(dict.fromkeys(each.commit for each in trainings if each.commit))


@dataclass(frozen=True)
class Repeated:
    """What trainings of one recipe with several seeds say together."""

    trials: tuple[Trial, ...]
    """At least one; all judged by the same images."""

    @property
    def spread(self) -> Spread:
        """Of their validation accuracies."""
        return Spread.of([trial.accuracy for trial in self.trials])

    @property
    def images(self) -> int:
        """How many validation images judge: the same ones for every training."""
        return self.trials[0].images

    @property
    def margin_of_images(self) -> float:
        """How far at most (95%) the draw of the validation images moves the mean accuracy; `spread` omits that.

        The longer arm of Wilson's interval for the mean accuracy, as if it were that of one training. Where trainings
        disagree about images, the draw moves their mean less than that.
        """
        mean = self.spread.mean
        low, high = metrics.wilson(mean * self.images, self.images)
        return max(mean - low, high - mean)

    @property
    def majority_baseline(self) -> float:
        """The accuracy of always naming the most frequent class of the validation images."""
        return self.trials[0].majority_baseline

    @property
    def is_at_baseline(self) -> bool:
        """Whether the mean accuracy is no better than that, as far as so many images can tell."""
        return metrics.is_at_baseline(self.spread.mean, self.majority_baseline, self.images)

    @property
    def commits(self) -> list[str]:
        """Those of the program that the trainings were made by."""
        return commits(self.trials)

    def to_json(self) -> dict[str, Any]:
        """Everything, as ``repeat --json`` prints it."""
        return {
            **self.spread.to_json(),
            "seeds": [trial.seed for trial in self.trials],
            "images": self.images,
            "margin_of_images": self.margin_of_images,
            "majority_baseline": self.majority_baseline,
            "at_baseline": self.is_at_baseline,
            "commits": self.commits,
        }


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
    words: str
    """What people call it: the recipe, with what was changed."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        source: Source,
        root: Path = ROOT,
        device: str = "auto",
        pool: Pool | None = None,
        words: str = "",
    ) -> Trials:
        """The trainings of a recipe.

        Args:
            recipe: if it holds out no validation images, it is made to hold out `HELD_OUT` of them.
            source: the data.
            root: folder of all trials.
            device: ``auto``, ``cpu`` or ``cuda``.
            pool: where they are going to run; None is here.
            words: what was asked for as the recipe, changes included, for people; empty is the recipe's name.

        Raises:
            ModelError: a model that it names cannot be read, or is another one than the recipe says.
        """
        source = source.in_memory()
        images = source.read_training()
        recipe, where = resolved(recipe.holding_out(HELD_OUT), images, device, pool or Local())
        folder = root / f"{recipe.name}-{digest(recipe, images, where)}"
        return cls(recipe, source, folder, device, images.fingerprint, words or recipe.name)

    def is_same_as(self, other: Trials) -> bool:
        """Whether others train with the same settings, images and rounding, and so end with the same bits.

        What the recipes are called does not count.
        """
        one, another = (trials.path.name.rpartition("-")[2] for trials in (self, other))
        return one == another

    def run(self, seed: int) -> Run:
        """Folder of a seed's training, begun or not."""
        return Run(self.path / str(seed))

    def is_finished(self, seed: int) -> bool:
        """Whether a seed's training has ended and been scored."""
        return self.task(seed).is_finished

    def task(self, seed: int, number: int | None = None, words: str | None = None) -> Task:
        """The training with a seed, to be done in a pool.

        Args:
            seed: decides everything that is random.
            number: by which a study knows it; None is the seed.
            words: what people know it by; None tells the seed.
        """
        return Task(
            recipe=self.recipe,
            source=self.source,
            seed=seed,
            path=self.run(seed).path,
            device=self.device,
            number=seed if number is None else number,
            words=words or f"seed {seed}",
        )

    def ended(self, seed: int, new: bool) -> Trial:
        """What came of a training that has ended.

        Args:
            seed: which.
            new: whether it was trained now.
        """
        run = self.run(seed)
        result = run.result
        scores = result["validation"]
        return Trial(
            seed=seed,
            run=run,
            accuracy=scores["accuracy"],
            loss=scores["loss"],
            seconds=result["train_seconds"],
            new=new,
            images=scores["images"],
            majority_baseline=metrics.majority_baseline(row["images"] for row in scores["per_class"]),
            commit=run.commit,
        )

    def trial(self, seed: int, pool: Pool | None = None) -> Trial:
        """The training with a seed: found, gone on with, or begun, and scored on the validation images.

        Args:
            seed: decides everything that is random.
            pool: where it runs; None is here.

        Raises:
            Interrupted: it was asked to stop.
        """
        (trial,) = repeat(self, [seed], pool)
        return trial


def digest(recipe: Recipe, images: Images, where: Sequence[Any], *more: int) -> str:
    """10 digits that stand for how a recipe is trained, on which images and where; names do not count.

    Args:
        recipe: resolved for the images; see `resolved`.
        images: the training images.
        where: what `rounding` says there.
        more: numbers that make other trainings.
    """
    told = json.dumps([recipe.chosen(), images.fingerprint, *where, *more], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def rounding(recipe: Recipe, device: str) -> list[Any]:
    """What of this machine decides how trainings round: what rounds otherwise makes other trainings, which do not mix.

    Args:
        recipe: what is trained.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    chosen = environment.device(device)
    facts = environment.describe(chosen)
    # Not which of several alike cards: trainings of one are found by the others.
    where = [chosen.type, facts["device_name"], facts["threads"], facts["versions"]]
    # Not what else it may compute with: trainings that are there already shall be found again.
    half = [models.HALF_PRODUCTS] if precision(recipe, chosen) == models.HALF_PRODUCTS else []
    return [where, models.kernels(recipe.model, chosen, "float32"), *half]


def resolved(recipe: Recipe, images: Images, device: str, pool: Pool) -> tuple[Recipe, list[Any]]:
    """A recipe as it is trained on these training images in a pool, and what `rounding` says there.

    The recipe holds the fingerprints of the models that it names.

    Raises:
        ModelError: one of them cannot be read, is another one than the recipe says, or may not be used.
        RecipeError: one of them does not fit the recipe.
    """
    recipe, where = pool.ask(_resolved_there, recipe, len(images), device)
    return references.identified(recipe, images, HELD_OUT), where  # here, where their files are


def _resolved_there(recipe: Recipe, images: int, device: str) -> tuple[Recipe, list[Any]]:
    """A recipe as this machine trains it on so many images, and what `rounding` says of it."""
    recipe = recipe.for_device(environment.device(device).type).for_images(images)
    return recipe, rounding(recipe, device)


def repeat(
    trials: Trials,
    seeds: Sequence[int],
    pool: Pool | None = None,
    diverged: Callable[[int, Diverged], None] | None = None,
) -> Iterator[Trial]:
    """Train with each seed; those that have been trained are found again.

    Args:
        trials: of the recipe.
        seeds: which.
        pool: where they run; None is here, one after another.
        diverged: is told of a seed that ended in nothing; None raises it.

    Returns:
        Trials in the order in which they end: here, that of the seeds.

    Raises:
        Interrupted: they were asked to stop.
    """
    with contextlib.closing((pool or Local()).run(trials.task(seed) for seed in seeds)) as done:
        for task, ended in done:
            if isinstance(ended.error, Diverged) and diverged is not None:
                diverged(task.seed, ended.error)
                continue
            ended.check()
            yield trials.ended(task.seed, ended.how == "trained")
