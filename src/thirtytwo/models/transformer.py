"""A compact vision transformer: convolutions make the tokens, attention pools them (CCT).

Hassani et al. 2021, "Escaping the big data paradigm with compact transformers" (arXiv 2104.05704). Overlapping patches
from convolutions, and no class token, let a transformer learn from some ten thousand images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thirtytwo.errors import RecipeError
from thirtytwo.models.resnet import StochasticDepth


def build(
    *,
    width: int,
    depth: int,
    heads: int,
    tokenizer: int,
    attention_dropout: float,
    dropout: float,
    stochastic_depth: float,
    classes: int,
    size: tuple[int, int],
) -> CompactTransformer:
    """Make the network; see `CompactTransformer`.

    Raises:
        RecipeError: heads do not divide the width, or the image is halved to nothing.
    """
    if width % heads:
        raise RecipeError(
            f"model.heads: {heads} do not divide a width of {width}; expected a divisor; choose another number"
        )
    height, width_places = (_halved(side, tokenizer) for side in size)
    if min(height, width_places) < 1:
        raise RecipeError(
            f"model.tokenizer: {tokenizer} convolutions halve a {size[0]} × {size[1]} image to nothing; expected fewer"
        )
    places = height * width_places
    noise = attention_dropout, dropout, stochastic_depth
    return CompactTransformer(width, depth, heads, tokenizer, noise, classes, places)


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = (side + 1) // 2
    return side


class CompactTransformer(nn.Module):
    """float32 (batch, 3, height, width) -> scores (batch, classes), for images of one size."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        tokenizer: int,
        noise: tuple[float, float, float],
        classes: int,
        places: int,
    ) -> None:
        """See `build`; the noise is dropout of attention, that of dense layers, and stochastic depth."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number in range(tokenizer):
            outputs = width if number == tokenizer - 1 else max(width // 2, 1)
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.ReLU()]
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            channels = outputs
        self.tokenizer = nn.Sequential(*layers)
        self.positions = nn.Parameter(torch.empty(1, places, width))
        if not self.positions.is_meta:  # else torch loads its compiler to find that there are no numbers
            nn.init.normal_(self.positions, std=0.2)
        attention_dropout, dropout, drop = noise
        self.layers = nn.Sequential(
            *(_Layer(width, heads, attention_dropout, dropout, drop * (number + 1) / depth) for number in range(depth))
        )
        self.normalise = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 1, bias=False)  # which would add the same everywhere
        self.head = nn.Linear(width, classes)

    def no_weight_decay(self) -> set[str]:
        """Parameters that say where a token is, and are no weights; see `optim.build`."""
        return {"positions"}

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.tokenizer(images).flatten(2).mT  # (batch, places, width)
        x = self.normalise(self.layers(x + self.positions))
        weights = self.attention(x).softmax(1)  # (batch, places, 1): how much each place counts
        scores: Tensor = self.head((weights * x).sum(1))
        return scores


class _Layer(nn.Module):
    """Attention, then two dense layers, each normalised before and added after: (batch, places, width) -> the same."""

    def __init__(self, width: int, heads: int, attention_dropout: float, dropout: float, drop: float) -> None:
        super().__init__()
        self.first_normalise, self.second_normalise = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=attention_dropout, batch_first=True)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout),
        )
        self.depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_normalise(x)
        x = x + self.depth(self.attention(y, y, y, need_weights=False)[0])
        added: Tensor = x + self.depth(self.dense(self.second_normalise(x)))
        return added
