from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.errors import DataError, DeviceError, Diverged, RecipeError, RunError
from thirtytwo.recipe import Recipe
from thirtytwo.train import Epoch, Step, Training, resume, train

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


def test_an_interrupted_training_resumes_to_the_same_bits(small_images: Images) -> None:
    whole = train(small(), source(small_images))
    whole.finish()
    part = train(small(), source(small_images))
    steps = 0

    def interrupt(*_: object) -> None:
        nonlocal steps
        steps += part.network.training
        if steps == 8:
            part.interrupt()

    part.network.register_forward_hook(interrupt)
    part.finish()
    assert part.interrupted
    assert not part.run.model_path.exists()
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)
    assert again.run.metrics == [asdict(epoch) for epoch in again.history]


def test_the_best_weights_are_restored_after_early_stopping_and_after_the_last_epoch(small_images: Images) -> None:
    for words in (["early_stopping.patience=2", "epochs=40"], ["early_stopping.patience=40", "epochs=6"]):
        # A rate this high makes the validation loss jump, so that the best epoch is rarely the last.
        training = train(small("optimizer.learning_rate=0.2", "schedule.name=constant", *words), source(small_images))
        seen: list[tuple[float, dict[str, Tensor]]] = []
        for event in training:
            if isinstance(event, Epoch):
                assert event.validation_loss is not None
                seen.append((event.validation_loss, weights(training)))
        best = min(range(len(seen)), key=lambda index: seen[index][0])
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_checkpoint(
    small_images: Images, value: float
) -> None:
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

    training = train(small(), source(small_images), network=Exploding())
    with pytest.raises(Diverged, match=r"epoch 2, step 3: the loss is (nan|inf) at rate 0\.0"):
        training.finish()
    assert len(training.run.metrics) == 1
    exploding = False
    again = resume(training.run, source(small_images), network=Exploding())
    again.finish()
    assert len(again.history) == 4
    assert all(bool(tensor.isfinite().all()) for tensor in again.network.state_dict().values())


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
    again = resume(training.run, source(small_images))
    assert list(again) == []
    assert same(weights(again), weights(training))
    assert again.run.result == training.run.result
    assert before == training.run.model_path.read_bytes()


def test_steps_report_progress_that_adds_up(small_images: Images) -> None:
    training = train(small("checkpoint_minutes=0"), source(small_images))
    events = list(training)
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1, 2, 3, 4]
    for step in steps:
        assert 1 <= step.step <= step.steps == 5
        assert 0 <= step.accuracy <= 1
        assert step.images_per_second > 0
        assert step.seconds_left >= 0


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
