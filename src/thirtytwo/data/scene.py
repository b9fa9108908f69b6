"""Scenes: how one picture of the drawn data set is made from the random numbers of its key.

Pixels come from operations that IEEE 754 rounds exactly (+ − × ÷ √, comparisons, table look-ups), one element at a
time, so that the same key gives the same bytes on every machine. Sums over arrays, matrix products and sin or exp are
left out on purpose, since their last bits depend on the processor.

Figures are signed distances (negative inside), which gives smooth edges at any size without supersampling: J. C. Hart,
"Sphere tracing" (1996). Textures are value noise in several octaves: K. Perlin, "An image synthesizer" (1985).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import hashed

Field = NDArray[np.floating]
"""float32 values per image and pixel (images, pixels), or per image (images, 1)."""
Figure = Callable[[Field, Field, Field], Field]
"""(u, v, variety) -> signed distance to an outline of radius about 1; variety, 0 to 1, is whatever may vary in it."""


# Random numbers ------------------------------------------------------------------------------------------------------

_STEP = np.uint64(0x9E3779B97F4A7C15)
"""SplitMix64's step from one number of a sequence to the next."""


def sequences(keys: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A sequence of random numbers for each key: (keys, length)."""
    steps: NDArray[np.uint64] = np.arange(1, length + 1, dtype=np.uint64) * _STEP
    return hashed(keys[:, None] + steps, 0)


class _Dice:
    """A sequence of random numbers for each image: every call takes the next one, for all images at once."""

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        bits = sequences(keys, 128) >> np.uint64(40)  # 128: more than a scene asks for
        self._numbers = (bits.astype(np.float32) * np.float32(2**-24)).T[:, :, None]  # (128, images, 1), in [0, 1)
        self._taken = 0

    def between(self, low: float, high: float) -> Field:
        """Even between two values: (images, 1)."""
        self._taken += 1
        number: Field = self._numbers[self._taken - 1] * np.float32(high - low) + np.float32(low)
        return number

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
            _clip(np.abs(hue - 3) - 1),
            _clip(2 - np.abs(hue - 2)),
            _clip(2 - np.abs(hue - 4)),
        ]
        grey = pure[0] * 0.299 + pure[1] * 0.587 + pure[2] * 0.114
        return _clip(np.stack([luminance + saturation * (part - grey) for part in pure], axis=1))


# Figures -------------------------------------------------------------------------------------------------------------


def _clip(values: Field, low: float = 0.0, high: float = 1.0) -> Field:
    clipped: Field = np.clip(values, low, high)
    return clipped


def _length(u: Field, v: Field) -> Field:
    length: Field = np.sqrt(u * u + v * v)
    return length


def _both(one: Field, other: Field) -> Field:
    """Distance to what lies inside of two outlines."""
    larger: Field = np.maximum(one, other)
    return larger


def _either(one: Field, other: Field) -> Field:
    """Distance to what lies inside of one outline at least."""
    smaller: Field = np.minimum(one, other)
    return smaller


def _box(u: Field, v: Field, half_width: Field | float, half_height: Field | float, rounding: Field) -> Field:
    """A rectangle whose corners are rounded with this radius."""
    beyond_u, beyond_v = np.abs(u) - half_width + rounding, np.abs(v) - half_height + rounding
    outside = _length(np.maximum(beyond_u, 0), np.maximum(beyond_v, 0))
    return outside + np.minimum(np.maximum(beyond_u, beyond_v), 0) - rounding


def _disc(u: Field, v: Field, variety: Field) -> Field:
    return _length(u, v) - (0.82 + 0.1 * variety)


def _ring(u: Field, v: Field, variety: Field) -> Field:
    beyond = _length(u, v) - 0.72
    return _both(beyond, -beyond) - (0.13 + 0.09 * variety)


def _crescent(u: Field, v: Field, variety: Field) -> Field:
    bite = 0.38 + 0.17 * variety  # how far the centre of the disc that is cut away lies from the other one
    return _both(_length(u, v) - 0.95, 0.76 - _length(u - bite, v))


def _square(u: Field, v: Field, variety: Field) -> Field:
    return _box(u, v, 0.76, 0.76, 0.16 * variety)


def _triangle(u: Field, v: Field, variety: Field) -> Field:
    return _both(-v, np.abs(u) * 0.8660254 + v * 0.5) - (0.49 + 0.06 * variety)


_STAR_NORMALS = (  # at 270° and each 72° further
    (0.0, -1.0),
    (0.95105652, -0.30901699),
    (0.58778525, 0.80901699),
    (-0.58778525, 0.80901699),
    (-0.95105652, -0.30901699),
)


def _star(u: Field, v: Field, variety: Field) -> Field:
    # A five-pointed star is drawn with five lines; its points lie outside at most one of them.
    first, second, *others = (u * x + v * y for x, y in _STAR_NORMALS)
    largest, runner_up = _both(first, second), _either(first, second)
    for line in others:
        runner_up = _both(runner_up, _either(largest, line))
        largest = _both(largest, line)
    return runner_up - (0.34 + 0.04 * variety)


def _heart(u: Field, v: Field, variety: Field) -> Field:
    # Half of it, the other half being its mirror image: a disc, and below it a wedge whose side touches the disc.
    u = np.abs(u)
    side = u * 0.78 - (v + 0.95) * 0.625
    top = _both((u - 0.46) * 0.625 + (v - 0.36) * 0.78, v - 0.46)
    return _either(_both(side, top), _length(u - 0.46, v - 0.36) - 0.46) - 0.05 * variety


def _cross(u: Field, v: Field, variety: Field) -> Field:
    u, v = np.abs(u), np.abs(v)
    return _both(_either(u, v) - (0.2 + 0.1 * variety), _both(u, v) - 0.95)


def _patch(u: Field, v: Field, variety: Field) -> Field:
    """Anything from a square to a disc: what carries a pattern must not give the pattern away."""
    return _box(u, v, 0.82, 0.82, 0.1 + 0.65 * variety)


# Coverage: how much of each pixel a figure covers, 0 to 1 ------------------------------------------------------------


def _cover(distance: Field, pixels: Field | float) -> Field:
    """Coverage from a signed distance, given how many pixels one unit of it is."""
    return _clip(0.5 - distance * pixels)


def _wave(phase: Field) -> Field:
    """A zigzag from -1/4 to 1/4 and back in each period of 1: the distance to the nearest zero, with its sign."""
    wave: Field = np.abs(phase - np.floor(phase) - 0.5) - 0.25
    return wave


def _stripes(dice: _Dice, u: Field, v: Field, pixels: Field) -> Field:
    """Coverage by every second stripe."""
    period = dice.between(0.5, 0.72)
    across_v = dice.chance(0.5)
    return _cover(_wave((u + (v - u) * across_v) / period + dice.between(0, 1)) * period, pixels)


def _checkers(dice: _Dice, u: Field, v: Field, pixels: Field) -> Field:
    """Coverage by the fields of one colour."""
    period = dice.between(0.74, 1.0)
    across = _cover(_wave(u / period + dice.between(0, 1)) * period, pixels)
    down = _cover(_wave(v / period + dice.between(0, 1)) * period, pixels)
    return across + down - 2 * across * down


_FIGURES: dict[str, Figure] = {
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
        bits = hashed(np.arange(cells * cells, dtype=np.uint64), octave) >> np.uint64(40)
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
    return _clip(total * np.float32(0.85) + np.float32(0.5)).reshape(-1)


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
    texture: Field = _tile().take(texels)
    veins = _clip(1 - np.abs(texture - 0.5) * 6)  # where the texture crosses its middle: marble, bark
    return texture + (veins - texture) * dice.chance(0.25)


# Scenes --------------------------------------------------------------------------------------------------------------


def _blend(canvas: Field, coverage: Field, colour: Field) -> None:
    """Paint over canvas (images, 3, pixels) in a colour (images, 3, 1 or pixels), as far as coverage says."""
    canvas += coverage[:, None] * (colour - canvas)


def scene(name: str, keys: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
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
    canvas = low + (high - low) * _clip(mixture)[:, None]
    canvas += ((_texture(dice, x, y, 0.25, 0.6) - 0.5) * dice.between(0, 0.4))[:, None]

    # Clutter behind the figure.
    for _ in range(3):
        place = dice.between(-1, 1), dice.between(-1, 1)
        distance = _bar(dice, x, y, *place, dice.between(0.25, 1.1), dice.between(0.03, 0.2))
        colour = dice.colour(_clip(ground + dice.between(-0.35, 0.35), 0.05, 0.95), dice.between(0, 0.6))
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
    figure, variety = _FIGURES[name], dice.between(0, 1)

    # Its shadow falls away from the light.
    light_x, light_y = dice.direction()
    reach = dice.between(0.05, 0.3)
    shadow_u = u + (light_x * cosine + light_y * sine) * mirror * reach
    shadow = figure(shadow_u, v + (light_y * cosine - light_x * sine) / stretch * reach, variety)
    canvas *= 1 - _cover(shadow, pixels * dice.between(0.15, 0.6))[:, None] * dice.between(0, 0.5)[:, :, None]

    # Its surface: lighter or darker than the ground, textured, and shaded from one side to the other.
    contrast = dice.between(0.2, 0.45) * (1 - 2 * dice.chance(0.5))
    luminance = _clip(ground + contrast, 0.06, 0.96)
    saturation = dice.between(0.05, 0.8)
    surface = dice.colour(luminance, saturation) + np.zeros_like(canvas)
    if name in _PATTERNS:
        other = dice.colour(_clip(luminance - contrast * dice.between(0.8, 1.6), 0.04, 0.96), saturation)
        _blend(surface, _PATTERNS[name](dice, u, v, pixels), other)
    surface += ((_texture(dice, x, y, 0.08, 0.5) - 0.5) * dice.between(0, 0.4))[:, None]
    surface *= 1 + ((right * light_x + up * light_y) * dice.between(0, 0.3))[:, None]
    distance = figure(u, v, variety)
    _blend(canvas, _cover(distance, pixels), surface)

    # Something in front of it, in half of the images.
    across, along = dice.direction()
    offset = radius * dice.between(0.25, 0.9)
    place = centre_x + across * offset, centre_y + along * offset
    distance = _bar(dice, x, y, *place, dice.between(0.4, 1.5), radius * dice.between(0.1, 0.28))
    colour = dice.colour(_clip(ground + dice.between(-0.3, 0.3), 0.05, 0.95), dice.between(0, 0.6))
    _blend(canvas, _cover(distance, size / 2) * dice.chance(0.5), colour)

    # Light on the whole scene, and the camera's noise.
    canvas *= (1 + (x * light_x - y * light_y) * dice.between(0, 0.3))[:, None]
    noise = sequences(hashed(keys, 1), -(-canvas[0].size // 8)).astype("<u8").view(np.uint8)[:, : canvas[0].size]
    grain = ((noise & 15) + (noise >> 4)).astype(np.float32).reshape(canvas.shape) - 15  # triangular, within ± 15
    canvas *= 255
    canvas += grain * dice.between(0, 0.6)[:, :, None]
    return _clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _bar(
    dice: _Dice, x: Field, y: Field, centre_x: Field, centre_y: Field, half_length: Field, half_width: Field
) -> Field:
    """Signed distance to a bar of any direction, with more or less round ends."""
    cosine, sine = dice.direction()
    x, y = x - centre_x, y - centre_y
    u, v = x * cosine + y * sine, y * cosine - x * sine
    return _box(u, v, half_length, half_width, half_width * dice.between(0, 1))
