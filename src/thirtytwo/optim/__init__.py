"""Optimisers and learning-rate schedules: settings -> what the training loop calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo.optim import adam, muon, schedule, sgd
from thirtytwo.optim.optimizer import Optimizer
from thirtytwo.settings import (
    Adam,
    AnyOptimizer,
    AnySchedule,
    Constant,
    Cosine,
    Linear,
    Muon,
    OneCycle,
    Plateau,
    Sgd,
    StepDecay,
)

Schedule = Callable[[int, Sequence[float]], float]
"""(step since the start of training, validation losses of the epochs so far) -> factor of the peak rate."""


Optimizers = tuple[Optimizer, ...]
"""What updates a network's parameters, each some of them."""


def build(settings: AnyOptimizer, network: nn.Module, *, half: bool = False, compiled: bool = False) -> Optimizers:
    """Make the optimisers for a network.

    Weight decay acts on weights only: matrices and kernels, not biases and normalisation gains, which are vectors. A
    network, or a part of one, may name more that it spares with a method `no_weight_decay`, as those of timm do: what a
    transformer adds to its tokens to say where they are, such as its tables. Beside Muon, biases and gains are decayed
    as well (cifar10-airbench does so with biases), and kernels are not: Muon keeps their norm. What a network names is
    spared there, too.

    Args:
        settings: a recipe's `optimizer` section.
        network: where it is to be trained.
        half: whether steps compute in bfloat16; weights, and what is remembered, are float32 always.
        compiled: whether torch.compile makes kernels for what is more than one operation.
    """
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    spared = _spared(network)
    if isinstance(settings, Muon):
        return _muon(settings, named, spared, half, compiled)
    weights = [parameter for name, parameter in named if parameter.ndim > 1 and name not in spared]
    others = [parameter for name, parameter in named if parameter.ndim <= 1 or name in spared]
    kinds: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kinds = [{**kind, "peak": settings.learning_rate} for kind in kinds if kind["params"]]
    match settings:
        case Adam():
            return (adam.Adam(kinds, beta1=settings.beta1, beta2=settings.beta2, epsilon=settings.epsilon),)
        case Sgd():
            return (sgd.Sgd(kinds, momentum=settings.momentum, nesterov=settings.nesterov),)


def _spared(network: nn.Module) -> set[str]:
    """Names of the parameters that are not to be decayed, as the network and its parts say."""
    found: set[str] = set()
    for place, part in network.named_modules():
        if callable(names := getattr(part, "no_weight_decay", None)):
            found |= {f"{place}.{name}" if place else name for name in names()}
    return found


def _muon(
    settings: Muon, named: list[tuple[str, nn.Parameter]], spared: set[str], half: bool, compiled: bool
) -> Optimizers:
    parts: dict[str, list[Tensor]] = {part: [] for part in ("kernels", "dense", "biases", "whitening", "spared")}
    for name, parameter in named:
        parts[_part(name, parameter, spared)].append(parameter)
    kernels, bias_rate = parts["kernels"], settings.bias_learning_rate
    kinds: list[dict[str, Any]] = [
        {"params": parts["dense"], "peak": settings.dense_learning_rate, "decay": settings.decay},
        {"params": parts["biases"], "peak": bias_rate, "decay": settings.decay},
        {
            "params": parts["whitening"],
            "peak": bias_rate,
            "decay": settings.decay,
            "ends_after": settings.whitening_fraction,
        },
        {"params": parts["spared"], "peak": bias_rate, "decay": 0.0},
    ]
    # SGD multiplies its weight decay by the rate, which the settings' number does not contain.
    kinds = [{**kind, "weight_decay": kind.pop("decay") / kind["peak"]} for kind in kinds if kind["params"]]
    optimizers: list[Optimizer] = []
    if kinds:
        optimizers.append(sgd.Sgd(kinds, momentum=settings.sgd_momentum, nesterov=settings.sgd_momentum > 0))
    if kernels:
        optimizers.append(
            muon.Muon(
                [{"params": kernels, "peak": settings.learning_rate}],
                momentum=settings.momentum,
                steps=settings.newton_schulz_steps,
                half=half,
                compiled=compiled,
            )
        )
    return tuple(optimizers)


def _part(name: str, parameter: Tensor, spared: set[str]) -> str:
    """Which kind of parameter it is to Muon's recipe: kernels are Muon's, everything else is SGD's."""
    if name in spared:
        return "spared"
    if name == "whitening.bias":
        return "whitening"
    if parameter.ndim <= 1:
        return "biases"
    # A tensor of three dimensions, such as a transformer's tokens, is no matrix of outputs by inputs to be orthogonal.
    return "kernels" if parameter.ndim == 4 else "dense"


def set_rates(optimizers: Optimizers, factor: float, done: float) -> None:
    """Set the learning rate of every parameter group for the next step.

    Args:
        optimizers: made by `build`.
        factor: what the schedule says, of each group's peak.
        done: share of the training that is over; a group that ends early falls to 0 on a line of its own. Its
            parameters then need no gradient any more, which saves the backward pass the way down to them.
    """
    for group in groups(optimizers):
        end = group.get("ends_after")
        own = factor if end is None else max(0.0, 1.0 - done / end) if end > 0 else 0.0
        group["lr"] = group["peak"] * own
        if end is not None:
            for parameter in group["params"]:
                parameter.requires_grad_(own > 0)


def build_schedule(
    settings: AnySchedule,
    *,
    epochs: int,
    steps_per_epoch: int,
) -> Schedule:
    """Make the schedule for a training of this length."""
    steps = epochs * steps_per_epoch
    if isinstance(settings, OneCycle):
        return lambda step, _: schedule.one_cycle(
            step,
            steps,
            warmup_fraction=settings.warmup_fraction,
            initial_factor=settings.initial_factor,
            final_factor=settings.final_factor,
        )
    rise = settings.warmup_epochs * steps_per_epoch

    def after_warmup(step: int, losses: Sequence[float]) -> float:
        match settings:
            case Constant():
                return 1.0
            case StepDecay():
                return schedule.staircase(
                    step, every_steps=settings.every_epochs * steps_per_epoch, factor=settings.factor
                )
            case Linear():
                end = steps - settings.final_epochs * steps_per_epoch
                return schedule.linear(step, end, warmup_steps=rise, final_factor=settings.final_factor)
            case Cosine():
                end = steps - settings.final_epochs * steps_per_epoch
                return schedule.cosine(step, end, warmup_steps=rise, final_factor=settings.final_factor)
            case Plateau():
                return schedule.plateau(
                    losses,
                    patience=settings.patience,
                    factor=settings.factor,
                    minimum_factor=settings.minimum_factor,
                )

    return lambda step, losses: schedule.warmup(step, rise) * after_warmup(step, losses)


def groups(optimizers: Optimizers) -> list[dict[str, Any]]:
    """Every parameter group, in order."""
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def state_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """What optimisers remember, as ``"<parameter's number>.<name>"`` -> tensor; empty before their first step."""
    return {
        f"{number}.{name}": tensor
        for number, (optimizer, parameter) in enumerate(_parameters(optimizers))
        for name, tensor in optimizer.state.get(parameter, {}).items()
    }


def restore_state(optimizers: Optimizers, tensors: Mapping[str, Tensor]) -> None:
    """Make optimisers remember what `state_tensors` returned and nothing else, on their parameters' device."""
    for optimizer in optimizers:
        optimizer.state.clear()
    parameters = list(_parameters(optimizers))
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        optimizer, parameter = parameters[int(number)]
        # Fused updates walk memory in the parameter's order, so its state has to lie in the same format.
        like = parameter.detach() if tensor.shape == parameter.shape else tensor.to(parameter.device)
        optimizer.state[parameter][name] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def _parameters(optimizers: Optimizers) -> Iterator[tuple[Optimizer, Tensor]]:
    """Every parameter with its optimiser, in the order in which they are numbered."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield optimizer, parameter
