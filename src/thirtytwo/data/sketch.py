"""Some pictures of a set, by which a model still knows what it was trained on when the set is elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 4_096
"""Pictures that a sketch holds, 8 bytes each; smaller sets are held as a whole."""

WORTH_TELLING = 0.01
"""Share of some pictures from which on a model that has seen them cannot be judged by them: fewer may be duplicates."""


def is_worth_telling(found: int, asked: int) -> bool:
    """Whether a model that has seen so many of the pictures that were looked up, see `Sketch.look_up`, is biased."""
    return found > 0 and found >= WORTH_TELLING * asked


@dataclass(frozen=True, eq=False)
class Sketch:
    """The pictures of a set whose digests are smallest.

    Digests are as good as random numbers, so the pictures of another set whose digests are as small are a random sample
    of that set, and the share of them that is in this one estimates the share of all: a bottom-k sketch (Broder 1997,
    "On the resemblance and containment of documents"). Of up to `SIZE` pictures it holds all, and is exact.
    """

    digests: NDArray[np.uint64]
    """(k,), ascending, each once; see `Images.digests`."""
    is_whole: bool
    """Whether these are all."""

    @classmethod
    def of(cls, digests: NDArray[np.uint64]) -> Sketch:
        """Of a set with these digests uint64 (n,)."""
        unique = np.unique(digests)
        return cls(unique[:SIZE], len(unique) <= SIZE)

    @classmethod
    def merged(cls, sketches: Sequence[Sketch]) -> Sketch:
        """Of all pictures of some sets, at least one, together."""
        if all(sketch.is_whole for sketch in sketches):
            return cls(np.unique(np.concatenate([sketch.digests for sketch in sketches])), True)
        limit = min(sketch.digests[-1] for sketch in sketches if not sketch.is_whole)
        together = np.unique(np.concatenate([sketch.digests for sketch in sketches]))
        return cls(together[together <= limit], False)

    def look_up(self, digests: NDArray[np.uint64]) -> tuple[int, int]:
        """How many pictures of another set are in this one, and among how many: all of them, or a random sample."""
        asked = digests if self.is_whole else digests[digests <= self.digests[-1]]
        return int(np.isin(asked, self.digests).sum()), len(asked)

    def to_json(self) -> dict[str, Any]:
        """As model files hold it; `recalled` reads it back."""
        content = self.digests.astype("<u8").tobytes()
        return {"whole": self.is_whole, "digests": base64.b64encode(content).decode()}

    @classmethod
    def recalled(cls, said: Mapping[str, Any]) -> Sketch:
        """What `to_json` has written.

        Raises:
            KeyError, TypeError, ValueError: it was not written by it.
        """
        content = base64.b64decode(said["digests"], validate=True)
        digests = np.frombuffer(content, dtype="<u8").astype(np.uint64)
        if not len(digests):
            raise ValueError("no digests")
        return cls(digests, bool(said["whole"]))
