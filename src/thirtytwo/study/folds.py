"""What networks say of images that they have not seen: of each training image one, of each test image all.

The training images are divided into parts; each network is trained on all parts but one, answers for that one and for
the test images, and is a run folder of its own.

    <folder>/network-1/               a run folder
    <folder>/network-1.safetensors    what it answered
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo import environment, explain
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source
from thirtytwo.data.images import Split
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.study.piecewise import Progress, computed
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.task import Task

ASKED = 500
"""Images that a network is asked about at once."""

Question = tuple[str, NDArray[np.int64]]
"""What it is asked: the name of the answer, which begins with that of the split, and positions there."""


@dataclass(frozen=True)
class Folds:
    """The networks of one audit."""

    recipe: Recipe
    """As they are trained, without validation images."""
    source: Source
    """Whose training images are divided."""
    path: Path
    """Their folder."""
    number: int
    seed: int
    device: str

    @classmethod
    def of(cls, recipe: Recipe, source: Source, path: Path, number: int, seed: int = 0, device: str = "auto") -> Folds:
        """The networks of a recipe.

        Args:
            recipe: if it holds out validation images, it is made to train on all that it is given, and to keep its last
                weights: what a network has not seen is asked of it later, and chooses nothing.
            source: the data, read once.
            path: their folder.
            number: of networks, at least 2.
            seed: of the first; the others count up.
            device: ``auto``, ``cpu`` or ``cuda``.
        """
        if recipe.validation:
            recipe = recipe.replace("validation=0", "early_stopping.patience=0")
        return cls(recipe, source.in_memory(), path, number, seed, device)

    @property
    def parts(self) -> list[NDArray[np.int64]]:
        """For each network the training images that it does not see."""
        return self.source.read_training().folds(self.number)

    def run(self, network: int) -> Run:
        """Folder of a network's training, counted from 0; begun or not."""
        return Run(self.path / f"network-{network + 1}")

    def task(self, network: int) -> Task:
        """The training of a network, counted from 0, to be done in a pool."""
        return Task(
            recipe=self.recipe,
            source=self.source,
            seed=self.seed + network,
            path=self.run(network).path,
            device=self.device,
            number=network,
            words=f"network {network + 1}",
            scored=False,
            unseen=self.parts[network],
        )

    def train(self, pool: Pool | None = None) -> None:
        """Train all: from the start, on from where they were, or not at all if that has been done.

        Args:
            pool: where; None is here, one after another.

        Raises:
            Interrupted: they were asked to stop.
        """
        with contextlib.closing((pool or Local()).run(map(self.task, range(self.number)))) as done:
            for _, ended in done:
                ended.check()

    def answers(self, test: Images, progress: Progress = lambda _: None) -> Iterator[Answers]:
        """What each network says, once all have been trained; what has been asked is not asked again.

        Args:
            test: the test images.
            progress: is told which share has been answered, of all that all of them are asked.
        """
        training = self.source.read_training()
        questions = [self._questions(network, len(training), len(test)) for network in range(self.number)]
        sizes = [len(each) for each in questions]
        for network, unseen in enumerate(self.parts):
            before, own = sum(sizes[:network]), sizes[network]

            def tell(share: float, before: int = before, own: int = own) -> None:
                progress((before + share * own) / sum(sizes))

            # Here, wherever it was trained: the data are here.
            classifier = Classifier.load(self.run(network), device=environment.device_here(self.device))

            def ask(question: Question, classifier: Classifier = classifier) -> dict[str, Tensor]:
                name, indices = question
                pixels = (training if name.startswith("training") else test).pixels[indices]
                if name.endswith(".features"):
                    return {name: explain.embed(classifier, pixels)}
                return {name: classifier.probabilities(pixels).cpu()}

            file = self.path / f"network-{network + 1}.safetensors"
            tensors, asking = computed(file, [test.fingerprint, ASKED], questions[network], ask, tell)
            tell(1.0)
            splits = get_args(Split) if network == 0 else ()
            features: dict[Split, Tensor] = {split: tensors[f"{split}.features"] for split in splits}
            seconds = asking + float(self.run(network).result["train_seconds"])
            yield Answers(unseen, tensors["training"], tensors["test"], seconds, features)

    def _questions(self, network: int, training: int, test: int) -> list[Question]:
        """What a network is asked, batch by batch."""
        asked = {"training": self.parts[network], "test": np.arange(test)}
        if network == 0:  # one is enough to say what looks alike
            asked |= {"training.features": np.arange(training), "test.features": np.arange(test)}
        return [
            (name, indices[start : start + ASKED])
            for name, indices in asked.items()
            for start in range(0, len(indices), ASKED)
        ]


@dataclass(frozen=True, eq=False)
class Answers:
    """Of one network."""

    unseen: NDArray[np.int64]
    """Positions of the training images that it was not trained with, ascending."""
    training: Tensor
    """float32 (unseen, classes): probabilities for these."""
    test: Tensor
    """float32 (test images, classes)."""
    seconds: float
    """That training it, and asking it, took."""
    features: dict[Split, Tensor] = field(default_factory=dict)
    """float32 (n, features) of all images of a split, of length 1; the first network's only."""


def together(answers: list[Answers], images: int) -> tuple[Tensor, Tensor]:
    """Probabilities of all training images, out of fold, and of all test images, averaged over networks."""
    training = torch.empty((images, answers[0].training.shape[1]))
    for each in answers:
        training[torch.from_numpy(each.unseen)] = each.training
    return training, torch.stack([each.test for each in answers]).mean(0)
