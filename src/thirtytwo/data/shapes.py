"""Shapes: a data set that is drawn, not stored, and so is there without a network.

Ten classes of figures in random colours, sizes, places, rotations and lighting, over textured and cluttered
backgrounds and partly covered. A linear classifier fails on it and a convolutional network does not.

The same seed gives the same bytes on every machine and with every version of numpy: random numbers come from a hash
(SplitMix64) rather than a library's generator, and pixels from operations that IEEE 754 rounds exactly (+ − × ÷ √,
comparisons, table look-ups), one element at a time. Sums over arrays, matrix products and sin or exp are left out on
purpose, since their last bits depend on the processor.

Figures are signed distances (negative inside), which gives smooth edges at any size without supersampling: J. C. Hart,
"Sphere tracing" (1996). Textures are value noise in several octaves: K. Perlin, "An image synthesizer" (1985).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import Images, _hashed
from thirtytwo.errors import DataError, OutOfMemory

Split = Literal["training", "test"]

Field = NDArray[np.float32]
"""Values per image and pixel (images, pixels), or per image (images, 1)."""
Figure = Callable[[Field, Field], Field]
"""Signed distance to an outline, from coordinates in which the figure's radius is about 1."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn images, and the truth about what was planted among them.

    Attributes:
        images: the images, named "shapes", with labels as given: planted errors included.
        true_labels: int64 (n,), what was drawn in each image.
        label_errors: int64, ascending positions whose given label is not the true one.
        duplicates: int64 (m, 2), ascending by the second column: (position of an original, position of its near copy).
            No image is in two pairs. In the training split original < copy. In the test split the originals are
            positions in the training split of the same seed and size: leaks.
    """

    images: Images
    true_labels: NDArray[np.int64]
    label_errors: NDArray[np.int64]
    duplicates: NDArray[np.int64]


def draw(
    number: int = 5000,
    seed: int = 0,
    *,
    split: Split = "training",
    size: int = 32,
    label_errors: float = 0.0,
    duplicates: float = 0.0,
    training_number: int = 5000,
) -> Drawn:
    """Draw images of ten classes, balanced and in mixed order.

    Each image depends on its seed, split, size and position alone, so fewer images are the first of more. Every ten
    consecutive ones from the start hold each class once. That is without planted images, which depend on `number` too.

    Args:
        number: how many images.
        seed: any other seed gives other images.
        split: "training" or "test"; they share no image, except for planted leaks.
        size: height and width in pixels. The same scenes are drawn at every size, apart from the camera's noise.
        label_errors: share of the images that get a wrong label, each wrong class being equally likely.
        duplicates: share of the images that are replaced by near copies of others (perhaps mirrored, moved by up to a
            pixel, slightly brighter or darker, noisier), which carry the label of their originals. At most 0.5 of the
            training split.
        training_number: how many training images there are; only for duplicates in the test split, which are copies of
            some of these as drawn without duplicates. Training images that were replaced by copies themselves are
            avoided for as long as pairs in the training split and copies in the test split together leave room.

    Returns:
        The images, with uint8 (number, size, size, 3) pixels, and the truth about them.

    Raises:
        DataError: an argument is out of range.
        OutOfMemory: that many images do not fit in memory.
    """
    _check(number, seed, split, size, label_errors, duplicates, training_number)
    try:
        true_labels = _labels(number, seed, split)
        pixels = _render(np.arange(number), true_labels, seed, split, size)
        pairs = _plan_duplicates(round(duplicates * number), number, seed, split, training_number)
        if len(pairs):
            originals, copies = pairs.T
            if split == "training":
                sources, source_labels = pixels[originals], true_labels[originals]
            else:
                source_labels = _labels(training_number, seed, "training")[originals]
                sources = _render(originals, source_labels, seed, "training", size)
            pixels[copies] = _near_copies(sources, _keys(copies, seed, split, "near copy"))
            true_labels[copies] = source_labels
    except MemoryError:
        raise OutOfMemory(
            f"shapes: {number} images of {size} × {size} pixels do not fit in memory; "
            f"expected room for about {number * size * size * 3 / 2**30:.1f} GiB; draw fewer or smaller ones"
        ) from None
    order = np.argsort(_keys(np.arange(number), seed, split, "label error"), kind="stable")
    wrong = np.sort(order[: round(label_errors * number)])
    labels = true_labels.copy()
    labels[wrong] += 1 + (_keys(wrong, seed, split, "wrong label") % np.uint64(len(CLASSES) - 1)).astype(np.int64)
    return Drawn(Images(pixels, labels % len(CLASSES), CLASSES, "shapes"), true_labels, wrong, pairs)


def _check(
    number: int, seed: int, split: str, size: int, label_errors: float, duplicates: float, training_number: int
) -> None:
    """Refuse what cannot be drawn."""
    ranges = {
        "number": (number, 1, 10_000_000),
        "seed": (seed, 0, 2**63 - 1),
        "size": (size, 8, 256),
        "training_number": (training_number, 1, 10_000_000),
    }
    for name, (value, lowest, highest) in ranges.items():
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise DataError(
                f"shapes: {name} is {value!r}; expected a whole number from {lowest} to {highest}; choose one"
            )
    if split not in get_args(Split):
        raise DataError(f"shapes: split is {split!r}; expected one of {', '.join(get_args(Split))}; choose one")
    for name, share, highest in (("label_errors", label_errors, 1.0), ("duplicates", duplicates, 0.5)):
        if split == "test" and name == "duplicates":
            highest = min(1.0, training_number / number)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= highest:
            raise DataError(
                f"shapes: {name} is {share!r}; expected a share of the {split} images from 0 to {highest:g}; choose one"
            )


# Random numbers ------------------------------------------------------------------------------------------------------


def _keys(positions: NDArray[np.int64], seed: int, split: Split, purpose: str) -> NDArray[np.uint64]:
    """One uint64 per position, unrelated to those of any other seed, split or purpose."""
    salt = hashlib.sha256(f"{seed} {split} {purpose}".encode()).digest()[:8]
    return _hashed(positions.astype(np.uint64), int.from_bytes(salt, "big"))


_STEP = np.uint64(0x9E3779B97F4A7C15)
"""SplitMix64's step from one number of a sequence to the next."""


class _Dice:
    """A sequence of random numbers for each image: every call takes the next one, for all images at once."""

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        steps = np.arange(1, 161, dtype=np.uint64) * _STEP  # room for more than any figure asks for
        bits = _hashed(keys[:, None] + steps, 0) >> np.uint64(40)
        self._numbers = (bits.astype(np.float32) * np.float32(2**-24)).T[:, :, None]  # (160, images, 1), in [0, 1)
        self._taken = 0

    def between(self, low: float, high: float) -> Field:
        """Even between two values: (images, 1)."""
        self._taken += 1
        return self._numbers[self._taken - 1] * np.float32(high - low) + np.float32(low)

    def chance(self, probability: float) -> Field:
        """1 with this probability, otherwise 0: (images, 1)."""
        return (self.between(0, 1) < probability).astype(np.float32)

    def tilt(self) -> tuple[Field, Field]:
        """An angle within ± 45 degrees, as its cosine and sine: twice (images, 1)."""
        # Half-angle formulas need no trigonometry; angles come out almost evenly spread.
        tangent = self.between(1 - math.sqrt(2), math.sqrt(2) - 1)
        square = tangent * tangent
        return (1 - square) / (1 + square), 2 * tangent / (1 + square)

    def direction(self) -> tuple[Field, Field]:
        """Any angle, as its cosine and sine: twice (images, 1)."""
        cosine, sine = self.tilt()
        quarter = np.floor(self.between(0, 4))
        cosine, sine = np.where(quarter >= 2, -cosine, cosine), np.where(quarter >= 2, -sine, sine)
        odd = (quarter == 1) | (quarter == 3)
        return np.where(odd, -sine, cosine), np.where(odd, cosine, sine)

    def colour(self, luminance: Field, saturation: Field) -> Field:
        """A colour of any hue: (images, 3, 1), red-green-blue, 0 to 1."""
        hue = self.between(0, 6)
        pure = [  # the corners of the colour cube, in a ring
            np.clip(np.abs(hue - 3) - 1, 0, 1),
            np.clip(2 - np.abs(hue - 2), 0, 1),
            np.clip(2 - np.abs(hue - 4), 0, 1),
        ]
        grey = pure[0] * 0.299 + pure[1] * 0.587 + pure[2] * 0.114
        return np.clip(np.stack([luminance + saturation * (part - grey) for part in pure], axis=1), 0, 1)


def _labels(number: int, seed: int, split: Split) -> NDArray[np.int64]:
    """Labels such that every ten in a row, from the start, are all ten classes in random order."""
    blocks = -(-number // len(CLASSES))
    keys = _keys(np.arange(blocks * len(CLASSES)), seed, split, "order")
    return np.argsort(keys.reshape(blocks, -1), axis=1, kind="stable").reshape(-1)[:number]


# Figures -------------------------------------------------------------------------------------------------------------


def _length(u: Field, v: Field) -> Field:
    return np.sqrt(u * u + v * v)


def _disc(dice: _Dice) -> Figure:
    return lambda u, v: _length(u, v) - 0.88


def _ring(dice: _Dice) -> Figure:
    half_width = dice.between(0.13, 0.22)
    return lambda u, v: np.abs(_length(u, v) - 0.72) - half_width


def _crescent(dice: _Dice) -> Figure:
    bite = dice.between(0.38, 0.55)  # how far the disc that is cut away lies from the centre
    return lambda u, v: np.maximum(_length(u, v) - 0.95, 0.76 - _length(u - bite, v))


def _square(dice: _Dice) -> Figure:
    return lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.75


def _triangle(dice: _Dice) -> Figure:
    return lambda u, v: np.maximum(-v, np.abs(u) * 0.8660254 + v * 0.5) - 0.52


_STAR_NORMALS = (  # at 270° and each 72° further
    (0.0, -1.0),
    (0.95105652, -0.30901699),
    (0.58778525, 0.80901699),
    (-0.58778525, 0.80901699),
    (-0.95105652, -0.30901699),
)


def _star(dice: _Dice) -> Figure:
    def distance(u: Field, v: Field) -> Field:
        # A five-pointed star is drawn with five lines; its points lie outside at most one of them.
        first, second, *others = (u * x + v * y for x, y in _STAR_NORMALS)
        largest, runner_up = np.maximum(first, second), np.minimum(first, second)
        for line in others:
            runner_up = np.maximum(runner_up, np.minimum(largest, line))
            largest = np.maximum(largest, line)
        return runner_up - 0.36

    return distance


def _heart(dice: _Dice) -> Figure:
    def distance(u: Field, v: Field) -> Field:
        # Half of it, the other half being its mirror image: a disc, and below it a wedge whose side touches the disc.
        u = np.abs(u)
        side = u * 0.78 - (v + 0.95) * 0.625
        top = np.maximum((u - 0.46) * 0.625 + (v - 0.36) * 0.78, v - 0.46)
        return np.minimum(np.maximum(side, top), _length(u - 0.46, v - 0.36) - 0.46)

    return distance


def _cross(dice: _Dice) -> Figure:
    half_width = dice.between(0.2, 0.3)

    def distance(u: Field, v: Field) -> Field:
        u, v = np.abs(u), np.abs(v)
        return np.maximum(np.minimum(u, v) - half_width, np.maximum(u, v) - 0.95)

    return distance


def _patch(dice: _Dice) -> Figure:
    """Anything from a square to a disc: what carries a pattern must not give the pattern away."""
    radius = dice.between(0.1, 0.75)

    def distance(u: Field, v: Field) -> Field:
        u = np.maximum(np.abs(u) - 0.82 + radius, 0)
        v = np.maximum(np.abs(v) - 0.82 + radius, 0)
        return _length(u, v) - radius

    return distance


# Coverage: how much of each pixel a figure covers, 0 to 1 ------------------------------------------------------------


def _cover(distance: Field, pixels: Field | float) -> Field:
    """Coverage from a signed distance, given how many pixels one unit of it is."""
    return np.clip(0.5 - distance * pixels, 0, 1)


def _wave(phase: Field) -> Field:
    """A zigzag from -1/4 to 1/4 and back in each period of 1: the distance to the nearest zero, with its sign."""
    return np.abs(phase - np.floor(phase) - 0.5) - 0.25


def _stripes(dice: _Dice, u: Field, v: Field, pixels: Field) -> Field:
    """Coverage by every second stripe."""
    period = dice.between(0.5, 0.72)
    return _cover(_wave(u / period + dice.between(0, 1)) * period, pixels)


def _checkers(dice: _Dice, u: Field, v: Field, pixels: Field) -> Field:
    """Coverage by the fields of one colour."""
    period = dice.between(0.74, 1.0)
    across = _cover(_wave(u / period + dice.between(0, 1)) * period, pixels)
    down = _cover(_wave(v / period + dice.between(0, 1)) * period, pixels)
    return across + down - 2 * across * down


_FIGURES: dict[str, Callable[[_Dice], Figure]] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "stripes": _patch,
    "checkers": _patch,
}
_PATTERNS = {"stripes": _stripes, "checkers": _checkers}

CLASSES: tuple[str, ...] = tuple(_FIGURES)
"""Class names, in label order. None depends on left and right, or on which way is up."""


# Textures ------------------------------------------------------------------------------------------------------------

_TILE = 512
"""Height and width of the texture that all images take pieces of, in texels; it repeats without a seam."""


@cache
def _tile() -> Field:
    """Value noise in five octaves, flattened (512 * 512,), values spread over 0 to 1."""
    total = np.zeros((_TILE, _TILE), dtype=np.float32)
    for octave, cells in enumerate((8, 16, 32, 64, 128)):
        bits = _hashed(np.arange(cells * cells, dtype=np.uint64), octave) >> np.uint64(40)
        lattice = bits.astype(np.float32).reshape(cells, cells) * np.float32(2**-24)
        for axis in (0, 1):
            place = np.arange(_TILE, dtype=np.float32) * np.float32(cells / _TILE)
            cell = place.astype(np.int64)
            weight = place - cell.astype(np.float32)
            weight = weight * weight * (3 - 2 * weight)
            weight = weight if axis else weight[:, None]
            start, end = lattice.take(cell, axis), lattice.take((cell + 1) % cells, axis)
            lattice = start + (end - start) * weight
        total += (lattice - np.float32(0.5)) * np.float32(0.5**octave)
    return np.clip(total * np.float32(0.85) + np.float32(0.5), 0, 1).reshape(-1)


def _texture(dice: _Dice, x: Field, y: Field, finest: float, coarsest: float) -> Field:
    """A random piece of the texture, turned and stretched: (images, pixels), 0 to 1.

    `finest` and `coarsest` bound the share of the tile's width that half the image's width spans.
    """
    scale = dice.between(coarsest, finest) * _TILE
    stretch = 1 + 4 * dice.chance(0.35) * dice.between(0, 1)
    cosine, sine = dice.direction()
    # Offsets of several tiles keep both coordinates positive, so that truncating is rounding down.
    column = x * (cosine * scale) + y * (sine * scale) + dice.between(4, 5) * _TILE
    row = (y * (cosine * scale) - x * (sine * scale)) / stretch + dice.between(4, 5) * _TILE
    texels = (row.astype(np.int32) & (_TILE - 1)) * _TILE + (column.astype(np.int32) & (_TILE - 1))
    texture = _tile().take(texels)
    veins = np.maximum(1 - np.abs(texture - 0.5) * 6, 0)  # where the texture crosses its middle: marble, bark
    return texture + (veins - texture) * dice.chance(0.25)


# Scenes --------------------------------------------------------------------------------------------------------------


def _render(positions: NDArray[np.int64], labels: NDArray[np.int64], seed: int, split: Split, size: int) -> NDArray[np.uint8]:
    """The images at these positions, (n, size, size, 3), given the labels there."""
    keys = _keys(positions, seed, split, "image")
    pixels = np.empty((len(positions), size, size, 3), dtype=np.uint8)
    chunk = max(1, 2**16 // size**2)  # images at once, such that what is worked on stays in the processor's cache
    for label, name in enumerate(CLASSES):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), chunk):
            chosen = members[start : start + chunk]
            scene = _scene(name, keys[chosen], size)
            pixels[chosen] = scene.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
    return pixels


def _blend(canvas: Field, coverage: Field, colour: Field) -> None:
    """Paint over canvas (images, 3, pixels) with a colour (images, 3, 1 or pixels) where coverage (images, pixels) is 1."""
    canvas += coverage[:, None] * (colour - canvas)


def _scene(name: str, keys: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
    """One image of the class per key: (images, 3, size * size)."""
    dice = _Dice(keys)
    ticks = (np.arange(size, dtype=np.float32) * 2 + 1) / np.float32(size) - 1
    x, y = np.tile(ticks, size)[None], np.repeat(ticks, size)[None]  # (1, pixels), -1 to 1

    # The ground: two colours mixed by a texture, in soft clouds or in hard patches, and roughened by another one.
    ground = dice.between(0.25, 0.75)
    spread = dice.between(0.02, 0.16)
    saturation = dice.between(0, 0.45)
    low, high = dice.colour(ground - spread, saturation), dice.colour(ground + spread, saturation)
    mixture = (_texture(dice, x, y, 0.05, 0.3) - 0.5) * dice.between(0.8, 5) + 0.5
    canvas = low + (high - low) * np.clip(mixture, 0, 1)[:, None]
    canvas += ((_texture(dice, x, y, 0.25, 0.6) - 0.5) * dice.between(0, 0.4))[:, None]

    # Clutter behind the figure.
    for _ in range(3):
        place = dice.between(-1, 1), dice.between(-1, 1)
        distance = _bar(dice, x, y, *place, dice.between(0.25, 1.1), dice.between(0.03, 0.2))
        colour = dice.colour(np.clip(ground + dice.between(-0.35, 0.35), 0.05, 0.95), dice.between(0, 0.6))
        _blend(canvas, _cover(distance, size / 2) * (dice.chance(0.7) * dice.between(0.5, 1)), colour)

    # The figure: its place, turned and slightly stretched, in coordinates of its own.
    radius = dice.between(0.48, 0.84)
    centre_x, centre_y = (dice.between(-1, 1) * (1.05 - radius) for _ in range(2))
    cosine, sine = dice.tilt()
    stretch = dice.between(0.84, 1.0)
    mirror = 1 - 2 * dice.chance(0.5)
    right, up = (x - centre_x) / radius, (centre_y - y) / radius
    u, v = (right * cosine + up * sine) * mirror, (up * cosine - right * sine) / stretch
    pixels = radius * stretch * (size / 2)
    figure = _FIGURES[name](dice)

    # Its shadow falls away from the light.
    light_x, light_y = dice.direction()
    reach = dice.between(0.05, 0.3)
    shadow = figure(
        u + (light_x * cosine + light_y * sine) * mirror * reach, v + (light_y * cosine - light_x * sine) * reach
    )
    canvas *= 1 - _cover(shadow, pixels * dice.between(0.15, 0.6))[:, None] * dice.between(0, 0.5)[:, :, None]

    # Its surface: lighter or darker than the ground, textured, and shaded from one side to the other.
    contrast = dice.between(0.2, 0.45) * (1 - 2 * dice.chance(0.5))
    luminance = np.clip(ground + contrast, 0.06, 0.96)
    saturation = dice.between(0.05, 0.8)
    surface = dice.colour(luminance, saturation) + np.zeros_like(canvas)
    if name in _PATTERNS:
        other = dice.colour(np.clip(luminance - contrast * dice.between(0.8, 1.6), 0.04, 0.96), saturation)
        _blend(surface, _PATTERNS[name](dice, u, v, pixels), other)
    surface += ((_texture(dice, x, y, 0.08, 0.5) - 0.5) * dice.between(0, 0.4))[:, None]
    surface *= 1 + ((right * light_x + up * light_y) * dice.between(0, 0.3))[:, None]
    distance = figure(u, v)
    _blend(canvas, _cover(distance, pixels), surface)

    # Something in front of it, in most images.
    across, along = dice.direction()
    offset = radius * dice.between(0.25, 0.9)
    half_width = radius * dice.between(0.1, 0.28)
    distance = _bar(dice, x, y, centre_x + across * offset, centre_y + along * offset, dice.between(0.4, 1.5), half_width)
    colour = dice.colour(np.clip(ground + dice.between(-0.3, 0.3), 0.05, 0.95), dice.between(0, 0.6))
    _blend(canvas, _cover(distance, size / 2) * dice.chance(0.5), colour)

    # Light on the whole scene, and the camera's noise.
    canvas *= (1 + (x * light_x - y * light_y) * dice.between(0, 0.3))[:, None]
    words = np.arange(-(-canvas[0].size // 8), dtype=np.uint64) * _STEP
    noise = _hashed(_hashed(keys, 1)[:, None] + words, 0).astype("<u8").view(np.uint8)[:, : canvas[0].size]
    grain = ((noise & 15) + (noise >> 4)).astype(np.float32).reshape(canvas.shape) - 15  # triangular, within ± 15
    canvas *= 255
    canvas += grain * dice.between(0, 0.6)[:, :, None]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _bar(
    dice: _Dice, x: Field, y: Field, centre_x: Field, centre_y: Field, half_length: Field, half_width: Field
) -> Field:
    """Signed distance to a bar of any direction, with more or less round ends."""
    cosine, sine = dice.direction()
    x, y = x - centre_x, y - centre_y
    roundness = half_width * dice.between(0, 1)
    u = np.abs(x * cosine + y * sine) - half_length + roundness
    v = np.abs(y * cosine - x * sine) - half_width + roundness
    return _length(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - roundness


# Planted duplicates --------------------------------------------------------------------------------------------------


def _plan_duplicates(
    count: int, number: int, seed: int, split: Split, training_number: int
) -> NDArray[np.int64]:
    """Pairs (original, copy), (count, 2), ascending by copy."""
    total = number if split == "training" else training_number
    order = np.argsort(_keys(np.arange(total), seed, "training", "duplicate"), kind="stable")
    if split == "training":
        pairs = np.sort(order[: 2 * count].reshape(count, 2), axis=1)
    else:  # originals from the other end, so as not to meet the training split's own pairs
        copies = np.argsort(_keys(np.arange(number), seed, "test", "duplicate"), kind="stable")[:count]
        pairs = np.stack([order[total - count :], copies], axis=1)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


def _near_copies(originals: NDArray[np.uint8], keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Each image mirrored or not, moved by up to a pixel, changed in brightness by up to 6 levels and in noise by 2."""
    copies = originals.astype(np.int16)
    mirrored = (keys & np.uint64(3)) == 0
    copies[mirrored] = copies[mirrored, :, ::-1]
    for axis, shift in ((1, 4), (2, 8)):
        steps = ((keys >> np.uint64(shift)) % np.uint64(3)).astype(np.int64)[:, None] - 1
        places = np.clip(np.arange(originals.shape[axis]) + steps, 0, originals.shape[axis] - 1)
        places = places[:, :, None, None] if axis == 1 else places[:, None, :, None]
        copies = np.take_along_axis(copies, places, axis)
    copies += ((keys >> np.uint64(16)) % np.uint64(13)).astype(np.int16)[:, None, None, None] - 6
    noise = _hashed(keys[:, None] + np.arange(copies[0].size, dtype=np.uint64) * _STEP, 0) % np.uint64(5)
    copies += noise.astype(np.int16).reshape(copies.shape) - 2
    return np.clip(copies, 0, 255).astype(np.uint8)
