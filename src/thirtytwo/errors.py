"""Every error the package raises on purpose.

ThirtytwoError                     exit code 1: something outside the user's words went wrong
├── InputError                     exit code 2: what was asked for cannot be done as asked
│   ├── RecipeError                unknown recipe, unknown key, value out of range
│   ├── DataError                  a data set that is missing, damaged or of the wrong kind
│   │   └── ChecksumMismatch       a file that is not the one it claims to be
│   ├── ImageError                 an image file that cannot be read
│   ├── ModelError                 a model file that cannot be read or does not fit
│   ├── RunError                   a run folder that exists already, is missing, or is in use
│   │   └── RunInUse               another process is training in it
│   ├── DeviceError                a device this machine does not have
│   ├── ClusterError               a Ray cluster that is not there, or has no machine that could train
│   └── MissingExtra               an optional dependency that is not installed
├── DownloadError                  no host delivered the file
├── StorageError                   the disk is full or cannot be written
├── OutOfMemory                    the machine or the device ran out of memory
├── RankLost                       another process of the same training does not answer
├── RanksDiffer                    processes of the same training do not hold, or do, the same
├── WorkerLost                     machines of a cluster died under one training, again and again
└── Diverged                       the loss became NaN or infinite

Messages follow one pattern: what was found, what was expected, what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self


class ThirtytwoError(Exception):
    """Root of the tree: catch this to catch everything the package raises on purpose."""

    exit_code: int = 1
    """Exit status of the command line program for this error."""


class InputError(ThirtytwoError):
    """What the user gave cannot be used."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe is unknown, or some of its settings are; every problem is listed at once."""


class DataError(InputError):
    """A data set is missing, damaged, or not of the expected kind."""


class ChecksumMismatch(DataError):
    """A file's checksum is not the published one."""


class ImageError(InputError):
    """An image file cannot be read as an image."""

    problems: Mapping[str, str] = MappingProxyType({})
    """Of several files that were to be read, those that cannot be, as they were given, each with what is wrong with
    it."""


class ModelError(InputError):
    """A model file cannot be read, or does not fit what it is used with."""


class RunError(InputError):
    """A run folder exists already, is missing, incomplete, or in use by another process."""


class RunInUse(RunError):
    """Another process, or another training in this one, is training in a run folder."""


class DeviceError(InputError):
    """The device asked for does not exist on this machine."""


class ClusterError(InputError):
    """There is no Ray cluster at an address, or none of its machines can do what is asked for."""


class MissingExtra(InputError):
    """An optional dependency is missing; the message holds the pip command that installs it."""

    @classmethod
    def of(cls, need: str, extra: str, error: ImportError, where: str = "") -> Self:
        """The error for an import that failed.

        Args:
            need: who needs what, such as ``tuning needs optuna``.
            extra: what installs it.
            error: of the import.
            where: what else has to be said of installing it.
        """
        return cls(
            f"{need}, which cannot be imported ({error}); expected the extra `{extra}`; in the checkout, "
            f"pip install -c constraints.txt -e '.[{extra}]' installs it{where}"
        )


class DownloadError(ThirtytwoError):
    """None of the known hosts delivered a file."""


class StorageError(ThirtytwoError):
    """A file cannot be written: disk full, read-only, or no permission."""


class OutOfMemory(ThirtytwoError):
    """The machine or the device ran out of memory."""


class RankLost(ThirtytwoError):
    """Another process of the same training has ended, or does not answer."""


class RanksDiffer(ThirtytwoError):
    """Processes of the same training were started differently, or hold different weights."""


class WorkerLost(ThirtytwoError):
    """The processes of a cluster that were given one training died, one after another."""


class Diverged(ThirtytwoError):
    """The training loss became NaN or infinite."""
