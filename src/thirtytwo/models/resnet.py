"""Residual networks for small images: ResNet-18 and its like, wide residual networks, with stochastic depth.

A block adds what its convolutions make of an image to the image itself (He et al. 2016, arXiv 1512.03385). With
pre-activation, normalisation and ReLU come before each convolution, so that nothing stands in the way of what is added
(He et al. 2016, arXiv 1603.05027); wide networks are built so (Zagoruyko & Komodakis 2016, arXiv 1605.07146). For
images of 32 × 32 pixels the first convolution is a plain 3 × 3 one, and nothing is pooled after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from thirtytwo.errors import RecipeError


def build(
    *,
    stem: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    preactivation: bool,
    dropout: float,
    stochastic_depth: float,
    classes: int,
    size: tuple[int, int],
) -> ResNet:
    """Make the network; see `ResNet`.

    Raises:
        RecipeError: stages and blocks differ in number, or halve the image to nothing.
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
    return ResNet(stem, widths, blocks, preactivation, dropout, stochastic_depth, classes)


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
        dropout: float,
        stochastic_depth: float,
        classes: int,
    ) -> None:
        """See `build`."""
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem_normalise = nn.Identity() if preactivation else nn.BatchNorm2d(stem)
        kind = _Preactivation if preactivation else _Postactivation
        layers: list[nn.Module] = []
        channels, total = stem, sum(blocks)
        for stage, (width, number) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(number):
                stride = 2 if stage and not block else 1
                # Later blocks are left out more often: earlier ones make what all the others build on.
                drop = stochastic_depth * (len(layers) + 1) / total
                layers.append(kind(channels, width, stride, dropout, drop))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.normalise = nn.BatchNorm2d(channels) if preactivation else nn.Identity()
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.stem_normalise(self.stem(images))
        x = self.blocks(x if isinstance(self.stem_normalise, nn.Identity) else relu(x))
        x = x if isinstance(self.normalise, nn.Identity) else relu(self.normalise(x))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class _Block(nn.Module):
    """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float, drop: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.depth = StochasticDepth(drop)
        self.is_new_shape = stride != 1 or inputs != outputs


class _Postactivation(_Block):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float, drop: float) -> None:
        super().__init__(inputs, outputs, stride, dropout, drop)
        self.first_normalise, self.second_normalise = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if self.is_new_shape:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.dropout(relu(self.first_normalise(self.first(x))))
        branch = self.second_normalise(self.second(branch))
        return relu(self.shortcut(x) + self.depth(branch))


class _Preactivation(_Block):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float, drop: float) -> None:
        super().__init__(inputs, outputs, stride, dropout, drop)
        self.first_normalise, self.second_normalise = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if self.is_new_shape else None

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.first_normalise(x))
        branch = self.dropout(relu(self.second_normalise(self.first(active))))
        branch = self.depth(self.second(branch))
        added: Tensor = branch + (x if self.projection is None else self.projection(active))
        return added


class StochasticDepth(nn.Module):
    """In training, leaves a branch out for some images, and strengthens it for the others (Huang et al. 2016, arXiv
    1603.09382), so that its mean stays what it is.

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
