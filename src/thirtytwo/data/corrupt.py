"""Images made worse, as lenses, light and files make them worse: what does a classifier still know then?

After Hendrycks & Dietterich 2019 (arXiv 1903.12261): noise, blur, brightness, contrast and JPEG have the five strengths
of their CIFAR-10-C, though here brightness is added to all three colours, and contrast keeps one mean for them. Shifts
are not among theirs.
"""

from __future__ import annotations

import io
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, pad

from thirtytwo.data.augment import coloured, moved

Corruption = Literal["noise", "blur", "jpeg", "brightness", "contrast", "shift"]

STRENGTHS: Final[dict[Corruption, tuple[float, ...]]] = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "jpeg": (80, 65, 58, 50, 40),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "shift": (1, 2, 3, 4, 6),
}
"""Kinds of corruption, and of each five strengths, mild first: standard deviation of what is added to values in [0, 1];
of the Gaussian, in pixels; quality; what is added to values in [0, 1]; the factor of distances from the image's mean;
pixels, up or down and left or right."""


NUMBERS_AT_ONCE = 3_000_000
"""Values of images that are worked on together: a thousand of 32 × 32 pixels, a few large ones."""


def corrupted(pixels: NDArray[np.uint8], kind: Corruption, strength: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images, each made worse on its own.

    Args:
        pixels: uint8 (n, height, width, 3).
        kind: what is done to them.
        strength: 1 (mild) to 5.
        seed: of noise and the directions of shifts; the other kinds draw nothing.

    Returns:
        uint8 (n, height, width, 3). An image comes out the same however many follow it.

    Raises:
        ValueError: there is no such kind or strength.
    """
    if kind not in get_args(Corruption) or not 1 <= strength <= len(STRENGTHS[kind]):
        raise ValueError(f"{kind} {strength}: expected one of {', '.join(STRENGTHS)}, and a strength of 1 to 5")
    # One number after the other, unlike torch's, which depend on how many follow.
    draws = np.random.default_rng(seed)
    at_once = max(NUMBERS_AT_ONCE // max(pixels[0].size, 1), 1) if len(pixels) else 1
    parts = [
        _corrupted(pixels[first : first + at_once], kind, STRENGTHS[kind][strength - 1], draws)
        for first in range(0, len(pixels), at_once)
    ]
    return np.concatenate(parts) if parts else pixels


def _corrupted(
    pixels: NDArray[np.uint8], kind: Corruption, amount: float, draws: np.random.Generator
) -> NDArray[np.uint8]:
    if kind == "jpeg":
        return np.stack([_as_jpeg(image, int(amount)) for image in pixels])
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)  # (n, 3, height, width)
    if kind == "shift":
        pixels_moved = min(int(amount), *(side - 1 for side in images.shape[2:]))
        signs = torch.from_numpy(draws.integers(0, 2, (len(pixels), 2))).T * 2 - 1
        moved_images = moved(images, torch.arange(len(pixels)), signs * pixels_moved, None)
        return moved_images.permute(0, 2, 3, 1).contiguous().numpy()
    if kind == "noise":
        noise = draws.standard_normal(pixels.shape, np.float32) * np.float32(amount * 255)
        return (pixels + noise).round().clip(0, 255).astype(np.uint8)
    values = images.float() / 255
    each, none = values.new_full((len(values),), amount), values.new_zeros(len(values))
    if kind == "blur":
        values = blurred(values, amount)
    elif kind == "brightness":
        values = coloured(values, each, none + 1)
    else:
        values = coloured(values, none, each)
    return (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def blurred(images: Tensor, deviation: float) -> Tensor:
    """A Gaussian over each channel, cut off at four standard deviations; beyond its border an image goes on as it ends.

    Args:
        images: float (n, channels, height, width).
        deviation: standard deviation in pixels.
    """
    radius = int(4 * deviation + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-0.5 * (places / deviation) ** 2, 0)
    n, channels, height, _ = images.shape
    planes = pad(images, (radius,) * 4, mode="replicate").reshape(n * channels, 1, height + 2 * radius, -1)
    return conv2d(conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1)).view(images.shape)


def _as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as written:
        return np.asarray(written.convert("RGB"))
