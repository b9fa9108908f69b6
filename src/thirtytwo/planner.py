"""What a training will come to, before its first step: what has to be computed, how long that takes here, and what
benchmarks have measured."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo import models
from thirtytwo import recipe as recipes
from thirtytwo.recipe import Recipe
from thirtytwo.settings import AnyModel, Muon, Views

IMAGES = 50_000
"""Training images of CIFAR-10."""
TRIAL_SECONDS = 1.0
"""For how long the largest steps are tried, where so few images do."""
TRIAL_SHARE = 0.02
"""Of all the images that steps will see: about so many are tried at once, so that trying takes little of a short
training's time, too."""
FEWEST = 16
"""Of a batch, as many are tried however short the training: a step takes some time for itself."""
TRIAL_IMAGES = 2
"""Images in the first step that is tried; then there are as many as `TRIAL_SECONDS` are enough for."""


@cache
def measured() -> tuple[dict[str, Any], ...]:
    """Every benchmark result inside the package, oldest first."""
    return tuple(json.loads((resources.files("thirtytwo") / "measured.json").read_text(encoding="utf-8")))


def every(kind: str, recipe: str) -> list[dict[str, Any]]:
    """All results of a kind for a recipe on CIFAR-10, oldest first.

    What was measured when the recipe had other settings is not a result for it.
    """
    settings = {device: recipes.load(recipe).for_device(device).for_images(IMAGES).digest for device in ("cpu", "cuda")}
    return [
        entry
        for entry in measured()
        if (entry["kind"], entry["recipe"], entry.get("data")) == (kind, recipe, "cifar10")
        and entry["settings"] == settings[entry["device"]]
    ]


def newest(kind: str, recipe: str, device: str | None = None, precision: str | None = None) -> dict[str, Any] | None:
    """The latest of `every` result; a single run, or changed code, only for want of others.

    Args:
        kind: such as ``training``.
        recipe: name of a shipped one.
        device: ``cpu`` or ``cuda``; None takes what was measured on any.
        precision: as a training names it; None takes any.
    """
    found = [
        entry
        for entry in every(kind, recipe)
        if device in (None, entry["device"]) and precision in (None, entry.get("precision"))
    ]
    found.sort(key=lambda entry: entry["n"] > 1 and not str(entry["commit"]).endswith("+"))  # stable: newest last
    return found[-1] if found else None


def precision_of_pairs(data: str) -> tuple[float, float] | None:
    """Of the pairs that an audit of some data names, the least and the largest share that was found to be right.

    Args:
        data: name of the whole data set.

    Returns:
        None where nobody has judged any.
    """
    judged = [entry["judged"] for entry in measured() if (entry["kind"], entry.get("data")) == ("audit", data)]
    if not judged:
        return None
    shares = [found["precision"] for found in judged[-1].values()]
    return min(shares), max(shares)


def where(entry: dict[str, Any]) -> str:
    """The machine that a result is from, and the card if it was one that computed."""
    return f"{entry['device_name']}, {entry['machine']}" if entry["device"] == "cuda" else str(entry["machine"])


def expected(
    recipe: Recipe, data: str, images: int, device: str, precision: str | None = None
) -> dict[str, Any] | None:
    """The measured result of a shipped recipe, if this training is to be one of its kind.

    Args:
        recipe: as it will be trained.
        data: the data set's name.
        images: number of its training images, validation part included.
        device: ``cpu`` or ``cuda``; what was measured on the other one is told for want of better.
        precision: that it computes in, since this decides how long it takes; likewise.

    Returns:
        An entry of kind ``training`` in measured.json; None if the recipe was changed, is nobody's, has not been
        measured, or was measured on other data.
    """
    if data != "cifar10" or recipe.name not in recipes.names():
        return None
    shipped = recipes.load(recipe.name)
    kinds = (shipped, shipped.for_device(device))
    if recipe not in (*kinds, *(kind.for_images(images) for kind in kinds)):
        return None
    name = recipe.name
    return newest("training", name, device, precision) or newest("training", name, device) or newest("training", name)


@dataclass(frozen=True)
class Work:
    """What a training has to compute."""

    parameters: int
    """Trainable numbers in the network."""
    flops_per_image: float
    """Floating-point operations of a step for an image of full size, forward and backward."""
    flops: float
    """Of all steps of all epochs."""


def work(
    recipe: Recipe,
    images: int = IMAGES,
    classes: int = 10,
    size: tuple[int, int] = (32, 32),
    network: nn.Module | None = None,
) -> Work:
    """Count what a training has to compute.

    Args:
        recipe: as it will be trained; see `Recipe.for_device` and `Recipe.for_images`.
        images: number of training images, validation part included.
        classes: number of them.
        size: (height, width) of the images, in pixels.
        network: that is trained, which sees two images for each kind of step; None computes nothing.

    Raises:
        RecipeError: there is no such network for such images.
    """
    if network is None:
        count: Callable[..., float] = partial(_flops_of, recipe.model, classes, size)
        parameters = _parameters_of(recipe.model, classes, size)
    else:
        count, parameters = cache(partial(_flops_per_image, network)), models.parameters(network)
    trained = images - round(images * recipe.validation)
    # The first layer of the speed network goes without a gradient once its rate has reached 0.
    optimizer = recipe.optimizer
    ends = recipe.epochs * (optimizer.whitening_fraction if isinstance(optimizer, Muon) else 1.0)
    flops = 0.0
    for epoch, (used, scaled) in enumerate(_epochs(recipe, trained, size)):
        early = min(max(ends - epoch, 0.0), 1.0)
        for share, whole in ((early, True), (1 - early, False)):
            flops += used * share * count(scaled, whole) if share else 0.0
    passes = _passes(recipe)
    return Work(parameters, passes * count(size, True), passes * flops)


def _epochs(recipe: Recipe, trained: int, size: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Of each epoch, how many of so many images are used, and their (height, width)."""
    for epoch in range(recipe.epochs):
        used = trained - (int(recipe.selection.drop * trained) if recipe.selects_images(epoch) else 0)
        if recipe.drop_last and recipe.batch_size < used:
            used -= used % recipe.batch_size
        yield used, recipe.image_size(epoch, size)


def _passes(recipe: Recipe) -> int:
    """How often a step computes gradients."""
    return 2 if recipe.loss.sharpness_radius else 1


def seconds(
    recipe: Recipe, network: nn.Module, trained: int, validated: int, size: tuple[int, int], *, half: bool, begun: int
) -> float:
    """How long a training on this machine's CPU takes, about: passes through the network, without all else.

    Some steps are tried with a copy of the network; random numbers are left as they were.

    Args:
        recipe: as it is trained.
        network: on a CPU.
        trained: number of images to train on.
        validated: number of images to validate on.
        size: (height, width) of the images, in pixels.
        half: whether torch's autocast computes steps in bfloat16.
        begun: epochs that lie behind it.
    """
    learned = asked = 0.0
    for epoch, (used, scaled) in enumerate(_epochs(recipe, trained, size)):
        if epoch >= begun:
            learned += used * scaled[0] * scaled[1] / (size[0] * size[1])
            if recipe.validates(epoch):
                asked += validated * _views(recipe.views)
                # Batch normalisation's averages are computed anew for a plain mean of weights.
                asked += trained * (recipe.averaging.epochs > 0 and recipe.averaging.weighting == "equal")
    most = min(recipe.batch_size, max(trained, 1), max(int(TRIAL_SHARE * learned), FEWEST))
    step, answer = _seconds_per_image(network, size, most, half)
    return step * _passes(recipe) * learned + answer * asked


def _views(views: Views) -> float:
    """How often the network sees an image that it is asked about; of doubtful ones there may be half."""
    most = (2 if views.mirror else 1) * (3 if views.translate_pixels else 1)
    return most if views.below_probability == 1 else (1 + most) / 2


def _seconds_per_image(network: nn.Module, size: tuple[int, int], most: int, half: bool) -> tuple[float, float]:
    """Of a step forward and backward, and of an answer."""
    network, number = copy.deepcopy(network).train(), min(TRIAL_IMAGES, most)
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16, enabled=half):
        step = math.inf
        while True:
            images = torch.rand((number, 3, *size)).contiguous(memory_format=torch.channels_last)
            learn = partial(_learn, network, images)
            learn()  # sets up memory and kernels
            step = min(step, _seconds(learn) / number)
            # A step costs something however few images it has: with more, there is less of that for each.
            number = min(int(TRIAL_SECONDS / 2 / step), most)
            if number < 1.5 * len(images):
                break
        network.eval()
        with torch.no_grad():
            return step, _seconds(partial(network, images)) / len(images)


def _learn(network: nn.Module, images: Tensor) -> None:
    network(images).float().square().mean().backward()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _flops_per_image(network: nn.Module, size: tuple[int, int], whole: bool) -> float:
    """Of a step, for images of a size; `whole` trains the speed network's first layer, too."""
    ended = [] if whole else [own for name, own in network.named_parameters() if name == "whitening.bias"]
    asked = [parameter.requires_grad for parameter in ended]
    try:
        for parameter in ended:
            parameter.requires_grad_(False)
        return models.flops_per_image(network, size)
    finally:
        for parameter, was in zip(ended, asked, strict=True):
            parameter.requires_grad_(was)


@cache
def _flops_of(settings: AnyModel, classes: int, size: tuple[int, int], scaled: tuple[int, int], whole: bool) -> float:
    """`_flops_per_image` of a network for images of one size that is given images of another."""
    return _flops_per_image(_network(settings, classes, size), scaled, whole)


@cache
def _parameters_of(settings: AnyModel, classes: int, size: tuple[int, int]) -> int:
    return models.parameters(_network(settings, classes, size))


def _network(settings: AnyModel, classes: int, size: tuple[int, int]) -> nn.Module:
    with torch.device("meta"):  # shapes without numbers
        return models.build(settings, classes, size)
