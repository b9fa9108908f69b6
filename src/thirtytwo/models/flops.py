"""Floating-point operations, counted while they are computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Adds up what torch's formulas say of every operation that is computed while it is entered.

    Like `torch.utils.flop_counter.FlopCounterMode`, but that one takes the backward pass of grouped convolutions for
    one without groups, and loads torch's compiler, which takes longer than all else before a first step. What is
    computed in inference mode, inside of `torch.cond` and the like, or by what torch.compile has made, is not counted.
    """

    flops: int
    """So far."""
    supports_higher_order_operators = True
    """Such as `torch.cond`, which are left to themselves."""

    def __init__(self) -> None:
        """Count from 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch asks here whether to keep its compiler away from this class, and loads it if so

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute an operation, and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operation = getattr(func, "overloadpacket", func)
        if (formula := OWN.get(operation) or flop_registry.get(operation)) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _backward(gradient: Any, inputs: Any, kernel: Any, *rest: Any, **_: Any) -> int:
    """Of one convolution: as many as forward for the gradient of its inputs, and as many for that of its kernel.

    Args:
        gradient: that of its outputs, (batch, outputs, h, w).
        inputs: tensor.
        kernel: (outputs, inputs / groups, height, width).
        rest: as torch's operation has it: bias, stride, padding, dilation, whether the convolution is transposed, its
            padding of outputs, groups, and which gradients are wanted: of inputs, of the kernel, of the bias.
    """
    _bias, _stride, _padding, _dilation, is_transposed, _outputs, _groups, wanted = rest
    forward: int = 2 * (inputs if is_transposed else gradient).numel() * math.prod(kernel.shape[1:])
    return forward * sum(map(bool, wanted[:2]))


OWN: dict[Any, Callable[..., int]] = {torch.ops.aten.convolution_backward: _backward}
"""Formulas in place of torch's, by operation; each is given what the operation is, and its result as ``out_val``."""
