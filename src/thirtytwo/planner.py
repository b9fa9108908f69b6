"""What a training will come to, before its first step: from what the recipe's benchmark has measured."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from thirtytwo import recipe as recipes
from thirtytwo.recipe import Recipe

IMAGES = 50_000
"""Training images of CIFAR-10."""


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


def newest(kind: str, recipe: str, device: str | None = None) -> dict[str, Any] | None:
    """The latest of `every` result; a single run, or changed code, only for want of others.

    Args:
        kind: such as ``training``.
        recipe: name of a shipped one.
        device: ``cpu`` or ``cuda``; None takes what was measured on any.
    """
    found = [entry for entry in every(kind, recipe) if device is None or entry["device"] == device]
    found.sort(key=lambda entry: entry["n"] > 1 and not str(entry["commit"]).endswith("+"))  # stable: newest last
    return found[-1] if found else None


def where(entry: dict[str, Any]) -> str:
    """The machine that a result is from, and the card if it was one that computed."""
    return f"{entry['device_name']}, {entry['machine']}" if entry["device"] == "cuda" else str(entry["machine"])


def expected(recipe: Recipe, data: str, images: int, device: str) -> dict[str, Any] | None:
    """The measured result of a shipped recipe, if this training is to be one of its kind.

    Args:
        recipe: as it will be trained.
        data: the data set's name.
        images: number of its training images, validation part included.
        device: ``cpu`` or ``cuda``; what was measured on the other one is told for want of better.

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
    return newest("training", recipe.name, device) or newest("training", recipe.name)
