"""Which of several models answer best together, and how much each should count.

Greedy selection (Caruana et al. 2004, "Ensemble selection from libraries of models"): beginning with the best one, the
model whose probabilities lower the loss of the mean most is added, again and again, the same one too, until none does.
How often a model was added is its weight. All of that is decided on the validation part, which no member has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from thirtytwo import metrics
from thirtytwo.classifier import Classifier, Ensemble, unseen_share
from thirtytwo.data import Source
from thirtytwo.errors import ModelError

ROUNDS = 20
"""Models that are added at most."""
COVERAGE = 0.95
"""Share of the validation images that shall get an answer other than "unknown", where that is asked for."""


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


@dataclass(frozen=True, eq=False)
class Chosen:
    """An ensemble, and how it was chosen."""

    ensemble: Ensemble
    members: tuple[Member, ...]
    """In the order in which they were given."""
    accuracy: float
    """Of the ensemble on the validation images; it was chosen by them, so this is a little too good."""
    loss: float
    images: int
    """Validation images."""
    disagreement: float
    """Share of validation images on which two of its members say different classes, mean over pairs; 0 for one."""

    @property
    def best(self) -> Member:
        """The best single model."""
        return min(self.members, key=lambda member: member.loss)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "members": [vars(member) for member in self.members],
            "best": self.best.name,
            "validation": {"images": self.images, "accuracy": self.accuracy, "loss": self.loss},
            "disagreement": self.disagreement,
        }


def ensemble(models: Sequence[Classifier], names: Sequence[str], source: Source) -> Chosen:
    """Choose an ensemble.

    Args:
        models: on one device, trained on the same images with the same part held out.
        names: of the models.
        source: what they were trained on.

    Raises:
        ModelError: they do not fit each other or the data, or no images were held out.
    """
    training = source.read_training()
    fraction = unseen_share(models, names, training.fingerprint)
    _, held_out = training.split(fraction)
    images = training.take(held_out)
    labels = torch.from_numpy(images.labels)
    Ensemble.of(models)  # whether they fit each other is asked before anything is scored
    answers = torch.stack([model.probabilities(images.pixels).cpu() for model in models])  # (models, images, classes)
    counts = selected(answers, labels)
    chosen = [number for number, count in enumerate(counts) if count]
    facts = {
        "recipe": "ensemble",
        "members": [names[number] for number in chosen],
        "spec": models[0].facts.get("spec"),
        "fingerprint": training.fingerprint,
        "validation_fraction": fraction,
    }
    found = Ensemble.of([models[number] for number in chosen], [counts[number] for number in chosen], facts)
    scores = _mean(answers, counts).clamp_min(1e-12).log()
    found.temperature = metrics.best_temperature(scores, labels)
    probabilities = (scores / found.temperature).softmax(1)
    found.unknown_below = metrics.confidence_of_share(probabilities, COVERAGE)
    said = answers[chosen].argmax(2)
    apart = [float((one != other).double().mean()) for one, other in combinations(said, 2)]
    return Chosen(
        ensemble=found,
        members=tuple(
            Member(name, count / sum(counts), metrics.accuracy(answer, labels), metrics.cross_entropy(answer, labels))
            for name, count, answer in zip(names, counts, answers, strict=True)
        ),
        accuracy=metrics.accuracy(probabilities, labels),
        loss=metrics.cross_entropy(probabilities, labels),
        images=len(labels),
        disagreement=sum(apart) / len(apart) if apart else 0.0,
    )


def selected(answers: Tensor, labels: Tensor, rounds: int = ROUNDS) -> list[int]:
    """How often each model is added; see the module.

    Args:
        answers: float (models, images, classes), probabilities.
        labels: int64 (images,).
        rounds: models that are added at most.
    """
    counts = [0] * len(answers)
    total, best = torch.zeros_like(answers[0]), float("inf")
    for done in range(rounds):
        losses = [metrics.cross_entropy((total + answer) / (done + 1), labels) for answer in answers]
        number = min(range(len(losses)), key=losses.__getitem__)
        if losses[number] >= best:
            break
        best = losses[number]
        counts[number] += 1
        total = total + answers[number]
    return counts


def _mean(answers: Tensor, counts: Sequence[int]) -> Tensor:
    shares = torch.tensor(counts, dtype=answers.dtype) / sum(counts)
    return (answers * shares[:, None, None]).sum(0)
