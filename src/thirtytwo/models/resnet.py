"""Residual networks for small images: ResNet-18 and its like, wide ones, ResNeXt, with stochastic depth.

A block adds what its convolutions make of an image to the image itself (He et al. 2016, arXiv 1512.03385). With
pre-activation, normalisation and ReLU come before each convolution, so that nothing stands in the way of what is added
(He et al. 2016, arXiv 1603.05027); wide networks are built so (Zagoruyko & Komodakis 2016, arXiv 1605.07146). ResNeXt
divides the 3 × 3 convolution of a bottleneck into groups (Xie et al. 2017, arXiv 1611.05431). For images of 32 × 32
pixels the first convolution is a plain 3 × 3 one, and nothing is pooled after it.

On a CPU, kernels of our own may train it: Winograd's for 3 × 3 convolutions of blocks that neither halve nor have
groups, and one for normalisation and what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from thirtytwo.errors import RecipeError
from thirtytwo.models.pointwise import Activation, BatchNormAct2d
from thirtytwo.models.winograd import Convolution


def build(
    *,
    stem: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    preactivation: bool,
    bottleneck: float,
    cardinality: int,
    dropout: float,
    stochastic_depth: float,
    compiled: bool,
    classes: int,
    size: tuple[int, int],
) -> ResNet:
    """Make the network; see `ResNet`.

    Raises:
        RecipeError: stages and blocks differ in number or halve the image to nothing, or channels cannot be grouped.
    """
    if len(widths) != len(blocks):
        raise RecipeError(
            f"model.widths names {len(widths)} stages, model.blocks {len(blocks)}; expected one number of each for a "
            "stage; make them equally long"
        )
    if min(size) >> (len(widths) - 1) < 1:
        raise RecipeError(
            f"model.widths: {len(widths)} stages halve a {size[0]} × {size[1]} image to nothing; expected at most "
            f"{min(size).bit_length()}"
        )
    grouped = [*([] if bottleneck else [stem]), *widths_3x3(widths, bottleneck)]
    if odd := [channels for channels in grouped if channels % cardinality]:
        raise RecipeError(
            f"model.cardinality: 3 × 3 convolutions of {odd[0]} channels cannot be divided into {cardinality} groups; "
            "expected a divisor; choose another number, or other widths"
        )
    common = _Common(bottleneck, cardinality, dropout, compiled)
    return ResNet(stem, widths, blocks, preactivation, stochastic_depth, common, classes)


def inner_width(width: int, bottleneck: float) -> int:
    """Channels of the 3 × 3 convolution of a bottleneck in a stage of this width."""
    return max(round(width * bottleneck), 1)


def widths_3x3(widths: Sequence[int], bottleneck: float) -> list[int]:
    """Channels of the 3 × 3 convolutions of each stage."""
    return [inner_width(width, bottleneck) for width in widths] if bottleneck else list(widths)


class ResNet(nn.Module):
    """float32 (batch, 3, height, width) -> scores (batch, classes), for images of any size.

    Every stage but the first halves height and width.
    """

    def __init__(
        self,
        stem: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        preactivation: bool,
        stochastic_depth: float,
        common: _Common,
        classes: int,
    ) -> None:
        """See `build`."""
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem_normalise = nn.Identity() if preactivation else common.normalise(stem)
        kind = _Preactivation if preactivation else _Postactivation
        layers: list[nn.Module] = []
        channels, total = stem, sum(blocks)
        for stage, (width, number) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(number):
                stride = 2 if stage and not block else 1
                # Later blocks are left out more often: earlier ones make what all the others build on.
                drop = stochastic_depth * (len(layers) + 1) / total
                layers.append(kind(channels, width, stride, drop, common))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.normalise = common.normalise(channels) if preactivation else nn.Identity()
        self.head = nn.Linear(channels, classes)
        draw_kernels(self)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.normalise(self.blocks(self.stem_normalise(self.stem(images))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


def draw_kernels(network: nn.Module) -> None:
    """Give every convolution fresh weights, of a variance that suits ReLU (He et al. 2015, arXiv 1502.01852)."""
    for module in network.modules():
        # Without numbers there are none to draw, and torch loads its compiler to find that out.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@dataclass(frozen=True)
class _Common:
    """What all blocks of a network have in common; see `settings.ResNetModel`."""

    bottleneck: float
    cardinality: int
    dropout: float
    compiled: bool

    def normalise(self, channels: int, activation: Activation = "relu") -> BatchNormAct2d:
        """A layer that normalises, and what follows it."""
        return BatchNormAct2d(channels, activation, compiled=self.compiled)


def convolutions(
    widths: Sequence[int], sides: Sequence[int], stride: int, groups: int = 1, *, compiled: bool = False
) -> nn.ModuleList:
    """Those of a block, which keep height and width but for the first one of 3 × 3.

    Args:
        widths: channels before the first one, between two, and after the last one.
        sides: of kernels, 1 or 3, one fewer.
        stride: of the first 3 × 3 one; a 1 × 1 one that halves would not look at three of four places.
        groups: of 3 × 3 ones.
        compiled: whether kernels of our own train those of 3 × 3 that keep height and width and have no groups.
    """
    halving = sides.index(3)

    def convolution(number: int, side: int) -> nn.Conv2d:
        inputs, outputs = widths[number : number + 2]
        own = stride if number == halving else 1
        if side == 3 and own == groups == 1:
            return Convolution(inputs, outputs, compiled=compiled)
        some = groups if side == 3 else 1
        return nn.Conv2d(inputs, outputs, side, stride=own, padding=side // 2, groups=some, bias=False)

    return nn.ModuleList(convolution(number, side) for number, side in enumerate(sides))


class _Projection(nn.Conv2d):
    """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride), each place by itself."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if max(self.stride) > 1 and self.in_channels < FEW:
            return conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)
        return super().forward(x)


FEW = 16
"""With fewer than 8 channels, the backward pass of torch's 1 × 1 convolutions that halve writes beyond its memory
(2.13, channels-last, on a CPU with AVX2, whose vectors have 8 numbers; those of AVX-512 have 16)."""


class _Block(nn.Module):
    """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride).

    Two 3 × 3 convolutions; or, as a bottleneck, a 3 × 3 one between two of 1 × 1 that make it narrower or wider.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, drop: float, common: _Common) -> None:
        super().__init__()
        inner = inner_width(outputs, common.bottleneck) if common.bottleneck else outputs
        sides = (1, 3, 1) if common.bottleneck else (3, 3)
        self.widths = (inputs, *[inner] * (len(sides) - 1), outputs)
        self.convolutions = convolutions(self.widths, sides, stride, common.cardinality, compiled=common.compiled)
        self.dropout = nn.Dropout(common.dropout)
        self.depth = StochasticDepth(drop)
        is_new_shape = stride != 1 or inputs != outputs
        self.projection = _Projection(inputs, outputs, stride) if is_new_shape else None


class _Postactivation(_Block):
    def __init__(self, inputs: int, outputs: int, stride: int, drop: float, common: _Common) -> None:
        super().__init__(inputs, outputs, stride, drop, common)
        # What stochastic depth leaves out lies between the last normalisation and the sum.
        last: Activation = "none" if drop else "relu"
        self.normalisations = nn.ModuleList(
            [*map(common.normalise, self.widths[1:-1]), common.normalise(outputs, last)]
        )
        self.projection_normalise = None if self.projection is None else common.normalise(outputs, "none")

    def forward(self, x: Tensor) -> Tensor:
        branch, last = x, len(self.convolutions) - 1
        if self.projection is not None and self.projection_normalise is not None:
            x = self.projection_normalise(self.projection(x))
        for number, (convolution, normalise) in enumerate(zip(self.convolutions, self.normalisations, strict=True)):
            branch = convolution(self.dropout(branch) if number == last else branch)
            branch = normalise(branch, x if number == last and not self.depth.probability else None)
        return relu(x + self.depth(branch)) if self.depth.probability else branch


class _Preactivation(_Block):
    def __init__(self, inputs: int, outputs: int, stride: int, drop: float, common: _Common) -> None:
        super().__init__(inputs, outputs, stride, drop, common)
        self.normalisations = nn.ModuleList(map(common.normalise, self.widths[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        branch, last = x, len(self.convolutions) - 1
        for number, (convolution, normalise) in enumerate(zip(self.convolutions, self.normalisations, strict=True)):
            active = normalise(branch)
            if number == 0 and self.projection is not None:
                x = self.projection(active)
            branch = convolution(self.dropout(active) if number == last else active)
        added: Tensor = x + self.depth(branch)
        return added


class StochasticDepth(nn.Module):
    """In training, leaves a branch out for some images, and strengthens it for the others, so that its mean stays what
    it is (after Huang et al. 2016, arXiv 1603.09382, who leave it out for whole batches and weaken it afterwards).

    Attributes:
        probability: of leaving it out.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(batch, …) -> the same shape."""
        if not self.training or self.probability == 0:
            return branch
        kept = torch.rand((len(branch), *[1] * (branch.dim() - 1)), device=branch.device) >= self.probability
        factors: Tensor = kept.to(branch.dtype) / (1 - self.probability)
        return branch * factors

    def extra_repr(self) -> str:
        """As it is printed."""
        return f"{self.probability:g}"
