"""One training that a study wants: everything that is needed to do it, in this process or on another machine."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thirtytwo import references
from thirtytwo.data import Exclusion, Source
from thirtytwo.errors import RunError, RunInUse, ThirtytwoError
from thirtytwo.evaluate import evaluate
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.references import Role
from thirtytwo.run import Run
from thirtytwo.train import Training, resume, train

LOOK_SECONDS = 0.5
"""Between two looks at what other processes have done."""


class Interrupted(Exception):
    """Somebody asked the trainings under way to stop; they go on where they were when the study is run again."""


@dataclass(frozen=True)
class Ended:
    """How a task ended."""

    how: Literal["trained", "found", "given up", "interrupted", "failed"]
    """`found`: it had been trained before; `given up`: the judge saw no use in it."""
    error: ThirtytwoError | None = None
    """Why it failed; without its traceback, which would hold on to the memory of the training."""

    def check(self) -> None:
        """Raise what it failed by, if it did."""
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, eq=False)
class Task:
    """A training that is begun, gone on with, or found."""

    recipe: Recipe
    """As it is trained."""
    source: Source
    seed: int
    path: Path
    """The run folder: what stands for this training, and no other one."""
    device: str
    """``auto``, ``cpu`` or ``cuda``."""
    number: int
    """By which the study knows it: a seed, or the number of a trial or a network."""
    words: str
    """The same for people, such as ``seed 3``."""
    scored: bool = True
    """Whether the weights that are kept are scored on the validation images."""
    unseen: NDArray[np.int64] | None = None
    """Positions of training images that it has to do without."""
    waits: bool = True
    """Whether it waits where another process is training the same, and then is found; it fails if not."""

    @property
    def run(self) -> Run:
        """Its folder, begun or not."""
        return Run(self.path)

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.path / "environment.json").exists()  # with which a folder becomes a run

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, and been scored if that is asked for."""
        if not self.is_begun or not self.run.model_path.exists():
            return False
        result = self.run.result
        return "validation" in result if self.scored else bool(result)

    @property
    def _is_taken(self) -> bool:
        """Whether somebody else is training in its folder right now."""
        try:
            with self.run.locked() if self.path.exists() else contextlib.nullcontext():
                return False
        except RunInUse:
            return True

    def work(
        self,
        hold: Callable[[Training], None],
        judge: Callable[[Epoch], bool] | None = None,
        places: Mapping[Role, Path] | None = None,
        patient: Callable[[], bool] = lambda: False,
    ) -> Generator[Step | Epoch | Ended]:
        """Do it, from the start or from where it was, or not at all if it has been done.

        Args:
            hold: is given the training before its first step, so that it can be asked to stop.
            judge: is asked after each epoch whether it is worth going on; None goes on to the end.
            places: where models that the recipe names are on this machine, if not where it says.
            patient: is asked, again and again, whether to wait on while another process is training it.

        Returns:
            What happens, and at last how it ended. Errors that are nobody's mistake in this program are an end, too.
        """
        while not self.is_finished:
            # Asked first, since a training is made with data and network before it finds its folder taken.
            if self._is_taken and patient():
                time.sleep(LOOK_SECONDS)
                continue
            try:
                yield from self._train(hold, judge, places or {})
                return
            except ThirtytwoError as error:
                if not (isinstance(error, RunInUse) and patient()):
                    error.__cause__ = error.__context__ = None
                    yield Ended("failed", error.with_traceback(None))
                    return
        yield Ended("found")

    def _train(
        self, hold: Callable[[Training], None], judge: Callable[[Epoch], bool] | None, places: Mapping[Role, Path]
    ) -> Generator[Step | Epoch | Ended]:
        run, source = self.run, self._source()
        # The folder may name the place of a copy: a model is what it answers, wherever it lies.
        where = references.places(self.recipe, places)
        teacher, start = where.get("teacher"), where.get("start")
        if self.is_begun:
            training = resume(run, source, teacher=teacher, start=start)
        else:
            try:
                training = train(
                    self.recipe,
                    source,
                    seed=self.seed,
                    out=run.path,
                    device=self.device,
                    teacher=teacher,
                    start=start,
                )
            except RunError:
                if not self.is_begun:
                    raise
                # Another process has begun it since: wait for that one, or go on where it has left off.
                training = resume(run, source, teacher=teacher, start=start)
        hold(training)
        # Closed, so that a training that is given up lets go of its folder.
        with contextlib.closing(iter(training)) as events:
            for event in events:
                yield event
                if judge is not None and isinstance(event, Epoch) and not judge(event):
                    yield Ended("given up")
                    return
        if training.interrupted or not run.result:
            yield Ended("interrupted")
            return
        with run.locked():
            if self.scored and not self.is_finished:
                scored = evaluate(training.classifier, source, split="validation", validation=self.recipe.validation)
                run.result = {**run.result, "validation": scored.summary()}
            shutil.rmtree(run.checkpoint_path.parent, ignore_errors=True)  # of hundreds of runs; they have ended
        yield Ended("trained")

    def _source(self) -> Source:
        """The data, without what it must not see."""
        if self.unseen is None:
            return self.source
        images = self.source.read_training()
        seen = images.take(np.setdiff1d(np.arange(len(images)), self.unseen))
        return self.source.without(Exclusion()).with_training(seen)
