"""What has to fit together before the first step: a mistake is told at once, and not after an hour."""

from __future__ import annotations

import torch
from torch import nn

from thirtytwo import models
from thirtytwo.data import Images
from thirtytwo.data.loader import Loader
from thirtytwo.data.selection import easiest
from thirtytwo.errors import DataError, ModelError, RecipeError
from thirtytwo.recipe import Recipe


def check_parts(images: Images, recipe: Recipe, kept: int, held_out: int) -> None:
    """That there are images to train on, and to select with if the recipe wants to.

    Args:
        images: the training images, validation part included.
        recipe: as resolved for them.
        kept: number of those to train on.
        held_out: number of those to select with.

    Raises:
        DataError: there are too few.
    """
    if kept < 2:
        raise DataError(f"{images.name}: {kept} images to train on; expected at least 2; add some, or leave out fewer")
    if recipe.validation and not held_out:
        raise DataError(
            f"{images.name}: no class has two training images, so none can be held out to select with; give it more, "
            "or train without: --set validation=0 --set early_stopping.patience=0"
        )


def check_sizes(sizes: list[tuple[int, int]], network: nn.Module, classes: int, size: tuple[int, int]) -> None:
    """That a network trains on scaled images, too.

    Args:
        sizes: (height, width) of the images of each epoch.
        network: on its device.
        classes: how many it tells apart.
        size: (height, width) of the images as they are.

    Raises:
        RecipeError: it cannot take some of these sizes.
    """
    for scaled in sorted(set(sizes) - {size}):
        try:
            models.check(network, classes, scaled)
        except ModelError as error:
            raise RecipeError(
                f"image_scales: make images of {size[0]} × {size[1]} pixels {scaled[0]} × {scaled[1]}; expected a size "
                f"that the network can take; choose larger ones, or a network that takes images of any size ({error})"
            ) from None


def check_augmentation(recipe: Recipe, size: tuple[int, int]) -> None:
    """That shifts and cutout fit images of this (height, width).

    Raises:
        RecipeError: they do not.
    """
    if (side := recipe.augmentation.cutout_pixels) > min(size) and not recipe.augmentation.cutout_beyond_border:
        raise RecipeError(
            f"augmentation.cutout_pixels: found {side}; expected at most {min(size)}, since the square lies inside of "
            f"images of {size[0]} × {size[1]} pixels; choose a smaller one"
        )
    if recipe.augmentation.policy != "none" and min(size) < 3:
        raise RecipeError(
            f"augmentation.policy: found {recipe.augmentation.policy}; expected none for images of {size[0]} × "
            f"{size[1]} pixels, since changing sharpness takes 3 × 3; choose none"
        )
    shifts = {
        "augmentation.translate_pixels": recipe.augmentation.translate_pixels,
        "views.translate_pixels": recipe.views.translate_pixels,
    }
    if problems := [f"{key}: found {value}" for key, value in shifts.items() if value >= min(size)]:
        raise RecipeError(
            f"{'; '.join(problems)}; expected less than {min(size)}, since images of {size[0]} × {size[1]} pixels are "
            "reflected at their border; choose a smaller shift"
        )


def check_batches(recipe: Recipe, loader: Loader, network: nn.Module, ranks: int = 1) -> None:
    """That every batch has an image for each process, or the two that batch normalisation needs, if there is any.

    Args:
        recipe: as resolved for the images.
        loader: of them.
        network: which is trained.
        ranks: processes that share each batch.

    Raises:
        RecipeError: some have not.
    """
    has_batch_norm, images = models.has_batch_norm(network), len(loader.labels)
    needed = ranks * (2 if has_batch_norm else 1)
    shared = f" for each of {ranks} processes" if ranks > 1 else ""
    why = f"batch normalisation needs at least 2{shared}" if has_batch_norm else f"there has to be one{shared}"
    remedy = "choose a larger batch_size" + (" or fewer --devices" if ranks > 1 else "")
    if loader.smallest_batch < needed:
        raise RecipeError(
            f"batch_size: {recipe.batch_size} divides {images} images into batches of as few as "
            f"{loader.smallest_batch}, but {why}; {remedy}"
        )
    if any(map(recipe.selects_images, range(recipe.epochs))):
        left_out = int(easiest(torch.zeros(images), recipe.selection.drop).sum())
        if (fewest := min(loader.lengths(images - left_out))) < needed:
            raise RecipeError(
                f"selection.drop: {recipe.selection.drop} leaves {images - left_out} of {images} images, in batches "
                f"of as few as {fewest}, but {why}; choose a smaller one{' or fewer --devices' if ranks > 1 else ''}"
            )
