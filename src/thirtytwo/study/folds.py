"""What networks say of images that they have not seen: of each training image one, of each test image all.

The training images are divided into parts; each network is trained on all parts but one, answers for that one and for
the test images, and is a run folder of its own.

    <folder>/network-1/               a run folder
    <folder>/network-1.safetensors    what it answered
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo import explain
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source
from thirtytwo.data.images import Split
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run, read_tensors, write_tensors
from thirtytwo.study.trials import trained
from thirtytwo.train import Training


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

    def train(self, network: int, watch: Callable[[Training], None] | None = None) -> None:
        """Train one: from the start, on from where it was, or not at all if that has been done.

        Args:
            network: counted from 0.
            watch: is given the training to iterate over it; None trains unseen.

        Raises:
            Interrupted: the training was asked to stop.
        """
        run = self.run(network)
        if (run.path / "environment.json").exists() and run.result:
            return
        part, seed = self._without(network), self.seed + network
        trained(run, self.recipe, part, seed=seed, device=self.device, watch=watch)
        shutil.rmtree(run.checkpoint_path.parent, ignore_errors=True)

    def _without(self, network: int) -> Source:
        """The training images but for one part, as a data set without test images."""
        images, unseen = self.source.read_training(), self.parts[network]
        seen = images.take(np.setdiff1d(np.arange(len(images)), unseen))

        def read(split: Split) -> Images:
            assert split == "training", "nobody asks a network in training for test images"
            return seen

        return replace(self.source, reader=read)

    def answers(self, test: Images) -> Iterator[Answers]:
        """What each network says, once all have been trained; what has been asked is not asked again."""
        training = self.source.read_training()
        for network, unseen in enumerate(self.parts):
            file = self.path / f"network-{network + 1}.safetensors"
            if not file.exists():
                started = time.perf_counter()
                classifier = Classifier.load(self.run(network))
                classifier.network.to(self.run(network).environment["device"])
                tensors = {
                    "training": classifier.probabilities(training.pixels[unseen]).cpu(),
                    "test": classifier.probabilities(test.pixels).cpu(),
                }
                if network == 0:  # one is enough to say what looks alike
                    tensors["training.features"] = explain.embed(classifier, training.pixels)
                    tensors["test.features"] = explain.embed(classifier, test.pixels)
                write_tensors(file, tensors, {"seconds": time.perf_counter() - started})
            tensors, header = read_tensors(file)
            splits = get_args(Split) if network == 0 else ()
            features: dict[Split, Tensor] = {split: tensors[f"{split}.features"] for split in splits}
            seconds = float(header["seconds"]) + float(self.run(network).result["train_seconds"])
            yield Answers(unseen, tensors["training"], tensors["test"], seconds, features)


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
