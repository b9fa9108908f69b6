"""Steps that are recorded and repeated, as on a GPU, do what steps do that are asked for one by one.

Recording needs a GPU; filling places, undoing what a recording did, and repeating do not: here the record of a program
is the program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

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
