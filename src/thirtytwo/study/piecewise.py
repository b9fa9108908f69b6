"""Long computations that lose nothing when they are stopped: batch by batch, kept in a file as they go on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from thirtytwo.errors import ModelError
from thirtytwo.run import read_tensors, write_tensors

KEEP_SECONDS = 10.0
"""Between two writes of what is there: what is lost at most when the process is killed at once."""

Progress = Callable[[float], None]
"""Is told which share, from 0 to 1, is done."""
Busy = Callable[[str], AbstractContextManager[Progress]]
"""Is entered, with words, for what takes a while; what it yields is told how far that is."""

Batch = TypeVar("Batch")


def unseen(_: str) -> AbstractContextManager[Progress]:
    """Shows nothing."""
    return nullcontext(lambda _: None)


class Computed(NamedTuple):
    """What a computation has come to."""

    tensors: dict[str, Tensor]
    """By name, what the batches gave under it, one after another."""
    seconds: float
    """That it took in all, once, however often it was stopped or found again."""


def computed(
    file: Path | None,
    key: Sequence[Any],
    batches: Sequence[Batch],
    compute: Callable[[Batch], Mapping[str, Tensor]],
    progress: Progress = lambda _: None,
) -> Computed:
    """Compute batch by batch, on from where an earlier call was stopped, by whatever.

    Batches are the same ones however often it was stopped, and so are the bits of what they come to.

    Args:
        file: keeps what is there; None keeps nothing.
        key: plain values that stand for everything that decides the result; what was kept under another is not used.
        batches: all of them.
        compute: tensors of a batch, on the CPU, by name; the first dimension is that of its items.
        progress: is told which share of the batches is done.
    """
    whole, begun = [*key, len(batches)], time.perf_counter()
    results: list[Mapping[str, Tensor]] = []
    before, spent = 0, 0.0
    if file is not None and (found := _found(file, whole)) is not None:
        tensors, before, spent = found
        results.append(tensors)
    if before == len(batches):
        return Computed(_joined(results), spent)
    kept, looked, seconds = len(results), time.monotonic(), spent

    def keep() -> None:
        nonlocal kept, looked, seconds
        if kept == (there := len(results)):
            return
        seconds = spent + time.perf_counter() - begun
        if file is not None:
            done = there - (before > 0) + before  # what was found is one of the results, of several batches
            write_tensors(file, _joined(results), {"key": whole, "done": done, "seconds": seconds})
        kept, looked = there, time.monotonic()

    try:
        for number, batch in enumerate(batches[before:], start=before + 1):
            results.append(compute(batch))  # one step: whatever stops this finds each batch there or not
            if time.monotonic() - looked >= KEEP_SECONDS:
                keep()
            progress(number / len(batches))
    finally:
        keep()
    return Computed(_joined(results), seconds)


def _found(file: Path, key: Sequence[Any]) -> tuple[dict[str, Tensor], int, float] | None:
    """What was kept under this key, of how many batches, and the seconds that it took; None if nothing was."""
    if not file.exists():
        return None
    try:
        tensors, header = read_tensors(file)
    except ModelError:  # damaged: it is computed anew
        return None
    if header.get("key") != list(key):
        return None
    return tensors, int(header["done"]), float(header["seconds"])


def _joined(results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for result in results:
        for name, tensor in result.items():
            parts[name].append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}
