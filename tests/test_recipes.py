"""Every shipped recipe trains: for a few steps, on a few drawn images, with the same network in small."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from thirtytwo import planner
from thirtytwo import recipe as recipes
from thirtytwo.data.images import Images
from thirtytwo.data.shapes import draw
from thirtytwo.data.source import Source
from thirtytwo.train import train

SPEED = ["model.widths=[8, 16]", "model.whitening_images=40", "model.kernels=torch"]
RESIDUAL = ["model.stem=8", "model.widths=[8, 16]", "model.blocks=[1, 1]"]
SMALLER = {
    "classic": ["model.stages=[[4], [8]]", "model.hidden_units=8"],
    "convmixer": ["model.width=8", "model.depth=2"],
    "pyramidnet": ["model.blocks=[1, 1]", "model.widening=8"],
    "resnet": RESIDUAL,
    "speed": SPEED,
    "transformer": ["model.width=16", "model.depth=2"],
}
"""What makes a network small, by its kind."""


@pytest.fixture(scope="module")
def images() -> Images:
    return draw(60).images


@pytest.mark.parametrize(
    ("name", "device"),
    [
        *product(recipes.names(), ["cpu"]),
        *product([name for name in recipes.names() if recipes.load(name).on_gpu], ["cuda"]),
    ],
)
def test_every_recipe_trains(
    name: str, device: str, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load(name).for_device(device).replace("epochs=2", "batch_size=20")
    recipe = recipe.replace(*SMALLER[recipe.model.name])
    source = Source(spec="made", name="shapes", location="memory", notice="", reader=lambda split: images)
    training = train(recipe, source, device="cpu")
    classifier = training.finish()
    assert len(training.history) == 2
    assert classifier(images.pixels[:3]).shape == (3, 10)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is_for_and_has_a_network_of_known_size(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.description.endswith(".")
    for device in ("cpu", "cuda"):
        work = planner.work(recipe.for_device(device))
        assert 1e5 < work.parameters < 1e8
        assert 1e13 < work.flops < 1e18


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", recipes.names())
def test_a_calibration_was_fitted_for_the_settings_that_the_recipe_has(name: str, device: str) -> None:
    recipe = recipes.load(name).for_device(device).for_images(planner.IMAGES)
    carried = recipe.calibration
    assert recipe.is_calibrated_for("cifar10") or (carried.temperature, carried.unknown_below) == (1.0, 0.0)


def test_the_best_recipe_is_what_twenty_minutes_of_a_data_centres_gpu_or_hours_of_a_cpu_can_compute() -> None:
    assert 0.3e18 <= planner.work(recipes.load("best").for_device("cuda")).flops <= 0.5e18
    assert 4e15 <= planner.work(recipes.load("best").for_device("cpu")).flops <= 6e15
