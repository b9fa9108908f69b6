"""What a training runs on and with: recorded for every run, so that its numbers can be understood and made again."""

from __future__ import annotations

import ctypes
import datetime
import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import torch

from thirtytwo import __version__
from thirtytwo.errors import DeviceError

_IMPORTED = time.time()

# Tensors in pages of 2 MiB where Linux leaves that to programs: a step takes a tenth less. torch looks at this once,
# when it makes its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

PACKAGES = ("thirtytwo", "torch", "numpy", "pillow", "safetensors")
"""Whose versions can change a result."""


def device(name: str = "auto") -> torch.device:
    """The device to run on.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ….

    Raises:
        DeviceError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r}: expected auto, cpu or cuda")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return chosen


def device_here(name: str) -> torch.device:
    """The device for what is done here while a cluster trains: that which it is to train on, or else what there is.

    Args:
        name: as for `device`.

    Raises:
        DeviceError: no machine has such a device.
    """
    try:
        return device(name)
    except DeviceError:
        if name.partition(":")[0] != "cuda":
            raise
        return device()


def is_queue(chosen: torch.device) -> bool:
    """Whether a device works off what it is given later, so that asking it for a number means to wait for it."""
    return chosen.type == "cuda"


def has_bfloat16(chosen: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself, faster than in float32; emulated, it would be slower."""
    if chosen.type == "cuda":
        return torch.cuda.get_device_capability(chosen) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()  # true of processors with AMX, too


@functools.cache
def keep_memory() -> str:
    """Let this process keep freed memory for what it asks for next.

    glibc returns large blocks to the system at once and gets them back as pages of zeros, one fault each: for tensors
    of some megabytes, which every step needs anew, that takes longer than what is computed with them.

    Returns:
        What became of it, for the record: ``kept`` or ``returned to the system``.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
    if platform.libc_ver()[0] != "glibc":
        return "returned to the system"
    mallopt = ctypes.CDLL(None).mallopt
    done = mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1) and mallopt(m_top_pad, 64 * 2**20)
    return "kept" if done else "returned to the system"


def command() -> str:
    """What this program was started with, as somebody would type it."""
    path = Path(sys.argv[0])
    program = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]
    return shlex.join(map(without_passwords, [*program, *sys.argv[1:]]))


def without_passwords(text: str) -> str:
    """A text in which URLs such as ``postgresql://me:secret@host/db`` keep their password to themselves."""
    return re.sub(r"(://[^/@:\s]*):[^@\s]+@", r"\1:***@", text)


def describe(chosen: torch.device, precision: str = "float32") -> dict[str, Any]:
    """Versions, machine, commit, device and precision, ready for JSON."""
    return {
        "run_id": uuid.uuid4().hex,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": machine(),
        "device": str(chosen),
        "device_name": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else cpu_name(),
        "precision": precision,
        "threads": torch.get_num_threads(),
    }


def machine() -> str:
    """One line for people: processor and what it computes with, cores, memory, system."""
    gibibytes = _memory_bytes() / 2**30
    vectors = torch.backends.cpu.get_cpu_capability()  # such as AVX2
    if has_bfloat16(torch.device("cpu")):
        vectors += " and bfloat16"
    system = f"{platform.system()} {platform.machine()}"
    return f"{cpu_name()} with {vectors}, {os.cpu_count()} cores, {gibibytes:.0f} GiB, {system}"


def cpu_name() -> str:
    """The processor's name as it calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout that the package runs from, with ``+`` if it was changed; None if there is none."""
    folder = Path(__file__).parent
    try:
        root = _git(folder, "rev-parse", "--show-toplevel")
        # Installed into an environment inside somebody else's repository, that repository's commit says nothing.
        if not (Path(root) / "src" / "thirtytwo").samefile(folder):
            return None
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return _git(folder, "rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def process_seconds() -> float:
    """Seconds since this process started, imports included; since this module's import where that can't be told."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return uptime - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - _IMPORTED


def begin_counting_memory(chosen: torch.device) -> None:
    """Let `peak_memory_bytes` of a GPU begin anew; a CPU counts from the start of the process."""
    if chosen.type == "cuda":
        torch.cuda.reset_peak_memory_stats(chosen)


def peak_memory_bytes(chosen: torch.device) -> int:
    """The most memory held so far: by this process for a CPU, by torch on the device for a GPU."""
    if chosen.type == "cuda":
        return int(torch.cuda.max_memory_allocated(chosen))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python, torch's allocators and oneDNN each say it in their own way."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        words in said
        for words in (
            "allocate memory",
            "not enough memory",
            "out of memory",
            "bad_alloc",
            "could not create a primitive",
        )
    )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return __version__ if package == "thirtytwo" else "not installed"


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
