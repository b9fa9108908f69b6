"""Which of several models answer best together, and how much each should count.

Greedy selection (Caruana et al. 2004, "Ensemble selection from libraries of models"): beginning with the best one, the
model whose probabilities lower the loss of the mean most is added, again and again, the same one too, until none does.
How often a model was added is its weight. All of that is decided on the validation part, which no member has seen.

What was chosen by some images looks better on them than it is. So what an ensemble gains is told by images that have
chosen nothing: the validation part is divided into two halves, on either half an ensemble and the best single model are
chosen, how sure they are is fitted to it, and both answer for the other half. (How sure each member is on its own was
fitted to both halves, and so was its epoch where the recipe stops early.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from thirtytwo import environment, metrics
from thirtytwo import models as networks
from thirtytwo.classifier import Classifier, Ensemble, shared_exclusion, unseen_share
from thirtytwo.data import Source
from thirtytwo.errors import InputError, ModelError, RunError
from thirtytwo.run import Run
from thirtytwo.study import paired

ROUNDS = 20
"""Models that are added at most."""
COVERAGE = 0.95
"""Share of the validation images that shall get an answer other than "unknown", where that is asked for."""
HALVES = 1
"""Seed by which validation images are divided in two."""


@dataclass(frozen=True)
class Member:
    """A model that was asked."""

    name: str
    weight: float
    """In the ensemble; 0 if it was not chosen."""
    accuracy: float
    """On the validation images, alone."""
    loss: float
    """In nats, on the validation images, alone."""
    ece: float
    """Expected calibration error there."""
    parameters: int


@dataclass(frozen=True)
class Addition:
    """A round of the selection: the mean of the models that were added so far."""

    name: str
    """The model that it added."""
    accuracy: float
    """On the validation images, by which it was chosen."""
    loss: float
    other_accuracy: float | None
    """After as many rounds, on the half of the images by which it was not chosen; None if there are no two halves."""


@dataclass(frozen=True)
class Gain:
    """An ensemble beside the best single model, on images by which neither was chosen; see the module."""

    images: int
    accuracy: float
    """Of the ensembles."""
    loss: float
    best_accuracy: float
    """Of the models that were most accurate on the other half."""
    best_loss: float
    won: int
    """Images that the ensemble names rightly and the best model does not."""
    lost: int
    """Images that the best model names rightly and the ensemble does not."""

    @property
    def difference(self) -> float:
        """By which the ensemble's accuracy is higher."""
        return (self.won - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the difference; see `paired.interval`."""
        return paired.interval(self.won, self.lost, self.images)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "difference": self.difference, "interval": list(self.interval)}


@dataclass(frozen=True, eq=False)
class Chosen:
    """An ensemble, and how it was chosen."""

    ensemble: Ensemble
    members: tuple[Member, ...]
    """In the order in which they were given."""
    accuracy: float
    """Of the ensemble on the validation images; it was chosen by them, so this is a little too good."""
    loss: float
    ece: float
    images: int
    """Validation images."""
    additions: tuple[Addition, ...]
    """In the order in which models were added."""
    gain: Gain | None
    """None where there are too few images for two halves."""
    apart: tuple[tuple[float, ...], ...]
    """For each two models that were asked the share of validation images on which they say different classes."""
    data: str
    """Name of the data set."""
    notice: str
    warnings: tuple[str, ...]
    environment: dict[str, Any]
    """What it was chosen on and with; see `environment.describe`."""

    @property
    def best(self) -> Member:
        """The most accurate single model; of several, the one with the lowest loss."""
        return max(self.members, key=lambda member: (member.accuracy, -member.loss))

    @property
    def disagreement(self) -> float:
        """Share of images on which two members of the ensemble say different classes, mean over pairs; 0 for one."""
        chosen = [number for number, member in enumerate(self.members) if member.weight]
        pairs = [self.apart[one][other] for one, other in combinations(chosen, 2)]
        return sum(pairs) / len(pairs) if pairs else 0.0

    def is_kept_in(self, folder: Path) -> bool:
        """Whether a folder holds an ensemble of the same members, with the same weights."""
        try:
            stored = Classifier.load(folder)
        except InputError:
            return False
        own = [(member.fingerprint, weight) for member, weight in _parts(self.ensemble)]
        return isinstance(stored, Ensemble) and own == [(each.fingerprint, weight) for each, weight in _parts(stored)]

    @classmethod
    def recalled(cls, folder: Path) -> Chosen:
        """What a folder's result.json, which holds `to_json`, says of the ensemble beside it.

        Args:
            folder: of the ensemble.

        Raises:
            ModelError: the model is damaged, or no ensemble.
            RunError: result.json is missing, damaged, or of another ensemble.
        """
        found, path = Classifier.load(folder), folder / "result.json"
        if not isinstance(found, Ensemble):
            raise ModelError(f"{folder}: holds a single model; expected an ensemble, as `thirtytwo ensemble` writes it")
        expected = (
            "expected what `thirtytwo ensemble` writes beside its model; give that command again, with a new --out"
        )
        said = Run(folder).result
        if not said:
            raise RunError(f"{path}: missing; {expected}")
        try:
            told = _Told.model_validate(said)
        except (ValidationError, RecursionError) as error:
            wrong = error.errors(include_url=False) if isinstance(error, ValidationError) else []
            places = ", ".join(".".join(map(str, each["loc"])) for each in wrong[:3])
            raise RunError(f"{path}: damaged, or of another version ({places}); {expected}") from None
        names = {member.name for member in told.members}
        chosen = [member.name for member in told.members if member.weight]
        is_square = all(len(row) == len(told.apart) == len(told.members) for row in told.apart)
        knows = found.facts.keys() >= {"validation_fraction", "fingerprint"}
        if not (is_square and knows and {each.name for each in told.additions} <= names):
            raise RunError(f"{path}: contradicts itself, or the model beside it; {expected}")
        if len(chosen) != len(found.members):
            raise RunError(f"{path}: describes another ensemble than the one beside it; {expected}")
        return cls(
            ensemble=found,
            members=told.members,
            **vars(told.validation),
            additions=told.additions,
            gain=told.gain,
            apart=told.apart,
            data=told.data,
            notice=told.notice,
            warnings=told.warnings,
            environment=said["environment"],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; with the ensemble's model they are all there is to know, see `recalled`."""
        return {
            "data": self.data,
            "notice": self.notice,
            "warnings": list(self.warnings),
            "members": [vars(member) for member in self.members],
            "best": self.best.name,
            "validation": {"images": self.images, "accuracy": self.accuracy, "loss": self.loss, "ece": self.ece},
            "gain": None if self.gain is None else self.gain.to_json(),
            "additions": [vars(addition) for addition in self.additions],
            "disagreement": self.disagreement,
            "apart": [list(row) for row in self.apart],
            "environment": self.environment,
        }


class _Stored(BaseModel):
    """A part of what `Chosen.to_json` says; keys that can be computed from others are passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Validation(_Stored):
    images: PositiveInt
    accuracy: float
    loss: float
    ece: float


class _Circumstances(_Stored):
    command: str
    commit: str | None
    date: str
    machine: str
    device: str
    device_name: str
    versions: dict[str, str]


class _Told(_Stored):
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    validation: _Validation
    gain: Gain | None
    additions: Annotated[tuple[Addition, ...], Field(min_length=1)]
    apart: tuple[tuple[float, ...], ...]
    data: str
    notice: str
    warnings: tuple[str, ...]
    environment: _Circumstances


def shared_validation(models: Sequence[Classifier], names: Sequence[str], source: Source) -> float:
    """The share of the training images that all of some models held out, the same images for all of them.

    Args:
        models: those that an ensemble is to be chosen from.
        names: of the models.
        source: what they were trained on, without what they left out.

    Raises:
        ModelError: they did not hold out the same images, or one is an ensemble itself, or there twice.
    """
    known: dict[str, str] = {}
    for model, name in zip(models, names, strict=True):
        if isinstance(model, Ensemble):
            raise ModelError(
                f"{name}: is an ensemble itself; expected single models; name those that it is made of: "
                f"{' '.join(map(str, model.facts.get('members', [])))}"
            )
        if (other := known.get(model.fingerprint)) is not None:
            said = "named twice" if other == name else f"has the same weights as {other}"
            raise ModelError(f"{name}: {said}; expected different models; leave one out")
        known[model.fingerprint] = name
    return unseen_share(models, names, source.read_training().fingerprint)


def ensemble(models: Sequence[Classifier], names: Sequence[str], source: Source) -> Chosen:
    """Choose an ensemble.

    Args:
        models: on one device, trained on the same images with the same part held out.
        names: of the models.
        source: what they were trained on; see `as_seen`, which this asks.

    Raises:
        ModelError: they do not fit each other or the data, no images were held out, or one is an ensemble itself, or
            there twice.
    """
    source = as_seen(models, names, source)
    training = source.read_training()
    fraction = shared_validation(models, names, source)
    _, held_out = training.split(fraction)
    images = training.take(held_out)
    labels = torch.from_numpy(images.labels)
    Ensemble.of(models)  # whether they fit each other is asked before anything is scored
    answers = torch.stack([model.probabilities(images.pixels).cpu() for model in models])  # (models, images, classes)
    added = order(answers, labels)
    counts = _counts(added, len(models))
    chosen = [number for number, count in enumerate(counts) if count]
    facts = {
        "recipe": "ensemble",
        "members": [names[number] for number in chosen],
        "spec": models[0].facts.get("spec"),
        "fingerprint": training.fingerprint,
        "validation_fraction": fraction,
    }
    if source.exclusion:
        facts["excluded"] = source.exclusion.to_json()
    found = Ensemble.of([models[number] for number in chosen], [counts[number] for number in chosen], facts)
    found.temperature, probabilities = _calibrated(_mean(answers, counts), labels)
    found.unknown_below = metrics.confidence_of_share(probabilities, COVERAGE)
    halves = [half for half in images.folds(2, HALVES) if len(half)]
    others = _on_other_images(answers, labels, halves, len(added)) if len(halves) == 2 else None
    means = [_mean(answers, _counts(added[: rounds + 1], len(models))) for rounds in range(len(added))]
    return Chosen(
        ensemble=found,
        members=tuple(
            Member(
                name,
                count / sum(counts),
                metrics.accuracy(answer, labels),
                metrics.cross_entropy(answer, labels),
                metrics.expected_calibration_error(answer, labels),
                networks.parameters(model.network),
            )
            for name, model, count, answer in zip(names, models, counts, answers, strict=True)
        ),
        accuracy=metrics.accuracy(probabilities, labels),
        loss=metrics.cross_entropy(probabilities, labels),
        ece=metrics.expected_calibration_error(probabilities, labels),
        images=len(labels),
        additions=tuple(
            Addition(
                names[number],
                metrics.accuracy(mean, labels),
                metrics.cross_entropy(mean, labels),
                None if others is None else others[1][rounds],
            )
            for rounds, (number, mean) in enumerate(zip(added, means, strict=True))
        ),
        gain=None if others is None else others[0],
        apart=_apart(answers.argmax(2)),
        data=source.name,
        notice=source.notice,
        warnings=training.warnings,
        environment=environment.describe(models[0].device),
    )


def as_seen(models: Sequence[Classifier], names: Sequence[str], source: Source) -> Source:
    """The data as models saw them: without the training images that all of them left out.

    Args:
        models: trained ones.
        names: of the models.
        source: what they were trained on.

    Raises:
        ModelError: they left out different images.
    """
    left_out = shared_exclusion(models, names)
    return source.without(left_out) if left_out else source


def order(answers: Tensor, labels: Tensor, rounds: int = ROUNDS) -> list[int]:
    """Which model is added in each round; see the module.

    Args:
        answers: float (models, images, classes), probabilities.
        labels: int64 (images,).
        rounds: models that are added at most.
    """
    added: list[int] = []
    total, best = torch.zeros_like(answers[0]), float("inf")
    for done in range(rounds):
        losses = [metrics.cross_entropy((total + answer) / (done + 1), labels) for answer in answers]
        number = min(range(len(losses)), key=losses.__getitem__)
        if losses[number] >= best:
            break
        best = losses[number]
        added.append(number)
        total = total + answers[number]
    return added


def _on_other_images(
    answers: Tensor, labels: Tensor, halves: Sequence[NDArray[np.int64]], rounds: int
) -> tuple[Gain, list[float]]:
    """What ensembles gain, and their accuracy after each round, on images by which they were not chosen.

    Args:
        answers: float (models, images, classes), probabilities.
        labels: int64 (images,).
        halves: two sets of images, all of them together.
        rounds: how many accuracies are asked for; where a selection ends before, its last one counts on.
    """
    together, alone = torch.empty_like(answers[0]), torch.empty_like(answers[0])
    said = torch.empty((rounds, len(labels)), dtype=torch.int64)
    one, other = map(torch.from_numpy, halves)
    for chosen_by, asked in ((one, other), (other, one)):
        here, there = answers[:, chosen_by], answers[:, asked]
        added = order(here, labels[chosen_by])
        counts = _counts(added, len(answers))
        ranks = [
            (metrics.accuracy(answer, labels[chosen_by]), -metrics.cross_entropy(answer, labels[chosen_by]))
            for answer in here
        ]
        best = ranks.index(max(ranks))
        # How sure they are is fitted to the half that has chosen them, too.
        for place, each in ((together, _mean(answers, counts)), (alone, answers[best])):
            temperature, _ = _calibrated(each[chosen_by], labels[chosen_by])
            place[asked] = (_logarithms(each[asked]) / temperature).softmax(1)
        for number in range(rounds):
            said[number, asked] = _mean(there, _counts(added[: number + 1], len(answers))).argmax(1)
    right, rival = together.argmax(1) == labels, alone.argmax(1) == labels
    gain = Gain(
        images=len(labels),
        accuracy=metrics.accuracy(together, labels),
        loss=metrics.cross_entropy(together, labels),
        best_accuracy=metrics.accuracy(alone, labels),
        best_loss=metrics.cross_entropy(alone, labels),
        won=int((right & ~rival).sum()),
        lost=int((rival & ~right).sum()),
    )
    return gain, [float((row == labels).double().mean()) for row in said]


def _parts(found: Ensemble) -> list[tuple[Classifier, float]]:
    return list(zip(found.members, found.weights, strict=True))


def _counts(added: Sequence[int], models: int) -> list[int]:
    """How often each model was added."""
    return [list(added).count(number) for number in range(models)]


def _mean(answers: Tensor, counts: Sequence[int]) -> Tensor:
    shares = torch.tensor(counts, dtype=answers.dtype) / sum(counts)
    return (answers * shares[:, None, None]).sum(0)


def _logarithms(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(1e-12).log()


def _calibrated(probabilities: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The temperature that suits these images, and the probabilities with it."""
    scores = _logarithms(probabilities)
    temperature = metrics.best_temperature(scores, labels)
    return temperature, (scores / temperature).softmax(1)


def _apart(said: Tensor) -> tuple[tuple[float, ...], ...]:
    """Share of images on which two models say different classes; `said` is int64 (models, images)."""
    return tuple(tuple(float((one != other).double().mean()) for other in said) for one in said)
