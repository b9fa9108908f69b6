"""The run folder: everything a training leaves behind, written so that a crash at any moment loses nothing.

    recipe.toml               the complete recipe, as resolved for the data
    environment.json          versions, machine, commit, data, seed, device
    metrics.csv               one row an epoch
    checkpoint/               the newest state of the training, from which it resumes
    model.safetensors         the trained network
    predictions.safetensors   probabilities for each split scored, and the pixels that the report shows
    result.json               the numbers
    report.html, figures/     the same for people

A file is replaced as a whole or not at all: written beside its place, flushed to the disk, renamed over the old one.
Nothing here is a pickle.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from thirtytwo import recipe as recipes
from thirtytwo.errors import ModelError, RunError, RunInUse, StorageError
from thirtytwo.recipe import Recipe

HEADER = "thirtytwo"
"""Key of our JSON in a safetensors file's metadata."""

Row = dict[str, float | int | None]


@dataclass
class Run:
    """A run folder that exists."""

    path: Path

    @classmethod
    def create(cls, out: str | Path | None, recipe: Recipe, environment: Mapping[str, Any]) -> Run:
        """Make a new run folder, with its recipe and its environment in it.

        A folder is a run from the moment at which environment.json is in it; one whose process was killed before that
        is taken over, since there is nothing in it to lose.

        Args:
            out: the folder itself; it may exist only if it is empty. None takes the first free ``runs/<name>-<n>``.
            recipe: as resolved for the data.
            environment: what the run runs on and with.

        Raises:
            RunError: the folder exists and holds something, or is a file.
            StorageError: it cannot be made.
        """
        if out is not None:
            run = cls(Path(out))
            with storing(f"the run folder {out}"):
                try:
                    run.path.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    raise RunError(f"{out}: a file is in the way; expected a folder; choose another --out") from None
                run._refuse_if_taken()  # asked twice: nothing is left behind in a folder that is somebody else's
        else:
            run = cls._first_free(recipe.name)
        with run.locked(), storing(f"the run folder {run.path}"):
            run._refuse_if_taken()
            remove_leftovers(run.path)
            run.recipe = recipe
            run.environment = environment
        return run

    def _refuse_if_taken(self) -> None:
        found = {path.name for path in self.path.iterdir()}
        foreign = found
        if ".lock" in found:  # what was killed while it made a run folder; a recipe without a lock is somebody's own
            foreign = {name for name in found - {".lock", "recipe.toml"} if not is_leftover(name)}
        if foreign:
            is_run = (self.path / "environment.json").exists()
            remedy = f"`thirtytwo train --resume {self.path}` goes on with it, or " if is_run else ""
            raise RunError(
                f"{self.path}: exists already and is not empty; expected a new folder; {remedy}choose another --out"
            )

    @classmethod
    def _first_free(cls, name: str) -> Run:
        with storing("the run folder"):
            Path("runs").mkdir(exist_ok=True)
            for number in range(1, 1_000_000):
                # mkdir is atomic: of two runs started at once, one gets the number and the other the next.
                with contextlib.suppress(FileExistsError):
                    path = Path("runs") / f"{name}-{number}"
                    path.mkdir()
                    return cls(path)
        raise RunError("runs/: every number up to a million is taken; remove some run folders or choose --out")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run folder.

        Raises:
            RunError: there is no run in this folder.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(
                f"{path}: no such folder; expected a run folder, as `thirtytwo train` makes them; check the path"
            )
        if not (path / "recipe.toml").is_file() or not (path / "environment.json").is_file():
            raise RunError(
                f"{path}: not a run folder; expected recipe.toml and environment.json in it; name one that `thirtytwo "
                "train` has made"
            )
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder for this process; the operating system lets go of it when the process dies.

        Raises:
            RunInUse: another process holds it.
        """
        lock = FileLock(self.path / ".lock")
        with storing(str(self.path)):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise RunInUse(
                    f"{self.path}: another process (or another training in this one) is using it; wait for its end, or "
                    "choose another --out"
                ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def recipe(self) -> Recipe:
        """The recipe as resolved for this run."""
        return recipes.load(self.path / "recipe.toml")

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        write_atomic(self.path / "recipe.toml", recipe.to_toml().encode())

    @property
    def commit(self) -> str:
        """Of the program that began the run; empty where that is not known."""
        return str(self.environment.get("commit") or "")

    @property
    def environment(self) -> dict[str, Any]:
        """What the run ran on and with."""
        return self._json("environment.json")

    @environment.setter
    def environment(self, facts: Mapping[str, Any]) -> None:
        write_atomic(self.path / "environment.json", _json_bytes(facts))

    @property
    def result(self) -> dict[str, Any]:
        """The numbers; empty while there are none."""
        return self._json("result.json") if (self.path / "result.json").exists() else {}

    @result.setter
    def result(self, facts: Mapping[str, Any]) -> None:
        write_atomic(self.path / "result.json", _json_bytes(facts))

    @property
    def metrics(self) -> list[Row]:
        """One row an epoch; an empty cell is None."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [
                    {
                        key: None if text == "" else int(text) if key == "epoch" else float(text)
                        for key, text in row.items()
                    }
                    for row in csv.DictReader(file)
                ]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise RunError(f"{path}: damaged ({error}); expected the numbers that `thirtytwo train` wrote") from None

    @metrics.setter
    def metrics(self, rows: Sequence[Row]) -> None:
        text = io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            # repr of a float reads back to the same float, bit for bit.
            writer.writerows({k: "" if v is None else repr(v) for k, v in row.items()} for row in rows)
        write_atomic(self.path / "metrics.csv", text.getvalue().encode())

    @property
    def checkpoint_path(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoint" / "newest.safetensors"

    @property
    def model_path(self) -> Path:
        """The trained network."""
        return self.path / "model.safetensors"

    @property
    def predictions_path(self) -> Path:
        """Probabilities of the splits that were scored."""
        return self.path / "predictions.safetensors"

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files that say how the run was made, what happened on the way, and what came of it."""
        paths = (self.path / "recipe.toml", self.path / "environment.json", self.path / "metrics.csv", self.model_path)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()}

    def check_unchanged(self) -> None:
        """Whether the files are those that the scores in result.json are about; one that is missing is no other one.

        Raises:
            RunError: one was changed since the run was scored.
        """
        now = self.digests()
        for name, digest in self.result.get("files", {}).items():  # unknown to runs of earlier versions
            if now.get(name, digest) != digest:
                raise RunError(
                    f"{self.path / name}: was changed after the run was scored; expected it as `thirtytwo train` left "
                    "it, since that is what the scores in result.json are about; put it back, or train again"
                )

    def predictions(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What predictions.safetensors holds: tensors by name, and its header.

        Raises:
            RunError: the run has not been evaluated.
        """
        if not self.predictions_path.exists():
            raise RunError(f"{self.path}: has not been evaluated; expected {self.predictions_path.name} in it")
        return read_tensors(self.predictions_path)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path}: cannot be read ({error}); expected the JSON that `thirtytwo train` wrote"
            ) from None
        if not isinstance(facts, dict):
            raise RunError(f"{path}: holds {type(facts).__name__}; expected a JSON object, as `thirtytwo train` writes")
        return facts


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file atomically, with `header` as JSON in its metadata.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is still there.
    """
    # Cloned, so that tensors which share memory (tied weights) can be stored at all.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain, metadata={HEADER: json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file that `write_tensors` wrote.

    Returns:
        The tensors by name, on the CPU, and the header.

    Raises:
        ModelError: the file is missing, cut short, a pickle, or not ours.
    """
    expected = "expected a safetensors file written by thirtytwo"
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); {expected}; check the path") from None
    try:
        tensors: dict[str, Tensor] = {}
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensors[name] = file.get_tensor(name)
    except Exception as error:  # the library raises several kinds
        # Asked only now: the length that a good file begins with can read like a pickle's first bytes.
        if start == b"PK\x03\x04" or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ModelError(
                f"{path}: is a pickle, as torch.save writes them, and a pickle can run any code; {expected}. "
                "Load it yourself if you trust it, and pass the network: train(recipe, data, network=module)"
            ) from None
        raise ModelError(
            f"{path}: no model file, or one that is damaged or cut short ({error}); {expected}; name a run folder or a "
            "model file, or copy or train it again"
        ) from None
    try:
        header = json.loads(metadata[HEADER])
    except (KeyError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: has no {HEADER!r} header; {expected}; name a run folder or such a file")
    return tensors, header


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file by new content, as a whole or not at all, even if the power goes.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with storing(str(path)):
        # One level at most: if somebody deleted the run folder, that is an error, not the start of another one.
        path.parent.mkdir(exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)  # noqa: PTH105 - the system call that the promise rests on, by its own name
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # the new name, too, must reach the disk
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed `write_atomic` leaves."""
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete what `write_atomic` was writing in this folder when its process was killed."""
    for path in folder.glob(".*.part"):
        if (leftover := _LEFTOVER.fullmatch(path.name)) and not _is_running(int(leftover[1])):
            path.unlink(missing_ok=True)


_LEFTOVER = re.compile(r"\..+\.(\d+)\.part")
"""What a killed `write_atomic` leaves: the file's name and the number of the process."""


def _is_running(process: int) -> bool:
    if os.name != "posix" or process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # asks only, sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


@contextlib.contextmanager
def storing(what: str) -> Iterator[None]:
    """Say clearly why something cannot be written.

    Args:
        what: it is.

    Raises:
        StorageError: in place of an error of the operating system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{what}: the disk is full; free some space, then try again; --resume goes on with a run that has begun"
            ) from error
        raise StorageError(f"{what}: cannot be written ({error.strerror}); expected a writable folder") from error


def _json_bytes(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()
