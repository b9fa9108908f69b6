"""What a run folder has stored, in the shape in which a report shows it. The data set itself is never read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo import early_stopping
from thirtytwo.errors import RunError
from thirtytwo.recipe import Recipe
from thirtytwo.run import Row, Run, read_tensors

Pixels = NDArray[np.uint8]
"""One image: uint8 (height, width, 3)."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A test image and what the network said to it."""

    index: int
    """Position in the test set's own order."""
    pixels: Pixels
    true: str
    predicted: str
    right: bool
    probability: float
    """That the network gave to the predicted class."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    """How many."""
    of: int
    """Images of the true class."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The network's answers on the test set."""

    summary: dict[str, Any]
    """The ``test`` part of result.json."""
    classes: tuple[str, ...]
    probabilities: Tensor
    """float32 (n, classes)."""
    labels: Tensor
    """int64 (n,)."""
    counts: NDArray[np.int64]
    """(classes, classes): row = true class, column = predicted class."""
    random: list[Answer]
    """Test images drawn at random."""
    mistakes: list[Answer]
    """Misclassified test images, most confident first."""
    wrong: int
    """How many were misclassified in all."""
    examples: list[list[Pixels]]
    """Random training images of each class."""

    def most_confused(self, number: int) -> list[Confusion]:
        """The most frequent confusions, at most `number`."""
        off_diagonal = self.counts.copy()
        np.fill_diagonal(off_diagonal, 0)
        order = np.argsort(-off_diagonal, axis=None, kind="stable")[:number]
        pairs = [(int(place) // len(self.classes), int(place) % len(self.classes)) for place in order]
        return [
            Confusion(
                true=self.classes[true],
                predicted=self.classes[said],
                images=int(off_diagonal[true, said]),
                of=int(self.counts[true].sum()),
            )
            for true, said in pairs
            if off_diagonal[true, said]
        ]


@dataclass(frozen=True, eq=False)
class Stored:
    """All that a report is made from."""

    run: Run
    recipe: Recipe
    environment: dict[str, Any]
    history: list[Row]
    """One row an epoch, at least one."""
    result: dict[str, Any]
    """Empty as long as the training has not ended."""
    judged: Judged | None
    """None as long as the test set has not been scored."""

    @property
    def has_validation(self) -> bool:
        """Whether there were images to select with."""
        return any(row.get("validation_loss") is not None for row in self.history)

    @property
    def selects(self) -> bool:
        """Whether the weights of the best epoch are kept, rather than those of the last one."""
        return self.has_validation and self.recipe.early_stopping.patience > 0

    @property
    def kept_epoch(self) -> int:
        """Number of the epoch whose weights are kept: the last that lowered the validation loss by enough."""
        losses = [row.get("validation_loss") for row in self.history]
        return early_stopping.kept_epoch(losses, self.recipe.early_stopping)

    @property
    def mark(self) -> str:
        """What to write at the kept epoch; empty while it is open which one that will be."""
        if self.result:
            return f"epoch {self.kept_epoch:,} kept"
        return f"epoch {self.kept_epoch:,} best so far" if self.selects else ""


def read(run: Run) -> Stored:
    """Read what the run folder has.

    Raises:
        RunError: not an epoch has been trained, or a file is missing or does not fit the others.
        ModelError: predictions.safetensors is damaged.
    """
    try:
        history = run.metrics
    except ValueError as error:
        raise RunError(
            f"{run.path / 'metrics.csv'}: damaged ({error}); expected a number in each cell, as `thirtytwo train` "
            "writes them; copy the run folder anew, or train again"
        ) from None
    if not history:
        raise RunError(
            f"{run.path}: holds no finished epoch; expected a metrics.csv with at least one; "
            f"`thirtytwo train --resume {run.path}` goes on with the training"
        )
    result = run.result
    return Stored(run, run.recipe, run.environment, history, result, _judged(run, result) if "test" in result else None)


def _judged(run: Run, result: dict[str, Any]) -> Judged:
    path = run.predictions_path
    if not path.exists():
        raise RunError(
            f"{path}: no such file; expected the predictions behind the scores in result.json; "
            "copy the run folder as a whole, or train again"
        )
    tensors, header = read_tensors(path)
    try:
        classes = tuple(str(name) for name in header["classes"])
        probabilities, labels = tensors["test.probabilities"], tensors["test.labels"]
        counts = np.array(result["test"]["confusion"], dtype=np.int64)
        if probabilities.shape != (len(labels), len(classes)) or counts.shape != (len(classes), len(classes)):
            raise ValueError(f"probabilities of shape {tuple(probabilities.shape)}, confusion of shape {counts.shape}")
        predicted = probabilities.argmax(1)

        def answers(name: str) -> list[Answer]:
            return [
                Answer(
                    index=int(tensors["test.indices"][row]),
                    pixels=pixels,
                    true=classes[int(labels[row])],
                    predicted=classes[int(predicted[row])],
                    right=bool(labels[row] == predicted[row]),
                    probability=float(probabilities[row, predicted[row]]),
                )
                for row, pixels in zip(tensors[f"{name}.rows"].tolist(), tensors[f"{name}.pixels"].numpy(), strict=True)
            ]

        return Judged(
            summary=result["test"],
            classes=classes,
            probabilities=probabilities,
            labels=labels,
            counts=counts,
            random=answers("random"),
            mistakes=answers("mistakes"),
            wrong=int((predicted != labels).sum()),
            # A class with fewer images than places is filled up with black ones.
            examples=[[image.numpy() for image in row if torch.any(image)] for row in tensors["examples"]],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: does not fit result.json ({error!r}); expected both as one evaluation wrote them; train again"
        ) from None
