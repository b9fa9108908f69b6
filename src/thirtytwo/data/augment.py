"""Random changes to training images: batch -> batch, on whatever device the batch lies on.

Every random number is drawn beforehand, on the CPU, a handful per image (`Augment.draw`), so that the same seed gives
the same pictures on a CPU and, but for rounding, on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from thirtytwo.data.policies import Policy, per_channel


@dataclass(frozen=True)
class Augment:
    """Rotation, shift and mirroring in one resampling, so that pictures are resampled at most once; colours; a policy;
    what is painted over.

    Attributes:
        rotation_degrees: angles are drawn evenly from ± this.
        width_shift: horizontal shifts are drawn evenly from ± this share of the width.
        height_shift: vertical shifts are drawn evenly from ± this share of the height.
        horizontal_flip: mirror left and right with probability one half.
        brightness: added to all values, drawn evenly from ± this.
        contrast: distances from the image's own mean are multiplied by a factor drawn evenly from 1 ± this.
        policy: operations drawn from a list, see `policies`.
        erasing_probability: of painting over a rectangle that covers 2 to 33% of the image.
        cutout_pixels: side of the square that is painted over, anywhere inside the image; at most height and width.
        cutout_beyond_border: let its centre lie anywhere, and parts of it outside; it may be larger then.
        fill: what is painted: red, green, blue in [0, 1].
    """

    rotation_degrees: float = 0.0
    width_shift: float = 0.0
    height_shift: float = 0.0
    horizontal_flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    policy: Policy | None = None
    erasing_probability: float = 0.0
    cutout_pixels: int = 0
    cutout_beyond_border: bool = False
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The random numbers of a batch: float32 (rows, batch) in [0, 1).

        All rows but a policy's are the same whatever the settings: turning one kind of change off leaves the others'
        randomness as it was.
        """
        rows = (8, 5, self.policy.numbers if self.policy else 0)
        return torch.cat([torch.rand((number, batch), generator=generator) for number in rows])

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change each image on its own.

        Args:
            images: float (batch, channels, height, width), values in [0, 1].
            draws: float32 (rows, batch), on the same device; see `draw`.

        Returns:
            The same shape, dtype and device. What is shifted in from outside is the image reflected at its border.
        """
        images = self._moved(images, draws[:4])
        if self.brightness or self.contrast:
            images = coloured(images, (2 * draws[4] - 1) * self.brightness, 1 + (2 * draws[5] - 1) * self.contrast)
        if self.policy is not None:
            images = self.policy(images, draws[13:])
        if self.erasing_probability:
            images = erased(images, self.erasing_probability, self.fill, draws[8:13])
        if not self.cutout_pixels:
            return images
        beyond = self.cutout_beyond_border
        return cut_out(images, self.cutout_pixels, self.fill, draws[6:8], beyond_border=beyond)

    def _moved(self, images: Tensor, draws: Tensor) -> Tensor:
        """Rotated, shifted and mirrored, as four numbers per image in [0, 1) say."""
        height, width = images.shape[2:]
        flipped = (draws[3] < 0.5) & self.horizontal_flip
        if not (self.rotation_degrees or self.width_shift or self.height_shift):
            if not self.horizontal_flip:
                return images
            # Nothing is resampled, so that pixels stay exactly what they were.
            return torch.where(flipped[:, None, None, None], images.flip(3), images)
        angle = (2 * draws[0] - 1) * math.radians(self.rotation_degrees)  # (batch,)
        right = (2 * draws[1] - 1) * 2 * self.width_shift  # grid coordinates run from -1 to 1: twice the share
        down = (2 * draws[2] - 1) * 2 * self.height_shift
        mirror = 1.0 - 2.0 * flipped.float()
        cosine, sine = angle.cos(), angle.sin()
        # The grid counts in half-widths and half-heights; the aspect keeps a turned oblong image undistorted.
        aspect = height / width
        matrix = torch.stack(
            [
                torch.stack([mirror * cosine, -mirror * sine * aspect, right], dim=1),
                torch.stack([sine / aspect, cosine, down], dim=1),
            ],
            dim=1,
        )  # (batch, 2, 3): from output to input coordinates
        grid = affine_grid(matrix.to(images), list(images.shape), align_corners=False)
        # Bicubic (Keys 1981): bilinear blurs whatever moves by part of a pixel, and so would train the network on
        # pictures softer than those that it is to judge. It can overshoot at edges, hence the clamp.
        changed = grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        return changed.clamp_(0.0, 1.0)


def coloured(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Brighter or darker, harder or softer, each image on its own.

    Args:
        images: float (batch, channels, height, width), values in [0, 1].
        brightness: (batch,), added to every value.
        contrast: (batch,), factor of every value's distance from the mean of its image.

    Returns:
        The same shape; what leaves [0, 1] is set to its nearer end.
    """
    mean = images.mean((1, 2, 3), keepdim=True)
    brightness, contrast = (one.to(images)[:, None, None, None] for one in (brightness, contrast))
    return torch.addcmul(mean + brightness, images - mean, contrast).clamp_(0.0, 1.0)


def cut_out(
    images: Tensor, side: int, fill: tuple[float, float, float], places: Tensor, *, beyond_border: bool = False
) -> Tensor:
    """Paint a square over each image (cutout, after DeVries & Taylor 2017, arXiv 1708.04552).

    Args:
        images: float (batch, 3, height, width).
        side: of the square in pixels, at most height and width.
        fill: its colour.
        places: float (2, batch) in [0, 1), on the same device: how far down and right it lies.
        beyond_border: whether its centre lies anywhere in the image, as theirs does, rather than all of it.

    Returns:
        The same shape, dtype and device.
    """
    both = torch.full((1,), float(side), device=images.device)
    square = _rectangles(images, (both, both), places, beyond_border=beyond_border)
    return torch.where(square, per_channel(fill, images.device), images)


def erased(images: Tensor, probability: float, fill: tuple[float, float, float], draws: Tensor) -> Tensor:
    """Paint a rectangle over some images (random erasing, after Zhong et al. 2020, arXiv 1708.04896), wholly inside.

    Args:
        images: float (batch, 3, height, width).
        probability: of an image to be painted over.
        fill: the rectangle's colour; it covers 2 to 33% of the image, with sides up to 3.3 to 1.
        draws: float (5, batch) in [0, 1), on the same device: whether, how large, of which shape, how far down and
            right.

    Returns:
        The same shape, dtype and device.
    """
    height, width = images.shape[2:]
    area = (0.02 + 0.31 * draws[1]) * height * width
    shape = 3.3 ** (2 * draws[2] - 1)  # height over width
    sides = ((area * shape).sqrt().round().clamp(1, height), (area / shape).sqrt().round().clamp(1, width))
    rectangle = _rectangles(images, sides, draws[3:])
    is_erased = (draws[0] < probability)[:, None, None, None]
    return torch.where(rectangle & is_erased, per_channel(fill, images.device), images)


def _rectangles(images: Tensor, sides: tuple[Tensor, Tensor], places: Tensor, *, beyond_border: bool = False) -> Tensor:
    """Rectangles in images: bool (batch, 1, height, width).

    Args:
        images: (batch, channels, height, width).
        sides: whole numbers as float (1,) or (batch,): how high and how wide.
        places: float (2, batch) in [0, 1): how far down and right.
        beyond_border: whether only their centres lie inside of the images, rather than all of them.
    """
    covered = []
    for length, side, place in zip(images.shape[2:], sides, places, strict=True):
        if beyond_border:
            begin = (place * length).floor() - (side / 2).floor()
        else:
            begin = (place * (length - side + 1)).floor()
        distance = torch.arange(length, device=images.device) - begin[:, None]
        covered.append((distance >= 0) & (distance < side[:, None]))  # (batch, length)
    rectangles: Tensor = covered[0][:, None, :, None] & covered[1][:, None, None, :]
    return rectangles


def shifts(pixels: int, batch: int, generator: torch.Generator) -> Tensor:
    """Whole-pixel shifts drawn evenly from ± `pixels`: int64 (2, batch), down and right."""
    return torch.randint(-pixels, pixels + 1, (2, batch), generator=generator)


def moved(images: Tensor, chosen: Tensor, shift: Tensor | None, mirrored: Tensor | None) -> Tensor:
    """Take images out of a set, shifted by whole pixels and mirrored, in one pass over memory.

    Args:
        images: (n, channels, height, width) in channels-last memory format.
        chosen: int64 (batch,), which ones.
        shift: int64 (2, batch), how far down and right; smaller than height and width.
        mirrored: bool (batch,), which ones are mirrored left and right before they are shifted.

    Returns:
        (batch, channels, height, width) in channels-last memory format, dtype of `images`. What is shifted in is the
        image reflected at its border, without the border itself ("reflect" padding).
    """
    if shift is None and mirrored is None:
        return images[chosen]
    height, width = images.shape[2:]
    device = images.device
    rows = torch.arange(height, device=device).expand(len(chosen), height)
    columns = torch.arange(width, device=device).expand(len(chosen), width)
    if shift is not None:
        shift = shift.to(device)
        rows = _reflected(rows - shift[0, :, None], height)
        columns = _reflected(columns - shift[1, :, None], width)
    if mirrored is not None:
        columns = torch.where(mirrored.to(device)[:, None], width - 1 - columns, columns)
    interleaved = images.permute(0, 2, 3, 1)  # a view: (n, height, width, channels)
    return interleaved[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside of 0 … size - 1, mirrored back into it at the first and the last place."""
    last = size - 1
    return last - (last - places.abs()).abs()


def scaled_down(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images with fewer pixels: float (batch, channels, height, width) -> (batch, channels, *size).

    Each new pixel is a mean of those that it covers, weighted by their distance (a triangle filter), so that nothing
    aliases. Images of that size already are returned as they are.
    """
    if images.shape[2:] == size:
        return images
    return interpolate(images, size, mode="bilinear", antialias=True)
