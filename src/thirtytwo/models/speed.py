"""The network of the fast recipes: a whitened first layer, groups of convolutions, one dense layer.

After cifar10-airbench (K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv 2404.00498), which
descends from hlb-CIFAR10 (T. Balsam 2023) and "How to train your ResNet" (D. Page 2019). What makes it learn fast:

- the first layer is not learned but computed: 2 × 2 patches of training images, whitened (Page 2019);
- a convolution begins by handing its input on, as a residual network would (dirac initialisation, Balsam 2023);
- batch normalisation learns a bias only, with running averages that follow quickly;
- scores are scaled down by the width of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from thirtytwo.errors import RecipeError
from thirtytwo.models.pointwise import BatchNormAct2d, activated
from thirtytwo.models.winograd import Convolution

CHUNK = 500
"""Images whose patches are held at once while the first layer is computed."""


def build(
    *,
    whitening_kernel: int,
    widths: Sequence[int],
    depth: int,
    compiled: bool,
    batch_norm_momentum: float,
    batch_norm_epsilon: float,
    classes: int,
    size: tuple[int, int],
) -> SpeedNet:
    """Make the network; see `SpeedNet`.

    Raises:
        RecipeError: there are more groups than the image can be halved.
    """
    smallest = min(size) - whitening_kernel + 1
    if smallest >> len(widths) < 1:
        raise RecipeError(
            f"model.widths: {len(widths)} groups halve a {size[0]} × {size[1]} image to nothing; expected at most "
            f"{max(smallest.bit_length() - 1, 0)}"
        )
    return SpeedNet(whitening_kernel, widths, depth, compiled, batch_norm_momentum, batch_norm_epsilon, classes)


class SpeedNet(nn.Module):
    """float32 (batch, 3, height, width) -> scores (batch, classes), for images of any size that can be halved so often.

    Attributes:
        whitening: convolution whose weights `initialise` computes; only its bias is trained.
    """

    def __init__(
        self,
        whitening_kernel: int,
        widths: Sequence[int],
        depth: int,
        compiled: bool,
        momentum: float,
        epsilon: float,
        classes: int,
    ) -> None:
        """See `build`."""
        super().__init__()
        channels = 2 * 3 * whitening_kernel**2
        self.whitening = nn.Conv2d(3, channels, whitening_kernel)
        self.whitening.weight.requires_grad = False
        self.compiled, self.answers_compiled = compiled, False
        groups = []
        for width in widths:
            groups.append(_Group(channels, width, depth, compiled, momentum, epsilon))
            channels = width
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(channels, classes, bias=False)
        if not self.head.weight.is_meta:  # else torch loads its compiler to find that there are no numbers
            with torch.no_grad():
                self.head.weight.div_(self.head.weight.std())

    @torch.no_grad()
    def initialise(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Compute the first layer: filters whose answers to patches of images are uncorrelated and of equal variance.

        Args:
            images: float (n, 3, height, width), as training will feed them; some thousands are enough.
            epsilon: added to the variance along each direction, so that noise is not blown up.
        """
        kernel = self.whitening.kernel_size[0]
        numbers, total = 0, torch.zeros((3 * kernel**2,) * 2, dtype=torch.float64, device=images.device)
        for some in torch.split(images, CHUNK):
            patches = some.unfold(2, kernel, 1).unfold(3, kernel, 1)  # (n, 3, h', w', kernel, kernel)
            flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * kernel**2).double()
            numbers, total = numbers + len(flat), total + flat.T @ flat
        variances, directions = torch.linalg.eigh(total / numbers)  # ascending; columns are directions
        filters = (directions / (variances + epsilon).sqrt()).T.reshape(-1, 3, kernel, kernel)
        # Each direction and its opposite, since the activation passes on positive answers only.
        self.whitening.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = activated(self, self.whitening(images))
        x = self.groups(x)  # (batch, channels, h, w)
        x = max_pool2d(x, x.shape[2:]).flatten(1)  # (batch, channels)
        scores: Tensor = self.head(x) / x.shape[1]
        return scores


class _Group(nn.Module):
    """(batch, inputs, h, w) -> (batch, width, h / 2, w / 2).

    From the third convolution on, those after the first are a residual branch (Jordan 2024, airbench96).
    """

    def __init__(self, inputs: int, width: int, depth: int, compiled: bool, momentum: float, epsilon: float) -> None:
        super().__init__()
        sides = [(inputs, width), *[(width, width)] * (depth - 1)]
        self.convolutions = nn.ModuleList(_convolution(*side, compiled) for side in sides)
        self.normalisations = nn.ModuleList(_batch_norm(width, compiled, momentum, epsilon) for _ in sides)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        depth = len(self.convolutions)
        trunk = None
        for number, (convolution, normalise) in enumerate(zip(self.convolutions, self.normalisations, strict=True)):
            assert isinstance(convolution, Convolution)
            x = convolution.pooled(x, self.pool) if number == 0 else convolution(x)
            x = normalise(x, trunk if number == depth - 1 else None)
            if number == 0 and depth > 2:
                trunk = x
        return x


def _convolution(inputs: int, outputs: int, compiled: bool) -> Convolution:
    layer = Convolution(inputs, outputs, compiled=compiled)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:inputs])
    return layer


def _batch_norm(channels: int, compiled: bool, momentum: float, epsilon: float) -> BatchNormAct2d:
    # torch's momentum is the share of the new value, ours that of the old one.
    layer = BatchNormAct2d(channels, "gelu", compiled=compiled, momentum=1.0 - momentum, epsilon=epsilon)
    layer.weight.requires_grad = False
    return layer
