"""Steps that are recorded and repeated, as on a GPU, do what steps do that are asked for one by one.

Recording needs a GPU; filling places, undoing what a recording did, and repeating do not: here the record of a program
is the program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.test_train import rows, same, source, weights
from thirtytwo import optim
from thirtytwo import recipe as recipes
from thirtytwo.data.images import Images
from thirtytwo.recipe import Recipe
from thirtytwo.settings import AnyModel
from thirtytwo.step import Program, Recorder
from thirtytwo.train import Training, resume, train

TRAINING = sys.modules[Training.__module__]
FAST = ["model.widths=[8, 8]", "model.kernels=torch", "model.whitening_images=50", "batch_size=30", "epochs=4"]
VARIANTS = {
    "fast": ("fast94", [*FAST, "validation=0.2"]),
    "selected and scaled": ("fast94", [*FAST, "selection.drop=0.4", "image_scales=[0.75, 1.0]"]),
    "classic": (
        "classic",
        ["batch_size=32", "model.stages=[[4], [8]]", "model.hidden_units=16", "epochs=4", "validation=0.2"],
    ),
    "mixed": (
        "classic",
        [
            "batch_size=50",
            "model.stages=[[4]]",
            "model.hidden_units=16",
            "epochs=2",
            "augmentation.mixup_alpha=0.4",
            "augmentation.cutmix_alpha=1.0",
            "augmentation.policy=rand",
            "augmentation.erasing_probability=0.3",
        ],
    ),
    "sharpness-aware": (
        "fast94",
        [*FAST, "loss.sharpness_radius=0.05", "validation=0.2"],
    ),
    "lookahead": (
        "fast94",
        [*FAST, "validation=0.2", "lookahead.steps=4"],
    ),
    "ends of epochs": (
        "fast94",
        [*FAST, "validation=0.2", "averaging.weighting=equal", "averaging.epochs=2"],
    ),
    "shaken": (
        "classic",
        [
            "batch_size=50",
            "model.name=pyramidnet",
            "model.stem=4",
            "model.widening=4",
            "model.blocks=[1, 1]",
            "model.shakedrop=0.8",
            "epochs=2",
        ],
    ),
    "sgd": (
        "classic",
        ["optimizer.name=sgd", "batch_size=50", "model.stages=[[4]]", "model.hidden_units=16", "epochs=2"],
    ),
}


def repeated(settings: AnyModel, device: torch.device) -> Recorder:
    return lambda program: program


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(TRAINING, "recorder", repeated)
        yield


def settings_of(variant: str) -> Recipe:
    name, words = VARIANTS[variant]
    return recipes.load(name, words)


def near(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_recorded_training_ends_as_one_whose_steps_are_asked_for(
    variant: str, small_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = train(settings_of(variant), source(small_images))
    asked.finish()
    monkeypatch.setattr(TRAINING, "recorder", repeated)
    recorded = train(settings_of(variant), source(small_images))
    recorded.finish()
    assert near(weights(asked), weights(recorded))  # rates are float64 in the one, float32 in the other
    assert [epoch.train_accuracy for epoch in asked.history] == pytest.approx(
        [epoch.train_accuracy for epoch in recorded.history], abs=0.02
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_recorded_training_resumes_to_the_same_bits(variant: str, small_images: Images, recorded: None) -> None:
    whole = train(settings_of(variant), source(small_images))
    whole.finish()
    part = train(settings_of(variant), source(small_images))
    for count, _ in enumerate(part):
        if count == 1:
            part.interrupt()
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)


def test_a_sharpness_aware_step_takes_the_gradient_uphill(small_images: Images) -> None:
    """Foret et al. 2021, equations 2 and 3, for a linear network and one step of gradient descent."""
    words = [
        "batch_size=200", "epochs=1", "validation=0", "early_stopping.patience=0", "schedule.name=constant",
        "optimizer.name=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.learning_rate=0.1",
        "loss.label_smoothing=0", "loss.sharpness_radius=0.3", "augmentation.rotation_degrees=0",
        "augmentation.width_shift=0", "augmentation.height_shift=0", "augmentation.horizontal_flip=false",
    ]  # fmt: skip
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    x = torch.from_numpy(small_images.pixels).movedim(-1, 1).double().flatten(1) / 255
    labels = torch.from_numpy(small_images.labels)
    weights = [parameter.detach().double().clone() for parameter in network[1].parameters()]

    def gradient(at: list[Tensor]) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in at]
        loss = nn.functional.cross_entropy(nn.functional.linear(x, *leaves), labels)
        return list(torch.autograd.grad(loss, leaves))

    here = gradient(weights)
    norm = torch.stack([part.square().sum() for part in here]).sum().sqrt()
    uphill = gradient([weight + 0.3 * part / norm for weight, part in zip(weights, here, strict=True)])
    train(recipes.load("classic", words), source(small_images), network=network).finish()
    for parameter, weight, part in zip(network[1].parameters(), weights, uphill, strict=True):
        assert torch.allclose(parameter.double(), weight - 0.1 * part, atol=1e-6)


def test_each_kind_of_step_is_recorded_once_and_before_the_first_one(
    small_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: list[Program] = []
    taken: list[int] = []

    def record(program: Program) -> Program:
        assert not taken
        number = len(programs)
        programs.append(program)

        def again() -> None:
            taken.append(number)
            program()

        return again

    monkeypatch.setattr(TRAINING, "recorder", lambda settings, device: record)
    # 200 images in batches of 50; at two sizes, and with the whitening layer's bias trained or not.
    words = [*FAST, "batch_size=50", "image_scales=[0.75, 1.0]", "optimizer.whitening_fraction=0.25"]
    train(recipes.load("fast94", words), source(small_images)).finish()
    assert len(programs) == 3  # small and trained, small and not trained, large and not trained
    assert taken == [0] * 4 + [1] * 4 + [2] * 8


def test_preparing_changes_nothing(small_images: Images, recorded: None) -> None:
    training = train(settings_of("selected and scaled"), source(small_images))
    before = weights(training)
    stepper = training._stepper()
    assert same(before, weights(training))
    assert not any(bool(tensor.any()) for tensor in optim.state_tensors(training._state.optimizers).values())
    assert stepper.tally.sums.tolist() == [0.0, 0.0]
