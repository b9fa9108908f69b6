"""The state of a training: all that a checkpoint holds, and no more than a training needs to go on to the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from thirtytwo import optim
from thirtytwo.errors import RunError
from thirtytwo.events import Epoch
from thirtytwo.run import read_tensors, write_tensors


@dataclass
class Progress:
    """How far a training is."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done in the epoch under way."""
    loss_sum: float = 0.0
    """Of the epoch under way, over images."""
    correct: int = 0
    """Of the epoch under way."""
    seen: int = 0
    """Images of the epoch under way."""
    flops: float = 0.0
    """Floating-point operations of all steps, forward and backward, and of what else has to do with training."""
    finished: bool = False
    train_seconds: float = 0.0
    """Spent on steps, and on what else has to do with training."""
    epoch_seconds: float = 0.0
    """Spent on steps of the epoch under way."""
    elapsed_seconds: float = 0.0
    """Spent on everything since the first use of training data."""

    def begin_next_epoch(self) -> None:
        """Count anew."""
        self.epoch += 1
        self.step = self.correct = self.seen = 0
        self.loss_sum = self.epoch_seconds = 0.0


_LOSSES = ("losses", "losses_before")


@dataclass(eq=False)
class State:
    """Weights, what the optimisers remember, weights that are kept beside them, and the epochs so far."""

    network: nn.Module
    optimizers: optim.Optimizers
    progress: Progress = field(default_factory=Progress)
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The network's state after the epoch that would be kept; empty if there is none, or none is selected."""
    mean: dict[str, Tensor] = field(default_factory=dict)
    """Of the network's state, as far as it is numbers that change; empty before the first call of `average`."""
    slow: dict[str, Tensor] = field(default_factory=dict)
    """Lookahead's slow weights, by parameter; empty if there are none. See `look_back`."""
    losses: Tensor | None = None
    """float32 (n,): the loss of each training image when it was last seen, infinite before; None if nobody asks."""
    losses_before: Tensor | None = None
    """The same when the epoch under way began."""

    @property
    def validation_losses(self) -> list[float | None]:
        """One an epoch."""
        return [epoch.validation_loss for epoch in self.history]

    def is_finite(self) -> bool:
        """Whether every weight is a finite number; buffers may hold what they like."""
        return all(bool(parameter.isfinite().all()) for parameter in self.network.parameters())

    @torch.no_grad()
    def average(self, share: float | Tensor) -> None:
        """Let the network's state count this share, in (0, 1], in the mean; what was in it before counts the rest."""
        state = {name: tensor for name, tensor in self.network.state_dict().items() if tensor.is_floating_point()}
        if not self.mean:
            self.keep_mean()
        mean = [self.mean[name] for name in state]
        if isinstance(share, float):
            torch._foreach_lerp_(mean, list(state.values()), share)
        else:  # on a device, where torch has no such operation for many tensors at once
            change = torch._foreach_sub(list(state.values()), mean)
            torch._foreach_mul_(change, share)
            torch._foreach_add_(mean, change)

    def begin_looking_back(self) -> None:
        """Let there be slow weights, if there are none yet: those that the network has."""
        if not self.slow:
            self.slow = {name: tensor.detach().clone() for name, tensor in self.network.named_parameters()}

    @torch.no_grad()
    def look_back(self, share: float | Tensor) -> None:
        """Let slow weights go this share of the way to the network's, which go back to them; 0 leaves both.

        Lookahead (Zhang et al. 2019, arXiv 1907.08610, algorithm 1).
        """
        if isinstance(share, float) and not share:
            return
        fast: list[Tensor] = list(self.network.parameters())
        slow = [self.slow[name] for name, _ in self.network.named_parameters()]
        way = torch._foreach_sub(fast, slow)
        torch._foreach_mul_(way, share)
        torch._foreach_add_(slow, way)
        if isinstance(share, float):
            torch._foreach_copy_(fast, slow)
            return
        for weight, goal in zip(fast, slow, strict=True):  # what is recorded does the same in every step
            weight.copy_(torch.where(share > 0, goal, weight))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has the mean for its state meanwhile, if there is one."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items() if name in self.mean}
        self.network.load_state_dict(self.mean, strict=False)
        try:
            yield
        finally:
            self.network.load_state_dict(own, strict=False)

    def end(self) -> None:
        """Give the network, for good, the best weights; or the mean, or what it has, for want of them."""
        self.network.load_state_dict(self.best or self.mean, strict=False)

    def keep_weights(self) -> None:
        """Make the network's weights the best so far."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def keep_mean(self) -> None:
        """Make what the network has now the mean."""
        state = self.network.state_dict().items()
        self.mean = {name: tensor.detach().clone() for name, tensor in state if tensor.is_floating_point()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds but numbers, by name."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        tensors |= {f"slow.{name}": tensor for name, tensor in self.slow.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optim.state_tensors(self.optimizers).items()}
        return tensors | {name: getattr(self, name) for name in _LOSSES if getattr(self, name) is not None}

    def checksums(self) -> dict[str, int]:
        """One of each tensor, over its bits: those of equal tensors are equal, and those of others hardly ever."""
        tensors = self.tensors
        sums = [_sum_of_bits(tensor) for tensor in tensors.values()]  # where they lie: a GPU is waited for once
        return dict(zip(tensors, torch.stack(sums).tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically; see `run.write_tensors`."""
        header = {"progress": asdict(self.progress), "history": [asdict(epoch) for epoch in self.history]}
        write_tensors(path, self.tensors, header)

    def restore(self, path: Path) -> None:
        """Become what a checkpoint holds, whatever there was before.

        Raises:
            RunError: the checkpoint is another network's.
            ModelError: it cannot be read.
        """
        tensors, header = read_tensors(path)
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        try:
            self.progress = Progress(**header["progress"])
            self.history = [Epoch(**row) for row in header["history"]]
            self.network.load_state_dict(_within(tensors, "network."))
            self.best = {name: tensor.to(device) for name, tensor in _within(tensors, "best.").items()}
            self.mean = {name: tensor.to(device) for name, tensor in _within(tensors, "mean.").items()}
            self.slow = {name: tensor.to(device) for name, tensor in _within(tensors, "slow.").items()}
            optim.restore_state(self.optimizers, _within(tensors, "optimizer."))
            for name in _LOSSES:
                setattr(self, name, tensors[name].to(device) if name in tensors else None)
        except (KeyError, TypeError, RuntimeError) as error:
            raise RunError(
                f"{path}: does not fit this run's network ({error}); expected the checkpoint that this run wrote, and "
                "the same network if it is your own"
            ) from None


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes."""


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """int64 (): of a tensor's elements as if they were whole numbers, modulo 2**64."""
    plain = tensor.detach().contiguous().reshape(-1)
    return plain.view(_WHOLE_NUMBERS[plain.element_size()]).sum(dtype=torch.int64)
