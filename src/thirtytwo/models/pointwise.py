"""Max-pooling, batch normalisation and GELU in one go, for training on a CPU.

One after the other they read and write the images six times, and the error function costs as much again. Here
(`pointwise.c`) an image is pooled and summed up while it is in the cache, normalised and passed on in one second pass,
and the way back is two passes, too. They differ from torch's by rounding, about 2e-7.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thirtytwo.models.native import LANES, Kernels, room


def gelu(x: Tensor) -> Tensor:
    """The activation x Φ(x) (Hendrycks & Gimpel 2016), float32 (batch, channels, h, w) -> the same shape."""
    result: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return result


def normalised(x: Tensor, layer: nn.BatchNorm2d, *, pool: bool = False, added: Tensor | None = None) -> Tensor:
    """GELU(normalise(x) + added), where each 2 × 2 pixels of x are first pooled to the largest if that is wanted.

    The layer's running averages move on, as in training.

    Args:
        x: float32 (batch, channels, h, w).
        layer: has a bias, and a weight of 1 that is not trained.
        pool: whether to.
        added: like the result, or None.

    Returns:
        (batch, channels, h, w), or half the height and width, channels-last.
    """
    result, mean, variance = _Normalised.apply(x, layer.bias, added, layer.eps, pool)  # type: ignore[no-untyped-call]
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
        ctx: Any, x: Tensor, bias: Tensor, added: Tensor | None, epsilon: float, pool: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = _lined_up(x)
        batch, channels, height, width = x.shape
        small = (batch, channels, height // 2, width // 2) if pool else x.shape
        pooled = room(*small) if pool else None
        which = torch.empty(pooled.numel(), dtype=torch.uint8) if pooled is not None else None
        added = None if added is None else _lined_up(added)
        mean, variance, scale = torch.empty((3, channels), dtype=torch.float32)
        result = room(*small)
        sums = torch.empty((2, batch, channels), dtype=torch.float32)
        KERNELS.run(
            "normalise", x, pooled, which, added, bias, mean, variance, scale, result, sums, epsilon,
            batch, height, width, channels,
        )  # fmt: skip
        ctx.save_for_backward(x if pooled is None else pooled, which, added, bias, mean, scale)
        ctx.shape = x.shape
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        taken, which, added, bias, mean, scale = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        inner, for_bias, result = room(*taken.shape), torch.empty_like(bias), room(*ctx.shape)
        sums = torch.empty((2, batch, channels), dtype=torch.float32)
        KERNELS.run(
            "normalise_back", taken, which, added, bias, mean, scale, _lined_up(gradient), inner, for_bias, result,
            sums, batch, height, width, channels,
        )  # fmt: skip
        return result, for_bias, None if added is None else inner, None, None


def _lined_up(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _is_right() -> bool:
    x = torch.linspace(-9, 9, 64 * LANES).view(1, LANES, 8, 8)
    return (gelu(x) - nn.functional.gelu(x)).abs().max().item() < 1e-5


KERNELS = Kernels("pointwise", lambda: Path(__file__).with_suffix(".c").read_text(encoding="utf-8"), _is_right)
