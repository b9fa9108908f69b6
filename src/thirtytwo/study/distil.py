"""One network in place of many: a recipe that is trained with an ensemble for its teacher, and judged beside it.

It holds out the same validation images as the members have, so that all are judged by the same ones, which none has
seen; see `thirtytwo.references`. The training is one of `trials`: stopped, and asked for again, it goes on.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from thirtytwo import metrics, models
from thirtytwo.classifier import Classifier
from thirtytwo.data import Source
from thirtytwo.errors import RecipeError, RunError
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.study.pool import Pool
from thirtytwo.study.trials import Trial, Trials

if TYPE_CHECKING:
    from thirtytwo.study.ensemble import Chosen

PLACE = "distilled"
"""Folder beside the ensemble's model in which students are trained."""


@dataclass(frozen=True)
class Student:
    """A network that has learned from an ensemble."""

    trial: Trial
    recipe: Recipe
    """As it was trained."""
    ece: float
    """Expected calibration error on the validation images."""
    agreement: float
    """Share of the validation images on which it names the class that its teacher names."""
    parameters: int
    work: float
    """Floating-point operations that it takes for one view of an image, as a share of what its teacher takes."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": str(self.trial.run.path),
            "recipe": self.recipe.name,
            "seed": self.trial.seed,
            "accuracy": self.trial.accuracy,
            "loss": self.trial.loss,
            "ece": self.ece,
            "agreement": self.agreement,
            "parameters": self.parameters,
            "work": self.work,
            "train_seconds": self.trial.seconds,
            "teacher": {"weight": self.recipe.teacher.weight, "temperature": self.recipe.teacher.temperature},
        }

    def comparison(self, chosen: Chosen) -> str | None:
        """The command that tells, with other seeds, whether it is better than the same recipe untaught.

        The run's own recipe says who teaches and what is held out, so that both sides are judged as the student was.

        Args:
            chosen: its teacher, and how that was chosen.

        Returns:
            None where no command can ask: `compare` takes no ``--exclude``.
        """
        data, recipe = chosen.ensemble.facts.get("spec"), str(self.trial.run.path / "recipe.toml")
        if data is None or chosen.ensemble.exclusion:
            return None
        untaught = shlex.join([recipe, "teacher.model="])
        others = ["--first-seed", str(self.trial.seed + 1)]
        return shlex.join(["thirtytwo", "compare", untaught, recipe, "--data", str(data), *others])

    @classmethod
    def recalled(cls, folder: Path) -> list[Student]:
        """The student of which an ensemble's result.json tells, if there is one and its run has not been deleted.

        Args:
            folder: of the ensemble.

        Raises:
            RunError: result.json, or the student's run, is damaged.
        """
        said = Run(folder).result.get("distilled")
        if said is None:
            return []
        try:
            told = _Told.model_validate(said)
        except (ValidationError, RecursionError):
            raise RunError(
                f"{folder / 'result.json'}: distilled is damaged; expected what `thirtytwo ensemble --distil` writes; "
                "give that command again"
            ) from None
        run = Run(folder / PLACE / Path(*Path(told.run).parts[-2:]))  # the folder may have moved, with its student
        if not run.path.exists():
            return []
        scores = run.result["validation"]
        trial = Trial(
            seed=told.seed,
            run=run,
            accuracy=told.accuracy,
            loss=told.loss,
            seconds=told.train_seconds,
            new=False,
            images=int(scores["images"]),
            majority_baseline=metrics.majority_baseline(row["images"] for row in scores["per_class"]),
        )
        return [cls(trial, Run.open(run.path).recipe, told.ece, told.agreement, told.parameters, told.work)]


class _Told(BaseModel):
    """What `Student.to_json` says, but for what its run says, too."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    run: str
    seed: NonNegativeInt
    accuracy: float
    loss: float
    train_seconds: float
    ece: float
    agreement: float
    parameters: NonNegativeInt
    work: float


def check_untaught(recipe: Recipe) -> None:
    """That nobody else teaches it.

    Raises:
        RecipeError: the recipe has a teacher.
    """
    if recipe.teacher.model:
        raise RecipeError(
            f"recipe {recipe.name}: has the teacher {recipe.teacher.model}; expected none, since the ensemble is to "
            "teach it; leave teacher.model out"
        )


def students(recipe: Recipe, folder: Path, source: Source, device: str = "auto", pool: Pool | None = None) -> Trials:
    """The trainings of a recipe that an ensemble teaches.

    Args:
        recipe: one without a teacher. If it holds out no images, it is made to hold out those of the ensemble.
        folder: of the ensemble.
        source: what its members were trained on.
        device: ``auto``, ``cpu`` or ``cuda``.
        pool: where they are going to run; None is here.

    Raises:
        RecipeError: the recipe has a teacher.
        ModelError: the folder holds no model.
    """
    check_untaught(recipe)
    words = [f"teacher.model={json.dumps(str(folder), ensure_ascii=False)}"]
    if not recipe.validation:
        words.append(f"validation={Classifier.load(folder).facts['validation_fraction']}")
    return Trials.of(recipe.replace(*words), source, folder / PLACE, device, pool)


def distil(trials: Trials, teacher: Classifier, seed: int = 0, pool: Pool | None = None) -> Student:
    """Train a student, or find it again, and ask it about the validation images.

    Args:
        trials: from `students`.
        teacher: the ensemble.
        seed: decides everything that is random.
        pool: where it is trained; None is here. It is asked here.

    Raises:
        ModelError: the ensemble may not teach the recipe; see `thirtytwo.references`.
        Interrupted: the training was asked to stop.
    """
    trial = trials.trial(seed, pool)
    student = Classifier.load(trial.run, device=teacher.device)
    training = trials.source.read_training()
    _, held_out = training.split(trials.recipe.validation)
    images = training.take(held_out)
    said, taught = (model.probabilities(images.pixels).cpu() for model in (student, teacher))
    return Student(
        trial=trial,
        recipe=trials.recipe,
        ece=metrics.expected_calibration_error(said, torch.from_numpy(images.labels)),
        agreement=metrics.accuracy(said, taught.argmax(1)),
        parameters=models.parameters(student.network),
        work=student.flops_per_image / teacher.flops_per_image,
    )
