from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.optim.muon import COEFFICIENTS, Muon, orthogonalised

SHAPES = [(8, 8), (16, 64), (64, 16), (1, 5), (3, 1)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_update_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    update = orthogonalised(random(*shape), steps=10)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_update_keeps_singular_vectors_and_maps_singular_values_by_the_quintic(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    a, b, c = COEFFICIENTS
    for _ in range(4):
        values = a * values + b * values**3 + c * values**5
    assert torch.allclose(orthogonalised(matrix, steps=4), left @ values.diag() @ right, atol=1e-6)


def test_the_scale_of_a_gradient_does_not_matter_and_zero_stays_zero() -> None:
    matrix = random(6, 9)
    assert torch.allclose(orthogonalised(matrix), orthogonalised(1000 * matrix), atol=1e-5)
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_many_matrices_at_once_are_each_on_their_own() -> None:
    matrices = random(3, 6, 9)
    together = orthogonalised(matrices)
    assert all(torch.allclose(together[i], orthogonalised(matrices[i])) for i in range(3))


@pytest.mark.parametrize("channels_last", [False, True])
def test_in_float32_it_follows_a_float64_reference(channels_last: bool) -> None:
    weight, gradients = random(8, 4, 3, 3), [random(8, 4, 3, 3, seed=seed) for seed in range(1, 5)]
    parameter = nn.Parameter(weight.float())
    if channels_last:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    optimizer = Muon([{"params": [parameter], "peak": 0.1}], momentum=0.6, steps=3)
    momentum = torch.zeros_like(weight)
    for gradient in gradients:
        parameter.grad = gradient.float()
        optimizer.step()
        momentum = 0.6 * momentum + gradient
        update = orthogonalised((gradient + 0.6 * momentum).flatten(1), steps=3).view_as(weight)
        weight = weight * 8**0.5 / weight.norm() - 0.1 * update
    assert torch.allclose(parameter.double(), weight, atol=1e-5)


def test_it_finds_the_minimum_of_a_quadratic_of_fixed_norm() -> None:
    target = random(4, 4)
    target = (2 * target / target.norm()).float()
    parameter = nn.Parameter(random(4, 4, seed=1).float())
    optimizer = Muon([{"params": [parameter], "peak": 0.2}])
    distances = []
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 100)
        loss = (parameter - target).square().sum()
        parameter.grad = None
        loss.backward()
        optimizer.step()
        distances.append(float(loss.detach()))
    assert distances[-1] < 0.05 * distances[0]
