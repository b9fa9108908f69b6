"""The same laws on a GPU: bits come again, recordings change nothing, answers do not depend on the device."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.test_train import rows, same, source, weights
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images
from thirtytwo.data.shapes import draw
from thirtytwo.recipe import Recipe
from thirtytwo.train import Training, resume, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]
SHORT = ["model.widths=[32, 64, 64]", "batch_size=250", "epochs=4"]


def settings(kernels: str, *words: str) -> Recipe:
    return recipes.load("fast94", [*SHORT, f"model.kernels={kernels}", *words])


@pytest.fixture(scope="module")
def images() -> Images:
    return draw(2000).images


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_bits_come_again_whether_interrupted_or_not(kernels: str, images: Images) -> None:
    whole, part = (train(settings(kernels), source(images)) for _ in range(2))
    whole.finish()
    for event in part:
        if event.epoch == 2:
            part.interrupt()
    assert part.interrupted
    again = resume(part.run, source(images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)
    assert whole.kernels == kernels


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_a_thread_of_its_own_as_on_a_cluster_changes_no_bits(kernels: str, images: Images) -> None:
    def trained() -> Training:
        training = train(settings(kernels), source(images))
        training.finish()
        return training

    with ThreadPoolExecutor(1) as threads:
        there = threads.submit(trained).result()
    here = trained()
    assert same(weights(there), weights(here))
    assert rows(there) == rows(here)


@pytest.mark.parametrize("words", [[], ["selection.drop=0.4", "image_scales=[0.75, 1.0]"]])
def test_a_recording_computes_what_its_operations_would(
    words: list[str], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = train(settings("torch", "precision=float32", "epochs=2", *words), source(images))
    recorded.finish()
    monkeypatch.setattr(sys.modules[Training.__module__], "recorder", lambda settings, device: None)
    asked = train(settings("torch", "precision=float32", "epochs=2", *words), source(images))
    asked.finish()
    assert [epoch.train_loss for epoch in recorded.history] == pytest.approx(
        [epoch.train_loss for epoch in asked.history], rel=0.05
    )


def test_answers_do_not_depend_on_the_device(images: Images) -> None:
    training = train(settings("torch", "epochs=8"), source(images))
    training.finish()
    on_cpu = Classifier.load(training.run).probabilities(images.pixels[:500])
    on_gpu = Classifier.load(training.run, device="cuda").probabilities(images.pixels[:500]).cpu()
    assert float((on_cpu - on_gpu).abs().max()) < 1e-3
    assert float((on_cpu.argmax(1) == on_gpu.argmax(1)).double().mean()) > 0.99


def test_the_classic_network_trains_with_dropout(images: Images) -> None:
    words = ["epochs=3", "batch_size=100", "optimizer.learning_rate=0.002"]
    one, other = (train(recipes.load("classic", words), source(images)) for _ in range(2))
    one.finish()
    other.finish()
    assert rows(one) == rows(other)
    assert one.history[-1].train_loss < one.history[0].train_loss
