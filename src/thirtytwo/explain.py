"""Where a network looks, which parts of an image speak for a class, and which images look alike to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from thirtytwo import data, models
from thirtytwo.classifier import Classifier

FEWEST_PLACES = 4
"""Along each side of a map that is to say something of places."""
TELLING = ("BatchNorm2d", "GroupNorm", "ReLU", "GELU", "SiLU", "LeakyReLU", "ELU", "Hardswish")
"""Kinds of layers whose channels are asked, alone or with an activation: of what a convolution gives, before it is
normalised, 0 means nothing yet."""


def grad_cam(
    classifier: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int = 250
) -> NDArray[np.float32] | None:
    """How much each part of an image speaks for a class (Grad-CAM, Selvaraju et al. 2017, arXiv 1610.02391).

    The channels of a layer, each weighted with how much it would raise the class's score, are summed; what speaks
    against the class counts as nothing. Taken is the last activation or normalisation that tells at least 4 × 4 places
    apart, or, for want of one, the last convolution.

    Args:
        classifier: its first view is explained.
        images: uint8 (n, height, width, 3), of the classifier's size.
        labels: int64 (n,), the classes.
        batch_size: images that go through the network at once.

    Returns:
        float32 (n, height, width) in [0, 1]: 1 is what speaks most in this image, and all is 0 where nothing does;
        None if the network has no such layer.
    """
    layer = telling_layer(classifier)
    if layer is None:
        return None
    maps = [np.empty((0, *classifier.size), np.float32)]
    for first in range(0, len(images), batch_size):
        some = slice(first, first + batch_size)
        pixels = torch.from_numpy(np.ascontiguousarray(images[some])).movedim(-1, 1)
        maps.append(_maps(classifier, layer, pixels, torch.from_numpy(labels[some])).cpu().numpy())
    return np.concatenate(maps)


def telling_layer(classifier: Classifier) -> str | None:
    """Name of the part of a network that `grad_cam` asks; None if none tells enough places apart."""
    every = models.summary(classifier.network, classifier.size)
    after_dense = {layer.name for before, layer in pairwise(every) if before.kind.startswith("Dense")}
    seen = [
        layer
        for layer in every
        # What follows a dense layer has its channels last, as inside of ConvNeXt's blocks.
        if len(layer.output) == 3 and min(layer.output[1:]) >= FEWEST_PLACES and layer.name not in after_dense
    ]
    layers = [layer.name for layer in seen if layer.kind.partition(",")[0] in TELLING]
    layers = layers or [layer.name for layer in seen if layer.kind.startswith("Conv2d")]
    return layers[-1] if layers else None


def embed(classifier: Classifier, images: NDArray[np.uint8], batch_size: int = 500) -> Tensor:
    """What a network makes of images before its last layer divides them into classes: alike where they look alike.

    Args:
        classifier: asked about each image and its mirror image, since a mirrored picture is the same picture.
        images: uint8 (n, height, width, 3), of the classifier's size.
        batch_size: images that go through the network at once.

    Returns:
        float32 (n, features), on the CPU, each of length 1. Features are the inputs of the network's last dense layer,
        or its scores if it has none.
    """
    network = classifier.network
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    seen: list[Tensor] = []
    hook = dense[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if dense else None
    standardise = data.standardiser(classifier.pixels)
    parts = [torch.empty((0, dense[-1].in_features if dense else len(classifier.classes)))]
    try:
        with models.evaluating(network), torch.inference_mode():
            for first in range(0, len(images), batch_size):
                pixels = torch.from_numpy(np.ascontiguousarray(images[first : first + batch_size])).movedim(-1, 1)
                inputs = standardise(pixels.to(classifier.device))
                views = []
                for view in (inputs, inputs.flip(3)):
                    seen.clear()
                    scores = network(view)
                    views.append(normalize((seen[-1] if seen else scores).float().flatten(1)))
                parts.append(normalize(views[0] + views[1]).cpu())
    finally:
        if hook is not None:
            hook.remove()
    return torch.cat(parts)


def first_kernels(network: nn.Module) -> NDArray[np.float32] | None:
    """Kernels of the first convolution that sees colours: (n, rows, columns, 3); None if there is none.

    The first is the one that was made first, which is where a network that is built in order begins.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1:
            return module.weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    return None


def _maps(classifier: Classifier, name: str, pixels: Tensor, labels: Tensor) -> Tensor:
    """float32 (batch, height, width) for uint8 pixels (batch, 3, height, width)."""
    network = classifier.network
    kept: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        if min(output.shape[2:]) >= FEWEST_PLACES:
            kept.append(output)
        return output.clone()  # an activation that works in place shall not change what is kept

    hook = network.get_submodule(name).register_forward_hook(keep)
    try:
        with models.evaluating(network), torch.enable_grad():
            inputs = data.standardiser(classifier.pixels)(pixels.to(classifier.device)).requires_grad_()
            scores = network(inputs).gather(1, labels.to(classifier.device)[:, None])
            # A layer may run several times: its last answer counts.
            (gradient,) = torch.autograd.grad(scores.sum(), kept[-1])  # (batch, channels, rows, columns)
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    maps = (weights * kept[-1].detach()).sum(1, keepdim=True).relu()
    maps = interpolate(maps, classifier.size, mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
