"""Where the network looks, and what its first layer looks for: asked of the trained network itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from thirtytwo import explain
from thirtytwo.classifier import Classifier
from thirtytwo.errors import RunError
from thirtytwo.report.stored import Answer, Judged, Pixels, Stored
from thirtytwo.settings import CustomModel

SHOWN = 6
"""Right answers, and mistakes, that are explained."""
SIDE = 96
"""Pixels along the longer side of an overlay."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """An image under a veil of colour, denser where it speaks more for a class."""

    pixels: Pixels
    is_blank: bool
    """Whether nothing in it speaks for the class: then there is no veil, and the image is only dimmed."""


@dataclass(frozen=True, eq=False)
class Look:
    """One test image, and what in it speaks for a class."""

    answer: Answer
    predicted: Overlay
    """What speaks for the class that the network names."""
    true: Overlay | None
    """What speaks for the true class; None where that is what the network names."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What the network shows of itself; empty lists where it has nothing to show."""

    hits: list[Look]
    mistakes: list[Look]
    filters: list[Pixels]
    """Kernels of the first convolution as pictures, grey where they weigh nothing."""

    @property
    def has_blanks(self) -> bool:
        """Whether there is an overlay in which nothing speaks for the class."""
        overlays = [overlay for look in self.hits + self.mistakes for overlay in (look.predicted, look.true)]
        return any(overlay is not None and overlay.is_blank for overlay in overlays)


def at(stored: Stored) -> Looks | None:
    """Ask the network of a run that has been scored; None if it has not been, or if the network is not stored."""
    judged = stored.judged
    if judged is None or isinstance(stored.recipe.model, CustomModel) or not stored.run.model_path.exists():
        return None
    classifier = Classifier.load(stored.run)
    if (classifier.classes, classifier.size) != (judged.classes, stored.environment.data.size):
        raise RunError(
            f"{stored.run.model_path}: a model for other images ({len(classifier.classes)} classes, "
            f"{classifier.size[0]} × {classifier.size[1]} pixels); expected the one that this run trained; "
            "copy the run folder anew"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums, and so the same page, whatever number of threads there is
    try:
        return _ask(classifier, judged)
    finally:
        torch.set_num_threads(threads)


def _ask(classifier: Classifier, judged: Judged) -> Looks:
    hits = [answer for answer in judged.random if answer.right][:SHOWN]
    mistakes = judged.mistakes[:SHOWN]
    return Looks(_looks(classifier, hits), _looks(classifier, mistakes), _filters(classifier))


def _looks(classifier: Classifier, answers: list[Answer]) -> list[Look]:
    if not answers:
        return []
    pixels = np.stack([answer.pixels for answer in answers])
    number = {name: index for index, name in enumerate(classifier.classes)}
    said, true = (
        explain.grad_cam(classifier, pixels, np.array([number[getattr(answer, which)] for answer in answers]))
        for which in ("predicted", "true")
    )
    if said is None or true is None:
        return []
    return [
        Look(
            answer,
            _overlay(answer.pixels, said[row]),
            None if answer.right else _overlay(answer.pixels, true[row]),
        )
        for row, answer in enumerate(answers)
    ]


def _overlay(pixels: Pixels, strength: NDArray[np.float32]) -> Overlay:
    """An image, enlarged, and how much each part of it speaks for a class: (height, width) in [0, 1]."""
    height, width = pixels.shape[:2]
    factor = max(SIDE / max(height, width), 1.0)
    size = (round(width * factor), round(height * factor))
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST), np.float32)
    veil = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)[:, :, None]
    colours = 255 * colormaps["inferno"](veil[:, :, 0])[:, :, :3]
    # What speaks for nothing is dimmed a little, so that bright parts of an image are not taken for strong ones.
    mixed = image * 0.75 * (1 - 0.65 * veil) + colours * 0.65 * veil
    overlaid: Pixels = mixed.round().clip(0, 255).astype(np.uint8)
    return Overlay(overlaid, is_blank=not strength.any())


def _filters(classifier: Classifier) -> list[Pixels]:
    kernels = explain.first_kernels(classifier.network)
    if kernels is None:
        return []
    # Each by itself: grey is 0, and the largest weight, of either sign, is at the end of the scale.
    largest = np.abs(kernels).max((1, 2, 3), keepdims=True)
    return list((127.5 + 127.5 * kernels / np.maximum(largest, 1e-12)).round().astype(np.uint8))
