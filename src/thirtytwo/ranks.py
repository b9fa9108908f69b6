"""Processes that train one network together, each on a device of its own: all that they say to each other.

Every process, called a rank, holds the whole network and the whole training set, computes the gradients of its part of
each batch, and takes the step that the sum of all gradients says. So all ranks hold the same weights, to the bit, and
decide the same.

torch's DistributedDataParallel is not used. It sends gradients in many messages while the backward pass is still under
way (Li et al. 2020, arXiv 2006.15704), which pays for hundreds of megabytes. Those of the fast recipes are a tenth of
that, and their many messages would mostly wait for each other's latency; one flat message also carries what else ranks
have to share (losses of images, right answers, running averages), needs no wrapper around the network, and can be
recorded with the step.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thirtytwo.errors import DeviceError, InputError, RankLost, RanksDiffer

PATIENCE = datetime.timedelta(minutes=15)
"""How long a rank waits for another one that says nothing; that one has died is noticed at once."""

BETWEEN_MEETINGS = 0.1
"""Seconds, about; see `Meetings`."""

STORE = "THIRTYTWO_STORE"
"""Environment variable: the file by which ranks on one machine find each other; without it they do as torchrun says."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        number: of this one, counted from 0; the first is the one that writes and tells.
        size: how many there are.
        local_size: how many of them are on this machine.
        together: whether they talk; a process alone has nobody to talk to.
    """

    number: int = 0
    size: int = 1
    local_size: int = 1
    together: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run folder and says what happens."""
        return self.number == 0

    def part(self, images: int) -> tuple[int, int]:
        """Which of so many images are this rank's: from and to, exclusive. Parts differ by one image at most."""
        return self.number * images // self.size, (self.number + 1) * images // self.size

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all ranks of tensors of the same shapes, in one message; all ranks get the same bits.

        Args:
            tensors: on one device; whole numbers come back as floating point if others are.
        """
        if not self.together:
            return list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _talking():
            dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def put_together(self, part: Tensor, length: int) -> Tensor:
        """What ranks have computed of their parts of so many images: (part, …) of each -> (length, …) for all."""
        if not self.together:
            return part
        begin, end = self.part(length)
        whole = part.new_zeros((length, *part.shape[1:]))
        whole[begin:end] = part
        return self.summed([whole])[0]

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Make tensors what they are on the first rank."""
        for tensor in tensors if self.together else ():
            plain = tensor.detach().contiguous()
            with _talking():
                dist.broadcast(plain, 0)
            with torch.no_grad():
                tensor.copy_(plain)

    def gathered(self, value: Any) -> list[Any]:
        """What each rank says, in their order; it has to fit JSON."""
        if not self.together:
            return [value]
        said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _talking():
            dist.all_gather(lengths, torch.tensor([len(said)]))
        room = max(int(length) for length in lengths)
        padded = torch.zeros(room, dtype=torch.uint8)
        padded[: len(said)] = said
        texts = [torch.zeros(room, dtype=torch.uint8) for _ in range(self.size)]
        with _talking():
            dist.all_gather(texts, padded)
        pairs = zip(texts, lengths, strict=True)
        return [json.loads(text[: int(length)].numpy().tobytes()) for text, length in pairs]

    def from_first(self, value: Any) -> Any:
        """What the first rank says; it has to fit JSON."""
        return self.gathered(value if self.is_first else None)[0]

    def is_wished(self, wish: bool) -> bool:
        """Whether some rank wishes it."""
        return bool(self.summed([torch.tensor(float(wish))])[0]) if self.together else wish

    def check_same(self, facts: Mapping[str, Any], remedy: str) -> None:
        """That all ranks say the same.

        Args:
            facts: by what they are called; they have to fit JSON.
            remedy: what to do where they differ.

        Raises:
            RanksDiffer: they do not; all ranks raise it.
        """
        if not self.together:
            return
        first, *others = self.gathered(dict(facts))
        for number, other in enumerate(others, start=1):
            for name in [*first, *(other.keys() - first.keys())]:
                found, expected = other.get(name), first.get(name)
                if found != expected:
                    raise RanksDiffer(
                        f"{name}: process {number} has {_short(found)}; expected {_short(expected)}, as process 0; "
                        + remedy
                    )


ALONE = Ranks()
"""A process that trains by itself."""


class Meetings:
    """Moments at which ranks decide together, after so many steps as take the first rank about a tenth of a second.

    What depends on a clock or on a signal differs from rank to rank, and all have to do the same at the same step. To
    ask each other after every step would make a GPU wait for it.
    """

    def __init__(self, ranks: Ranks) -> None:
        """The first meeting is after the first step."""
        self._ranks = ranks
        self._every = self._left = 1  # steps
        self._last = time.monotonic()

    def decide(self, *wishes: bool) -> tuple[bool, ...]:
        """Asked after every step: which of these some rank wishes; none between two meetings."""
        if not self._ranks.together:
            return wishes
        self._left -= 1
        if self._left:
            return (False,) * len(wishes)
        seconds = max(time.monotonic() - self._last, 1e-6)
        # Doubled at most: the first steps say little of the next.
        every = max(min(int(self._every * BETWEEN_MEETINGS / seconds), 2 * self._every), 1)
        said = torch.tensor([*wishes, every * self._ranks.is_first], dtype=torch.float64)
        *counts, every = self._ranks.summed([said])[0].tolist()
        self._every = self._left = int(every)
        self._last = time.monotonic()
        return tuple(count > 0 for count in counts)


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that were started together with this one, by torchrun or ``thirtytwo train --devices``.

    A process that was started by itself is `ALONE`.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; with a GPU for each, the one that is this rank's becomes the current one.

    Raises:
        DeviceError: this machine has fewer GPUs than ranks.
        RankLost: the others cannot be reached.
    """
    store, given = os.environ.get(STORE), os.environ
    if not {"RANK", "WORLD_SIZE"} <= given.keys() or not (store or "MASTER_ADDR" in given):
        yield ALONE
        return
    try:
        number, size = int(given["RANK"]), int(given["WORLD_SIZE"])
        local, local_size = int(given.get("LOCAL_RANK", number)), int(given.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE: {error}; expected whole numbers, as torchrun sets them") from None
    if not dist.is_available():
        raise DeviceError(
            "several processes: this build of torch cannot connect them; expected one with torch.distributed; train "
            "with one process, or install another build"
        )
    on_gpu = _take_device(device, local, local_size)
    with _talking():
        # What lies on a CPU is said by gloo, what lies on GPUs by NCCL.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=dist.FileStore(store, size) if store else None,  # type: ignore[attr-defined]  # torch's stubs
            rank=number if store else -1,
            world_size=size if store else -1,
            timeout=PATIENCE,
        )
    yield Ranks(number, size, local_size, together=True)
    # Only after a training that ended well: with others gone, taking leave of them could wait for ever. NCCL waits for
    # the end of recorded steps that it is part of, so nothing may hold them any more.
    gc.collect()
    dist.destroy_process_group()


def _take_device(device: str, local: int, local_size: int) -> bool:
    """Make this rank's GPU the current one; returns whether there is one."""
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(
            f"device {device!r} for {local_size} processes: expected auto, cpu or cuda; each takes a GPU of its own"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return False
    if local_size > (found := torch.cuda.device_count()):
        raise DeviceError(
            f"{local_size} processes on this machine, which has {found} CUDA {'device' if found == 1 else 'devices'}; "
            f"expected one for each; take --devices {found}, or --device cpu"
        )
    torch.cuda.set_device(local)
    return True


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Say clearly that another rank does not answer."""
    try:
        yield
    except RuntimeError as error:  # gloo, NCCL and the store each raise kinds of it
        said = re.sub(r"^(\[[^\]]*\]\s*)+", "", str(error).strip().partition("\n")[0]).partition(". ")[0]
        raise RankLost(
            f"lost contact with another process of this training ({said}); expected all of them to run to the end"
        ) from error


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:40]} … {text[-40:]}"
