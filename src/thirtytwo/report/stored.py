"""What a run folder has stored, in the shape in which a report shows it. The data set itself is never read.

Everything is checked here, once: whatever a page or a figure reaches for is there, or `read` has refused the folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from torch import Tensor

from thirtytwo import early_stopping, metrics
from thirtytwo.data.corrupt import Corruption
from thirtytwo.data.source import ARRAYS
from thirtytwo.errors import RunError
from thirtytwo.events import Epoch
from thirtytwo.recipe import Recipe
from thirtytwo.report.html import LONGEST_SIDE
from thirtytwo.run import Run, read_tensors
from thirtytwo.settings import CustomModel

Kind = TypeVar("Kind")

MOST_EXAMPLE_PIXELS = 400_000
"""Of all training images that a report shows: its page is to stay below 5 MB."""

Pixels = NDArray[np.uint8]
"""One image: uint8 (height, width, 3)."""


class _Facts(BaseModel):
    """A part of a JSON file that `thirtytwo train` wrote; keys that no report shows are passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Excluded(_Facts):
    """What it says of training images that were left out."""

    files: tuple[str, ...]
    """The tables that name them."""
    indices: tuple[NonNegativeInt, ...]


class Data(_Facts):
    """The ``data`` part of environment.json."""

    spec: str
    name: str
    location: str
    fingerprint: str
    images: PositiveInt
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    size: tuple[PositiveInt, PositiveInt]
    """(height, width) in pixels."""
    warnings: tuple[str, ...] = ()
    notice: str | None = None
    excluded: Excluded | None = None


class Environment(_Facts):
    """environment.json."""

    run_id: str
    date: str
    seed: int
    data: Data
    machine: str
    device: str
    device_name: str
    precision: str
    kernels: str
    threads: PositiveInt
    ranks: PositiveInt = 1
    """Processes that trained together, each on such a device."""
    resumed_by_ranks: tuple[PositiveInt, ...] = ()
    """How many there were from then on, where the run was resumed by another number of them."""
    versions: dict[str, str]
    commit: str | None = None
    """None where the package did not run from a checkout."""


class ClassScores(_Facts):
    """How well one class is recognised."""

    name: Annotated[str, Field(alias="class")]
    precision: float
    recall: float
    f1: float
    images: NonNegativeInt


class Scores(_Facts):
    """What result.json says of any split that was scored."""

    images: PositiveInt
    accuracy: float
    loss: float


class TestScores(Scores):
    """What it says of the test set."""

    top5: float
    macro_f1: float
    ece: float
    per_class: Annotated[list[ClassScores], Field(min_length=1)]
    confusion: list[list[NonNegativeInt]]


class Corrupted(_Facts):
    """What it says of test images that were made worse."""

    images: PositiveInt
    accuracy: float
    """Of the same images as they are."""
    kinds: Annotated[dict[Corruption, Annotated[list[float], Field(min_length=5, max_length=5)]], Field(min_length=1)]
    """For each kind the accuracies at strengths 1 to 5."""
    mean: float


class Calibrated(_Facts):
    """What it says of how sure the model's answers are."""

    temperature: PositiveFloat = 1.0
    """By which scores are divided."""


class Result(_Facts):
    """result.json."""

    kept_epoch: PositiveInt
    calibration: Calibrated | None = None
    """None in results of earlier versions that were not scored on the test set."""
    train_seconds: float
    cold_seconds: float
    flops: float
    parameters: NonNegativeInt
    peak_memory_bytes: NonNegativeInt
    test_opening: PositiveInt | None = None
    test_warnings: tuple[str, ...] = ()
    """What is to be known of the test set's score."""
    validation: Scores | None = None
    test: TestScores | None = None
    corrupted: Corrupted | None = None


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

    summary: TestScores
    """The scores that result.json has of them."""
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
    """Random training images of each class: as many as it has, up to a few."""
    temperature: float
    """By which scores were divided to make `probabilities`."""
    unknown_below: float
    """The probability below which an answer had better be "unknown"; 0 if none was fitted."""

    @property
    def shown_examples(self) -> list[tuple[str, list[Pixels]]]:
        """Classes with examples of each, as many as have room on a page: fewer of each, and then fewer classes."""
        height, width = next((row[0].shape[:2] for row in self.examples if row), (1, 1))
        room = MOST_EXAMPLE_PIXELS / (height * width * min(LONGEST_SIDE / max(height, width), 1) ** 2)
        each = max(int(room / len(self.classes)), 1)
        pairs = zip(self.classes, self.examples, strict=True)
        return [(name, pictures[:each]) for name, pictures in pairs][: max(int(room), 1)]

    @property
    def uncalibrated(self) -> Tensor:
        """The probabilities float32 (n, classes) that a temperature of 1 would have given."""
        # Scores are their logarithm times the temperature, up to a number that a softmax does not see.
        smallest = torch.finfo(torch.float32).tiny
        return (self.probabilities.clamp_min(smallest).log() * self.temperature).softmax(1)

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
    environment: Environment
    history: list[Epoch]
    """One an epoch, at least one."""
    result: Result | None
    """None as long as the training has not ended."""
    judged: Judged | None
    """None as long as the test set has not been scored."""
    needs_its_program: bool
    """Whether it is repeated and resumed in Python only: its network or its data are its owner's and are not stored."""

    @property
    def has_validation(self) -> bool:
        """Whether there were images to select with."""
        return self.recipe.validation > 0

    @property
    def selects(self) -> bool:
        """Whether the weights of the best epoch are kept, rather than those of the last one."""
        return self.has_validation and self.recipe.early_stopping.patience > 0

    @property
    def kept_epoch(self) -> int:
        """Number of the epoch whose weights are kept, or would be if the training ended now."""
        if self.result is not None:
            return self.result.kept_epoch
        losses = [epoch.validation_loss for epoch in self.history]
        return early_stopping.kept_epoch(losses, self.recipe.early_stopping)

    @property
    def is_undecided(self) -> bool:
        """Whether weights are going to be selected, and no epoch has been validated yet."""
        return self.result is None and self.selects and all(epoch.validation_loss is None for epoch in self.history)

    @property
    def mark(self) -> str:
        """What to write at the kept epoch; empty while it is open which one that will be."""
        if self.result is not None:
            return f"epoch {self.kept_epoch:,} kept"
        return f"epoch {self.kept_epoch:,} best so far" if self.selects and not self.is_undecided else ""

    @property
    def loss_note(self) -> str:
        """What to write at the losses of epochs; empty where they compare with those of the finished model.

        A temperature is fitted to the validation images after the last epoch, or, without any, comes from the recipe.
        """
        if self.result is None:
            return ""
        known = self.result.calibration
        is_rescaled = self.result.validation is not None if known is None else known.temperature != 1
        return "before temperature scaling" if is_rescaled else ""


def read(run: Run) -> Stored:
    """Read what the run folder has.

    Raises:
        RunError: not an epoch has been trained, or a file is missing, damaged or does not fit the others.
        ModelError: predictions.safetensors is damaged.
    """
    recipe = run.recipe
    environment = _checked(Environment, run.environment, run.path / "environment.json")
    needs_its_program = isinstance(recipe.model, CustomModel) or environment.data.spec == ARRAYS
    history = _history(run, recipe, needs_its_program=needs_its_program)
    facts, path = run.result, run.path / "result.json"
    result = _checked(Result, facts, path) if facts else None
    judged = None
    if result is not None:
        if result.kept_epoch > len(history):
            raise _damaged(path, f"kept epoch {result.kept_epoch} of the {len(history)} in metrics.csv")
        if recipe.early_stopping.patience and history[result.kept_epoch - 1].validation_loss is None:
            raise _damaged(path, f"kept epoch {result.kept_epoch}, which has no validation loss in metrics.csv")
        if result.test is not None:
            run.check_unchanged()
            _check_facts(run, facts)
            judged = _judged(run, result.test, result.test_opening, environment.data.size)
    return Stored(run, recipe, environment, history, result, judged, needs_its_program)


def _check_facts(run: Run, result: Mapping[str, Any]) -> None:
    """Whether result.json says of the training what the model file says.

    Raises:
        RunError: it does not.
        ModelError: the model file is damaged.
    """
    if not run.model_path.exists():
        return
    said = read_tensors(run.model_path)[1].get("facts", {})
    for name, fact in said.items():
        if name in result and result[name] != fact:
            raise RunError(
                f"{run.path / 'result.json'}: {name} is {result[name]!r}, but by the model file it is {fact!r}; "
                "expected what `thirtytwo train` wrote; put the file of this run back"
            )


def _checked(kind: type[Kind], value: object, path: Path) -> Kind:
    """The value as what it should be; `path` is the file that it was read from."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in details]
        raise _damaged(path, "; ".join(problems[:3])) from None


def _damaged(path: Path, found: str) -> RunError:
    return RunError(
        f"{path}: incomplete or damaged ({found}); expected it as `thirtytwo train` wrote it; "
        "copy the run folder anew, or train again"
    )


def _history(run: Run, recipe: Recipe, *, needs_its_program: bool) -> list[Epoch]:
    path = run.path / "metrics.csv"
    history = _checked(list[Epoch], run.metrics, path)
    if not history:
        words = f"resume({str(run.path)!r}, …)" if needs_its_program else f"thirtytwo train --resume {run.path}"
        raise RunError(
            f"{run.path}: holds no finished epoch; expected a metrics.csv with at least one; "
            f"`{words}` goes on with the training"
        )
    if [row.epoch for row in history] != list(range(1, len(history) + 1)):
        raise _damaged(path, "epochs are not numbered 1, 2, 3, …")
    for row in history:
        if {row.validation_loss is None, row.validation_accuracy is None} != {not recipe.validates(row.epoch - 1)}:
            raise _damaged(path, f"epoch {row.epoch} has validation values that it should not have, or lacks some")
    # A loss may be infinite, and then has no place on a chart; nothing else may.
    for row in history:
        others = (row.learning_rate, row.train_accuracy, row.validation_accuracy, row.images_per_second, row.seconds)
        if not all(math.isfinite(number) for number in others if number is not None):
            raise _damaged(path, f"epoch {row.epoch} holds a value that is not finite")
    return history


_LAYOUT: dict[str, tuple[torch.dtype, str]] = {
    "test.probabilities": (torch.float32, "images classes"),
    "test.labels": (torch.int64, "images"),
    "test.indices": (torch.int64, "images"),
    "random.rows": (torch.int64, "drawn"),
    "random.pixels": (torch.uint8, "drawn height width 3"),
    "mistakes.rows": (torch.int64, "wrong"),
    "mistakes.pixels": (torch.uint8, "wrong height width 3"),
    "examples": (torch.uint8, "classes places height width 3"),
    "examples.counts": (torch.int64, "classes"),
}
"""What a report needs of predictions.safetensors: each tensor's type, and what its sizes count."""


def _judged(run: Run, test: TestScores, opening: int | None, size: tuple[int, int]) -> Judged:
    """The stored answers on the test set, if they are those that `test` was computed from.

    Raises:
        RunError: they are others.
    """
    path = run.predictions_path
    if not path.exists():
        raise RunError(
            f"{path}: no such file; expected the predictions behind the scores in result.json; "
            "copy the run folder as a whole, or train again"
        )
    tensors, header = read_tensors(path)
    problem = _problem(tensors, header, test, size)
    if not problem and header.get("opening") != opening:
        problem = f"opening {opening} there, by the predictions {header.get('opening')}"
    if problem:
        raise RunError(
            f"{path}: does not fit result.json ({problem}); expected both as one evaluation wrote them; "
            "copy the run folder anew, or train again"
        )
    classes = tuple(row.name for row in test.per_class)
    probabilities, labels = tensors["test.probabilities"], tensors["test.labels"]
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

    places = zip(tensors["examples"].numpy(), tensors["examples.counts"].tolist(), strict=True)
    return Judged(
        summary=test,
        classes=classes,
        probabilities=probabilities,
        labels=labels,
        counts=np.array(test.confusion, dtype=np.int64),
        random=answers("random"),
        mistakes=answers("mistakes"),
        wrong=int((predicted != labels).sum()),
        examples=[list(images[:number]) for images, number in places],
        temperature=float(header.get("temperature", 1.0)),
        unknown_below=float(header.get("unknown_below", 0.0)),
    )


def _problem(tensors: Mapping[str, Tensor], header: Mapping[str, Any], test: TestScores, size: tuple[int, int]) -> str:
    """Why these are not the predictions behind these scores; empty if they are."""
    classes = [row.name for row in test.per_class]
    if header.get("classes") != classes:
        return "other classes, or in another order"
    sizes = {"images": test.images, "classes": len(classes), "height": size[0], "width": size[1], "3": 3}
    for name, (kind, words) in _LAYOUT.items():
        counted = words.split()
        if (tensor := tensors.get(name)) is None:
            return f"{name} is missing"
        # A size that nothing has fixed yet is whatever the first tensor says.
        if (
            tensor.dtype != kind
            or tensor.ndim != len(counted)
            or any(sizes.setdefault(word, length) != length for word, length in zip(counted, tensor.shape, strict=True))
        ):
            return f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {kind} ({', '.join(counted)})"
    stops = {
        "test.labels": len(classes),
        "random.rows": test.images,
        "mistakes.rows": test.images,
        "examples.counts": sizes["places"] + 1,
    }
    for name, stop in stops.items():
        if bool(((tensors[name] < 0) | (tensors[name] >= stop)).any()):
            return f"{name} holds a number outside 0 to {stop - 1}"
    for name, least in (("temperature", 1e-6), ("unknown_below", 0.0)):
        value = header.get(name, 1.0)
        if not isinstance(value, int | float) or not least <= value < math.inf:
            return f"{name} is {value!r}"
    probabilities = tensors["test.probabilities"]
    if not bool((probabilities.isfinite() & (probabilities >= 0)).all()):
        return "test.probabilities holds what is no probability"
    labels = tensors["test.labels"]
    if metrics.confusion(probabilities, labels).tolist() != test.confusion:
        return "the confusion matrix is another one"
    # Another version of torch may add up in another order, hence not to the bit.
    measures = {
        "accuracy": metrics.accuracy(probabilities, labels),
        "loss": metrics.cross_entropy(probabilities, labels),
        "top5": metrics.top_k(probabilities, labels, 5),
        "ece": metrics.expected_calibration_error(probabilities, labels),
    }
    counts = torch.tensor(test.confusion)
    precision, recall, f1 = metrics.per_class(counts)
    measures["macro_f1"] = float(f1[counts.sum(1) > 0].mean())
    for row, *values in zip(test.per_class, precision.tolist(), recall.tolist(), f1.tolist(), strict=True):
        if not np.allclose(values, (row.precision, row.recall, row.f1), rtol=1e-6, atol=1e-9):
            return f"the scores of class {row.name} are other ones"
    for name, value in measures.items():
        if not math.isclose(value, getattr(test, name), rel_tol=1e-6, abs_tol=1e-9):
            return f"{name} is {getattr(test, name):.6g} there, by the predictions {value:.6g}"
    return ""
