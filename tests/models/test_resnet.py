from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from thirtytwo import models
from thirtytwo.errors import RecipeError
from thirtytwo.models.resnet import StochasticDepth
from thirtytwo.settings import AnyModel, ConvMixerModel, ResNetModel, TransformerModel

WIDE: dict[str, Any] = {"stem": 16, "widths": (160, 320, 640), "blocks": (4, 4, 4), "preactivation": True}

PUBLISHED = [
    # kuangliu/pytorch-cifar's ResNet-18 has 11,173,962; WRN-28-10 36.5 M and WRN-16-4 2.7 M (Zagoruyko & Komodakis,
    # tables 4 and 5); CCT-7/3x1 3.76 M (Hassani et al., table 1).
    pytest.param(ResNetModel(), 11_173_962, 0, id="ResNet-18"),
    pytest.param(ResNetModel(**WIDE), 36_500_000, 0.01, id="WRN-28-10"),
    pytest.param(
        ResNetModel(**{**WIDE, "widths": (64, 128, 256), "blocks": (2, 2, 2)}), 2_700_000, 0.03, id="WRN-16-4"
    ),
    pytest.param(TransformerModel(), 3_760_000, 0.02, id="CCT-7/3x1"),
]


@pytest.mark.parametrize(("settings", "parameters", "tolerance"), PUBLISHED)
def test_networks_are_as_large_as_published(settings: AnyModel, parameters: int, tolerance: float) -> None:
    with torch.device("meta"):
        network = models.build(settings, 10)
    assert models.parameters(network) == pytest.approx(parameters, rel=tolerance)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ResNetModel(widths=(8, 8)), "model.widths names 2 stages, model.blocks 4"),
        (ResNetModel(widths=(8,) * 6, blocks=(1,) * 6), "expected at most 4"),
        (ConvMixerModel(patch=9), "model.patch: found 9; expected at most 8"),
        (TransformerModel(width=30), "4 do not divide a width of 30"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(settings: AnyModel, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        models.build(settings, 10, (8, 8))


def test_stochastic_depth_leaves_out_that_share_and_keeps_the_mean() -> None:
    layer, ones = StochasticDepth(0.25), torch.ones(8000, 3, 2, 2)
    torch.manual_seed(0)
    found = layer(ones)
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))  # an image as a whole
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.03)
    assert torch.equal(layer.eval()(ones), ones)


def test_later_blocks_are_left_out_more_often() -> None:
    network = models.build(ResNetModel(widths=(4, 4), blocks=(2, 2), stem=4, stochastic_depth=0.4), 3)
    shares = [part.probability for part in network.modules() if isinstance(part, StochasticDepth)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_preactivated_network_hands_on_what_it_adds_unchanged() -> None:
    network = models.build(ResNetModel(stem=8, widths=(8,), blocks=(2,), preactivation=True), 3).eval()
    for block in network.blocks:  # type: ignore[union-attr]
        nn.init.zeros_(block.second.weight)
    images = torch.rand(2, 3, 8, 8)
    stem = network.stem(images)  # type: ignore[operator]
    assert torch.equal(network.blocks(stem), stem)  # type: ignore[operator]
