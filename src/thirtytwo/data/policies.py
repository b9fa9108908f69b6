"""Policies: a few changes an image, drawn from a list of operations (RandAugment, TrivialAugment, AugMix).

Every operation is applied to all images of a batch, and each image keeps what was drawn for it. So there is no loop
over images, and no shape that depends on chance: a GPU can record it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R BT.601)."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""images float (n, 3, height, width) in [0, 1], amounts (n, 1, 1, 1) in [-1, 1] -> the same shape, in [0, 1]."""


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 (channels, 1, 1); filled in on the device, since a GPU that records steps can be sent nothing."""
    if device.type == "cpu":
        return _on_cpu(values)
    return torch.stack([torch.full((), value, device=device) for value in values])[:, None, None]


@functools.cache
def _on_cpu(values: tuple[float, ...]) -> Tensor:
    """Made once, since it would be felt where a single image is classified; nobody may change it."""
    with torch.inference_mode(False):  # whoever is the first to ask, others may want gradients
        return torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None]


def _blended(images: Tensor, other: Tensor, amounts: Tensor) -> Tensor:
    """Away from `other` for positive amounts, towards it for negative ones."""
    return (images + (images - other) * amounts).clamp(0.0, 1.0)


def _grey(images: Tensor) -> Tensor:
    return (images * per_channel(GREY, images.device)).sum(1, keepdim=True)


def identity(images: Tensor, _: Tensor) -> Tensor:
    """Nothing is changed."""
    return images


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each colour is stretched to the whole range."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-6), images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each colour gets an even histogram, as far as 256 levels allow."""
    levels = (images * 255).round().long().flatten(2)  # (n, 3, pixels)
    counts = torch.zeros((*levels.shape[:2], 256), device=images.device)
    # Sums of ones are exact in whatever order they are added.
    below = counts.scatter_add(2, levels, torch.ones_like(levels, dtype=torch.float32)).cumsum(2)
    darkest = below.gather(2, levels.amin(2, keepdim=True))
    even = (below.gather(2, levels) - darkest) / (levels.shape[2] - darkest).clamp_min(1.0)
    return torch.where(levels.shape[2] > darkest, even, images.flatten(2)).view_as(images)


def brightness(images: Tensor, amounts: Tensor) -> Tensor:
    """Brighter or darker."""
    return _blended(images, torch.zeros_like(images), amounts)


def colour(images: Tensor, amounts: Tensor) -> Tensor:
    """More or less colourful."""
    return _blended(images, _grey(images), amounts)


def contrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Farther from, or closer to, the mean brightness of the image."""
    return _blended(images, _grey(images).mean((2, 3), keepdim=True), amounts)


def sharpness(images: Tensor, amounts: Tensor) -> Tensor:
    """Sharper or softer; the border stays."""
    kernel = torch.ones((3, 1, 3, 3), device=images.device)
    kernel[:, :, 1, 1] = 5.0
    smooth = pad(conv2d(images, kernel / 13.0, groups=3), (1, 1, 1, 1))
    inside = pad(torch.ones_like(smooth[:, :, 2:, 2:]), (1, 1, 1, 1))
    return _blended(images, torch.where(inside > 0, smooth, images), amounts)


def posterize(images: Tensor, amounts: Tensor) -> Tensor:
    """Fewer levels: from 256 at amount 0 down to 4 at amount 1."""
    step = 2.0 ** (6 * amounts.abs()).round()
    return ((images * 255).round() / step).floor() * step / 255


def solarize(images: Tensor, amounts: Tensor) -> Tensor:
    """What is brighter than 1 - amount is inverted."""
    return torch.where(images > 1 - amounts.abs(), 1 - images, images)


PHOTOMETRIC: tuple[Operation, ...] = (
    identity, autocontrast, equalize, brightness, colour, contrast, sharpness, posterize, solarize,
)  # fmt: skip
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*(operation.__name__ for operation in PHOTOMETRIC), *GEOMETRIC)
"""As in RandAugment (Cubuk et al. 2020, arXiv 1909.13719)."""
OTHER_THAN_CORRUPTIONS = tuple(
    OPERATIONS.index(name) for name in ("autocontrast", "equalize", "posterize", "solarize", *GEOMETRIC)
)
"""Positions of AugMix's operations: none that overlaps with the corruptions by which robustness is measured, as
brightness, colour, contrast and sharpness do (Hendrycks et al. 2020, section 3); see `data.corrupt`."""


@dataclass(frozen=True)
class Limits:
    """What an amount of 1 stands for."""

    degrees: float = 30.0
    shear: float = 0.3
    translation: float = 0.45
    """Share of height and width."""
    blend: float = 0.9
    """Of brightness, colour, contrast and sharpness."""
    levels: float = 0.67
    """Of what `posterize` can do."""


WIDE = Limits(degrees=135.0, shear=0.99, translation=1.0, blend=0.99, levels=1.0)
"""TrivialAugment's (Müller & Hutter 2021, arXiv 2103.10158)."""


def moved_by(images: Tensor, which: Tensor, amounts: Tensor, limits: Limits) -> Tensor:
    """Rotate, shear or translate each image as drawn, in one resampling; others come back as they were.

    Args:
        images: float (n, 3, height, width).
        which: int64 (n,), positions in `OPERATIONS`.
        amounts: float (n,) in [-1, 1].
        limits: what 1 stands for.
    """
    height, width = images.shape[2:]
    first = len(PHOTOMETRIC)

    def amount(name: str, limit: float) -> Tensor:
        return torch.where(which == first + GEOMETRIC.index(name), amounts * limit, torch.zeros_like(amounts))

    angle = amount("rotate", math.radians(limits.degrees))
    aspect = height / width  # keeps what is turned undistorted
    cosine, sine = angle.cos(), angle.sin()
    x_of_y = -sine * aspect + amount("shear_x", limits.shear)
    y_of_x = sine / aspect + amount("shear_y", limits.shear)
    right, down = (2 * amount(name, limits.translation) for name in ("translate_x", "translate_y"))
    rows = torch.stack([cosine, x_of_y, right], 1), torch.stack([y_of_x, cosine, down], 1)
    matrix = torch.stack(rows, 1)  # (n, 2, 3): from output to input coordinates
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    changed = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    is_moved = (which >= first) & (amounts != 0)  # a resampling blurs, even by nothing
    return torch.where(is_moved[:, None, None, None], changed, images)


def changed_by(images: Tensor, which: Tensor, amounts: Tensor, limits: Limits) -> Tensor:
    """One operation an image; see `moved_by`."""
    found = moved_by(images, which, amounts, limits)
    for number, operation in enumerate(PHOTOMETRIC):
        if operation is not identity:
            limit = limits.levels if operation is posterize else 1.0 if operation is solarize else limits.blend
            changed = operation(images, amounts[:, None, None, None] * limit)
            found = torch.where((which == number)[:, None, None, None], changed, found)
    return found


def drawn(choice: Tensor, sign: Tensor, size: Tensor, among: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Which operation, and how much of it: each (n,), from numbers in [0, 1).

    Args:
        choice: (n,), of the operation.
        sign: (n,), of the direction.
        size: (n,), what an amount is at most.
        among: positions in `OPERATIONS` of those that are drawn from; None is all of them.
    """
    which = (choice * len(among or OPERATIONS)).long()
    if among is not None:  # filled in on the device, as in `per_channel`
        which = torch.stack([torch.full((), place, device=which.device) for place in among])[which]
    return which, torch.where(sign < 0.5, -size, size)


@dataclass(frozen=True)
class RandAugment:
    """So many operations an image, of one strength (Cubuk et al. 2020, arXiv 1909.13719).

    Attributes:
        operations: an image.
        strength: of each, in [0, 1].
    """

    operations: int = 2
    strength: float = 0.3

    @property
    def numbers(self) -> int:
        """Random numbers an image."""
        return 2 * self.operations

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """float (n, 3, height, width) in [0, 1], float (numbers, n) in [0, 1) -> images of the same shape."""
        for choice, sign in torch.split(draws, 2):
            images = changed_by(images, *drawn(choice, sign, torch.full_like(choice, self.strength)), Limits())
        return images


@dataclass(frozen=True)
class TrivialAugment:
    """One operation an image, of any strength, with wide limits (Müller & Hutter 2021, arXiv 2103.10158)."""

    numbers: int = 3

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `RandAugment`."""
        return changed_by(images, *drawn(*draws), WIDE)


@dataclass(frozen=True)
class AugMix:
    """A mean of the image and of chains of one to three operations (Hendrycks et al. 2020, arXiv 1912.02781).

    Its operations are `OTHER_THAN_CORRUPTIONS`.

    Attributes:
        chains: how many.
        strength: of each operation, in [0, 1].
    """

    chains: int = 3
    strength: float = 0.3
    DEPTH = 3

    @property
    def numbers(self) -> int:
        """Random numbers an image."""
        return 1 + self.chains * (2 + 2 * self.DEPTH)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `RandAugment`."""
        own, *chains = torch.split(draws, [1, *[2 + 2 * self.DEPTH] * self.chains])
        mixed, total = torch.zeros_like(images), torch.zeros_like(own[0])
        for chain in chains:
            weight = -torch.log1p(-chain[0])  # exponential: shares of their sum are even over all that sum to 1
            changed, depth = images, 1 + (chain[1] * self.DEPTH).long()
            for step, (choice, sign) in enumerate(torch.split(chain[2:], 2)):
                which, amounts = drawn(choice, sign, torch.full_like(choice, self.strength), OTHER_THAN_CORRUPTIONS)
                which = torch.where(step < depth, which, torch.zeros_like(which))  # 0 changes nothing
                changed = changed_by(changed, which, amounts, Limits())
            mixed = mixed + weight[:, None, None, None] * changed
            total = total + weight
        mixed = mixed / total.clamp_min(1e-6)[:, None, None, None]
        return torch.lerp(mixed, images, own[0][:, None, None, None])


Policy = RandAugment | TrivialAugment | AugMix
