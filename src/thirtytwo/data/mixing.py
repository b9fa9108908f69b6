"""Two images in one, and their labels with them: mixup and CutMix.

Each image of a batch is mixed with the one before it: batches are shuffled, so any other would do as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """How images of a batch are mixed.

    Attributes:
        mixup_alpha: shares are drawn from Beta(alpha, alpha) (Zhang et al. 2018, arXiv 1710.09412); 0 mixes nothing so.
        cutmix_alpha: the same for what is left of an image when a rectangle of another one is put into it (Yun et al.
            2019, arXiv 1905.04899); where both are asked for, half of the images are mixed either way.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def draw(self, batch: int, seed: list[int]) -> Tensor:
        """The random numbers of a batch: float32 (5, batch).

        In rows: 1 where a rectangle is cut, 0 where not; the share for mixup; the share for CutMix; where the
        rectangle's centre is, down and right, in [0, 1).
        """
        generator = np.random.default_rng(seed)
        cut = generator.random(batch) < 0.5 if self.mixup_alpha and self.cutmix_alpha else np.full(batch, self._cuts)
        shares = [generator.beta(alpha or 1.0, alpha or 1.0, batch) for alpha in (self.mixup_alpha, self.cutmix_alpha)]
        return torch.from_numpy(np.stack([cut, *shares, *generator.random((2, batch))]).astype(np.float32))

    @property
    def _cuts(self) -> bool:
        return self.cutmix_alpha > 0

    def __call__(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            images: float (batch, 3, height, width).
            draws: from `draw`, on the same device.

        Returns:
            Images of the same shape, and float (batch,): the share of each one's own label; the rest is the label of
            the image before it.
        """
        before = images.roll(1, 0)
        cut, share, area, down, right = draws
        cover, kept = _rectangles(images.shape[2], images.shape[3], area, down, right)
        blended = torch.lerp(before, images, share[:, None, None, None])
        pasted = torch.where(cover[:, None], before, images)
        is_cut = cut > 0.5
        return torch.where(is_cut[:, None, None, None], pasted, blended), torch.where(is_cut, kept, share)


def _rectangles(height: int, width: int, area: Tensor, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Rectangles of the image's shape that leave a share `area` of it, as far as they lie inside.

    Returns:
        bool (batch, height, width): what they cover; float (batch,): the share that they leave.
    """
    covered = []
    for length, centre in ((height, down), (width, right)):
        half = length * (1 - area).clamp_min(0).sqrt() / 2
        begin, end = ((centre * length + sign * half).round() for sign in (-1, 1))
        places = torch.arange(length, device=area.device)
        covered.append((places >= begin[:, None]) & (places < end[:, None]))  # (batch, length)
    cover = covered[0][:, :, None] & covered[1][:, None, :]
    return cover, 1 - cover.float().mean((1, 2))
