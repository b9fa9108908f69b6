"""What is timed is what a training does: the loader of the recipe, with all that its augmentation draws."""

from __future__ import annotations

import sys

import pytest
import torch

import loader
from measured import REPOSITORY
from thirtytwo import recipe as recipes


def test_what_is_drawn_is_what_the_recipe_draws() -> None:
    made = loader.loader(recipes.load("fast94"), 20, 7)
    draws = made.draw(0, 0, torch.arange(7))
    assert draws.shift.shape == (2, 7)  # fast94 shifts by whole pixels
    assert sorted(torch.cat(made.plan(1)).tolist()) == list(range(20))
    richer = loader.loader(recipes.load("classic", ["augmentation.mixup_alpha=1"]), 20, 7)
    assert richer.draw(0, 0, torch.arange(7)).mixing.shape == (5, 7)


def test_the_first_time_does_not_count() -> None:
    turns: list[int] = []
    assert loader.median(turns.append, 3) >= 0
    assert turns == [0, 1, 2, 3]


def test_it_tells_what_the_page_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["loader.py", "--images", "95", "--batch", "10", "--repeats", "1"])
    one, other, epoch, where = loader.told(recipes.load("fast94"), (10, 20), images=95, batch_size=10, repeats=1)
    assert one.startswith("chance of a batch of 10 images (fast94): ")
    assert other.startswith("chance of a batch of 20 images (fast94): ")
    assert epoch.startswith("order of an epoch of 95 images, in 10 batches: ")
    assert "; commit " in where
    assert where.endswith("python benchmarks/loader.py --images 95 --batch 10 --repeats 1")
    assert "`python benchmarks/loader.py`" in (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
