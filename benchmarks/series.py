"""A series: the runs of a benchmark that may stand in one entry, and the folder in which they are kept.

Kept under benchmarks/.work: a folder for each series; ``sources``, with a clone of each commit that was measured, so
that editing does not change a benchmark that takes hours; a lock, so that no two benchmarks run at once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import measured
from measured import REPOSITORY, Refused
from thirtytwo import Images, environment
from thirtytwo.errors import ThirtytwoError
from thirtytwo.recipe import Recipe
from thirtytwo.run import remove_leftovers, write_atomic

WORK = REPOSITORY / "benchmarks" / ".work"
DESCRIBE = "import json, sys, thirtytwo.environment as e; print(json.dumps(e.describe(e.device(sys.argv[1]))))"


class ProgramFailed(ThirtytwoError):
    """A program that a benchmark started did not do its work."""


@dataclass(frozen=True)
class Series:
    """What all runs of a series share; if any of it differs, it is another series, in another folder."""

    commit: str
    """With ``+`` if there were changes."""
    sources: str
    """Names the content that was run: the commit, and a digest of the changes to it."""
    recipe: str
    """Digest of the recipe, or of all of them, comments left out."""
    data: str
    """Fingerprint of the training images."""
    machine: str
    """As environment.json describes it."""
    device: str
    """What trains: ``cpu`` or ``cuda``."""
    device_name: str
    """The processor."""
    threads: int
    """Of torch."""
    versions: Mapping[str, str]
    """Of Python and of the packages that can change a result."""
    rival: str
    """The competitor's package, with its version."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.commit[:7]}-{measured.digest(json.dumps(asdict(self), sort_keys=True))}"


# The folder ----------------------------------------------------------------------------------------------------------


def begin(series: Series, work: Path = WORK) -> Path:
    """The folder of a series, made if there is none yet."""
    folder = work / series.key
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if not (folder / "series.json").exists():
        # Begun anew after its folder was deleted, it is another series: what was recorded of the first one stays.
        name = f"{series.key}-{uuid.uuid4().hex[:8]}"
        write(folder / "series.json", {**asdict(series), "id": name, "commands": []})
    return folder


def note(folder: Path, command: str) -> None:
    """Remember a command that runs of this series are made with."""
    facts = read(folder / "series.json")
    if command not in facts["commands"]:
        write(folder / "series.json", {**facts, "commands": [*facts["commands"], command]})


def read(path: Path) -> dict[str, Any]:
    """A JSON object that `write` wrote."""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Store a JSON object, as a whole or not at all."""
    write_atomic(path, (json.dumps(facts, indent=1) + "\n").encode())


# What is run ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone() -> Iterator[int]:
    """Have the machine's benchmarks to oneself.

    Yields:
        A file descriptor to hand to every program that is started: if this process is killed, the machine is taken
        until they have ended too.

    Raises:
        Refused: another benchmark runs, or what a killed one left behind.
    """
    WORK.mkdir(exist_ok=True)
    with (WORK / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"{WORK}: a benchmark, or a training that a killed one left behind, is running; expected nothing else "
                "to run, since that would falsify both; wait for its end"
            ) from None
        yield file.fileno()


def in_turn(first: str, second: str, seed: int) -> tuple[str, str]:
    """Two rivals in the order in which a seed runs them, so that what drifts in a machine helps each as often."""
    return (first, second) if seed % 2 == 0 else (second, first)


def store_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file, as a whole or not at all."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomic(path, content.getvalue())


def command(measure: Callable[[int], int]) -> int:
    """Measure with the machine's benchmarks to oneself, and say what went wrong.

    Args:
        measure: takes what `alone` yields, returns an exit status.

    Returns:
        The exit status: also 2 if what was asked for was refused, 130 if it was interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill, too, waits for a checkpoint
    try:
        with alone() as lock:
            return measure(lock)
    except ThirtytwoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def call(words: Sequence[str | Path], lock: int, variables: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed; see `lines`."""
    return "".join(lines(words, lock, variables))


def lines(words: Sequence[str | Path], lock: int, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a program and pass on each line when it is printed; what it says on stderr goes to the terminal.

    Interrupted, this asks the program to end, which lets a training of ours write a checkpoint, and waits until it has.

    Args:
        words: the program and its arguments.
        lock: what `alone` yielded.
        variables: its environment, if not this process's.

    Raises:
        ProgramFailed: its exit status is not 0.
    """
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=dict(variables or os.environ), pass_fds=(lock,)
    ) as program:
        assert program.stdout is not None
        try:
            yield from program.stdout
        except KeyboardInterrupt:
            program.terminate()
            program.wait()
            raise
    if program.returncode:
        raise ProgramFailed(
            f"`{shlex.join(map(str, words))}` ended with status {program.returncode}; expected 0; see what it said, "
            "then give the same command again: what has been done is kept"
        )


def add_commit(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be told which commit to measure; see `commit_to_measure`."""
    parser.add_argument(
        "--commit",
        metavar="REV",
        help="commit to measure, to go on with a series; default: what is checked out",
    )


def commit_to_measure(dirty: bool, named: str | None = None) -> str:
    """The commit of this checkout, with ``+`` if it was changed and the changes are wanted.

    Args:
        dirty: whether they are.
        named: a commit to measure in its place, whatever is checked out now, as git names it.

    Raises:
        Refused: it cannot be told, or there are changes, or there is no such commit.
    """
    if named is not None:
        words = ["git", "rev-parse", "--verify", "--quiet", f"{named}^{{commit}}"]
        found = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        if found.returncode:
            raise Refused(f"--commit {named}: is no commit of {REPOSITORY}; expected one; see `git log`")
        return found.stdout.strip()
    if not (REPOSITORY / "src" / "thirtytwo").samefile(Path(environment.__file__).parent):
        raise Refused(
            f"thirtytwo comes from {environment.__file__}; expected {REPOSITORY / 'src'}; "
            f"install that one: pip install -e {REPOSITORY}"
        )
    commit = environment.commit()
    if commit is None:
        raise Refused(f"{REPOSITORY}: its commit cannot be told; expected a git checkout; clone the repository")
    if commit.endswith("+"):
        # measured.json changes with every run that is recorded; nothing that is measured reads it.
        except_records = f":(exclude){measured.PATH.relative_to(REPOSITORY).as_posix()}"
        words = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", except_records]
        changed = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout
        if not changed.strip():
            return commit.removesuffix("+")
        if not dirty:
            raise Refused(
                f"{REPOSITORY} has changes that are not committed:\n{changed}expected none, since results are recorded "
                "under a commit; commit or stash them, or measure them as they are with --dirty"
            )
    return commit


def clone(commit: str, lock: int) -> Path:
    """A checkout of the commit that nobody edits; a ``+`` stands for the changes, which are copied into it."""
    bare = commit.removesuffix("+")
    files = _sources() if commit.endswith("+") else []
    place = WORK / "sources" / (f"{bare}-{_content(files)}" if files else bare)
    if place.exists():
        return place
    beside = place.with_name(f"{place.name}.part")
    beside.parent.mkdir(exist_ok=True)
    shutil.rmtree(beside, ignore_errors=True)
    call(["git", "clone", "--quiet", "--no-checkout", REPOSITORY, beside], lock)
    call(["git", "-C", beside, "checkout", "--quiet", "--detach", bare], lock)
    if files:
        shutil.rmtree(beside / "src" / "thirtytwo")  # what was deleted since the commit goes, too
    for path in files:
        copy = beside / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    beside.rename(place)
    return place


def _sources() -> list[Path]:
    """Every file that decides what a run does, committed or not."""
    package = [path for path in (REPOSITORY / "src" / "thirtytwo").rglob("*") if path.suffix != ".pyc"]
    return sorted(path for path in [*package, *(REPOSITORY / "benchmarks").glob("*.py")] if path.is_file())


def _content(files: Sequence[Path]) -> str:
    content = hashlib.sha256()
    for path in files:
        if path != measured.PATH:
            content.update(f"{path.relative_to(REPOSITORY)}\n".encode())
            content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:16]


def variables_for(sources: Path) -> dict[str, str]:
    """The environment in which Python imports thirtytwo, and what benchmarks share, from a clone."""
    folders = [str(sources / "src"), str(sources / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join(folders)
    return {**os.environ, "PYTHONPATH": path}


def thirtytwo(words: Sequence[str], sources: Path, lock: int) -> str:
    """What a command of thirtytwo, from a clone, prints with ``--json``; see `call`."""
    # -P: a folder called thirtytwo where the user happens to be is not imported.
    program = [sys.executable, "-P", "-m", "thirtytwo", *words, "--json"]
    return call(program, lock, variables_for(sources))


def identify(
    commit: str, sources: Path, *, settings: Sequence[Recipe], images: Images, device: str, rival: str, lock: int
) -> Series:
    """The series that runs of these sources belong to.

    The clone is asked what its runs will record, before hours are spent on runs that record something else.

    Args:
        commit: that was cloned.
        sources: the clone.
        settings: the recipes that are trained.
        images: the training images.
        device: as ``--device`` takes it.
        rival: the competitor's package, with its version.
        lock: what `alone` yielded.

    Raises:
        Refused: they would record another commit.
    """
    facts = json.loads(call([sys.executable, "-P", "-c", DESCRIBE, device], lock, variables_for(sources)))
    # With changes to nothing but documents, what is run is the commit as it stands, and its runs say so.
    if facts["commit"] not in (commit, commit.removesuffix("+")):
        raise Refused(
            f"{sources}: its runs would record commit {facts['commit']}; expected {commit}; delete that folder, and "
            "look for what makes Python import another thirtytwo"
        )
    return Series(
        commit=facts["commit"],
        sources=sources.name,
        recipe=measured.digest("\n".join(recipe.digest for recipe in settings)),  # new settings make no new series
        data=images.fingerprint,
        machine=facts["machine"],
        device=facts["device"],
        device_name=facts["device_name"],
        threads=facts["threads"],
        versions=facts["versions"],
        rival=rival,
    )
