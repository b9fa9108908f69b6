"""Any network of PyTorch Image Models, by name (R. Wightman 2019, github.com/huggingface/pytorch-image-models)."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from thirtytwo.errors import MissingExtra, RecipeError


def build(*, model: str, classes: int, size: tuple[int, int]) -> nn.Module:
    """Make a network with fresh weights.

    Args:
        model: as timm calls it, such as ``resnet26d``.
        classes: number of scores.
        size: (height, width) of the images, for networks that have to know it.

    Returns:
        float32 (batch, 3, height, width) -> float32 (batch, classes).

    Raises:
        MissingExtra: timm, or what it needs, cannot be imported.
        RecipeError: timm knows no such network, or cannot make it for these images.
    """
    timm = _imported()
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise RecipeError(f"model.model: timm {timm.__version__} knows no {model!r}; expected one of its models{hint}")
    try:
        try:
            network: nn.Module = timm.create_model(model, num_classes=classes, img_size=size)
        except TypeError:  # most convolutional networks take images of any size, and know no such word
            network = timm.create_model(model, num_classes=classes)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise RecipeError(
            f"model.model: {model} cannot be made for images of {size[0]} × {size[1]} pixels ({error}); expected one "
            "that can; choose another"
        ) from None
    return network


def _imported() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch fails when it is imported
        raise MissingExtra(
            f"model.name=timm needs timm and a torchvision that fits torch; found {type(error).__name__}: {error}; "
            "expected the extra `timm`; in the checkout, pip install -c constraints.txt -e '.[timm]' installs them for "
            "torch's build for CUDA, with --extra-index-url https://download.pytorch.org/whl/cpu for the one for CPUs"
        ) from None
    return timm
