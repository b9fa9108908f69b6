"""Batch normalisation and the activation after it in one go, for training on a CPU.

One after the other they read and write the images five times, and GELU's error function costs as much again. Here
(`batch_norm.c`, `pointwise.c`) it is two passes, forward and backward: one for the sums, one for the rest. They differ
from torch's by about 2e-7: rounding, and the approximation of GELU's Φ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from thirtytwo.models.native import LANES, Kernels, fits, gradients_of, room

Activation = Literal["gelu", "relu", "none"]
"""What follows normalisation."""


class BatchNormAct2d(nn.BatchNorm2d):
    """activation(normalise(x) + added), float (batch, channels, h, w) -> the same shape.

    Attributes:
        activation: what comes after it.
        compiled: whether, in training, on a CPU and in float32, all of it is done in one go.
        answers_compiled: whether GELU is the kernels' own as well when the network answers.
    """

    def __init__(
        self, channels: int, activation: Activation, *, compiled: bool, momentum: float = 0.1, epsilon: float = 1e-5
    ) -> None:
        """See the class.

        Args:
            channels: of x.
            activation: see the class.
            compiled: see the class.
            momentum: share of the new value in running averages, as torch has it.
            epsilon: added to the variance.
        """
        super().__init__(channels, eps=epsilon, momentum=momentum)
        self.activation: Activation = activation
        self.compiled, self.answers_compiled = compiled, False

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            x: what is normalised.
            added: like x; None adds nothing.
        """
        if self.training and is_for_kernels(self, x) and self._takes(x, added):
            return normalised(x, self, added)
        x = super().forward(x)
        x = x if added is None else x + added
        if self.activation == "gelu":
            return activated(self, x)
        return functional.relu(x) if self.activation == "relu" else x

    def _takes(self, x: Tensor, added: Tensor | None) -> bool:
        return (
            x.shape[1] == self.num_features
            and self.weight.dtype == self.bias.dtype == torch.float32
            and (added is None or (added.shape == x.shape and added.dtype == x.dtype))
        )

    def extra_repr(self) -> str:
        """As it is printed."""
        return f"{super().extra_repr()}, activation={self.activation}"  # type: ignore[no-untyped-call]


def is_for_kernels(part: nn.Module, x: Tensor) -> bool:
    """Whether a part of a network leaves it to kernels what it makes of x.

    Args:
        part: with the attributes `compiled` and `answers_compiled`; see `BatchNormAct2d`.
        x: float (batch, channels, h, w).
    """
    # Trained models answer with torch's operations, the same on every machine.
    is_asked = part.compiled and (part.training or part.answers_compiled)
    return bool(is_asked) and fits(x) and KERNELS.problem() is None


def activated(part: nn.Module, x: Tensor) -> Tensor:
    """GELU, the kernels' own where they are asked for; see `is_for_kernels`."""
    return gelu(x) if is_for_kernels(part, x) else functional.gelu(x)


def gelu(x: Tensor) -> Tensor:
    """The activation x Φ(x) (Hendrycks & Gimpel 2016), float32 (batch, channels, h, w) as `native.fits` wants it."""
    result: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return result


def normalised(x: Tensor, layer: BatchNormAct2d, added: Tensor | None = None) -> Tensor:
    """What the layer makes of x in training, its running averages included.

    Args:
        x: float32 (batch, channels, h, w), as `native.fits` wants it.
        layer: what to do.
        added: like x, or None.

    Returns:
        (batch, channels, h, w), channels-last.

    Raises:
        ValueError: there is only one value a channel.
    """
    if x.numel() == x.shape[1]:
        raise ValueError(f"images of shape {tuple(x.shape)}: expected more than 1 value per channel in training")
    result, mean, variance = _Normalised.apply(  # type: ignore[no-untyped-call]
        x, layer.weight, layer.bias, added, float(layer.eps), layer.activation
    )
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
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, added: Tensor | None, epsilon: float, activation: Activation
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, added = _lined_up(x), None if added is None else _lined_up(added)
        batch, channels, height, width = x.shape
        mean, variance, scale = torch.empty((3, channels), dtype=torch.float32, device="cpu")
        sums = torch.empty((2, batch, channels), dtype=torch.float32, device="cpu")
        result = room(*x.shape)
        KERNELS.run(
            f"normalise_{activation}", x, added, gain, bias, mean, variance, scale, result, sums, epsilon,
            batch, height * width, channels,
        )  # fmt: skip
        ctx.save_for_backward(x, added, gain, bias, mean, scale)
        ctx.activation = activation
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, None, None]:
        x, added, gain, bias, mean, scale = ctx.saved_tensors
        batch, channels, height, width = x.shape
        result, for_gain, for_bias = room(*x.shape), torch.empty_like(gain), torch.empty_like(bias)
        inner = result if added is None else room(*x.shape)
        sums = torch.empty((2, batch, channels), dtype=torch.float32, device="cpu")
        KERNELS.run(
            f"normalise_back_{ctx.activation}", x, added, gain, bias, mean, scale, _lined_up(gradient), inner,
            for_gain, for_bias, result, sums, batch, height * width, channels,
        )  # fmt: skip
        is_wanted = ctx.needs_input_grad[1]
        return result, for_gain if is_wanted else None, for_bias, None if added is None else inner, None, None


def _lined_up(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _is_right() -> bool:
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        x = torch.linspace(-9, 9, 64 * LANES, **kind).view(4, LANES, 4, 4)
        if (gelu(x) - functional.gelu(x)).abs().max().item() >= 1e-5:
            return False
        one, other = x.clone().requires_grad_(), x.flip(0).requires_grad_()
        for activation in _ACTIVATIONS:
            layer = BatchNormAct2d(LANES, activation, compiled=False).float()
            with torch.no_grad():
                layer.weight.copy_(torch.linspace(-2, 2, LANES, **kind))
                layer.bias.copy_(torch.linspace(1, 0, LANES, **kind))
            results = []
            for y in (normalised(one, layer, other), layer(one, other)):
                inputs = (one, other, layer.weight, layer.bias)
                results.append([y.detach(), *gradients_of(y, x.sin(), inputs)])
            if any((a - b).norm() >= 1e-3 * b.norm() for a, b in zip(*results, strict=True)):
                return False
    return True


_ACTIVATIONS: dict[Activation, tuple[str, str]] = {
    "gelu": ("gelu_of(z)", "g * gelu_slope(z)"),
    # What is not a number stays so.
    "relu": ("chosen((whole)((z) < 0.0f), (vector){0}, z)", "chosen((whole)((z) <= 0.0f), (vector){0}, g)"),
    "none": ("(z)", "(g)"),
}
"""In C: an activation of z, and a gradient g of it times its slope at z."""


def _source() -> str:
    here = Path(__file__)
    body = here.with_name("batch_norm.c").read_text(encoding="utf-8")
    parts = [here.with_suffix(".c").read_text(encoding="utf-8")]
    for name, (active, sloped) in _ACTIVATIONS.items():
        parts += [
            "#undef NAME\n#undef ACTIVE\n#undef SLOPED",
            f"#define NAME(f) f##_{name}\n#define ACTIVE(z) {active}\n#define SLOPED(z, g) {sloped}",
            body,
        ]
    return "\n".join(parts)


KERNELS = Kernels("pointwise", _source, _is_right)
