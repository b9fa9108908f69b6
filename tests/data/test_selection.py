from __future__ import annotations

import pytest
import torch

from thirtytwo.data.loader import seeded
from thirtytwo.data.selection import select


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.7])
def test_the_mean_over_what_stays_is_the_mean_over_all(drop: float) -> None:
    losses = torch.rand(20_000, generator=seeded(1))
    left_out, weights = select(losses, drop, seeded(2))
    assert float((losses * weights)[~left_out].sum() / losses.sum()) == pytest.approx(1, abs=0.03)
    assert float(left_out.float().mean()) == pytest.approx(drop / 2, abs=0.02)  # half of them are easy


def test_only_images_below_the_mean_are_left_out_and_none_that_was_never_seen() -> None:
    losses = torch.tensor([0.1, 0.2, 9.0, float("inf"), 0.3])
    left_out, weights = select(losses, 0.9, seeded(0))
    assert not left_out[2:4].any()
    assert weights.tolist() == pytest.approx([10, 10, 1, 1, 10])
    assert not select(torch.full((5,), float("inf")), 0.9, seeded(0))[0].any()
