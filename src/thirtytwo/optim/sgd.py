"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.sgd import sgd

from thirtytwo.optim.optimizer import MOMENTUM, Optimizer


class Sgd(Optimizer):
    """Gradient descent with momentum, Nesterov's if wanted (Sutskever et al. 2013).

    Groups have a ``weight_decay``, which is added to the gradient, times the weights.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, nesterov: bool) -> None:
        """Take groups of parameters.

        Args:
            groups: see `Optimizer.param_groups`.
            momentum: share of the previous momentum that is kept; with 0, nothing is remembered.
            nesterov: whether the gradient counts as it will be one step ahead.
        """
        super().__init__(groups)
        self._momentum, self._nesterov = momentum, nesterov

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        sgd(
            parameters,
            gradients,
            [*self._remembered(MOMENTUM, parameters)] if self._momentum else [None] * len(parameters),
            fused=True,  # one pass over each parameter instead of several
            weight_decay=group["weight_decay"],
            momentum=self._momentum,
            lr=group["lr"],
            dampening=0.0,
            nesterov=self._nesterov,
            maximize=False,
        )
