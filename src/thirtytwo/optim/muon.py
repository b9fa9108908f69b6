"""Muon: momentum whose update is orthogonalised, for kernels and other weights of two or more dimensions.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). A gradient of a matrix is dominated
by few directions; replaced by the nearest matrix with all singular values 1, the update moves all of them alike. That
matrix is approached by a Newton–Schulz iteration, which is nothing but products of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from thirtytwo.optim.optimizer import MOMENTUM, Optimizer

# An odd quintic whose slope at 0 is as large as it can be while values near 1 stay near it (Jordan 2024). It does not
# converge to 1 exactly: singular values end between about 0.7 and 1.2, which trains as well.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices with the same singular vectors, and all singular values near 1.

    Args:
        matrices: float (…, rows, columns).
        steps: of the iteration; each multiplies small singular values by about 3.4.

    Returns:
        The same shape and dtype. A matrix of zeros stays one.
    """
    linear, cubic, quintic = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the products below are then of the smaller side
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # Frobenius: no singular value is larger than 1
    # Each step multiplies x by a polynomial of x xᵀ, and x xᵀ by its square, all of which commute: so the steps are
    # taken on the smaller x xᵀ, and their product at the end. For kernels, nine times as wide as high, that is
    # half of the arithmetic.
    square = x @ x.mT
    factor = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    for step in range(steps):
        polynomial = quintic * (square @ square) + cubic * square
        polynomial.diagonal(dim1=-2, dim2=-1).add_(linear)
        factor = polynomial @ factor if step else polynomial
        if step < steps - 1:
            square = polynomial @ square @ polynomial
    orthogonal: Tensor = ((factor @ x).mT if tall else factor @ x).contiguous()
    return orthogonal


def together(matrices: Sequence[Tensor], steps: int = 5) -> list[Tensor]:
    """`orthogonalised` of each, all in the same few products: what a GPU is quick at.

    Args:
        matrices: float (rows, columns) each, of any sizes; zeros make them equal, which changes nothing in the rest.
        steps: of the iteration.
    """
    rows, columns = (max(matrix.shape[side] for matrix in matrices) for side in (0, 1))
    padded = [pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])) for matrix in matrices]
    found = orthogonalised(torch.stack(padded), steps)
    return [each[: matrix.shape[0], : matrix.shape[1]] for each, matrix in zip(found, matrices, strict=True)]


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised, on weights that are kept at a fixed norm.

    A kernel (outputs, inputs, height, width) counts as a matrix (outputs, inputs · height · width). Before every update
    it is scaled to the Frobenius norm √outputs, so that its rows have norm 1 on average, as airbench94_muon.py of
    github.com/KellerJordan/cifar10-airbench (2024) does: with batch normalisation behind it the scale of a kernel does
    not matter, and a fixed one keeps the learning rate's meaning.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.6,
        steps: int = 3,
        half: bool = False,
        compiled: bool = False,
    ) -> None:
        """Take groups of parameters of two or more dimensions.

        Args:
            groups: see `Optimizer.param_groups`. A learning rate is a step size in units of √outputs: the norm of the
                update against that of the weights.
            momentum: share of the previous momentum that is kept.
            steps: of the Newton–Schulz iteration.
            half: whether it is taken in bfloat16.
            compiled: whether torch.compile makes kernels for it.
        """
        super().__init__(groups)
        self._momentum, self._steps = momentum, steps
        self._dtype = torch.bfloat16 if half else None
        self._take = torch.compile(_orthogonal_step, dynamic=False) if compiled else _orthogonal_step

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        momenta = self._remembered(MOMENTUM, parameters)
        self._take(parameters, gradients, momenta, group["lr"], self._momentum, self._steps, self._dtype)


def _orthogonal_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    rate: float | Tensor,
    momentum: float,
    steps: int,
    dtype: torch.dtype | None,
) -> None:
    torch._foreach_mul_(momenta, momentum)
    torch._foreach_add_(momenta, gradients)
    ahead = torch._foreach_add(gradients, momenta, alpha=momentum)  # Nesterov
    matrices = [each.flatten(1).to(dtype or each.dtype) for each in ahead]
    if matrices[0].is_cuda:
        updates = together(matrices, steps)
    else:
        updates = [orthogonalised(matrix, steps) for matrix in matrices]
    for parameter, update in zip(parameters, updates, strict=True):
        # A kernel of zeros, as some residual branches begin with, has no norm to be scaled to.
        parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(1e-7))
        parameter.sub_(update.reshape(parameter.shape) * rate)
