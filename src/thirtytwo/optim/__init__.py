"""Optimisers and learning-rate schedules: settings -> what the training loop calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo.optim import schedule
from thirtytwo.settings import Adam, AnyOptimizer, AnySchedule, Constant, Cosine, OneCycle, Plateau, Sgd, StepDecay

Schedule = Callable[[int, Sequence[float]], float]
"""(step since the start of training, validation losses of the epochs so far) -> factor of the peak rate."""


def build(settings: AnyOptimizer, network: nn.Module) -> torch.optim.Optimizer:
    """Make the optimiser for a network.

    Weight decay acts on weights only: matrices and kernels, not biases and normalisation gains, which are vectors.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # Fused: one pass over each parameter instead of a dozen.
    match settings:
        case Adam():
            return torch.optim.AdamW(
                groups,
                lr=settings.learning_rate,
                betas=(settings.beta1, settings.beta2),
                eps=settings.epsilon,
                fused=True,
            )
        case Sgd():
            return torch.optim.SGD(
                groups,
                lr=settings.learning_rate,
                momentum=settings.momentum,
                nesterov=settings.nesterov,
                fused=True,
            )


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
            case Cosine():
                return schedule.cosine(step, steps, warmup_steps=rise, final_factor=settings.final_factor)
            case Plateau():
                return schedule.plateau(
                    losses,
                    patience=settings.patience,
                    factor=settings.factor,
                    minimum_factor=settings.minimum_factor,
                )

    return lambda step, losses: schedule.warmup(step, rise) * after_warmup(step, losses)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as ``"<parameter's number>.<name>"`` -> tensor; empty before its first step."""
    return {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
        if tensor is not None
    }


def restore_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Make an optimiser remember what `state_tensors` returned and nothing else, on its parameters' device."""
    optimizer.state.clear()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # Fused updates walk memory in the parameter's order, so its state has to lie in the same format.
        like = parameter.detach() if tensor.shape == parameter.shape else tensor.to(parameter.device)
        optimizer.state[parameter][name] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
