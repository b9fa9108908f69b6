"""Pyramidal residual networks, a little wider with every block, and ShakeDrop, which disturbs their learning.

Han, Kim & Kim 2017, "Deep pyramidal residual networks" (arXiv 1610.02915), the additive kind: every block has the same
number of channels more than the one before it. Nothing stands in the way of what blocks add to: no ReLU, no projection;
channels that are new begin with zeros. A block normalises once more at its end, and has one ReLU less than others.

Yamada et al. 2019, "ShakeDrop regularization for deep residual learning" (arXiv 1802.02375): see `ShakeDrop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import avg_pool2d, pad, relu

from thirtytwo.errors import RecipeError
from thirtytwo.models.resnet import convolutions, draw_kernels

EXPANSION = 4
"""How many times as many channels as its 3 × 3 convolution has come out of a bottleneck."""

OWN_DIMENSIONS = {"batch": 0, "image": 1, "channel": 2, "pixel": 4}
"""In how many dimensions of (batch, channels, h, w) each level of ShakeDrop draws numbers of its own."""


def build(
    *,
    stem: int,
    widening: int,
    blocks: Sequence[int],
    bottleneck: bool,
    shakedrop: float,
    shakedrop_chance: str,
    shakedrop_level: str,
    classes: int,
    size: tuple[int, int],
) -> PyramidNet:
    """Make the network; see `PyramidNet`.

    Raises:
        RecipeError: stages halve the image to nothing.
    """
    if min(size) >> (len(blocks) - 1) < 1:
        raise RecipeError(
            f"model.blocks: {len(blocks)} stages halve a {size[0]} × {size[1]} image to nothing; expected at most "
            f"{min(size).bit_length()}"
        )
    return PyramidNet(stem, widening, blocks, bottleneck, shakedrop, shakedrop_chance, shakedrop_level, classes)


class PyramidNet(nn.Module):
    """float32 (batch, 3, height, width) -> scores (batch, classes), for images of any size.

    Every stage but the first halves height and width.
    """

    def __init__(
        self,
        stem: int,
        widening: int,
        blocks: Sequence[int],
        bottleneck: bool,
        shakedrop: float,
        shakedrop_chance: str,
        shakedrop_level: str,
        classes: int,
    ) -> None:
        """See `build`."""
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem_normalise = nn.BatchNorm2d(stem)
        layers: list[_Block] = []
        total = sum(blocks)
        for stage, number in enumerate(blocks):
            for block in range(number):
                inputs = layers[-1].outputs if layers else stem
                stride = 2 if stage and not block else 1
                place = len(layers) + 1
                width = round(stem + widening * place / total)  # the paper rounds down, its authors' code like this
                # Later blocks are disturbed more often: earlier ones make what all the others build on.
                shake = ShakeDrop(shakedrop * place / total, shakedrop_chance, shakedrop_level)
                layers.append(_Block(inputs, width, stride, bottleneck, shake))
        self.blocks = nn.Sequential(*layers)
        self.normalise = nn.BatchNorm2d(layers[-1].outputs)
        self.head = nn.Linear(layers[-1].outputs, classes)
        draw_kernels(self)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.blocks(self.stem_normalise(self.stem(images)))
        scores: Tensor = self.head(relu(self.normalise(x)).mean((2, 3)))
        return scores


class _Block(nn.Module):
    """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride), odd sides rounded up.

    Attributes:
        outputs: channels.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, shake: ShakeDrop) -> None:
        super().__init__()
        self.stride, self.outputs = stride, width * (EXPANSION if bottleneck else 1)
        sides = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inputs, *[width] * (len(sides) - 1), self.outputs)
        self.convolutions = convolutions(widths, sides, stride)
        self.normalisations = nn.ModuleList(nn.BatchNorm2d(channels) for channels in widths)  # one more at the end
        self.shake = shake

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for number, convolution in enumerate(self.convolutions):
            branch = self.normalisations[number](branch)
            branch = convolution(relu(branch) if number else branch)
        branch = self.shake(self.normalisations[-1](branch))
        if self.stride > 1:
            x = avg_pool2d(x, self.stride, ceil_mode=True)
        new = self.outputs - x.shape[1]
        added: Tensor = branch + (pad(x, (0, 0, 0, 0, 0, new)) if new else x)
        return added


class ShakeDrop(nn.Module):
    """In training, multiplies a branch by a random number now and then, and its gradient by another one.

    With this probability it is multiplied by alpha, even over [-1, 1], and in the backward pass by beta, even over
    [0, 1], as if the network had computed something else than it did; else it is left as it is. In evaluation it is
    multiplied by what it was on average: by 1 - probability.

    Attributes:
        probability: of disturbing a branch: 1 - p in the paper.
        chance: whether a ``batch`` is disturbed as a whole, or each ``image`` or not.
        level: what has an alpha and a beta of its own: a ``batch``, an ``image``, a ``channel`` of an image, a
            ``pixel`` of a channel.
    """

    def __init__(self, probability: float, chance: str = "batch", level: str = "image") -> None:
        super().__init__()
        self.probability, self.chance, self.level = probability, chance, level

    def forward(self, branch: Tensor) -> Tensor:
        """(batch, channels, h, w) -> the same shape."""
        if self.probability == 0:
            return branch
        if not self.training:
            return branch * (1 - self.probability)
        shaken: Tensor = _Scaled.apply(branch, *self.factors(branch))  # type: ignore[no-untyped-call]
        return shaken

    def factors(self, branch: Tensor) -> tuple[Tensor, Tensor]:
        """What the branch, and its gradient, are multiplied by: drawn anew, of shapes that fit it."""

        def drawn(level: str) -> Tensor:
            own = OWN_DIMENSIONS[level]
            return torch.rand((*branch.shape[:own], *[1] * (branch.dim() - own)), device=branch.device)

        is_left = drawn(self.chance) >= self.probability
        alpha, beta = 2 * drawn(self.level) - 1, drawn(self.level)
        forward, backward = (torch.where(is_left, 1.0, factor).to(branch.dtype) for factor in (alpha, beta))
        return forward, backward

    def extra_repr(self) -> str:
        """As it is printed."""
        return f"{self.probability:g}, chance={self.chance}, level={self.level}"


class _Scaled(torch.autograd.Function):
    """A tensor times one factor, and its gradient times another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        ctx.save_for_backward(backward)
        return x * forward

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None, None
