"""The same laws on a GPU: bits come again, recordings change nothing, answers do not depend on the device."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.test_ranks import check_company_of_none
from tests.test_train import rows, same, source, weights
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier, Ensemble
from thirtytwo.data import Images
from thirtytwo.data.shapes import draw
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
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


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_a_lesson_is_recorded_and_its_bits_come_again(
    kernels: str, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["validation=0.1", "augmentation.mixup_alpha=0.2"]
    one = train(settings("torch", *words, "epochs=6", "pixels.mean=[0.5, 0.5, 0.5]"), source(images))
    two = train(recipes.load("classic", ["epochs=3", "batch_size=100"]), source(images))
    facts = {"fingerprint": images.fingerprint, "validation_fraction": 0.1}
    both = Ensemble.of([one.finish(), two.finish()], [2, 1], facts)
    both.save(tmp_path / "both.safetensors")
    recipe = settings(kernels, *words, f"teacher.model={tmp_path / 'both.safetensors'}", "image_scales=[0.75, 1.0]")
    whole, part = (train(recipe, source(images)) for _ in range(2))
    whole.finish()
    for event in part:
        if event.epoch == 2:
            part.interrupt()
    again = resume(part.run, source(images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)
    monkeypatch.setattr(sys.modules[Training.__module__], "recorder", lambda settings, device: None)
    asked = train(recipe.replace("model.kernels=torch", "precision=float32"), source(images))
    asked.finish()
    assert [epoch.train_loss for epoch in whole.history] == pytest.approx(
        [epoch.train_loss for epoch in asked.history], rel=0.1
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


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_steps_with_a_message_in_them_are_recorded_and_end_with_the_same_bits(
    kernels: str, images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_company_of_none(settings(kernels), images, "cuda", monkeypatch, tmp_path)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two accelerators")
def test_two_gpus_train_one_run(tmp_path: Path) -> None:
    words = ["--data", "shapes:training=2000,test=100", "--epochs", "4", "--set", "batch_size=250"]
    losses = []
    for devices in ("1", "2"):
        out = tmp_path / devices
        command = [
            sys.executable,
            "-m",
            "thirtytwo",
            "train",
            "fast94",
            *words,
            "--devices",
            devices,
            "--out",
            str(out),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=300)
        assert done.returncode == 0, done.stderr
        losses.append([float(row["train_loss"] or 0) for row in Run.open(out).metrics])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
