"""Networks: settings -> module, and what a network looks like from outside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.errors import RecipeError
from thirtytwo.models import classic
from thirtytwo.settings import AnyModel, ClassicModel, CustomModel


def _classic(settings: ClassicModel, classes: int, size: tuple[int, int]) -> nn.Module:
    return classic.build(
        stages=settings.stages,
        hidden_units=settings.hidden_units,
        dropout=settings.dropout,
        classes=classes,
        size=size,
    )


MODELS: dict[str, Callable[[Any, int, tuple[int, int]], nn.Module]] = {"classic": _classic}


def build(settings: AnyModel, classes: int, size: tuple[int, int] = (32, 32)) -> nn.Module:
    """Make the network that the settings describe, with fresh weights from torch's global random generator.

    Args:
        settings: a recipe's `model` section.
        classes: number of class scores that come out.
        size: (height, width) of the images that go in, in pixels.

    Returns:
        A module from float32 (batch, 3, height, width) to float32 (batch, classes), in channels-last memory format.

    Raises:
        RecipeError: the settings do not fit the image size, or name a network that only its owner can build.
    """
    if isinstance(settings, CustomModel):
        raise RecipeError(
            f"the network is the caller's own ({settings.module or 'unnamed'}) and cannot be built from a recipe; "
            "pass it: train(recipe, data, network=module), Classifier.load(model, network=module)"
        )
    network = MODELS[settings.name](settings, classes, size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stubs lack this one
    return network


@dataclass(frozen=True)
class Layer:
    """One line of a network's summary."""

    name: str
    """Where it sits in the network, such as ``stages.0.convolution``."""
    kind: str
    """Its class and what distinguishes it, such as ``Conv2d 3 → 32, 3 × 3``."""
    output: tuple[int, ...]
    """Shape of its output for one image, without the batch dimension."""
    parameters: int
    """Trainable numbers in it."""


def summary(network: nn.Module, size: tuple[int, int] = (32, 32)) -> list[Layer]:
    """Layers of a network in the order in which they run, with output shapes and parameters.

    Runs one black image through the network in evaluation mode; weights and mode are left as they were.
    """
    layers: list[Layer] = []

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
            layers.append(Layer(name, _describe(module), shape, parameters(module)))

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    was_training = network.training
    try:
        network.eval()
        some = next(network.parameters(), torch.zeros(()))
        with torch.no_grad():
            network(torch.zeros((1, 3, *size), device=some.device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return layers


def flops_per_image(network: nn.Module, size: tuple[int, int] = (32, 32)) -> float:
    """Floating-point operations of one training step, forward and backward, per image: counted by torch, not estimated.

    Weights, running averages and the caller's random numbers are left as they were.
    """
    network = copy.deepcopy(network).train()
    some = next(network.parameters(), torch.zeros(()))
    inputs = torch.zeros((2, 3, *size), device=some.device)
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:  # dropout draws
        network(inputs).sum().backward()
    return float(counter.get_total_flops() / 2)


def parameters(network: nn.Module) -> int:
    """Trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _describe(module: nn.Module) -> str:
    match module:
        case nn.Conv2d():
            return f"Conv2d {module.in_channels} → {module.out_channels}, {' × '.join(map(str, module.kernel_size))}"
        case nn.Linear():
            return f"Dense {module.in_features:,} → {module.out_features:,}"
        case nn.Dropout():
            return f"Dropout {module.p:g}"
        case nn.MaxPool2d():
            return f"MaxPool2d {module.kernel_size}"
        case _:
            return type(module).__name__
