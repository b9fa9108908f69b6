"""Kernels in C for training on a CPU, compiled once for the processor at hand and kept in the user's cache folder.

Where that is impossible — no compiler, not Linux — there are none, and everything is torch's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

LANES = 8
"""Channels that are computed at once; layers have multiples of it."""
MOST_CHANNELS = 4096


HEAD = f"""
#define LANES {LANES}
#define MOST_CHANNELS {MOST_CHANNELS}
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define LOAD(address) (*(const vector *)(address))
#define STORE(address, value) (*(vector *)(address) = (value))
"""
"""What every source begins with."""


def fits(images: Tensor) -> bool:
    """Whether kernels can take such images: float32 (batch, channels, h, w) on a CPU, with channels that suit them."""
    return (
        images.device.type == "cpu"
        and images.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and images.dim() == 4
        and images.numel() > 0
        and suits(images.shape[1])
    )


def suits(channels: int) -> bool:
    """Whether kernels can take so many."""
    return channels % LANES == 0 and channels <= MOST_CHANNELS


def gradients_of(result: Tensor, factors: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of the inputs, for these gradients of a result."""
    # Of a single number: given factors for each, torch loads SymPy to compare their shapes.
    return torch.autograd.grad((result * factors).sum(), inputs)


def room(*shape: int) -> Tensor:
    """For images: float32 (batch, channels, h, w), channels-last."""
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=torch.channels_last)


class Kernels:
    """Functions of one C source.

    Attributes:
        name: of the source.
    """

    def __init__(
        self,
        name: str,
        source: Callable[[], str],
        check: Callable[[], bool] | None = None,
        lacks: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Compile nothing yet.

        Args:
            name: for files in the cache folder.
            source: gives the C source, without `HEAD`.
            check: tells, once they are loaded, whether they compute what they should.
            lacks: says what they need that is not here, if anything is not.
        """
        self.name, self._source, self._check, self._lacks = name, source, check, lacks
        self._library: ctypes.CDLL | None = None
        self._problem: str | None = "not looked for yet"
        self._looked = False
        self._lock = threading.RLock()

    def problem(self) -> str | None:
        """Why there are none here; None if there are. Compiles them at the first call."""
        if not self._looked:
            with self._lock:
                if not self._looked:
                    self._problem = self._load()
                    if self._problem is None and self._check is not None and not self._check():
                        self._problem = f"what the C compiler made of {self.name} computes wrongly"
                    self._looked = True
        return self._problem

    def forget(self) -> None:
        """Look for a compiler anew."""
        self._looked = False

    def run(self, name: str, *arguments: Tensor | float | None) -> None:
        """Call one: tensors are addresses, None is NULL, whole numbers are long and others double."""
        getattr(self._library, name)(*map(_argument, arguments))

    def _load(self) -> str | None:
        if sys.platform != "linux":
            return "made for Linux only"
        if (lacking := self._lacks()) is not None:
            return lacking
        compiler = shlex.split(os.environ.get("CC", "")) or [*filter(None, map(shutil.which, ("gcc", "cc")))][:1]
        if not compiler:
            return "no C compiler found"
        said = shlex.join(compiler)
        try:
            self._library = _compiled(self.name, HEAD + self._source(), compiler)
        except subprocess.CalledProcessError as error:
            return f"{said} failed: {error.stderr.strip() or error.returncode}"
        except (OSError, subprocess.SubprocessError) as error:
            return f"{said}: {error}"
        return None


def _argument(value: Tensor | float | None) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_double(value)


def _compiled(name: str, source: str, compiler: Sequence[str]) -> ctypes.CDLL:
    """Load; compile before, unless that has been done by the same compiler for the same processor."""
    # Nothing is linked: what it calls is in the process already, above all torch's OpenMP. A second OpenMP would have
    # threads of its own, which would compete with torch's for the processor.
    command = [*compiler, "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-nostdlib", "-x", "c", "-"]
    asked = [*compiler, "--version"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
    key = hashlib.sha256("\0".join([source, version, *command, _processor()]).encode()).hexdigest()[:16]
    path = Path(platformdirs.user_cache_dir("thirtytwo")) / f"{name}-{key}.so"
    with contextlib.suppress(OSError):  # not there, empty, or another machine's
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        subprocess.run([*command, "-o", made], input=source, capture_output=True, text=True, check=True, timeout=300)
        with contextlib.suppress(OSError):  # no such folder: this process alone shall have it
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under its own name only when it is whole: another process may be looking for it.
            with tempfile.TemporaryDirectory(dir=path.parent) as beside:
                Path(shutil.copy(made, beside)).replace(path)
            return ctypes.CDLL(str(path))
        return ctypes.CDLL(str(made))


def _processor() -> str:
    """What the compiler made it for: a cache folder may be shared between machines."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )
