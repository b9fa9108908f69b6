from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.data import Images
from thirtytwo.data.loader import Loader, Standardise
from thirtytwo.data.mixing import Mixing

KINDS = {"mixup": Mixing(mixup_alpha=0.4), "cutmix": Mixing(cutmix_alpha=1.0), "both": Mixing(0.4, 1.0)}


def flat(number: int) -> torch.Tensor:
    """Images of one value each, which says which one it is."""
    return torch.arange(float(number))[:, None, None, None].expand(number, 3, 16, 12).contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_of_a_label_is_the_share_of_its_image(kind: str) -> None:
    mixing, images = KINDS[kind], flat(100)
    mixed, share = mixing(images, mixing.draw(100, [0, 1]))
    expected = share * images[:, 0, 0, 0] + (1 - share) * images.roll(1, 0)[:, 0, 0, 0]
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-3)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.std() > 0.1


def test_mixup_blends_and_cutmix_pastes_a_rectangle() -> None:
    images = flat(200)
    blended, _ = KINDS["mixup"](images, KINDS["mixup"].draw(200, [0]))
    assert torch.equal(blended, blended[:, :, :1, :1].expand_as(blended))
    pasted, share = KINDS["cutmix"](images, KINDS["cutmix"].draw(200, [0]))
    foreign = (pasted != images).all(1)  # (200, height, width)
    assert bool(((pasted == images) | (pasted == images.roll(1, 0))).all())
    assert torch.allclose(1 - foreign.float().mean((1, 2)), share)
    for rectangle in foreign[foreign.flatten(1).any(1)]:
        assert int(rectangle.sum()) == int(rectangle.any(1).sum()) * int(rectangle.any(0).sum())


def test_both_kinds_take_turns_where_both_are_asked_for() -> None:
    cut = KINDS["both"].draw(2000, [0])[0]
    assert set(cut.tolist()) == {0.0, 1.0}
    assert abs(float(cut.mean()) - 0.5) < 0.05
    assert set(KINDS["mixup"].draw(100, [0])[0].tolist()) == {0.0}
    assert set(KINDS["cutmix"].draw(100, [0])[0].tolist()) == {1.0}


def test_shares_follow_a_beta_distribution() -> None:
    share = Mixing(mixup_alpha=0.4).draw(20_000, [3])[1]
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(a, a)


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 99))
def test_the_same_numbers_draw_the_same(seed: int, step: int) -> None:
    once, again = (KINDS["both"].draw(8, [seed, step]) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, KINDS["both"].draw(8, [seed, step + 1]))


def test_a_loader_mixes_images_with_their_labels() -> None:
    labels = np.arange(60, dtype=np.int64) % 2
    pixels = np.broadcast_to((labels * 255).astype(np.uint8)[:, None, None, None], (60, 8, 8, 3)).copy()
    images = Images(pixels, labels, ("dark", "bright"), "made")
    loader = Loader(images, batch_size=60, seed=0, standardise=Standardise(), mixing=KINDS["both"])
    (chosen,) = loader.plan(0)
    inputs, own, others, share = loader.batch(loader.draw(0, 0, chosen))
    assert share is not None
    assert others is not None
    assert torch.equal(others, own.roll(1))
    targets = torch.zeros((60, 2))
    targets += share[:, None] * torch.eye(2)[own] + (1 - share)[:, None] * torch.eye(2)[others]
    assert torch.allclose(targets.sum(1), torch.ones(60))
    assert torch.allclose(inputs.mean((1, 2, 3)), targets[:, 1], atol=1e-3)  # as bright as its labels say
