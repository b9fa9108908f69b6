"""Shapes: a data set that is drawn, not stored, and so is there without a network.

Ten classes of figures in random colours, sizes, places, rotations and lighting, over textured and cluttered
backgrounds and partly covered. A linear classifier fails on it and a convolutional network does not.

The same seed gives the same bytes on every machine and with every version of numpy: random numbers come from a hash
(SplitMix64) rather than a library's generator, and pixels from exactly rounded operations; see `scene`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import Images, Split, hashed
from thirtytwo.data.scene import CLASSES, scene, sequences
from thirtytwo.errors import DataError, OutOfMemory

__all__ = ["CLASSES", "Drawn", "check", "draw"]


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
    check(
        number,
        seed,
        split=split,
        size=size,
        label_errors=label_errors,
        duplicates=duplicates,
        training_number=training_number,
    )
    try:
        true_labels = _labels(number, seed, split)
        pixels = _render(np.arange(number), true_labels, seed, split, size)
        pairs = _plan_duplicates(duplicates, number, seed, split, training_number)
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


def check(
    number: int,
    seed: int,
    *,
    split: str,
    size: int = 32,
    label_errors: float,
    duplicates: float,
    training_number: int,
) -> None:
    """Refuse what `draw` cannot draw; the arguments are its own.

    Raises:
        DataError: one is out of range.
    """
    wholes = (
        ("number", number, 1, 10_000_000),
        ("seed", seed, 0, 2**63 - 1),
        ("size", size, 8, 256),
        ("training_number", training_number, 1, 10_000_000),
    )
    for name, value, lowest, highest in wholes:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise DataError(f"shapes: {name} is {value!r}; choose a whole number from {lowest} to {highest}")
    if split not in get_args(Split):
        raise DataError(f"shapes: split is {split!r}; choose one of {', '.join(get_args(Split))}")
    most_duplicates, why = 0.5, "each needs an original of its own"
    if split == "test":
        most_duplicates = min(1.0, training_number / number)
        why = f"each needs an original of its own among the {training_number} training images"
    shares = (("label_errors", label_errors, 1.0, ""), ("duplicates", duplicates, most_duplicates, f", since {why}"))
    for name, share, most, reason in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= most:
            raise DataError(
                f"shapes: {name} is {share!r}; choose a share of the {split} images from 0 to {most:g}{reason}"
            )


def _keys(positions: NDArray[np.int64], seed: int, split: Split, purpose: str) -> NDArray[np.uint64]:
    """One uint64 per position, unrelated to those of any other seed, split or purpose."""
    salt = hashlib.sha256(f"{seed} {split} {purpose}".encode()).digest()[:8]
    return hashed(positions.astype(np.uint64), int.from_bytes(salt, "big"))


def _labels(number: int, seed: int, split: Split) -> NDArray[np.int64]:
    """Labels such that every ten in a row, from the start, are all ten classes in random order."""
    blocks = -(-number // len(CLASSES))
    keys = _keys(np.arange(blocks * len(CLASSES)), seed, split, "order")
    return np.argsort(keys.reshape(blocks, -1), axis=1, kind="stable").reshape(-1)[:number]


def _render(
    positions: NDArray[np.int64], labels: NDArray[np.int64], seed: int, split: Split, size: int
) -> NDArray[np.uint8]:
    """The images at these positions, (n, size, size, 3), given the labels there."""
    keys = _keys(positions, seed, split, "image")
    pixels = np.empty((len(positions), size, size, 3), dtype=np.uint8)
    chunk = max(1, 2**16 // size**2)  # images at once, such that what is worked on stays in the processor's cache
    for label, name in enumerate(CLASSES):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), chunk):
            chosen = members[start : start + chunk]
            drawn = scene(name, keys[chosen], size)
            pixels[chosen] = drawn.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
    return pixels


# Planted duplicates --------------------------------------------------------------------------------------------------


def _plan_duplicates(share: float, number: int, seed: int, split: Split, training_number: int) -> NDArray[np.int64]:
    """Pairs (original, copy), (pairs, 2), ascending by copy."""
    count = round(share * number)
    total = number if split == "training" else training_number
    order = np.argsort(_keys(np.arange(total), seed, "training", "duplicate"), kind="stable")
    if split == "training":
        count = min(count, number // 2)  # half of an odd number may have been rounded up
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
    noise = sequences(keys, copies[0].size) % np.uint64(5)
    copies += noise.astype(np.int16).reshape(copies.shape) - 2
    return np.clip(copies, 0, 255).astype(np.uint8)
