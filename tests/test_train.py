from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thirtytwo import environment, evaluate, metrics, models, optim
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.errors import DataError, DeviceError, Diverged, InputError, ModelError, RecipeError, RunError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.run import read_tensors
from thirtytwo.state import State
from thirtytwo.train import Training, resume, train

TIMES = ("images_per_second", "seconds")


def source(images: Images) -> Source:
    return Source(spec="made", name=images.name, location="memory", notice="", reader=lambda split: images)


def small(*overrides: str) -> Recipe:
    """A recipe that learns `small_images` in under a second."""
    words = [
        "batch_size=32", "model.stages=[[4], [8]]", "model.hidden_units=16", "optimizer.learning_rate=0.01",
        "epochs=4", "validation=0.2", *overrides,
    ]  # fmt: skip
    return recipes.load("classic", words)


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in training.network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(training: Training) -> list[dict[str, object]]:
    return [{key: value for key, value in asdict(epoch).items() if key not in TIMES} for epoch in training.history]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_training_learns_and_leaves_a_complete_folder(small_images: Images) -> None:
    training = train(small("epochs=15"), source(small_images))
    classifier = training.finish()
    assert training.history[-1].train_loss < training.history[0].train_loss
    assert float((classifier(small_images.pixels).argmax(1) == small_images.labels).mean()) > 0.9
    assert training.run.path == Path("runs/classic-1")
    assert np.array_equal(Classifier.load(training.run)(small_images.pixels), classifier(small_images.pixels))
    assert [row["epoch"] for row in training.run.metrics] == [epoch.epoch for epoch in training.history]
    assert training.run.recipe == training.recipe
    result = training.run.result
    assert (result["recipe"], result["seed"], result["data"], result["images"]) == ("classic", 0, "small", 200)
    assert 0 < result["train_seconds"] <= result["cold_seconds"]
    assert result["peak_memory_bytes"] > 0


def test_a_training_with_validation_images_calibrates_itself(small_images: Images) -> None:
    training = train(small("calibration.coverage=0.75", "calibration.temperature=7"), source(small_images))
    classifier = training.finish()
    _, held_out = small_images.split(0.2)
    scores = classifier.scores(small_images.pixels[held_out])
    labels = torch.from_numpy(small_images.labels[held_out])
    assert classifier.temperature == metrics.best_temperature(scores, labels) != 7
    sure = (scores / classifier.temperature).softmax(1).amax(1) >= classifier.unknown_below
    assert float(sure.double().mean()) == 0.75
    stored = Classifier.load(training.run)
    assert (stored.temperature, stored.unknown_below) == (classifier.temperature, classifier.unknown_below)


def test_a_recipe_without_validation_images_carries_its_temperature(small_images: Images) -> None:
    words = ["validation=0", "early_stopping.patience=0", "calibration.unknown_below=0.6"]
    plain, cooled = (
        train(small(*words, f"calibration.temperature={value}"), source(small_images)).finish() for value in (1, 2)
    )
    assert plain.unknown_below == 0.6
    scores = plain.scores(small_images.pixels)
    assert torch.equal(cooled.scores(small_images.pixels), scores)
    assert torch.allclose(cooled.probabilities(small_images.pixels), (scores / 2).softmax(1))


def test_same_seed_same_bits_and_another_seed_another_network(small_images: Images) -> None:
    runs = [train(small(), source(small_images), seed=seed) for seed in (1, 1, 2)]
    for training in runs:
        training.finish()
    assert same(weights(runs[0]), weights(runs[1]))
    assert rows(runs[0]) == rows(runs[1])
    assert not same(weights(runs[0]), weights(runs[2]))


def test_a_training_leaves_the_callers_random_numbers_alone(small_images: Images) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(small(), source(small_images)).finish()
    assert torch.equal(torch.rand(4), expected)


def test_what_the_caller_draws_between_steps_changes_nothing(small_images: Images) -> None:
    quiet, noisy = train(small(), source(small_images)), train(small(), source(small_images))
    quiet.finish()
    for _ in noisy:
        torch.rand(7)
    assert same(weights(quiet), weights(noisy))


def interrupted_after(part: Training, last: int) -> None:
    """Train until so many steps have been taken."""
    steps = 0

    def interrupt(*_: object) -> None:
        nonlocal steps
        steps += part.network.training
        if steps == last:
            part.interrupt()

    part.network.register_forward_hook(interrupt)
    part.finish()
    assert part.interrupted


@pytest.mark.parametrize("last", [1, 4, 5, 8, 20])
def test_an_interrupted_training_resumes_to_the_same_bits(small_images: Images, last: int) -> None:
    # Five steps make an epoch, four epochs the training.
    whole = train(small(), source(small_images))
    whole.finish()
    part = train(small(), source(small_images))
    interrupted_after(part, last)
    assert not part.run.model_path.exists()
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)
    assert again.run.metrics == [asdict(epoch) for epoch in again.history]


def test_the_best_weights_are_restored_after_early_stopping_and_after_the_last_epoch(small_images: Images) -> None:
    for words in (["early_stopping.patience=2", "epochs=40"], ["early_stopping.patience=40", "epochs=8"]):
        # A rate this high makes the validation loss jump, so that the best epoch is rarely the last.
        training = train(small("optimizer.learning_rate=0.2", "schedule.name=constant", *words), source(small_images))
        seen: list[tuple[float, dict[str, Tensor]]] = []
        for event in training:
            if isinstance(event, Epoch):
                assert event.validation_loss is not None
                seen.append((event.validation_loss, weights(training)))
        best = min(range(len(seen)), key=lambda index: seen[index][0])
        assert best < len(seen) - 1  # otherwise nothing had to be restored
        assert same(weights(training), seen[best][1])
        assert training.run.result["kept_epoch"] == best + 1
        if "epochs=40" in words:
            assert len(seen) == best + 1 + 2 < 40


def test_patience_zero_trains_to_the_end_and_keeps_the_last_weights(small_images: Images) -> None:
    training = train(small("early_stopping.patience=0", "validation=0"), source(small_images))
    last = {}
    for event in training:
        if isinstance(event, Epoch):
            assert event.validation_loss is None
            last = weights(training)
    assert len(training.history) == 4
    assert same(weights(training), last)


@pytest.mark.parametrize("averaging", [[], ["averaging.weighting=equal", "averaging.epochs=3"]])
def test_looking_less_often_at_validation_images_changes_nothing_else(
    averaging: list[str], small_images: Images
) -> None:
    words = ("early_stopping.patience=0", "epochs=5", *averaging)
    often, seldom = (train(small(*words, f"validate_every={every}"), source(small_images)) for every in (1, 2))
    often.finish()
    seldom.finish()
    assert same(weights(often), weights(seldom))
    for one, other in zip(often.history, seldom.history, strict=True):
        assert one.train_loss == other.train_loss
        looked = one.epoch in (1, 3, 5)
        assert other.validation_loss == (one.validation_loss if looked else None)
        assert other.validation_accuracy == (one.validation_accuracy if looked else None)
    assert often.classifier.temperature == seldom.classifier.temperature != 1


def test_the_weights_of_a_look_are_kept_and_a_look_ends_the_training(small_images: Images) -> None:
    words = ("optimizer.learning_rate=0.2", "schedule.name=constant", "epochs=40")
    training = train(small(*words, "early_stopping.patience=4", "validate_every=3"), source(small_images))
    seen: dict[int, tuple[float, dict[str, Tensor]]] = {}
    for event in training:
        if isinstance(event, Epoch) and event.validation_loss is not None:
            seen[event.epoch] = (event.validation_loss, weights(training))
    best = min(seen, key=lambda epoch: seen[epoch][0])
    assert len(training.history) == best + 6 < 40  # at 3 epochs it was early to give up, and the next look is 3 later
    assert training.run.result["kept_epoch"] == best
    assert same(weights(training), seen[best][1])


def test_iterating_again_after_an_interruption_goes_on(small_images: Images) -> None:
    whole, part = (train(small(), source(small_images)) for _ in range(2))
    whole.finish()
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 2:
            part.interrupt()
    assert part.interrupted
    part.finish()
    assert not part.interrupted
    assert same(weights(whole), weights(part))


def test_a_training_that_the_caller_breaks_off_in_mid_step_goes_on_to_the_same_bits(small_images: Images) -> None:
    whole, part = (train(small(), source(small_images)) for _ in range(2))
    whole.finish()
    remaining = 3

    def stop(*_: object) -> None:
        nonlocal remaining
        remaining -= part.network.training
        if not remaining:
            raise KeyboardInterrupt

    part.network.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        part.finish()
    part.finish()
    assert same(weights(whole), weights(part))
    assert rows(whole) == rows(part)


def test_a_plateau_lowers_the_rate_and_resumes_as_if_never_interrupted(small_images: Images) -> None:
    words = ("schedule.name=plateau", "schedule.patience=1", "optimizer.learning_rate=0.2", "epochs=8")
    whole, part = (train(small(*words), source(small_images)) for _ in range(2))
    whole.finish()
    assert whole.history[-1].learning_rate < whole.history[0].learning_rate
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 5:
            part.interrupt()
    again = resume(part.run, source(small_images))
    again.finish()
    assert rows(whole) == rows(again)


@pytest.mark.parametrize("overrides", [[], ["checkpoint_minutes=0.0001"]])
def test_a_device_that_is_asked_now_and_then_counts_the_same(
    small_images: Images, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = train(small(*overrides), source(small_images))
    asked.finish()
    monkeypatch.setattr(environment, "is_queue", lambda device: True)
    queued = train(small(*overrides), source(small_images))
    queued.finish()
    assert same(weights(asked), weights(queued))
    assert rows(asked) == rows(queued)


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_checkpoint(
    small_images: Images, value: float, queued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "is_queue", lambda device: queued)
    exploding = True

    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(192, 4)
            self.calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += self.training
            scores: Tensor = self.dense(images.flatten(1))
            return scores * value if self.training and exploding and self.calls == 8 else scores

    network = Exploding()
    training = train(small(), source(small_images), network=network)
    network.calls = 0  # those before the first step do not count
    with pytest.raises(Diverged, match=r"epoch 2, step 3: the loss is (nan|inf) at rate 0\.0"):
        training.finish()
    assert len(training.run.metrics) == 1
    exploding = False
    again = resume(training.run, source(small_images), network=Exploding())
    again.finish()
    assert len(again.history) == 4
    assert all(bool(tensor.isfinite().all()) for tensor in again.network.state_dict().values())


@pytest.mark.parametrize("last", [3, 16], ids=["in mid-training", "in the last step"])
def test_weights_that_are_not_finite_are_never_stored(small_images: Images, last: int) -> None:
    class Poisoned(nn.Module):
        """Its loss is finite, its gradient is not: the square root's slope at 0 is infinite."""

        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(192, 4)
            self.calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += self.training
            scores: Tensor = self.dense(images.flatten(1))
            return scores + (0 * scores).abs().sqrt() if self.training and self.calls == last else scores

    network = Poisoned()
    words = ("validation=0", "early_stopping.patience=0", "batch_size=50")  # four steps an epoch
    training = train(small(*words), source(small_images), network=network)
    network.calls = 0  # those before the first step do not count
    with pytest.raises(Diverged):
        training.finish()
    tensors, _ = read_tensors(training.run.checkpoint_path)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert not training.run.model_path.exists()


def test_a_network_resumes_from_the_weights_it_began_with_whatever_it_is_made_with_later(small_images: Images) -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

    whole = train(small(), source(small_images), network=make(1))
    whole.finish()
    part = train(small(), source(small_images), network=make(1))

    def stop(*_: object) -> None:
        if part.network.training:
            raise KeyboardInterrupt

    part.network.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        part.finish()
    again = resume(part.run, source(small_images), network=make(2))
    again.finish()
    assert same(weights(whole), weights(again))


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 12)), r"gives \(2, 12\); expected .* \(2, 4\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), r"gives \(2, 3\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 4)), "fails"),
        (lambda: nn.Flatten(), "no trainable weights"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_at_once(
    small_images: Images, network: Callable[[], nn.Module], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        train(small(), source(small_images), network=network())
    assert not Path("runs").exists()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_part_of_a_network_that_is_first_used_later_learns_from_then_on(small_images: Images, optimizer: str) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.branch = nn.Linear(192, 4), nn.Linear(192, 4)
            self.before = self.branch.weight.detach().clone()
            self.asked, self.is_as_it_was = 0, False

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.dense(images.flatten(1))
            self.asked += self.training
            if self.asked == 4:
                self.is_as_it_was = torch.equal(self.branch.weight, self.before)
            return scores if self.asked < 4 else scores + self.branch(images.flatten(1))

    network = Late()
    words = ["optimizer.name=sgd", "optimizer.momentum=0.9"] if optimizer == "sgd" else []
    training = train(small(*words, "optimizer.weight_decay=0"), source(small_images), network=network)
    network.asked = 0  # those before the first step do not count
    training.finish()
    assert network.is_as_it_was
    assert not torch.equal(network.branch.weight, network.before)


def test_parts_of_a_network_that_are_frozen_stay_as_they_were(small_images: Images) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normalise = nn.BatchNorm2d(3).eval()
            self.dense = nn.Linear(192, 4)
            # Made by an operation, so that it cannot be deep-copied.
            self.scale = torch.ones(1, requires_grad=True) * 2

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.dense(self.normalise(images).flatten(1)) * self.scale.detach()
            return scores

    network = Frozen()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(small(), source(small_images), network=network)
    assert network.training
    assert not network.normalise.training
    assert same(before, network.state_dict())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("key", ["views.translate_pixels", "augmentation.translate_pixels"])
def test_shifts_as_large_as_the_image_are_refused_at_once(small_images: Images, key: str) -> None:
    with pytest.raises(RecipeError, match=f"{key}: found 8; expected less than 8"):
        train(small(f"{key}=8"), source(small_images))
    assert not Path("runs").exists()
    train(small(f"{key}=7", "epochs=1"), source(small_images)).finish()


def test_a_cutout_larger_than_the_image_is_refused_at_once(small_images: Images) -> None:
    with pytest.raises(RecipeError, match=r"augmentation.cutout_pixels: found 9; expected at most 8"):
        train(small("augmentation.cutout_pixels=9"), source(small_images))
    train(small("augmentation.cutout_pixels=8", "epochs=1"), source(small_images)).finish()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_a_seed_out_of_range_is_refused_at_once(small_images: Images, seed: int) -> None:
    with pytest.raises(InputError, match="expected a whole number from 0"):
        train(small(), source(small_images), seed=seed)
    assert not Path("runs").exists()


def test_a_seed_of_any_whole_kind_is_the_same_seed(small_images: Images) -> None:
    one, other = (train(small("epochs=1"), source(small_images), seed=seed) for seed in (5, np.int64(5)))
    one.finish()
    other.finish()
    assert same(weights(one), weights(other))
    assert other.run.environment["seed"] == 5


@pytest.mark.parametrize("size", [1, 2])
def test_batches_too_small_for_batch_normalisation_are_refused_at_once(small_images: Images, size: int) -> None:
    odd = small_images.take(range(199))  # 159 of them to train on: batches of two, and one of one
    with pytest.raises(RecipeError, match="choose a larger batch_size"):
        train(small(f"batch_size={size}"), source(odd))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    train(small(f"batch_size={size}", "epochs=1"), source(odd), network=network).finish()


def test_data_too_few_to_hold_any_out_are_refused_at_once(small_images: Images) -> None:
    with pytest.raises(DataError, match=r"--set validation=0"):
        train(small(), source(small_images.take([0, 1, 2, 3])))
    assert not Path("runs").exists()


def test_label_smoothing_is_no_part_of_the_training_loss_that_is_shown(small_images: Images) -> None:
    training = train(small("loss.label_smoothing=0.5", "epochs=15"), source(small_images))
    training.finish()
    # Targets of 0.625 and three times 0.125 have an entropy of 1.07 nats: a smoothed loss cannot fall below that.
    assert training.history[-1].train_loss < 1.0


def test_any_module_can_be_trained_resumed_and_loaded(small_images: Images) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        first = nn.Linear(192, 4)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.2))

    whole, part = (train(small("epochs=6"), source(small_images), network=make()) for _ in range(2))
    classifier = whole.finish()
    assert whole.recipe.model.name == "custom"
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 2:
            part.interrupt()
    with pytest.raises(RunError, match=r"resume\(run, network=module\)"):
        resume(part.run, source(small_images))
    again = resume(part.run, source(small_images), network=make())
    again.finish()
    assert same(weights(whole), weights(again))
    loaded = Classifier.load(whole.run, network=make())
    assert np.array_equal(loaded(small_images.pixels), classifier(small_images.pixels))


def test_resuming_with_another_network_is_a_clear_error(small_images: Images) -> None:
    def make(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, 4))

    training = train(small("epochs=1"), source(small_images), network=make(5))
    training.finish()
    with pytest.raises(RunError, match="does not fit this run's network"):
        resume(training.run, source(small_images), network=make(6)).finish()


def test_resuming_on_other_images_is_refused(small_images: Images) -> None:
    training = train(small(), source(small_images))
    other = small_images.take(range(199))
    with pytest.raises(DataError, match="not the images"):
        resume(training.run, source(other))


def test_a_finished_training_resumes_to_nothing_more(small_images: Images) -> None:
    training = train(small(), source(small_images))
    training.finish()
    before = training.run.model_path.read_bytes()
    complete = training.run.result
    training.run.result = {key: value for key, value in complete.items() if key != "kept_epoch"}  # an earlier version's
    again = resume(training.run, source(small_images))
    assert list(again) == []
    assert same(weights(again), weights(training))
    assert again.run.result == training.run.result
    assert before == training.run.model_path.read_bytes()


def test_steps_report_progress_that_adds_up(small_images: Images) -> None:
    class Slow(nn.Module):
        """So slow that steps are reported."""

        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(192, 4)

        def forward(self, images: Tensor) -> Tensor:
            large = torch.ones(700, 700)
            large = large @ large / 700
            scores: Tensor = self.dense(images.flatten(1)) * large[0, 0].detach()
            return scores

    events = list(train(small("batch_size=4", "epochs=2"), source(small_images), network=Slow()))
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1, 2]
    assert steps
    factor = optim.build_schedule(small().schedule, epochs=2, steps_per_epoch=40)
    for step in steps:
        assert 1 <= step.step <= step.steps == 40
        assert 0 <= step.accuracy <= 1
        assert step.images_per_second > 0
        assert step.seconds_left >= 0
        assert step.learning_rate == pytest.approx(0.01 * factor((step.epoch - 1) * 40 + step.step - 1, []))
    assert [(step.epoch, step.step) for step in steps] == sorted({(step.epoch, step.step) for step in steps})


@pytest.mark.parametrize("able", [True, False])
def test_steps_compute_in_half_precision_where_the_device_is_made_for_it(
    small_images: Images, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "has_bfloat16", lambda device: able)  # a CPU can emulate what it lacks
    seen: set[tuple[bool, torch.dtype]] = set()
    precision = "bfloat16" if able else "float32"

    class Watched(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            scores = super().forward(images.flatten(1))
            seen.add((self.training, scores.dtype))
            return scores

    def make() -> Training:
        torch.manual_seed(1)
        return train(small("precision=half"), source(small_images), network=Watched(192, 4))

    whole, part = make(), make()
    seen.clear()
    whole.finish()
    assert seen == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert {tensor.dtype for tensor in weights(whole).values()} == {torch.float32}
    assert whole.run.environment["precision"] == whole.precision == precision
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 2:
            part.interrupt()
    monkeypatch.setattr(environment, "has_bfloat16", lambda device: not able)  # it goes on as it began
    again = resume(part.run, source(small_images), network=Watched(192, 4))
    again.finish()
    assert same(weights(whole), weights(again))


# Means of weights, and slow weights --------------------------------------------------------------------------------


def ends(*words: str, images: Images) -> list[dict[str, Tensor]]:
    """Parameters at the end of each epoch, and at last those that were kept."""
    training = train(small("validation=0", "early_stopping.patience=0", *words), source(images))
    seen = []
    for event in training:
        if isinstance(event, Epoch):
            seen.append({name: tensor.detach().clone() for name, tensor in training.network.named_parameters()})
    return [*seen, {name: tensor.detach().clone() for name, tensor in training.network.named_parameters()}]


def test_weights_at_the_ends_of_the_last_epochs_count_alike(small_images: Images) -> None:
    plain = ends(images=small_images)
    found = ends("averaging.weighting=equal", "averaging.epochs=3", images=small_images)
    assert all(same(one, other) for one, other in zip(plain[:4], found[:4], strict=True))  # training goes on without
    for name, kept in found[-1].items():
        assert torch.allclose(kept, torch.stack([end[name] for end in plain[1:4]]).mean(0), atol=1e-6)


def test_averages_of_batch_normalisation_belong_to_the_mean_of_the_weights(small_images: Images) -> None:
    words = [
        "validation=0", "early_stopping.patience=0", "averaging.weighting=equal", "averaging.epochs=2", "batch_size=50",
        "augmentation.rotation_degrees=0", "augmentation.width_shift=0", "augmentation.height_shift=0",
        "augmentation.horizontal_flip=false",
    ]  # fmt: skip
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    training = train(small(*words), source(small_images), network=network)
    training.finish()
    images = torch.from_numpy(small_images.pixels).movedim(-1, 1) / 255
    answers = network[0](images).detach()
    assert isinstance(network[1], nn.BatchNorm2d)
    assert network[1].running_mean is not None
    assert torch.allclose(network[1].running_mean, answers.mean((0, 2, 3)), atol=1e-5)
    assert network[1].momentum == 0.1
    forward = models.flops_per_image(network, (8, 8), backward=False)
    both = models.flops_per_image(network, (8, 8))
    assert training.run.result["flops"] == 200 * (4 * both + forward)


def test_the_mean_of_ends_is_validated_once_there_is_one(small_images: Images) -> None:
    plain, found = (
        train(small("optimizer.learning_rate=0.1", *words), source(small_images))
        for words in ([], ["averaging.weighting=equal", "averaging.epochs=2"])
    )
    plain.finish()
    found.finish()
    assert [epoch.train_loss for epoch in plain.history] == [epoch.train_loss for epoch in found.history]
    losses = [[epoch.validation_loss for epoch in training.history] for training in (plain, found)]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][3] != losses[1][3]


def test_slow_weights_go_half_of_the_way_and_the_optimiser_goes_on_from_there(small_images: Images) -> None:
    """Zhang et al. 2019, algorithm 1, for an epoch of four steps: weights before, after two steps, and after four."""
    words = ("batch_size=50", "schedule.name=constant", "model.dropout=0", "epochs=1", "optimizer.name=sgd")
    steps: list[dict[str, Tensor]] = []

    def parameters(training: Training) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in training.network.named_parameters()}

    training = train(
        small(*words, "lookahead.steps=2", "validation=0", "early_stopping.patience=0"), source(small_images)
    )
    training.network.register_forward_hook(lambda *_: steps.append(parameters(training)))
    training.finish()
    slow = training._state.slow
    before, _, second, _ = steps[:4]  # as each step found them
    plain = train(small(*words, "validation=0", "early_stopping.patience=0"), source(small_images))
    alone: list[dict[str, Tensor]] = []
    plain.network.register_forward_hook(lambda *_: alone.append(parameters(plain)))
    plain.finish()
    for name, weight in second.items():
        assert torch.allclose(weight, (before[name] + alone[2][name]) / 2, atol=1e-6)
    assert same(slow, parameters(training))  # an epoch ends with slow weights
    assert not same(second, alone[2])


def test_looking_back_after_every_step_is_a_lower_rate(small_images: Images) -> None:
    words = ("optimizer.name=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "model.dropout=0")
    half, slow = (
        train(small(*words, *more), source(small_images))
        for more in (["optimizer.learning_rate=0.02"], ["optimizer.learning_rate=0.04", "lookahead.steps=1"])
    )
    half.finish()
    slow.finish()
    one, other = weights(half), weights(slow)
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-3) for name in one)


@pytest.mark.parametrize("last", [2, 5, 7])
def test_slow_weights_survive_an_interruption_to_the_bit(small_images: Images, last: int) -> None:
    words = ("lookahead.steps=2", "optimizer.name=sgd", "averaging.epochs=0.5")
    whole, part = (train(small(*words), source(small_images)) for _ in range(2))
    whole.finish()
    interrupted_after(part, last)
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert same(whole._state.slow, again._state.slow)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_looking_back_is_the_same_whether_it_is_asked_for_or_recorded(share: float) -> None:
    torch.manual_seed(0)
    made = []
    for given in (share, torch.tensor(share)):
        network = nn.Linear(3, 2)
        state = State(network, ())
        with torch.no_grad():
            for number, parameter in enumerate(network.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) + number)
            state.begin_looking_back()
            before = {name: tensor.clone() for name, tensor in state.slow.items()}
            for parameter in network.parameters():
                parameter.mul_(1.7).add_(0.1)
        fast = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
        state.look_back(given)
        made.append((state.slow, {name: tensor.detach() for name, tensor in network.named_parameters()}))
        expected = {name: before[name] + share * (fast[name] - before[name]) for name in fast}
        assert all(torch.allclose(state.slow[name], expected[name]) for name in fast)
        assert same(made[-1][1], state.slow if share else fast)
    assert same(made[0][0], made[1][0])
    assert same(made[0][1], made[1][1])


def test_what_a_network_draws_in_a_step_is_a_function_of_seed_epoch_and_step(small_images: Images) -> None:
    recipe = recipes.load(
        "classic",
        [
            "batch_size=32", "epochs=2", "validation=0.2", "model.name=pyramidnet", "model.stem=4", "model.widening=4",
            "model.blocks=[1, 1]", "model.shakedrop=0.9",
        ],
    )  # fmt: skip
    drawn: list[dict[tuple[int, int], Tensor]] = []
    for seed, start in ((0, 0), (0, 1), (1, 0)):
        training = train(recipe, source(small_images), seed=seed)
        found: dict[tuple[int, int], Tensor] = {}

        def watch(*_: object, training: Training = training, found: dict[tuple[int, int], Tensor] = found) -> None:
            progress = training._state.progress
            if training.network.training:
                found[progress.epoch, progress.step] = torch.rand(3)

        training.network.register_forward_hook(watch)
        for event in training:
            if start and isinstance(event, Epoch) and event.epoch == 1:
                torch.rand(11)  # what others draw meanwhile
                training.interrupt()
        training.finish()
        drawn.append(found)
    whole, part, other = drawn
    assert whole.keys() == part.keys() == {(epoch, step) for epoch in range(2) for step in range(5)}
    assert all(torch.equal(whole[step], part[step]) for step in whole)
    assert not any(torch.equal(whole[step], other[step]) for step in whole)
    assert len({tuple(numbers.tolist()) for numbers in whole.values()}) == 10


# Images that are left out --------------------------------------------------------------------------------------------

SELECTIVE = ("selection.drop=0.5", "selection.begin=0.25", "selection.end=0.75", "epochs=8")


class Counting(nn.Linear):
    """Counts the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__(192, 4)
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images) if self.training else 0
        return super().forward(images.flatten(1))


def test_leaving_out_all_but_one_image_is_refused_where_a_network_normalises_batches(small_images: Images) -> None:
    with pytest.raises(RecipeError, match=r"selection.drop: 0.999 leaves 1 of 160"):
        train(small("epochs=2", "selection.drop=0.999"), source(small_images))
    train(small("epochs=2", "selection.drop=0.999"), source(small_images), network=Counting()).finish()


def test_easy_images_are_left_out_in_the_middle_of_the_training(small_images: Images) -> None:
    network = Counting()
    training = train(small(*SELECTIVE), source(small_images), network=network)
    network.images, counts = 0, []
    for event in training:
        if isinstance(event, Epoch):
            counts.append(network.images)
            network.images = 0
    assert counts[:2] == counts[6:] == [160, 160]
    assert counts[2:6] == [80] * 4
    assert training.run.result["flops"] == pytest.approx(sum(counts) * 2 * (2 * 192 * 4))


def test_a_training_that_leaves_out_images_is_resumed_to_the_bit(small_images: Images) -> None:
    recipe = small(*SELECTIVE, "batch_size=8")
    whole = train(recipe, source(small_images))
    whole.finish()
    assert (whole.history[-1].validation_accuracy or 0) > 0.9
    for stop in (45, 60):  # in the third epoch, which leaves out images, and in the fourth
        part, steps = train(recipe, source(small_images)), 0

        def count(*_: object) -> None:
            nonlocal steps
            steps += part.network.training  # noqa: B023
            if steps == stop:  # noqa: B023
                part.interrupt()  # noqa: B023

        part.network.register_forward_hook(count)
        part.finish()
        assert part.interrupted
        again = resume(part.run, source(small_images))
        again.finish()
        assert same(weights(whole), weights(again))
        assert rows(whole) == rows(again)


class AnySize(nn.Module):
    """Takes images of any size, and remembers which it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1, bias=False)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.shape[2])
        scores: Tensor = self.convolution(images).mean((2, 3))
        return scores


def test_training_images_grow_and_everything_else_sees_them_whole(small_images: Images) -> None:
    network = AnySize()
    training = train(small("epochs=4", "image_scales=[0.5, 1]"), source(small_images), network=network)
    network.seen.clear()
    events = list(training)
    assert network.seen == [4] * 10 + [8] * 10  # steps of two epochs each
    assert sum(isinstance(event, Epoch) for event in events) == 4
    # Forward and the weights' gradient; the pixels' mean is not counted.
    assert training.run.result["flops"] == 160 * 2 * 2 * (2 * 3 * 4) * (4 * 4 + 8 * 8)
    assert training.classifier(small_images.pixels[:5]).shape == (5, 4)


def test_a_training_on_growing_images_is_resumed_to_the_bit(small_images: Images) -> None:
    recipe = small("epochs=4", "image_scales=[0.5, 0.75, 1]")
    whole, part = (train(recipe, source(small_images), network=AnySize()) for _ in range(2))
    part.network.load_state_dict(weights(whole))
    whole.finish()
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 2:
            part.interrupt()
    again = resume(part.run, source(small_images), network=AnySize())
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)


@pytest.mark.parametrize(
    ("scales", "found"),
    [
        ("[1, 2]", r"image_scales.1: found 2, expected at most 1"),
        ("[0.01, 1]", r"image_scales: make images of 8 × 8 pixels 1 × 1"),
    ],
)
def test_image_scales_that_cannot_be_trained_on_are_refused_at_once(
    small_images: Images, scales: str, found: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=found):
        train(small(f"image_scales={scales}"), source(small_images))
    assert list(tmp_path.iterdir()) == []


def test_flops_are_those_of_forward_and_backward_passes_of_all_images(small_images: Images) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))
    training = train(small("epochs=3"), source(small_images), network=network)
    training.finish()
    # Per image and layer 2 · inputs · outputs forward, the same for the weights' gradient; inputs need none.
    assert training.run.result["flops"] == 160 * 3 * 2 * (2 * 192 * 4)
    assert training.run.result["parameters"] == 192 * 4


def test_a_mistake_leaves_no_folder_behind(small_images: Images) -> None:
    with pytest.raises(RecipeError):
        train(small("model.stages=[[4], [4], [4], [4], [4]]"), source(small_images))
    with pytest.raises(DeviceError, match="expected auto, cpu or cuda"):
        train(small(), source(small_images), device="abacus")
    with pytest.raises(DataError, match="expected at least 2"):
        train(small(), source(small_images.take([0])))
    assert not Path("runs").exists()


def test_a_batch_larger_than_the_data_is_one_step(small_images: Images) -> None:
    training = train(small("batch_size=1000", "epochs=1"), source(small_images))
    training.finish()
    assert len(training.history) == 1


def test_a_run_folder_in_use_is_refused(small_images: Images) -> None:
    training = train(small(), source(small_images))
    iterator = iter(training)
    next(iterator)
    with pytest.raises(RunError, match="another process"):
        resume(training.run, source(small_images)).finish()


def test_a_folder_of_a_few_pictures_is_learned_too() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 15)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels]
    pixels = (colours[:, None, None] + generator.integers(-50, 50, (45, 32, 32, 3))).astype(np.uint8)
    few = Images(pixels, labels, ("red", "green", "blue"), "few")
    training = train("classic", source(few), device="cpu")
    classifier = training.finish()
    assert training.history[-1].train_accuracy > 0.9
    assert metrics.accuracy(classifier.probabilities(pixels), torch.from_numpy(labels)) > 0.9


# The mean of the weights ---------------------------------------------------------------------------------------------


def last(*words: str) -> Recipe:
    """Keeps the last weights, or their mean."""
    return small("early_stopping.patience=0", *words)


def test_the_mean_counts_newer_weights_more(small_images: Images) -> None:
    training = train(last("averaging.epochs=0.4"), source(small_images), out="run")
    reach, seen = 0.4 * 5, []  # steps
    step = training._step

    def recorded(*words: Any) -> None:
        step(*words)
        seen.append(weights(training))

    training._step = recorded  # type: ignore[method-assign, assignment]
    training.finish()
    assert len(seen) == 20
    for name, kept in weights(training).items():
        if not kept.is_floating_point():
            continue
        mean = seen[0][name].double()
        for number, now in enumerate(seen[1:], start=1):
            mean += (now[name].double() - mean) / max(min(reach, number + 1), 1)
        torch.testing.assert_close(kept.double(), mean, rtol=1e-5, atol=1e-6)
        if name.endswith("weight"):
            assert not torch.equal(kept, seen[-1][name])


def test_training_goes_on_from_the_weights_themselves(small_images: Images) -> None:
    plain = train(last(), source(small_images), out="plain")
    averaged = train(last("averaging.epochs=1"), source(small_images), out="averaged")
    for training in (plain, averaged):
        training.finish()
    assert [epoch.train_loss for epoch in plain.history] == [epoch.train_loss for epoch in averaged.history]
    assert [epoch.validation_loss for epoch in plain.history] != [epoch.validation_loss for epoch in averaged.history]


@pytest.mark.parametrize("patience", [0, 5])
def test_what_is_validated_is_what_is_kept(small_images: Images, patience: int) -> None:
    recipe = small("averaging.epochs=1", f"early_stopping.patience={patience}")
    training = train(recipe, source(small_images), out="run")
    classifier = training.finish()
    scored = evaluate(classifier, source(small_images), split="validation").summary()
    kept = training.history[(training.best_epoch or training.recipe.epochs) - 1]
    assert scored["accuracy"] == kept.validation_accuracy


def test_a_mean_over_less_than_a_step_is_the_last_weights(small_images: Images) -> None:
    ends = []
    for words in ([], ["averaging.epochs=0.01"]):
        training = train(last(*words), source(small_images), out=f"run-{len(words)}")
        training.finish()
        ends.append(weights(training))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


# Images that are left out --------------------------------------------------------------------------------------------


def named(*indices: int) -> Path:
    """A table of training images, and of a test image that concerns no training."""
    lines = [f"training,{index}" for index in indices]
    path = Path("table.csv")
    path.write_text("\n".join(["split,index", *lines, "test,12345"]))
    return path


def test_a_training_without_some_images_is_that_of_the_other_images(small_images: Images) -> None:
    left_out = (3, 50, 51, 52, 199)
    rest = [number for number in range(200) if number not in left_out]
    less = train(small(), source(small_images), exclude=named(*left_out))
    less.finish()
    other = train(small(), source(small_images.take(rest)))
    other.finish()
    assert same(weights(less), weights(other))
    assert (less.run.result["images"], less.run.result["excluded_images"]) == (195, 5)
    recorded = less.run.environment["data"]
    file = str(Path("table.csv").absolute())
    assert recorded["excluded"] == {"files": [file], "indices": list(left_out), "named": [5]}
    assert recorded["fingerprint"] == small_images.take(rest).fingerprint
    assert "excluded" not in other.run.environment["data"]


def test_a_training_without_some_images_resumes_without_them(small_images: Images) -> None:
    whole = train(small(), source(small_images), exclude=named(1, 2, 3))
    whole.finish()
    broken = train(small(), source(small_images), exclude=named(1, 2, 3))
    for event in broken:
        if isinstance(event, Epoch) and event.epoch == 2:
            broken.interrupt()
    assert broken.interrupted
    Path("table.csv").unlink()  # the run knows by itself
    resumed = resume(broken.run.path, source(small_images))
    resumed.finish()
    assert same(weights(whole), weights(resumed))


def test_a_table_of_other_images_leaves_no_folder_behind(small_images: Images) -> None:
    with pytest.raises(DataError, match="line 2: training image 200"):
        train(small(), source(small_images), exclude=named(200))
    with pytest.raises(DataError, match="expected at least 2"):
        train(small(), source(small_images), exclude=named(*range(199)))
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [[], ["early_stopping.patience=0"], ["averaging.epochs=2", "validate_every=2"]])
def test_the_kept_weights_are_asked_once_about_an_image(
    words: list[str], small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, asked, scores = small("epochs=4", *words), [], Classifier.scores

    def counted(classifier: Classifier, *arguments: Any) -> Tensor:
        asked.append(classifier)
        return scores(classifier, *arguments)

    monkeypatch.setattr(Classifier, "scores", counted)
    whole = train(recipe, source(small_images), out=tmp_path / "whole")
    whole.finish()
    assert len(asked) == sum(recipe.validates(epoch) for epoch in range(4))
    part = train(recipe, source(small_images), out=tmp_path / "part")
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 4:
            break  # what was said then is gone with the process
    again = resume(part.run, source(small_images))
    assert again.finish().temperature == whole.classifier.temperature
