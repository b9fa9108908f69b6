"""Data sets: SPEC -> images, and settings -> what happens to them on their way into a network.

The test images are not to be had here, but for `load_data`, which returns both splits as Keras does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.exclusion import Exclusion
from thirtytwo.data.folder import has_image_ending, image_files, image_sizes, read_image, read_images, unreadable
from thirtytwo.data.images import Images
from thirtytwo.data.sketch import Sketch
from thirtytwo.data.source import Source, find, from_arrays

if TYPE_CHECKING:
    from thirtytwo.data.augment import Augment
    from thirtytwo.data.loader import Standardise
    from thirtytwo.data.mixing import Mixing
    from thirtytwo.settings import Augmentation, Pixels

__all__ = [
    "Exclusion",
    "Images",
    "Sketch",
    "Source",
    "augmenter",
    "find",
    "from_arrays",
    "has_image_ending",
    "image_files",
    "image_sizes",
    "load_data",
    "mixer",
    "open_training",
    "read_image",
    "read_images",
    "standardiser",
    "unreadable",
]

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]
"""Pixels and labels of one split."""


def open_training(spec: str | Source | None = None) -> Images:
    """The training images of a data set, validation part included.

    Args:
        spec: ``cifar10``, ``cifar100``, ``shapes``, a path, or what `find` returned; None is ``$THIRTYTWO_DATA``, then
            ``cifar10``.

    Raises:
        DataError: the data set is unknown, missing or damaged.
        DownloadError: it is not on this machine and cannot be fetched.
    """
    return (spec if isinstance(spec, Source) else find(spec)).read_training()


def load_data(name: str | None = None) -> tuple[Arrays, Arrays]:
    """A data set as ``keras.datasets.cifar10.load_data()`` returns it.

    This hands out the test images too. Use them once, after everything is decided: a test set that helped to choose
    anything no longer measures what it says. `thirtytwo train` holds them back for you.

    Args:
        name: any SPEC, such as ``cifar10`` or ``cifar100``; None is ``$THIRTYTWO_DATA``, then ``cifar10``.

    Returns:
        ``(x_train, y_train), (x_test, y_test)``: uint8 (n, height, width, 3) and uint8 (n, 1), or int64 (n, 1) for more
        than 256 classes; for CIFAR-10 50,000 and 10,000 images of 32 × 32.
    """
    from thirtytwo.data import sealed

    source = find(name)
    training, test = source.read_training(), sealed.read_unscored(source)
    return _arrays(training), _arrays(test)


def augmenter(settings: Augmentation, pixels: Pixels) -> Augment:
    """The augmentation that a recipe's `augmentation` section describes; cutout paints with the mean of `pixels`."""
    from thirtytwo.data import policies
    from thirtytwo.data.augment import Augment

    strength = settings.policy_strength
    policy: policies.Policy | None
    match settings.policy:
        case "rand":
            policy = policies.RandAugment(settings.policy_operations, strength)
        case "trivial":
            policy = policies.TrivialAugment()
        case "augmix":
            policy = policies.AugMix(strength=strength)
        case "none":
            policy = None
    return Augment(
        policy=policy,
        erasing_probability=settings.erasing_probability,
        rotation_degrees=settings.rotation_degrees,
        width_shift=settings.width_shift,
        height_shift=settings.height_shift,
        horizontal_flip=settings.horizontal_flip,
        brightness=settings.brightness,
        contrast=settings.contrast,
        cutout_pixels=settings.cutout_pixels,
        cutout_beyond_border=settings.cutout_beyond_border,
        fill=pixels.mean,
    )


def mixer(settings: Augmentation) -> Mixing | None:
    """How a recipe's `augmentation` section mixes images with each other; None if it does not."""
    from thirtytwo.data.mixing import Mixing

    if not (settings.mixup_alpha or settings.cutmix_alpha):
        return None
    return Mixing(settings.mixup_alpha, settings.cutmix_alpha)


def standardiser(settings: Pixels) -> Standardise:
    """What a recipe's `pixels` section says happens between a uint8 pixel and the network."""
    from thirtytwo.data.loader import Standardise

    return Standardise(mean=settings.mean, standard_deviation=settings.standard_deviation)


def _arrays(images: Images) -> Arrays:
    if len(images.classes) <= 256:
        return images.pixels, images.labels.astype(np.uint8)[:, None]
    return images.pixels, images.labels[:, None]
