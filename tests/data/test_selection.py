from __future__ import annotations

import pytest
import torch

from thirtytwo.data.loader import seeded
from thirtytwo.data.selection import easiest


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.5, 0.9])
def test_what_is_left_out_is_that_share_and_no_harder_than_what_stays(drop: float) -> None:
    losses = torch.rand(1000, generator=seeded(1))
    left_out = easiest(losses, drop)
    assert int(left_out.sum()) == 1000 * drop
    assert not drop or losses[left_out].max() < losses[~left_out].min()


@pytest.mark.parametrize("number", [1, 2, 10, 100])
def test_something_always_stays(number: int) -> None:
    assert not easiest(torch.zeros(number), 0.999).all()


def test_of_equal_images_the_first_are_left_out_and_none_that_was_never_seen() -> None:
    assert easiest(torch.zeros(100), 0.3).nonzero().flatten().tolist() == list(range(30))
    infinite = float("inf")
    assert easiest(torch.tensor([infinite, 0.1, infinite, infinite]), 0.75).tolist() == [False, True, False, False]
