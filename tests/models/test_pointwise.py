"""Normalisation and activation in one go are what torch computes one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import gelu

from thirtytwo.models import pointwise

pytestmark = pytest.mark.skipif(
    pointwise.KERNELS.problem() is not None, reason=f"no kernels here: {pointwise.KERNELS.problem()}"
)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((found.double() - expected.double()).norm() <= tolerance * expected.double().norm() + 1e-5)


@given(st.floats(-1e4, 1e4, width=32))
def test_gelu_of_every_number(number: float) -> None:
    x = torch.full((1, 8, 1, 1), number, requires_grad=True)
    y = pointwise.gelu(x)
    y.sum().backward()  # type: ignore[no-untyped-call]
    exact = torch.tensor(number, dtype=torch.float64, requires_grad=True)
    gelu(exact).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert exact.grad is not None
    assert (y.double() - gelu(exact)).abs().max() <= 1e-6 * max(1.0, abs(number))
    assert (x.grad.double() - exact.grad).abs().max() <= 2e-6


def layer_of(channels: int, generator: torch.Generator) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    with torch.no_grad():
        layer.bias.copy_(torch.randn(channels, generator=generator))
    return layer


def one_by_one(x: Tensor, layer: nn.BatchNorm2d, added: Tensor | None) -> Tensor:
    x = layer(x)
    return gelu(x if added is None else x + added)


@given(
    batch=st.integers(3, 6),
    channels=st.sampled_from([8, 24]),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    adds=st.booleans(),
    offset=st.sampled_from([0.0, 1.0, -30.0]),
    channels_last=st.booleans(),
)
@settings(deadline=None)
def test_it_is_normalisation_and_activation(
    batch: int, channels: int, height: int, width: int, adds: bool, offset: float, channels_last: bool
) -> None:
    generator = torch.Generator().manual_seed(height * 10 + width)
    x = torch.randn((batch, channels, height, width), generator=generator) + offset
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    other = torch.randn(x.shape, generator=generator) if adds else None
    gradient = torch.randn(x.shape, generator=generator)
    results = []
    for dtype in (torch.float32, torch.float64):
        layer = layer_of(channels, torch.Generator().manual_seed(1)).to(dtype)
        image = x.detach().to(dtype).requires_grad_()
        added = None if other is None else other.to(dtype).requires_grad_()
        compute = pointwise.normalised if dtype == torch.float32 else one_by_one
        y = compute(image, layer, added)
        wanted = [image, layer.bias, *([] if added is None else [added])]
        gradients = torch.autograd.grad(y, wanted, gradient.to(dtype))
        results.append([y.detach(), *gradients, layer.running_mean, layer.running_var])
        assert layer.num_batches_tracked == 1
    for found, expected in zip(*results, strict=True):
        assert found is not None
        assert expected is not None
        assert found.shape == expected.shape
        assert close(found, expected, 1e-4)


def test_nan_stays() -> None:
    x = torch.zeros(2, 8, 4, 4)
    x[0, 3, 1, 2] = torch.nan
    y = pointwise.normalised(x, layer_of(8, torch.Generator()))
    assert y[:, 3].isnan().all()
    assert not y[:, 4].isnan().any()
    assert pointwise.gelu(x).isnan().sum() == 1


def test_same_bits_for_any_number_of_threads() -> None:
    x, gradient = torch.randn(7, 16, 9, 9), torch.randn(7, 16, 9, 9)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer, image = layer_of(16, torch.Generator().manual_seed(0)), x.clone().requires_grad_()
            y = pointwise.normalised(image, layer)
            results.append([y.detach(), *torch.autograd.grad(y, (image, layer.bias), gradient)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
