"""Which images of a data set show the same picture: equal ones, and nearly equal ones.

A network's features, and small pictures, find for each image the few that look most like it; pixels decide. Two images
are compared as they fit best: mirrored or not, moved by some pixels, enlarged or not, whatever their brightness and
contrast. Their distance is 0 for equal pictures and about 1 for unrelated ones, the mean of two:

- 1 − r, with r the correlation of their details, colour by colour. Details are what two blurs leave: of all pixels,
  skies would look like skies and seas like seas, since nearly all that varies there is light above and dark below.
- 1 − the mean of the correlations in all small windows (the structure term of SSIM: Wang, Bovik, Sheikh & Simoncelli
  2004, Image quality assessment). Of details alone, one dark shape in an empty sky is like any other of its size.

Barz & Denzler (arXiv 1902.00423) searched CIFAR by the features alone, and looked at what they found.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, normalize, pad

from thirtytwo.data import Images
from thirtytwo.data.exclusion import file_of, picture_of
from thirtytwo.data.images import Split
from thirtytwo.study.findings import Kind, Pair
from thirtytwo.study.piecewise import Busy, Progress, computed, unseen

NEIGHBOURS = 10
"""That are compared with each image: of its own split, and, for test images, as many training images."""
ROWS = 2_000
"""Images whose neighbours are looked for at once."""
PAIRS = 4_000
"""That are compared pixel by pixel at once."""
COARSE_SIDE = 8
"""Pixels along a side of the small pictures that are compared first."""
COARSE_SHIFTS = (-1, 0, 1)
"""Pixels by which one picture of twice that side is moved over the other before they are made so small."""
COARSE = 0.3
"""Distance of small pictures from which two images are no longer compared in full."""
MEDIUM_SHIFTS = (-1, 0, 1)
"""Pixels by which pictures of half a side are moved, before they are compared in full."""
MEDIUM_BLURS = (0.7, 2.0)
"""Standard deviations in pixels, of these pictures, of the two blurs whose difference is their details."""
MEDIUM = 0.26
"""Distance of these from which they are not."""
SHIFTS = (-2, -1, 0, 1, 2)
"""Pixels by which one picture is moved over the other, both ways."""
SCALES = (1.1, 1.22)
"""By which either picture is enlarged about its centre, to be compared with the other one."""
BLURS = (1.0, 3.0)
"""Standard deviations in pixels of the two blurs whose difference is an image's details."""
WINDOW = 11
"""Pixels along a side of the windows in which pictures are correlated; fewer where a picture is smaller."""
NOISE = 0.004
"""Covariance that two windows need not have to count as alike, as a share of their picture's variance: what varies by
less is noise."""
SAME_PICTURE = 0.23
"""Distance below which two images show the same. This, `BLURS`, `MEDIUM` and its blurs, `WINDOW` and `NOISE` were
chosen by pairs of CIFAR-10 that were looked at (tests/study/judged_pairs.csv)."""


class Found(NamedTuple):
    """What a search has found."""

    pairs: tuple[Pair, ...]
    """Leaks first, then by distance."""
    seconds: float
    """That it took, interruptions left out."""


class _Fit(NamedTuple):
    """One way to lay one image over another."""

    scales: tuple[float, float]
    """By which either is enlarged."""
    mirrored: bool
    down: int
    """Pixels by which the first is moved."""
    right: int


@dataclass(frozen=True, eq=False)
class _All:
    """All images, training before test."""

    pixels: Tensor
    """uint8 (n, 3, height, width)."""
    sets: Mapping[Split, Images]
    """The same, as they came."""

    @property
    def training(self) -> int:
        """How many of them are training images."""
        return len(self.sets["training"])

    def place(self, number: int) -> tuple[Split, int]:
        return ("training", number) if number < self.training else ("test", number - self.training)

    def pair(self, one: int, other: int, distance: float, *, equal: bool) -> Pair:
        places = self.place(min(one, other)), self.place(max(one, other))
        kind: Kind = "exact" if equal else "near"
        files, pictures = (
            [which(self.sets[split], index) for split, index in places] for which in (file_of, picture_of)
        )
        return Pair(*places[0], *places[1], distance, kind, *files, *pictures)


def find(
    training: Images,
    test: Images,
    features: Mapping[Split, Tensor],
    *,
    kept: Path | None = None,
    busy: Busy = unseen,
) -> Found:
    """Pairs of images that show the same.

    Of many equal images each is paired with the first one of them in either split, rather than with all; but every
    test image of which there is a training image is named with one.

    Args:
        training: the training images.
        test: the test images, of the same size.
        features: float32 (n, features) of each split's images, of length 1; see `explain.embed`.
        kept: folder that keeps neighbours and distances as they are found; the same images and features find them there
            again, and what was stopped goes on there.
        busy: see `Busy`.
    """
    started = time.perf_counter()
    pixels = torch.from_numpy(np.concatenate([training.pixels, test.pixels])).movedim(-1, 1)
    images = _All(pixels, {"training": training, "test": test})
    equal = set(_equal(images))
    pairs = [images.pair(one, other, 0.0, equal=True) for one, other in equal]
    searched = time.perf_counter() - started
    with busy("looking for images that look alike") as progress:
        near, looking = _near(images, features, equal, kept, progress)
    with busy("comparing these pixel by pixel") as progress:
        distances, comparing = _distances(images, near, kept, progress)
    copies_of: dict[int, list[int]] = defaultdict(list)
    for one, other in equal:
        copies_of[one].append(other)
    for (one, other), distance in zip(near.tolist(), distances.tolist(), strict=True):
        if distance < SAME_PICTURE:
            is_leak = one < len(training) <= other
            for leaked in (other, *(copies_of[other] if is_leak else ())):
                pairs.append(images.pair(one, leaked, distance, equal=False))
    pairs.sort(key=lambda pair: (not pair.is_leak, pair.distance, pair.split_b, pair.index_a, pair.index_b))
    return Found(tuple(pairs), searched + looking + comparing)


def _search() -> list[Any]:
    """What decides which pairs are compared, and how: distances that were kept hold for the same search only."""
    coarse, medium = [COARSE_SIDE, [*COARSE_SHIFTS], COARSE], [[*MEDIUM_SHIFTS], [*MEDIUM_BLURS], MEDIUM]
    return [NEIGHBOURS, coarse, medium, [*SHIFTS], [*SCALES], [*BLURS], [WINDOW, NOISE]]


def _near(
    images: _All, features: Mapping[Split, Tensor], equal: set[tuple[int, int]], kept: Path | None, progress: Progress
) -> tuple[Tensor, float]:
    """Pairs that are worth comparing, int64 (pairs, 2), and the seconds that it took to find them.

    Of equal images the first one stands for all.
    """
    copies = torch.tensor(sorted({max(pair) for pair in equal}), dtype=torch.int64)
    firsts = torch.from_numpy(np.setdiff1d(np.arange(len(images.pixels)), copies))
    trained = int((firsts < images.training).sum())
    looks = _looks(images.pixels)
    everything = {"features": torch.cat([features["training"], features["test"]]), "looks": looks}
    seen = {name: each[firsts] for name, each in everything.items()}  # or else copies would take all places

    def look(batch: tuple[str, int]) -> dict[str, Tensor]:
        name, start = batch
        return {"pairs": _nearest(seen[name], trained, start)}

    batches = [(name, start) for name in seen for start in range(0, len(firsts), ROWS)]
    file = None if kept is None else kept / "neighbours.safetensors"
    tensors, seconds = computed(
        file, ["neighbours of first copies", *_search(), ROWS, len(firsts)], batches, look, progress
    )
    return firsts[torch.unique(tensors["pairs"], dim=0)], seconds


def _distances(images: _All, near: Tensor, kept: Path | None, progress: Progress) -> tuple[Tensor, float]:
    """Distances of pairs, see `compared`, and the seconds that it took to compare them."""
    pictures = _Pictures(images.pixels)

    def compare(start: int) -> dict[str, Tensor]:
        return {"distances": pictures.compared(near[start : start + PAIRS])}

    file = None if kept is None else kept / "distances.safetensors"
    batches = range(0, len(near), PAIRS)
    tensors, seconds = computed(
        file,
        ["distances", *_search(), PAIRS, hashlib.sha256(near.numpy().tobytes()).hexdigest()],
        batches,
        compare,
        progress,
    )
    return tensors.get("distances", torch.empty(0)), seconds


def _equal(images: _All) -> Iterator[tuple[int, int]]:
    """Pairs of equal images: each with the first one of its split, or else, and for test images too, of training."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for number, pixels in enumerate(images.pixels.movedim(1, -1).contiguous().numpy()):
        groups[hashlib.sha256(pixels.data).digest()].append(number)
    for group in groups.values():
        trained = [number for number in group if number < images.training]
        tested = [number for number in group if number >= images.training]
        yield from ((trained[0], number) for number in trained[1:])
        yield from ((trained[0], number) for number in tested if trained)
        yield from ((tested[0], number) for number in tested[1:] if not trained)


def candidates(training: Tensor, test: Tensor) -> Tensor:
    """Pairs of images that look most alike to a network.

    Args:
        training: float32 (n, features), of length 1.
        test: the same of the test images, which are counted from n on.

    Returns:
        int64 (pairs, 2), each pair once, the smaller number first.
    """
    everything = torch.cat([training, test])
    starts = range(0, len(everything), ROWS)
    unique: Tensor = torch.unique(torch.cat([_nearest(everything, len(training), start) for start in starts]), dim=0)
    return unique


def _nearest(everything: Tensor, training: int, start: int) -> Tensor:
    """The same of `ROWS` images from one on; a pair may be there twice.

    Args:
        everything: float32 (n, features), of length 1: training images, then test images.
        training: how many training images there are.
        start: the first image that is asked about.
    """
    found = [torch.empty((0, 2), dtype=torch.int64)]
    rows = everything[start : start + ROWS]
    own = torch.arange(start, start + len(rows))
    for begin, part in ((0, everything[:training]), (training, everything[training:])):
        # Training images are looked for among training images; test images among both.
        is_asked = own >= begin
        if not len(part) or not is_asked.any():
            continue
        likeness = rows[is_asked] @ part.T  # cosines: (images asked, images of the part)
        asked = own[is_asked]
        inside = (asked >= begin) & (asked < begin + len(part))
        likeness[inside.nonzero()[:, 0], asked[inside] - begin] = -2  # nobody is a neighbour of itself
        nearest = likeness.topk(min(NEIGHBOURS, len(part))).indices + begin
        found.append(torch.stack([asked[:, None].expand_as(nearest), nearest], -1).flatten(0, 1))
    pairs = torch.cat(found).sort(1).values
    return pairs[pairs[:, 0] != pairs[:, 1]]


def compared(pixels: Tensor, pairs: Tensor) -> Tensor:
    """Distance of the images of each pair where they fit best.

    Args:
        pixels: uint8 (n, 3, height, width).
        pairs: int64 (pairs, 2), positions in `pixels`.

    Returns:
        float32 (pairs,), from 0 to 2; infinite where smaller pictures of them are farther apart than `COARSE`, or than
        `MEDIUM`. Images of one colour are at 0 from each other, and infinitely far from all others.
    """
    pictures = _Pictures(pixels)
    return torch.cat([torch.empty(0), *map(pictures.compared, torch.split(pairs, PAIRS))])


class _Pictures:
    """Pictures of which pairs are compared, with what all comparisons need."""

    def __init__(self, pixels: Tensor) -> None:
        """Of uint8 (n, 3, height, width)."""
        starts = range(0, len(pixels), PAIRS)
        self._pixels, self._small = pixels, _small(pixels)
        self._flat = torch.cat([_is_flat(pixels[start : start + PAIRS].float()) for start in starts])

    def compared(self, pairs: Tensor) -> Tensor:
        """See `compared`; of `PAIRS` pairs at most."""
        distances = torch.full((len(pairs),), torch.inf)
        flat = self._flat[pairs]  # (pairs, 2)
        distances[flat.all(1)] = 0.0
        places = (~flat.any(1)).nonzero()[:, 0]
        # Each look takes some ten times as long as the one before, for a tenth of the pairs.
        if len(places):
            places = places[_rough(*_sides(self._small, pairs[places])) < COARSE]
        if len(places):
            apart, _ = _fitted(*_sides(self._small, pairs[places]), MEDIUM_SHIFTS, MEDIUM_BLURS)
            places = places[apart < MEDIUM]
        if len(places):
            one, other = _sides(self._pixels, pairs[places])
            apart, which = _fitted(one, other, SHIFTS, BLURS)
            distances[places] = (apart + _locally(one, other, _fits(SHIFTS), which)) / 2
        return distances


def _sides(pixels: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The images of pairs: float32 (pairs, 3, height, width) twice."""
    return pixels[pairs[:, 0]].float(), pixels[pairs[:, 1]].float()


def _small(pixels: Tensor) -> Tensor:
    """float32 (n, 3, about twice COARSE_SIDE, the same): blocks of pixels averaged."""
    block = [max(side // (2 * COARSE_SIDE), 1) for side in pixels.shape[2:]]
    starts = range(0, len(pixels), PAIRS)
    return torch.cat([avg_pool2d(pixels[start : start + PAIRS].float(), block) for start in starts])


def _looks(pixels: Tensor) -> Tensor:
    """What an image and its mirror image have in common, seen from afar: float32 (n, features), of length 1.

    A second way to pairs that are worth comparing, for what a network has not learned to tell apart or to see as alike.
    """
    small = avg_pool2d(_small(pixels), 2)
    even = (small + small.flip(3))[..., : (small.shape[3] + 1) // 2]
    return normalize((even - even.mean((2, 3), keepdim=True)).flatten(1))


def _rough(one: Tensor, other: Tensor) -> Tensor:
    """The least distance over mirrors and shifts of what `_small` makes, halved once more; twice (n, 3, h, w) -> (n,).

    Without the shifts, fine patterns would be lost: half a pixel of a small picture is enough.
    """
    best = torch.full((len(one),), torch.inf)
    for mirrored, down, right in product((one, one.flip(3)), COARSE_SHIFTS, COARSE_SHIFTS):
        first, second = (avg_pool2d(part, 2) for part in _overlap(mirrored, other, down, right))
        best = torch.minimum(best, _apart(first, second))
    return best


def _fits(shifts: Sequence[int]) -> list[_Fit]:
    """All ways that are tried, with shifts in pixels both ways."""
    scales = ((1.0, 1.0), *((scale, 1.0) for scale in SCALES), *((1.0, scale) for scale in SCALES))
    return [_Fit(*way) for way in product(scales, (False, True), shifts, shifts)]


def _fitted(one: Tensor, other: Tensor, shifts: Sequence[int], blurs: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The least distance of details over mirrors, shifts and scales, and where it is reached.

    Args:
        one: float32 (n, 3, height, width), which is moved over the other.
        other: the same.
        shifts: pixels, both ways.
        blurs: see `_details`.

    Returns:
        float32 (n,), and the position among `_fits` of the best one, int64 (n,).
    """
    best = torch.full((len(one),), torch.inf)
    which = torch.zeros(len(one), dtype=torch.int64)
    firsts = {scale: _details(_enlarged(one, scale), blurs) for scale in (1.0, *SCALES)}
    ways = {
        (scale, mirrored): side.flip(3) if mirrored else side
        for scale, side in firsts.items()
        for mirrored in (False, True)
    }
    seconds = {scale: _details(_enlarged(other, scale), blurs) for scale in (1.0, *SCALES)}
    for number, fit in enumerate(_fits(shifts)):
        first, second = ways[fit.scales[0], fit.mirrored], seconds[fit.scales[1]]
        apart = _apart(*_overlap(first, second, fit.down, fit.right))
        which[apart < best] = number
        best = torch.minimum(best, apart)
    return best, which


def _locally(one: Tensor, other: Tensor, fits: Sequence[_Fit], which: Tensor) -> Tensor:
    """1 − the mean correlation in small windows, of pairs that are laid over each other as they fit best.

    Args:
        one: float32 (n, 3, height, width).
        other: the same.
        fits: see `_fits`.
        which: of these for each pair, int64 (n,).

    Returns:
        float32 (n,).
    """
    distances = torch.empty(len(one))
    for number in set(which.tolist()):
        fit, places = fits[number], (which == number).nonzero()[:, 0]
        first, second = (_enlarged(side[places], scale) for side, scale in zip((one, other), fit.scales, strict=True))
        sides = _overlap(first.flip(3) if fit.mirrored else first, second, fit.down, fit.right)
        distances[places] = 1 - _structure(*(_standardised(side) for side in sides))
    return distances


def _standardised(images: Tensor) -> Tensor:
    """Each image of (n, 3, height, width) with mean 0 and variance 1, whatever its brightness and contrast."""
    images = images - images.mean((1, 2, 3), keepdim=True)
    return images / images.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)


def _structure(one: Tensor, other: Tensor) -> Tensor:
    """Mean correlation over windows and colours, (n, 3, height, width) twice -> (n,)."""

    def mean(images: Tensor) -> Tensor:
        return avg_pool2d(images, [min(WINDOW, side) for side in images.shape[2:]], 1)

    means = mean(one), mean(other)
    covariance = mean(one * other) - means[0] * means[1]
    variances = [
        (mean(side.square()) - its.square()).clamp_min(0) for side, its in zip((one, other), means, strict=True)
    ]
    return ((covariance + NOISE) / ((variances[0] * variances[1]).sqrt() + NOISE)).mean((1, 2, 3))


def _details(images: Tensor, blurs: tuple[float, float]) -> Tensor:
    """What is finer than one blur leaves and coarser than the other one does, of (n, 3, height, width)."""
    fine, coarse = (_blurred(images, deviation) for deviation in blurs)
    return fine - coarse


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Weighted by a bell curve of this standard deviation in pixels, cut off at three of them; edges are mirrored."""
    for _ in range(2):  # down, and then, turned, across
        reach = min(math.ceil(3 * deviation), images.shape[2] - 1)
        places = torch.arange(-reach, reach + 1, dtype=images.dtype)
        bell = torch.exp(-(places**2) / (2 * deviation**2))
        kernel = (bell / bell.sum())[None, None, :, None].expand(3, -1, -1, -1)
        images = conv2d(pad(images, (0, 0, reach, reach), mode="reflect"), kernel, groups=3).mT
    return images


def _enlarged(images: Tensor, scale: float) -> Tensor:
    """Images with their centre enlarged, of the same size."""
    if scale == 1:
        return images
    height, width = images.shape[2:]
    rows, columns = round(height / scale), round(width / scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    centre = images[:, :, top : top + rows, left : left + columns]
    return interpolate(centre, (height, width), mode="bilinear", align_corners=False)


def _overlap(one: Tensor, other: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """What two images share when the first is moved so far over the second."""
    height, width = one.shape[2:]
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    own_rows = slice(max(-down, 0), height + min(-down, 0))
    own_columns = slice(max(-right, 0), width + min(-right, 0))
    return one[:, :, own_rows, own_columns], other[:, :, rows, columns]


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """1 − correlation, (n, 3, h, w) twice -> (n,)."""
    one, other = (image - image.mean((2, 3), keepdim=True) for image in (one, other))
    product = (one * other).sum((1, 2, 3))
    powers = [image.square().sum((1, 2, 3)) for image in (one, other)]
    return 1 - product / (powers[0] * powers[1]).sqrt().clamp_min(1e-12)


def _is_flat(images: Tensor) -> Tensor:
    """Which images vary by less than one level, so that their details are noise: (n, 3, h, w) -> bool (n,)."""
    return images.var((2, 3), correction=0).mean(1) < 1


def is_flat(images: Images) -> NDArray[np.bool_]:
    """Which images are of one colour, (n,)."""
    flat = images.pixels.reshape(len(images), -1, 3)
    spread: NDArray[np.uint8] = flat.max(1) - flat.min(1)
    is_flat: NDArray[np.bool_] = np.all(spread <= 3, axis=1)
    return is_flat
