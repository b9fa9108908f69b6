from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
import measured
from thirtytwo import Classifier, models
from thirtytwo.settings import ClassicModel, Pixels, Views

MODEL = ClassicModel(stages=((4,), (8,)), hidden_units=8)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    pixels = Pixels(mean=(0.4, 0.5, 0.6), standard_deviation=(0.2, 0.3, 0.4))
    return Classifier(models.build(MODEL, 3, (16, 16)), MODEL, ("a", "b", "c"), (16, 16), pixels)


def test_the_plain_network_gives_the_same_answers(classifier: Classifier) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(np.asarray(inference.plain(classifier)(images)), classifier(images), atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_what_is_measured_can_be_recorded(classifier: Classifier, tmp_path: Path, several: bool) -> None:
    classifier.views = Views(mirror=several)
    classifier.facts = {"recipe": "classic"}
    classifier.save(tmp_path / "model.safetensors")
    words = argparse.Namespace(model=tmp_path / "model.safetensors", repeats=3, batch=5, device="cpu")
    entry = inference.measure(words)
    measured.add(entry, tmp_path / "measured.json")
    assert entry["recipe"] == "classic"
    assert {key for key in entry if key.endswith("_with_views")} == (
        {"batch_with_views", "single_with_views"} if several else set()
    )
    for name, images in (("batch", 5), ("single", 1)):
        row = entry[name]
        assert row["images"] == images
        assert row["seconds"] > 0 < row["plain_seconds"]
        assert row["overhead"] > -1
