"""Ctrl-C and a polite kill, where they are not to end the program at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def caught(react: Callable[[int], None]) -> Iterator[list[int]]:
    """Let a function react to them, in place of whatever did before, which does so again afterwards.

    Yields a list to which the numbers of those that arrive are appended.
    """
    arrived: list[int] = []

    def handle(number: int, _: Any) -> None:
        arrived.append(number)
        react(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield arrived
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
