"""The weights inside the package: what their header says of them is true, and they answer the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ship
from thirtytwo import recipe as recipes
from thirtytwo.classifier import PRETRAINED, Classifier
from thirtytwo.data import find, sealed
from thirtytwo.data.shapes import draw

PINNED = [
    [0.0484, 0.0755, 0.0153, 0.0231, 0.0453, 0.2825, 0.476, 0.0085, 0.0148, 0.0105],
    [0.4561, 0.0111, 0.2094, 0.0608, 0.0329, 0.0216, 0.1164, 0.0095, 0.033, 0.0492],
    [0.0269, 0.005, 0.8883, 0.0163, 0.0072, 0.0062, 0.0266, 0.0032, 0.0041, 0.0163],
    [0.1565, 0.0158, 0.1485, 0.5718, 0.0091, 0.0567, 0.0196, 0.0046, 0.0067, 0.0106],
]
"""Probabilities for four drawn shapes."""
SCORED = 1_000
"""Test images; their accuracy has a standard deviation of 0.7 points."""


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier.load(PRETRAINED)


def test_the_header_says_where_the_weights_come_from(shipped: Classifier) -> None:
    facts = shipped.facts
    assert facts["recipe"] in recipes.names()
    assert facts["spec"] == "cifar10"
    assert len(facts["fingerprint"]) == len("".join(c for c in facts["fingerprint"] if c in "0123456789abcdef")) == 64
    assert len(facts["commit"]) == 40
    assert isinstance(facts["seed"], int)
    assert facts["test"]["images"] == 10_000
    assert facts["test"]["accuracy"] > 0.94
    assert shipped.classes[3] == "cat"
    assert (shipped.size, len(shipped.classes)) == ((32, 32), 10)


def test_the_file_is_small_and_its_kernels_are_half_precision() -> None:
    path = Path(ship.PATH)
    assert path.stat().st_size <= ship.MOST_BYTES == 24_000_000
    weights = Classifier.load(PRETRAINED).network.state_dict()
    assert all(
        torch.equal(tensor, tensor.half().float())
        for tensor in weights.values()
        if tensor.ndim > 1 and tensor.is_floating_point()
    )


def test_it_answers_the_same_everywhere(shipped: Classifier) -> None:
    drawn = draw(4, seed=5).images.pixels
    answers = shipped(drawn)
    expected = np.array(PINNED)
    assert np.allclose(answers, expected, atol=2e-3), answers.round(4).tolist()


@pytest.mark.slow
def test_it_scores_what_its_header_says(shipped: Classifier, cifar10: Path) -> None:
    source = find(str(cifar10))
    assert source.read_training().fingerprint == shipped.facts["fingerprint"]
    test = sealed.read_unscored(source).take(range(SCORED))
    accuracy = float((shipped(test.pixels).argmax(1) == test.labels).mean())
    assert accuracy == pytest.approx(shipped.facts["test"]["accuracy"], abs=0.02)
