"""What optimisers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTUM = "momentum_buffer"
"""Name under which the momentum of a parameter is remembered, as torch's SGD has it."""


class Optimizer(ABC):
    """Updates some of a network's parameters, group by group, and remembers something of each.

    Like torch's own class, but for what a training here does not need: hooks, closures, and torch's compiler, which
    that one loads for more than a second as soon as one is made.
    """

    param_groups: list[dict[str, Any]]
    """Each with ``params``, a list of tensors; ``peak``, its highest learning rate; ``lr``, the one that it has now, a
    number or a tensor where they lie; and what else the optimiser wants to know of them, by name."""
    state: dict[Tensor, dict[str, Tensor]]
    """What is remembered of a parameter, by name; nothing of one before its first update."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Take groups of parameters, each with all that `param_groups` says but ``lr``, which is the peak at first."""
        self.param_groups = [{**group, "lr": group["peak"]} for group in groups]
        self.state = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            chosen = [parameter for parameter in group["params"] if parameter.grad is not None]
            if chosen:
                self._update(group, chosen, [parameter.grad for parameter in chosen])

    @abstractmethod
    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Update some parameters of a group, at least one."""

    def _remembered(self, name: str, parameters: Sequence[Tensor], *, each: bool = True) -> list[Tensor]:
        """What is remembered under a name of these parameters; 0 at first.

        Args:
            name: of it.
            parameters: of which.
            each: whether it is one number for each of a parameter's, in the parameter's memory format, rather than one
                for all of them.
        """
        for parameter in parameters:
            if name not in (state := self.state[parameter]):
                state[name] = (
                    torch.zeros_like(parameter)
                    if each
                    else torch.zeros((), dtype=torch.float32, device=parameter.device)
                )
        return [self.state[parameter][name] for parameter in parameters]
