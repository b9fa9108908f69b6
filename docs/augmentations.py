"""Draws docs/augmentations.png: what each kind of augmentation makes of one picture that the package draws itself.

python docs/augmentations.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from thirtytwo import recipe as recipes
from thirtytwo.data import augmenter, mixer
from thirtytwo.data.augment import moved, shifts
from thirtytwo.data.loader import seeded
from thirtytwo.data.shapes import draw
from thirtytwo.settings import Augmentation

KINDS = {
    "as it is": Augmentation(),
    "translate_pixels = 4": Augmentation(translate_pixels=4),
    "rotation_degrees = 15": Augmentation(rotation_degrees=15),
    "width_shift, height_shift = 0.1": Augmentation(width_shift=0.1, height_shift=0.1),
    "horizontal_flip": Augmentation(horizontal_flip=True),
    "alternating_flip": Augmentation(alternating_flip=True),
    "brightness, contrast = 0.3": Augmentation(brightness=0.3, contrast=0.3),
    "cutout_pixels = 12": Augmentation(cutout_pixels=12),
    "… cutout_beyond_border": Augmentation(cutout_pixels=12, cutout_beyond_border=True),
    "erasing_probability = 1": Augmentation(erasing_probability=1.0),
    'policy = "rand"': Augmentation(policy="rand", policy_operations=2, policy_strength=0.3),
    'policy = "trivial"': Augmentation(policy="trivial"),
    'policy = "augmix"': Augmentation(policy="augmix"),
    "mixup_alpha = 1": Augmentation(mixup_alpha=1.0),
    "cutmix_alpha = 1": Augmentation(cutmix_alpha=1.0),
}
"""Together they set every field of `Augmentation`, and each policy; a test holds it."""
VERSIONS = 8
SIDE, GAP, WORDS = 72, 6, 250
"""Pixels of a picture's side, between pictures, and for the words before them."""


def versions(settings: Augmentation, pictures: Tensor) -> Tensor:
    """What becomes of the first picture: as it is, once; or changed in so many ways, from epoch to epoch.

    Args:
        settings: what is done to it.
        pictures: float (VERSIONS, 3, height, width); with `mixer`, one more, to be mixed with it.

    Returns:
        float (1 or VERSIONS, 3, height, width).
    """
    if settings == Augmentation():
        return pictures[:1]
    change = augmenter(settings, recipes.load("fast94").pixels)
    mixing = mixer(settings)
    if mixing is None:
        # Whole pixels and turns are the loader's, which does them while it takes pictures out of the set.
        shift = shifts(settings.translate_pixels, VERSIONS, seeded(1)) if settings.translate_pixels else None
        mirrored = torch.arange(VERSIONS) % 2 == 1 if settings.alternating_flip else None
        same = moved(pictures, torch.zeros(VERSIONS, dtype=torch.int64), shift, mirrored)
        return change(same, change.draw(VERSIONS, seeded(1)))
    # Each is mixed with the one before it: the same picture, with others in between.
    pairs = torch.stack([picture for other in pictures[1:] for picture in (other, pictures[0])])
    mixed, _ = mixing(pairs, mixing.draw(len(pairs), [1]))
    return mixed[1::2]


def main() -> None:
    """Draw."""
    drawn = draw(40, seed=2).images.pixels[10 : 10 + VERSIONS + 1]
    pictures = (torch.from_numpy(drawn).movedim(-1, 1).float() / 255).flip(0)  # a bright one first
    width = WORDS + VERSIONS * (SIDE + GAP) + GAP
    page = Image.new("RGB", (width, GAP + len(KINDS) * (SIDE + GAP)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for row, (words, settings) in enumerate(KINDS.items()):
        top = GAP + row * (SIDE + GAP)
        pen.text((GAP, top + SIDE / 2), words, fill="black", font=font, anchor="lm")
        changed = versions(settings, pictures if mixer(settings) else pictures[:VERSIONS]).clamp(0, 1)
        for column, picture in enumerate(changed[:VERSIONS]):
            pixels = (picture.movedim(0, -1) * 255).round().byte().numpy().astype(np.uint8)
            small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            page.paste(small, (WORDS + column * (SIDE + GAP), top))
    page.quantize(256).save(Path(__file__).with_name("augmentations.png"), optimize=True)


if __name__ == "__main__":
    main()
