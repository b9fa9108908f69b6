"""Ctrl-C and a polite kill, where they are not to end the program at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from thirtytwo.run import Run
    from thirtytwo.study import Pool
    from thirtytwo.train import Training

GOES_ON = "Interrupted; nothing is lost. The same command continues from here."


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


@contextlib.contextmanager
def goes_on(say: Callable[[str], None]) -> Iterator[None]:
    """Say that the same command goes on, at whatever Ctrl-C or a polite kill ends it; a second one ends it at once."""

    def end(number: int) -> None:
        as_before(number)
        raise KeyboardInterrupt  # ends, in order, whatever is under way: what is kept in pieces keeps what it has

    with caught(end) as received:
        try:
            yield
        except KeyboardInterrupt:
            say(GOES_ON)
            raise typer.Exit(128 + (received or [signal.SIGINT])[0]) from None


@contextlib.contextmanager
def broken_off(tell: Callable[[Run], None], training: Training) -> Iterator[None]:
    """Tell how a run is gone on with after a second Ctrl-C, or one after the training."""
    try:
        yield
    except KeyboardInterrupt:
        tell(training.run)
        raise typer.Exit(130) from None


def interruptible(training: Training | Pool) -> AbstractContextManager[list[int]]:
    """Let Ctrl-C and a polite kill end training after a step, with a checkpoint; a second one ends it at once.

    Yields a list to which the signals that arrive are appended.
    """

    def ask(number: int) -> None:
        training.interrupt()
        as_before(number)

    return caught(ask)


def as_before(number: int) -> None:
    """Let a signal do what it does to any program."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
