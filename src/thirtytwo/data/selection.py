"""Which training images an epoch can do without.

InfoBatch (Qin et al. 2024, arXiv 2303.04947): of the images that the network finds easy some are left out at random,
and those that stay weigh so much more that the mean gradient is what it would have been with all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def select(losses: Tensor, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Leave out some of the easy images: those whose loss is below the mean.

    Args:
        losses: float32 (n,) on the CPU: of each image, when it was last seen; infinite for those that never were.
        drop: probability with which an easy image is left out, in [0, 1).
        generator: CPU generator; advanced by n draws.

    Returns:
        Which images are left out, bool (n,), and how much each counts if it is not, float32 (n,).
    """
    easy = losses < losses[losses.isfinite()].mean()
    left_out = easy & (torch.rand(len(losses), generator=generator) < drop)
    return left_out, torch.where(easy, 1 / (1 - drop), 1.0)
