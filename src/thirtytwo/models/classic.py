"""The textbook network: convolutions and max-pooling, then dense layers with dropout.

It follows the plan that every introduction to convolutional networks draws (LeCun et al. 1998; Krizhevsky et al. 2012),
with what has been learned since: 3 × 3 kernels (Simonyan & Zisserman 2015) and batch normalisation (Ioffe & Szegedy
2015) after every convolution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from thirtytwo.errors import RecipeError


def build(
    *,
    stages: Sequence[Sequence[int]],
    hidden_units: int,
    dropout: float,
    classes: int,
    size: tuple[int, int],
) -> nn.Sequential:
    """Make the network.

    Args:
        stages: output channels of each convolution, grouped; height and width are halved at the end of each group.
        hidden_units: width of the dense layer before the scores.
        dropout: probability of zeroing an input of either dense layer, in training.
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
            layers[f"block{number}_{position}"] = _block(channels, outputs, halve=is_last)
            channels = outputs
    layers["flatten"] = nn.Flatten()
    layers["dropout1"] = nn.Dropout(dropout)
    layers["dense1"] = nn.Linear(channels * height * width, hidden_units, bias=False)
    layers["normalise"] = nn.BatchNorm1d(hidden_units)
    layers["relu"] = nn.ReLU()
    layers["dropout2"] = nn.Dropout(dropout)
    layers["dense2"] = nn.Linear(hidden_units, classes)
    return nn.Sequential(layers)


def _block(inputs: int, outputs: int, *, halve: bool) -> nn.Sequential:
    """Convolution, pooling, normalisation, ReLU: (batch, inputs, h, w) -> (batch, outputs, h / 2, w / 2) if halved."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["convolution"] = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    if halve:
        # Pooling comes before normalisation: ReLU commutes with it, and a quarter of the pixels is left to normalise.
        layers["pool"] = nn.MaxPool2d(2)
    layers["normalise"] = nn.BatchNorm2d(outputs)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)
