"""A labelled set of small images: what every data source returns and everything else consumes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thirtytwo.errors import DataError

Split = Literal["training", "test"]
"""The two parts that every data set comes in."""

_AT_ONCE = 4_096
"""Pictures that a thread hashes before it looks for more."""


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read as an image."""

    path: str
    reason: str
    """What was found, what was expected, and the remedy."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images with labels, held in memory.

    Attributes:
        pixels: uint8 (n, height, width, 3), red-green-blue. On purpose not float: a quarter of the memory, and
            height × width × channel is the order in which convolutions run fastest ("channels last").
        labels: int64 (n,), each in [0, len(classes)).
        classes: class names, in label order.
        name: what the set is called in results, such as ``cifar10``.
        warnings: what a user should know about these images, one sentence each; shown by every command.
        paths: the file behind each image, for sets read from a folder; empty otherwise.
        broken: files that are no part of these images, since they cannot be read; only whoever asks for that gets
            images without them, see `source.find`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    warnings: tuple[str, ...] = ()
    paths: tuple[str, ...] = field(default=(), repr=False)
    broken: tuple[Broken, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise DataError(
                f"{self.name}: pixels are {self.pixels.dtype} {self.pixels.shape}; "
                "expected uint8 (images, height, width, 3)"
            )
        if self.labels.shape != self.pixels.shape[:1]:
            raise DataError(f"{self.name}: {len(self.pixels)} images but labels of shape {self.labels.shape}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise DataError(
                f"{self.name}: labels from {self.labels.min()} to {self.labels.max()}; "
                f"expected 0 to {len(self.classes) - 1} for {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def per_class(self) -> list[int]:
        """Number of images of each class, in label order."""
        return [int(number) for number in np.bincount(self.labels, minlength=len(self.classes))]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels, labels and class names: two sets are the same if and only if this is."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return digest.hexdigest()

    @cached_property
    def _hashes(self) -> NDArray[np.uint8]:
        """uint8 (n, 32): SHA-256 of each picture's pixels."""
        return _hashes(self.pixels)

    @cached_property
    def pictures(self) -> str:
        """SHA-256 over size and pixels: two sets are of the same pictures, in any order, if and only if this is."""
        digest = hashlib.sha256(repr(self.size).encode())
        words = self._hashes.view(">u8")  # (n, 4), to be sorted as bytes are
        digest.update(np.ascontiguousarray(self._hashes[np.lexsort(words.T[::-1])]).data)
        return digest.hexdigest()

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """uint64 (n,); see `digests`."""
        return _shortened(self._hashes)

    def take(self, indices: NDArray[np.integer] | Sequence[int]) -> Images:
        """The images at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            pixels=self.pixels[chosen],
            labels=self.labels[chosen],
            paths=tuple(self.paths[index] for index in chosen) if self.paths else (),
        )

    def split(self, fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Divide into a larger and a smaller part, class by class ("stratified").

        Args:
            fraction: share of each class that goes to the second part, in [0, 1); rounded to whole images, but at
                least one image of each class that has two or more, as long as the fraction is not 0.
            seed: the same seed and labels give the same division on every machine.

        Returns:
            (indices of the first part, indices of the second part), each ascending.
        """
        order = hashed(np.arange(len(self), dtype=np.uint64), seed)
        chosen = np.zeros(len(self), dtype=bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            if fraction > 0 and len(members) > 1:
                count = min(max(round(fraction * len(members)), 1), len(members) - 1)
                chosen[members[np.argsort(order[members], kind="stable")[:count]]] = True
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    def folds(self, number: int, seed: int = 0) -> list[NDArray[np.int64]]:
        """Divide into parts of nearly equal size, class by class: of any class, parts differ by one image at most.

        Args:
            number: of parts.
            seed: the same seed and labels give the same division on every machine.

        Returns:
            The indices of each part, ascending.
        """
        order = hashed(np.arange(len(self), dtype=np.uint64), seed)
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[np.lexsort((order, self.labels))] = np.arange(len(self))  # class after class: each is dealt out in turn
        return [np.flatnonzero(ranks % number == part) for part in range(number)]

    def fewer(self, number: int, seed: int = 0, skip: int = 0) -> NDArray[np.int64]:
        """So many of them, as many of each class as there are, or as the others have, but for one image.

        Args:
            number: at most as many as there are, less `skip`.
            seed: the same seed and labels give the same ones on every machine.
            skip: take others than these so many.

        Returns:
            Their indices, ascending.
        """
        order = hashed(np.arange(len(self), dtype=np.uint64), seed)
        turn = np.empty(len(self), dtype=np.int64)  # of an image among those of its class
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            turn[members[np.argsort(order[members], kind="stable")]] = np.arange(len(members))
        return np.sort(np.lexsort((self.labels, turn))[skip : skip + number])


def digests(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 (n,): of each picture the first eight bytes of its SHA-256, the same for the same pixels.

    Args:
        pixels: (n, height, width, 3).
    """
    return _shortened(_hashes(pixels))


def _shortened(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view("<u8")[:, 0].astype(np.uint64)


def _hashes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (n, 32): SHA-256 of each picture's pixels; several at a time, since hashlib lets go of the interpreter."""
    hashes = np.empty((len(pixels), 32), dtype=np.uint8)

    def hash_some(start: int) -> None:
        for index in range(start, min(start + _AT_ONCE, len(pixels))):
            found = hashlib.sha256(np.ascontiguousarray(pixels[index]).data).digest()
            hashes[index] = np.frombuffer(found, dtype=np.uint8)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(hash_some, range(0, len(pixels), _AT_ONCE)))
    return hashes


def hashed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al. 2014): pseudo-random numbers that no library version can change."""
    x = values + np.uint64((seed * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
