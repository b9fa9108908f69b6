"""Normalisation and activation in one go are what torch computes one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu

from thirtytwo.models import pointwise
from thirtytwo.models.pointwise import Activation, BatchNormAct2d

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


def layer_of(
    channels: int, generator: torch.Generator, activation: Activation = "gelu", *, compiled: bool = True
) -> BatchNormAct2d:
    layer = BatchNormAct2d(channels, activation, compiled=compiled, momentum=0.4, epsilon=1e-12)
    with torch.no_grad():
        layer.bias.copy_(torch.randn(channels, generator=generator))
        layer.weight.copy_(torch.randn(channels, generator=generator))
    return layer


@given(
    batch=st.integers(3, 6),
    channels=st.sampled_from([8, 24]),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    adds=st.booleans(),
    offset=st.sampled_from([0.0, 1.0, -30.0]),
    channels_last=st.booleans(),
    activation=st.sampled_from(["gelu", "relu", "none"]),
)
def test_it_is_normalisation_and_activation(
    batch: int,
    channels: int,
    height: int,
    width: int,
    adds: bool,
    offset: float,
    channels_last: bool,
    activation: Activation,
) -> None:
    generator = torch.Generator().manual_seed(height * 10 + width)
    x = torch.randn((batch, channels, height, width), generator=generator) + offset
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    other = torch.randn(x.shape, generator=generator) if adds else None
    gradient = torch.randn(x.shape, generator=generator)
    results = []
    for dtype in (torch.float32, torch.float64):
        # In float64 the layer is torch's, whether it is compiled or not.
        layer = layer_of(channels, torch.Generator().manual_seed(1), activation).to(dtype)
        image = x.detach().to(dtype).requires_grad_()
        added = None if other is None else other.to(dtype).requires_grad_()
        y = layer(image, added)
        wanted = [image, layer.weight, layer.bias, *([] if added is None else [added])]
        gradients = torch.autograd.grad(y, wanted, gradient.to(dtype))
        results.append([y.detach(), *gradients, layer.running_mean, layer.running_var])
        assert layer.num_batches_tracked == 1
    for found, expected in zip(*results, strict=True):
        assert found is not None
        assert expected is not None
        assert found.shape == expected.shape
        assert close(found, expected, 1e-4)


@pytest.mark.parametrize("activation", ["gelu", "relu", "none"])
def test_nan_stays(activation: Activation) -> None:
    x = torch.zeros(2, 8, 4, 4)
    x[0, 3, 1, 2] = torch.nan
    y = pointwise.normalised(x, layer_of(8, torch.Generator(), activation))
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
            results.append([y.detach(), *torch.autograd.grad(y, (image, layer.weight, layer.bias), gradient)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_what_does_not_fit_a_layer_is_for_torch_to_refuse() -> None:
    layer, x = layer_of(8, torch.Generator()), torch.randn(2, 8, 4, 4)
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 16, 4, 4))
    with pytest.raises(RuntimeError):
        layer(x, torch.randn(2, 8, 4, 3))
    assert layer(x, torch.ones(1)).shape == x.shape  # broadcast


@pytest.mark.parametrize("activation", ["gelu", "relu", "none"])
def test_a_layer_uses_them_in_training_only(activation: Activation) -> None:
    images, added = torch.randn(2, 2, 8, 5, 5).unbind()
    own, torchs = (layer_of(8, torch.Generator().manual_seed(0), activation, compiled=who) for who in (True, False))
    assert torch.equal(own(images, added), pointwise.normalised(images, own, added))
    torchs.load_state_dict(own.state_dict())
    assert torch.equal(own.eval()(images, added), torchs.eval()(images, added))
