"""The textbook network: convolutions and max-pooling, then dense layers with dropout.

It follows the plan that every introduction to convolutional networks draws (LeCun et al. 1998; Krizhevsky et al. 2012),
with what has been learned since: 3 × 3 kernels (Simonyan & Zisserman 2015) and batch normalisation (Ioffe & Szegedy
2015) after every convolution.

On a CPU, kernels of our own may train it: Winograd's for convolutions, max-pooling included, and one for normalisation
with ReLU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from thirtytwo.errors import RecipeError
from thirtytwo.models.pointwise import BatchNormAct2d
from thirtytwo.models.winograd import Convolution


def build(
    *,
    stages: Sequence[Sequence[int]],
    hidden_units: int,
    dropout: float,
    compiled: bool,
    classes: int,
    size: tuple[int, int],
) -> nn.Sequential:
    """Make the network.

    Args:
        stages: output channels of each convolution, grouped; height and width are halved at the end of each group.
        hidden_units: width of the dense layer before the scores.
        dropout: probability of zeroing an input of either dense layer, in training.
        compiled: whether kernels of our own train it, where they can.
        classes: number of scores.
        size: (height, width) of the input in pixels.

    Returns:
        float32 (batch, 3, height, width) -> float32 (batch, classes), scores before the softmax.

    Raises:
        RecipeError: there are more stages than the image can be halved.
    """
    height, width = (side >> len(stages) for side in size)
    if height < 1 or width < 1:
        raise RecipeError(
            f"model.stages: {len(stages)} stages halve a {size[0]} × {size[1]} image to nothing; "
            f"expected at most {min(size).bit_length() - 1}"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, stage in enumerate(stages, start=1):
        for position, outputs in enumerate(stage, start=1):
            is_last = position == len(stage)
            layers[f"block{number}_{position}"] = _Block(channels, outputs, halve=is_last, compiled=compiled)
            channels = outputs
    layers["flatten"] = nn.Flatten()
    layers["dropout1"] = nn.Dropout(dropout)
    layers["dense1"] = nn.Linear(channels * height * width, hidden_units, bias=False)
    layers["normalise"] = nn.BatchNorm1d(hidden_units)
    layers["relu"] = nn.ReLU()
    layers["dropout2"] = nn.Dropout(dropout)
    layers["dense2"] = nn.Linear(hidden_units, classes)
    return nn.Sequential(layers)


class _Block(nn.Module):
    """Convolution, pooling, normalisation, ReLU: (batch, inputs, h, w) -> (batch, outputs, h / 2, w / 2) if halved."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, compiled: bool) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs, compiled=compiled)
        # Pooling comes before normalisation: ReLU commutes with it, and a quarter of the pixels is left to normalise.
        self.pool = nn.MaxPool2d(2) if halve else None
        self.normalise = BatchNormAct2d(outputs, "relu", compiled=compiled)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x) if self.pool is None else self.convolution.pooled(x, self.pool)
        normalised: Tensor = self.normalise(x)
        return normalised
