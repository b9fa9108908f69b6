"""Which process is at which trial of a search: a locked file each, which the operating system unlocks when one dies."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from thirtytwo.run import storing, write_atomic


class Claims:
    """The trials that this process is at, for all to see that use the same folder; entered, and let go of at the end.

    What is decided by more than one file, and told to more than one place, is decided `alone`.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is claimed yet.

        Args:
            folder: of the claims of one search, and of nothing else.
        """
        self._folder = folder
        self._held: dict[int, FileLock] = {}

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            StorageError: it cannot be made.
        """
        with storing(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all trials."""
        for number in list(self._held):
            self.drop(number)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Have no other process of this folder in such a block meanwhile."""
        with storing(str(self._folder)):
            lock = FileLock(self._folder / "all")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def identity(self) -> str:
        """Stands for this folder, wherever it is moved; to be asked `alone`, since it is made up when first asked for.

        Raises:
            StorageError: it cannot be kept.
        """
        path = self._folder / "identity"
        with storing(str(path)):
            if not path.exists():
                write_atomic(path, uuid.uuid4().hex.encode())
            return path.read_text(encoding="utf-8")

    def take(self, number: int) -> bool:
        """Claim a trial; False if a process is at it, be it this one."""
        lock = FileLock(self._folder / str(number))
        with storing(str(self._folder)):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
        self._held[number] = lock
        return True

    def drop(self, number: int) -> None:
        """Let go of a trial."""
        self._held.pop(number).release()

    def is_free(self, number: int) -> bool:
        """Whether nobody is at a trial; to be asked `alone`, since it is claimed for a moment."""
        if not self.take(number):
            return False
        self.drop(number)
        return True
