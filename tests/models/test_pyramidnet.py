from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo import models
from thirtytwo.models.pyramidnet import PyramidNet, ShakeDrop
from thirtytwo.settings import PyramidNetModel

SMALL: dict[str, Any] = {"stem": 4, "widening": 8, "blocks": (2, 2)}
LEVELS = {"batch": (1, 1, 1, 1), "image": (6, 1, 1, 1), "channel": (6, 3, 1, 1), "pixel": (6, 3, 4, 5)}


def small(**settings: Any) -> PyramidNet:
    network = models.build(PyramidNetModel(**SMALL, **settings), 3)
    assert isinstance(network, PyramidNet)
    return network


def layers(network: nn.Module) -> list[ShakeDrop]:
    return [module for module in network.modules() if isinstance(module, ShakeDrop)]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (17, 30), (2, 3)])
def test_images_of_any_size_become_scores(bottleneck: bool, size: tuple[int, int]) -> None:
    assert small(bottleneck=bottleneck)(torch.rand(2, 3, *size)).shape == (2, 3)


def test_every_block_has_an_equal_part_of_the_channels_more() -> None:
    assert [block.outputs for block in small().blocks] == [6, 8, 10, 12]
    assert [block.outputs for block in small(bottleneck=True).blocks] == [24, 32, 40, 48]
    assert [block.outputs for block in models.build(PyramidNetModel(), 10).blocks][-1] == 16 + 84  # type: ignore[union-attr]


def test_a_block_hands_on_its_input_with_zeros_in_new_channels() -> None:
    block = small().blocks[2].eval()
    nn.init.zeros_(block.normalisations[-1].weight)  # type: ignore[index, union-attr]
    x = torch.randn(2, 8, 6, 5)
    found = block(x)
    assert found.shape == (2, 10, 3, 3)
    assert torch.equal(found[:, :8], nn.functional.avg_pool2d(x, 2, ceil_mode=True))
    assert not found[:, 8:].any()


# ShakeDrop -----------------------------------------------------------------------------------------------------------


def test_blocks_are_disturbed_more_often_the_later_they_come() -> None:
    assert [layer.probability for layer in layers(small(shakedrop=0.5))] == pytest.approx([0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chance", ["batch", "image"])
def test_the_backward_pass_is_scaled_by_beta_and_the_forward_pass_by_alpha(chance: str, level: str) -> None:
    layer = ShakeDrop(0.7, chance, level)
    branch, gradient = torch.randn(6, 3, 4, 5, requires_grad=True), torch.randn(6, 3, 4, 5)
    found: list[Tensor] = []
    for seed in range(20):
        torch.manual_seed(seed)
        forward, backward = layer.factors(branch)
        torch.manual_seed(seed)
        answer = layer(branch)
        branch.grad = None
        answer.backward(gradient)
        assert torch.equal(answer, branch * forward)
        assert branch.grad is not None
        assert torch.equal(branch.grad, gradient * backward)
        found.append(torch.stack([part.expand_as(branch) for part in (forward, backward)]).detach())
    forward, backward = torch.stack(found).movedim(1, 0)  # (20, 6, 3, 4, 5) each
    left = (forward == 1) & (backward == 1)
    assert left.any()
    alpha, beta = forward[~left], backward[~left]
    assert -1 <= alpha.min() < -0.5 < 0.5 < alpha.max() <= 1
    assert 0 <= beta.min() < 0.3 < 0.7 < beta.max() <= 1
    assert not torch.equal(alpha, beta)


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_draws_that_many_numbers(level: str) -> None:
    forward, backward = ShakeDrop(0.5, "batch", level).factors(torch.empty(6, 3, 4, 5))
    assert tuple(forward.shape) == tuple(backward.shape) == LEVELS[level]


def test_a_batch_is_disturbed_as_a_whole_or_each_image_by_itself() -> None:
    torch.manual_seed(0)
    branch = torch.ones(500, 2, 2, 2)
    whole = [int((ShakeDrop(0.25, "batch", "image")(branch)[:, 0, 0, 0] == 1).sum()) for _ in range(200)]
    assert set(whole) == {0, 500}
    assert sum(whole) / (200 * 500) == pytest.approx(0.75, abs=0.1)
    own = ShakeDrop(0.25, "image", "image")(branch)
    assert float((own[:, 0, 0, 0] == 1).float().mean()) == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("chance", ["batch", "image"])
def test_in_evaluation_it_is_the_expectation_of_what_it_is_in_training(chance: str) -> None:
    layer, branch = ShakeDrop(0.4, chance, "pixel"), torch.full((4000, 1, 2, 2), 2.0)
    torch.manual_seed(0)
    mean = torch.stack([layer(branch[:20]).mean() for _ in range(2000)]).mean()
    expected = layer.eval()(branch)
    assert torch.equal(expected, branch * 0.6)
    assert float(mean) == pytest.approx(float(expected.mean()), abs=0.06)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    layer(branch)
    assert torch.equal(before, torch.get_rng_state())  # nothing is drawn


def test_what_is_never_disturbed_is_the_plain_network() -> None:
    shaken, plain = small(shakedrop=0.5), small()
    plain.load_state_dict(shaken.state_dict())
    images = torch.rand(4, 3, 8, 8)

    def learned(network: PyramidNet) -> list[Tensor]:
        network.zero_grad()
        scores = network(images)
        scores.square().sum().backward()
        return [scores.detach(), *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]

    torch.manual_seed(3)
    disturbed = learned(shaken)
    for layer in layers(shaken):
        layer.probability = 0.0
    before = torch.get_rng_state()
    assert all(torch.equal(one, other) for one, other in zip(learned(shaken), learned(plain), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(disturbed[0], learned(plain)[0])
