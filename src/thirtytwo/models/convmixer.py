"""ConvMixer: patches, mixed by one large convolution per channel and one dense layer per place, over and over.

Trockman & Kolter 2022, "Patches are all you need?" (arXiv 2201.09792).
"""

from __future__ import annotations

from torch import Tensor, nn

from thirtytwo.errors import RecipeError


def build(*, width: int, depth: int, kernel: int, patch: int, classes: int, size: tuple[int, int]) -> ConvMixer:
    """Make the network; see `ConvMixer`.

    Raises:
        RecipeError: a patch is larger than the image.
    """
    if patch > min(size):
        raise RecipeError(
            f"model.patch: found {patch}; expected at most {min(size)}, since images have {size[0]} × {size[1]} "
            "pixels; choose a smaller one"
        )
    return ConvMixer(width, depth, kernel, patch, classes)


class ConvMixer(nn.Module):
    """float32 (batch, 3, height, width) -> scores (batch, classes), for images of any size."""

    def __init__(self, width: int, depth: int, kernel: int, patch: int, classes: int) -> None:
        """See `build`."""
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, width, patch, stride=patch), nn.GELU(), nn.BatchNorm2d(width))
        self.layers = nn.Sequential(*(_Layer(width, kernel) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.head(self.layers(self.patches(images)).mean((2, 3)))
        return scores


class _Layer(nn.Module):
    """(batch, width, h, w) -> the same shape."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        places = nn.Conv2d(width, width, kernel, groups=width, padding="same")
        self.places = nn.Sequential(places, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.channels(x + self.places(x))
        return mixed
