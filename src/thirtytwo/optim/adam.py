"""Adam, with weight decay that does not pass through its moments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.adamw import adamw

from thirtytwo.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Steps scaled for each weight by the size of its gradients (Kingma & Ba 2015, arXiv 1412.6980).

    Weight decay is decoupled (AdamW; Loshchilov & Hutter 2019, arXiv 1711.05101). Groups have a ``weight_decay``, of
    which a step takes the share that the learning rate says.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, beta1: float, beta2: float, epsilon: float) -> None:
        """Take groups of parameters.

        Args:
            groups: see `Optimizer.param_groups`.
            beta1: share of the mean gradient that is kept.
            beta2: share of the mean square gradient that is kept.
            epsilon: added to its root.
        """
        super().__init__(groups)
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        adamw(
            parameters,
            gradients,
            self._remembered("exp_avg", parameters),
            self._remembered("exp_avg_sq", parameters),
            [],  # of AMSGrad
            self._remembered("step", parameters, each=False),
            fused=True,  # one pass over each parameter instead of a dozen
            amsgrad=False,
            beta1=self._beta1,
            beta2=self._beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=self._epsilon,
            maximize=False,
        )
