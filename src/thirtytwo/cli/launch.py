"""Starts the processes that train together on this machine, watches over them, and says which one has failed.

torchrun does the same, for several machines, too, and then none of this is used. On one machine it is one word
instead of another program, Ctrl-C leaves a checkpoint, and a failure is one line. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from thirtytwo.cli.signals import caught
from thirtytwo.errors import InputError, RankLost, ThirtytwoError

GRACE_SECONDS = 10.0
"""For the others to end by themselves when one has failed; one that waits for a GPU does not notice."""

MOST_A_CORE = 4
"""Processes for each core of this machine. One is best; a mistake, such as the size of a batch, is many more."""
FEWEST = 16
"""As many may be anywhere: as there are GPUs in a machine of which a job has few cores."""

BETWEEN_LOOKS = 0.02
"""Seconds."""

LOST = 75
"""Exit code of a process that ended because another one had (EX_TEMPFAIL of sysexits.h): not the one to blame."""

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a training that was asked to stop, and did."""

_STORE = "THIRTYTWO_STORE"
"""Environment variable: see ranks.STORE."""

_LIFELINE = "THIRTYTWO_LIFELINE"
"""Environment variable of processes that we start: their stdin ends when we do."""


def is_launched() -> bool:
    """Whether this process is one of several that were started together, by `run` or by torchrun."""
    given = os.environ.keys()
    return {"RANK", "WORLD_SIZE"} <= given and not given.isdisjoint({"MASTER_ADDR", _STORE})  # as ranks.joined says


def rank() -> str:
    """The number of this process among those that were started together; empty for the first, and for one alone."""
    number = os.environ.get("RANK", "0") if is_launched() else "0"
    return "" if number == "0" else number


def who() -> str:
    """What an error of this process begins with, where another one is the first."""
    return f"process {rank()}: " if rank() else ""


def check(devices: int | None) -> None:
    """That so many were started on this machine as were asked for.

    Raises:
        InputError: they were not.
    """
    found = os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE"))
    if devices is not None and str(devices) != found:
        raise InputError(
            f"--devices {devices}: torchrun has started {found} processes on this machine; expected as many as "
            "--devices says; leave it out"
        )


def exit_code(error: ThirtytwoError) -> int:
    """How a process ends by this error."""
    return LOST if isinstance(error, RankLost) and is_launched() else error.exit_code


def cores() -> int:
    """Processors that this process may use."""
    with contextlib.suppress(AttributeError):  # only Linux knows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hold_lifeline() -> None:
    """End this process as soon as the one that launched it has ended, however that happened."""
    if os.environ.get(_LIFELINE):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(LOST)


def run(processes: int) -> int:
    """Run this program once more, in so many processes that train together; returns the exit code.

    The first one's output is ours; what the others say of an error is shown if it is theirs.

    Raises:
        InputError: this machine is too small for so many.
    """
    if processes > (most := max(MOST_A_CORE * cores(), FEWEST)):
        raise InputError(
            f"{processes} processes: each has memory of its own, and {cores()} cores were found; expected at most "
            f"{most}, better one for each GPU or core; name fewer with --devices"
        )
    with tempfile.TemporaryDirectory(prefix="thirtytwo-") as folder, contextlib.ExitStack() as open_files:
        said = [open_files.enter_context((Path(folder) / f"{number}.txt").open("w+b")) for number in range(processes)]
        theirs, ours = os.pipe()
        open_files.callback(os.close, ours)
        environment = os.environ | {
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            _STORE: str(Path(folder) / "store"),  # a file, since ports can be taken
            _LIFELINE: "1",
        }
        environment.setdefault("OMP_NUM_THREADS", str(max(cores() // processes, 1)))
        # -P, unless we have it from there: a folder called thirtytwo where the user happens to be is not imported.
        apart = [] if str(Path.cwd()) in sys.path else ["-P"]
        command = [sys.executable, *apart, "-m", "thirtytwo", *sys.argv[1:]]
        started: list[subprocess.Popen[bytes]] = []

        def hand_on(number: int) -> None:
            for process in started:
                process.send_signal(number)

        with caught(hand_on) as asked:
            for number in range(processes):
                own: dict[str, Any] = {}
                if number:
                    own = {"stdout": subprocess.DEVNULL, "stderr": said[number]}
                started.append(
                    subprocess.Popen(
                        command,
                        env=environment | {"RANK": str(number), "LOCAL_RANK": str(number)},
                        stdin=theirs,
                        start_new_session=True,  # Ctrl-C reaches them through us alone, and so once
                        **own,
                    )
                )
            os.close(theirs)
            killed = _wait(started, asked)
        return _verdict(started, said, killed, asked)


def _wait(processes: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> set[int]:
    """Wait for all to end, but not for long once one has failed or a second signal has come.

    Returns:
        Numbers of those that had to be killed.
    """
    deadline: float | None = None
    killed: set[int] = set()
    while running := [number for number, process in enumerate(processes) if process.poll() is None]:
        has_failed = any(process.returncode not in (None, 0, *STOPPED) for process in processes)
        if deadline is None and (has_failed or len(asked) > 1):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            killed.update(running)
            for number in running:
                processes[number].kill()
        time.sleep(BETWEEN_LOOKS)
    return killed


def _verdict(
    processes: Sequence[subprocess.Popen[bytes]], said: Sequence[IO[bytes]], killed: set[int], asked: Sequence[int]
) -> int:
    """The exit code of all of them; says who is to blame, unless the first one has said it itself."""
    first = processes[0].returncode
    expected = (0, LOST, *STOPPED, *(-number for number in asked))
    blamed = [
        number
        for number, process in enumerate(processes)
        if process.returncode not in expected and number not in killed
    ]
    if first > 0 and first != LOST:
        return first
    if not blamed:
        return first if first == 0 else 128 + asked[0] if asked else 1
    # One that was killed says nothing, so it goes first.
    number = min(blamed, key=lambda number: processes[number].returncode)
    code = processes[number].returncode
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        _say(
            f"error: process {number} of {len(processes)} was killed by {name}; expected all of them to run to the "
            "end, so the others were stopped. The system kills processes when memory runs out. "
            "`thirtytwo train --resume RUN` continues from the last checkpoint"
        )
        return 1
    said[number].seek(0)
    _say(said[number].read().decode(errors="replace").strip() or f"error: process {number} ended with code {code}")
    return code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def begun_by(run: Path) -> int:
    """How many processes a run was begun by, so that as many go on with it; 1 where that cannot be read.

    What is wrong with the folder is told by the process that goes on.
    """
    try:
        found = json.loads((run / "environment.json").read_text(encoding="utf-8"))["ranks"]
    except (OSError, ValueError, KeyError, TypeError):
        return 1
    return found if isinstance(found, int) and found > 0 else 1
