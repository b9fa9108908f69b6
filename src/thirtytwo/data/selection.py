"""Which training images an epoch can do without.

What a network has understood teaches it little more. Images are ranked by the loss they had when a step last saw them,
which costs nothing (online batch selection, Loshchilov & Hutter 2015, arXiv 1511.06343), and the easiest are left out.
A network that trains on the hardest half of each batch, as a small one beside it ranks them, brought cifar10-airbench
to 96% with less arithmetic (airbench96_faster, Jordan 2024). One that is left out keeps its loss while
those of the others fall, so in time it comes back.
"""

from __future__ import annotations

import torch
from torch import Tensor


def easiest(losses: Tensor, drop: float) -> Tensor:
    """The images that an epoch leaves out.

    Args:
        losses: float32 (n,): of each image, when it was last seen; infinite for those that never were.
        drop: share of the images to leave out, in [0, 1).

    Returns:
        bool (n,): those with the smallest losses, of equal ones the first; none that was never seen, and never all.
    """
    left_out = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    left_out[losses.argsort(stable=True)[: int(drop * len(losses))]] = True
    return left_out & losses.isfinite()
