"""Batch normalisation and GELU in one go, for training on a CPU.

One after the other they read and write the images five times, and the error function costs as much again. Here
(`pointwise.c`) it is two passes, forward and backward: one for the sums, one for the rest. They differ from torch's by
about 2e-7: rounding, and the approximation of Φ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thirtytwo.models.native import LANES, Kernels, room


def gelu(x: Tensor) -> Tensor:
    """The activation x Φ(x) (Hendrycks & Gimpel 2016), float32 (batch, channels, h, w) as `native.fits` wants it."""
    result: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return result


def normalised(x: Tensor, layer: nn.BatchNorm2d, added: Tensor | None = None) -> Tensor:
    """GELU(normalise(x) + added); the layer's running averages move on, as in training.

    Args:
        x: float32 (batch, channels, h, w), as `native.fits` wants it.
        layer: has a bias, and a weight of 1 that is not trained.
        added: like x, or None.

    Returns:
        (batch, channels, h, w), channels-last.

    Raises:
        ValueError: there is only one value a channel.
    """
    if x.numel() == x.shape[1]:
        raise ValueError(f"images of shape {tuple(x.shape)}: expected more than 1 value per channel in training")
    result, mean, variance = _Normalised.apply(x, layer.bias, added, float(layer.eps))  # type: ignore[no-untyped-call]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None
    count = result.numel() // len(mean)
    with torch.no_grad():
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * (count / (count - 1)), layer.momentum)
    activated: Tensor = result
    return activated


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = _lined_up(x)
        ctx.save_for_backward(x)
        result = room(*x.shape)
        KERNELS.run("gelu", x, result, x.numel() // LANES)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result = room(*x.shape)
        KERNELS.run("gelu_back", x, _lined_up(gradient), result, x.numel() // LANES)
        return result


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, added: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, added = _lined_up(x), None if added is None else _lined_up(added)
        batch, channels, height, width = x.shape
        mean, variance, scale = torch.empty((3, channels), dtype=torch.float32, device="cpu")
        sums = torch.empty((2, batch, channels), dtype=torch.float32, device="cpu")
        result = room(*x.shape)
        KERNELS.run(
            "normalise", x, added, bias, mean, variance, scale, result, sums, epsilon, batch, height * width, channels
        )
        ctx.save_for_backward(x, added, bias, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, added, bias, mean, scale = ctx.saved_tensors
        batch, channels, height, width = x.shape
        result, for_bias = room(*x.shape), torch.empty_like(bias)
        inner = result if added is None else room(*x.shape)
        sums = torch.empty((2, batch, channels), dtype=torch.float32, device="cpu")
        KERNELS.run(
            "normalise_back", x, added, bias, mean, scale, _lined_up(gradient), inner, for_bias, result, sums,
            batch, height * width, channels,
        )  # fmt: skip
        return result, for_bias, None if added is None else inner, None


def _lined_up(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _is_right() -> bool:
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    x = torch.linspace(-9, 9, 64 * LANES, **kind).view(4, LANES, 4, 4)
    layer = nn.BatchNorm2d(LANES, eps=1e-12, **kind)
    return (gelu(x) - nn.functional.gelu(x)).abs().max().item() < 1e-5 and (
        normalised(x, layer) - nn.functional.gelu(layer(x))
    ).abs().max().item() < 1e-4


KERNELS = Kernels("pointwise", lambda: Path(__file__).with_suffix(".c").read_text(encoding="utf-8"), _is_right)
