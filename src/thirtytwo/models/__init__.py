"""Networks: settings -> module, and what a network looks like from outside."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._triton import has_triton

from thirtytwo.errors import ModelError, RecipeError
from thirtytwo.models import (
    classic,
    convmixer,
    flops,
    native,
    pointwise,
    pyramidnet,
    resnet,
    speed,
    timm,
    transformer,
    winograd,
)
from thirtytwo.settings import (
    AnyModel,
    ClassicModel,
    CustomModel,
    ResNetModel,
    Settings,
    SpeedModel,
    TimmModel,
)

HALF_PRODUCTS = "bfloat16 products"
"""What steps compute with where our own kernels multiply in bfloat16; images, sums and all else are float32."""


def _by_its_settings(
    build: Callable[..., nn.Module], *, but: Collection[str] = ()
) -> Callable[[Any, int, tuple[int, int]], nn.Module]:
    """What makes a network, from a function whose arguments are called as its settings are, but for these.

    `kernels` is handed on as ``compiled``: whether they are.
    """

    def make(settings: Settings, classes: int, size: tuple[int, int]) -> nn.Module:
        fields = {name: value for name, value in settings if name != "name" and name not in but}
        if "kernels" in fields:
            fields["compiled"] = fields.pop("kernels") == "compiled"
        return build(**fields, classes=classes, size=size)

    return make


MODELS: dict[str, Callable[[Any, int, tuple[int, int]], nn.Module]] = {
    "classic": _by_its_settings(classic.build),
    "speed": _by_its_settings(speed.build, but=["whitening_images"]),
    "resnet": _by_its_settings(resnet.build),
    "pyramidnet": _by_its_settings(pyramidnet.build),
    "convmixer": _by_its_settings(convmixer.build),
    "transformer": _by_its_settings(transformer.build),
    "timm": _by_its_settings(timm.build),
}


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


def shapes(settings: AnyModel, classes: int, size: tuple[int, int] = (32, 32)) -> dict[str, tuple[int, ...]]:
    """Shapes of the state of the network that `build` would make, by name; without its memory, but for timm's.

    Raises:
        RecipeError: see `build`.
    """
    # While some of timm's are built, numbers are computed, which takes memory.
    place = torch.device("cpu" if isinstance(settings, TimmModel) else "meta")
    with torch.random.fork_rng(), place:
        network = build(settings, classes, size)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def kernels(settings: AnyModel, device: torch.device, precision: str) -> str:
    """What computes steps, for the record: ``compiled`` or ``torch``, with the reason if not as asked.

    On a CPU these are our own, on a GPU what torch.compile makes of torch's.
    """
    if getattr(settings, "kernels", "torch") == "torch":
        return "torch"
    if isinstance(settings, ClassicModel | ResNetModel):
        if device.type != "cpu":
            return "torch (compiled ones for such networks are for CPUs)"
        if isinstance(settings, ClassicModel):
            channels = sum(settings.stages, ())
        elif settings.cardinality > 1:
            return f"torch (no compiled ones for convolutions in {settings.cardinality} groups)"
        else:
            channels = tuple(resnet.widths_3x3(settings.widths, settings.bottleneck))
        if not any(map(native.suits, channels)):
            return f"torch (no compiled ones for channels that are no multiples of {native.LANES})"
    if device.type == "cuda":
        return "compiled" if has_triton() else "torch (no compiled ones: triton, which torch.compile needs, is missing)"
    if device.type != "cpu" or precision not in ("float32", HALF_PRODUCTS):
        return f"torch (compiled ones are for float32 on a CPU, this is {precision} on {device.type})"
    problem = winograd.problem(half=precision == HALF_PRODUCTS) or pointwise.KERNELS.problem()
    return "compiled" if problem is None else f"torch (no compiled ones: {problem})"


def use_torch(network: nn.Module) -> list[nn.Module]:
    """Let torch compute all of a network, whatever it was built for; returns the parts that had other kernels."""
    parts = [part for part in network.modules() if getattr(part, "compiled", False) is True]
    for part in parts:
        part.compiled = False  # type: ignore[assignment]
    return parts


def answer_compiled(network: nn.Module) -> None:
    """Let a network's own kernels compute what it answers, too, which torch does otherwise; they differ by rounding.

    For a teacher: it is asked in every step of a training that has these kernels, and only resumes where they are.
    """
    for part in network.modules():
        if getattr(part, "compiled", False) is True:
            part.answers_compiled = True  # type: ignore[assignment]


def use_half_products(network: nn.Module) -> None:
    """Let our own kernels, where a network has them, multiply in bfloat16."""
    for part in network.modules():
        if isinstance(part, winograd.Convolution):
            part.half_products = True


def initialise(settings: AnyModel, network: nn.Module, images: Callable[[int], torch.Tensor]) -> None:
    """Give a network those weights that are not drawn but computed from training images, if it has any.

    Args:
        settings: what the network was built from.
        network: with fresh weights.
        images: number -> so many training images as the network sees them, float32 (number, 3, height, width).
    """
    if isinstance(settings, SpeedModel):
        assert isinstance(network, speed.SpeedNet)
        network.initialise(images(settings.whitening_images))


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
    try:
        with evaluating(network), torch.no_grad():
            network(_black_images(network, 1, size))
    finally:
        for hook in hooks:
            hook.remove()
    return layers


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and every part of it back into its own mode afterwards.

    A network that is in evaluation mode already is not touched, so that threads can share it.
    """
    training = []
    parts: list[nn.Module | None] = [network]  # not modules(), which makes names: a tenth of a small network's time
    while parts:
        if (part := parts.pop()) is not None:
            if part.training:
                training.append(part)
            parts.extend(part._modules.values())
    if training:
        network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def renew_averages(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Compute the running averages of batch normalisation anew: the plain means over these batches.

    They belong to the weights that they were taken with, and a mean of weights has none (Izmailov et al. 2018, arXiv
    1803.05407).

    Args:
        network: in training mode; layers that are not keep theirs.
        batches: float32 (batch, 3, height, width) each, where the network's weights lie.
    """
    layers = [(layer, layer.momentum) for layer in _batch_norms(network) if layer.training]
    try:
        for number, images in enumerate(batches, start=1):
            for layer, _ in layers:
                layer.momentum = 1 / number  # share of the new value: the first batch's are taken as they are
            network(images)
    finally:
        for layer, momentum in layers:
            layer.momentum = momentum


@contextlib.contextmanager
def without_averages(network: nn.Module) -> Iterator[None]:
    """What batch normalisation sees meanwhile does not count in its running averages."""
    buffers = [buffer for layer in _batch_norms(network) for buffer in layer.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def check(network: nn.Module, classes: int, size: tuple[int, int] = (32, 32)) -> None:
    """Try a network on two black images, in evaluation mode and then in training mode.

    Running averages and the caller's random numbers are left as they were.

    Raises:
        ModelError: it cannot take images of this size, or does not give one score per class.
    """
    if not parameters(network):
        raise ModelError(f"network {type(network).__name__}: has no trainable weights; expected some to train")
    expected = f"expected float32 scores of shape (2, {classes}) for images of shape (2, 3, {size[0]}, {size[1]})"
    for mode, when in ((evaluating, ""), (_as_in_training, " in training mode")):
        try:
            with mode(network), torch.no_grad(), torch.random.fork_rng():
                scores = network(_black_images(network, 2, size))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:  # timm's ViTs assert sizes
            raise ModelError(f"network {type(network).__name__}: fails{when} ({error}); {expected}") from error
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        if shape != (2, classes):
            raise ModelError(f"network {type(network).__name__}: gives {shape}{when}; {expected}")


@contextlib.contextmanager
def _as_in_training(network: nn.Module) -> Iterator[None]:
    """A network in training mode, with torch's kernels, for a moment; running averages come back as they were."""
    compiled = use_torch(network)
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    frozen = [module for module in network.modules() if not module.training]
    network.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module in frozen:
            module.training = False
        for part in compiled:
            part.compiled = True  # type: ignore[assignment]


def has_batch_norm(network: nn.Module) -> bool:
    """Whether some part normalises over the batch, which takes more than one image."""
    return bool(_batch_norms(network))


def averages(network: nn.Module) -> list[torch.Tensor]:
    """Running averages of means and variances, which follow the images that batch normalisation sees in training."""
    buffers = [buffer for layer in _batch_norms(network) for buffer in layer.buffers()]
    return [buffer for buffer in buffers if buffer.is_floating_point()]


def _batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def flops_per_image(network: nn.Module, size: tuple[int, int] = (32, 32), *, backward: bool = True) -> float:
    """Floating-point operations of one training step, forward and backward, per image: counted by torch, not estimated.

    Convolutions count as direct ones, however they are computed, so that the number says the same on every machine.
    Weights, gradients, running averages and the caller's random numbers are left as they were. Weights may be on the
    meta device, where nothing is computed.

    Args:
        network: whose operations are counted.
        size: (height, width) of the images, in pixels.
        backward: whether the backward pass counts.
    """
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    counter = flops.Counter()
    try:
        with _as_in_training(network), _countable(), torch.random.fork_rng(), counter:  # dropout draws
            scores = network(_black_images(network, 2, size))
            if backward:
                scores.sum().backward()
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
    return counter.flops / 2


@contextlib.contextmanager
def _countable() -> Iterator[None]:
    """Operations are `flops.Counter`'s to see, and the same on every machine."""
    # What somebody has compiled is computed as it is written. Attention has kernels of which torch knows no formula.
    is_compiler_loaded = "torch._dynamo" in sys.modules
    stance = torch.compiler.set_stance("force_eager") if is_compiler_loaded else contextlib.nullcontext()
    with torch.inference_mode(False), sdpa_kernel(SDPBackend.MATH), stance:
        yield


def _black_images(network: nn.Module, number: int, size: tuple[int, int]) -> torch.Tensor:
    """float32 (number, 3, height, width), where the network's weights lie."""
    some = next(network.parameters(), torch.zeros(()))
    return torch.zeros((number, 3, *size), device=some.device)


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
        case pointwise.BatchNormAct2d():
            return "BatchNorm2d" + {"gelu": ", GELU", "relu": ", ReLU", "none": ""}[module.activation]
        case nn.MaxPool2d():
            return f"MaxPool2d {module.kernel_size}"
        case _:
            return type(module).__name__
