from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thirtytwo import models
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.explain import grad_cam, telling_layer
from thirtytwo.settings import CustomModel


class Looks(nn.Module):
    """Class 0 is red on the left, class 1 is green, anywhere: what matters is known."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1, bias=False)
        self.convolution.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
        self.left = (torch.arange(8) < 4).float()

    def forward(self, images: Tensor) -> Tensor:
        red, green = self.convolution(images).relu_().unbind(1)
        return torch.stack([(red * self.left).mean((1, 2)), green.mean((1, 2))], 1)


def classifier(network: nn.Module) -> Classifier:
    return Classifier(network.eval(), CustomModel(), classes=("red", "green"), size=(8, 8))


def test_it_shows_what_speaks_for_the_class() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[:, 2, 2, 0] = 200
    images[:, 5, 6, 1] = 100
    maps = grad_cam(classifier(Looks()), images, np.array([0, 1]), batch_size=1)
    assert maps is not None
    assert maps.shape == (2, 8, 8)
    assert [np.unravel_index(one.argmax(), one.shape) for one in maps] == [(2, 2), (5, 6)]
    assert np.array_equal((maps > 0).sum((1, 2)), [1, 1])
    assert maps.max() == 1


def test_nothing_speaks_for_a_class_in_a_black_image() -> None:
    maps = grad_cam(classifier(Looks()), np.zeros((1, 8, 8, 3), np.uint8), np.array([0]))
    assert maps is not None
    assert not maps.any()


def test_a_network_that_sees_no_places_has_no_map() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert grad_cam(classifier(network), np.zeros((1, 8, 8, 3), np.uint8), np.array([0])) is None


@pytest.mark.parametrize(
    ("recipe", "layer"),
    [
        ("classic", "block3_2.normalise"),
        ("fast94", "groups.1.normalisations.1"),
        ("fast96", "groups.1.normalisations.2"),
        ("resnet18", "blocks.7.normalisations.1"),
        ("wideresnet16", "normalise"),
        ("pyramidnet", "normalise"),
        ("convmixer", "layers.7.channels.2"),
    ],
)
def test_what_is_asked_is_the_last_that_is_normalised_or_activated(recipe: str, layer: str) -> None:
    settings = recipes.load(recipe).model
    network = models.build(settings, 10)
    assert telling_layer(Classifier(network, settings, tuple("abcdefghij"), (32, 32))) == layer


@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_stays_as_it_was(frozen: bool) -> None:
    network = Looks().requires_grad_(not frozen)
    grad_cam(classifier(network), np.full((3, 8, 8, 3), 9, np.uint8), np.array([0, 1, 0]))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.convolution._forward_hooks
