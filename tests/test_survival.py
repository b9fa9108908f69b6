"""Real training processes, killed with SIGKILL, resumed, and compared to the bit with one that nobody disturbed.

A server process imports the package once and forks each training from there; it never computes anything itself, so that
its children start with no threads but their own.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.run import Run, read_tensors

SERVER = r"""
import json, os, signal, sys
from pathlib import Path
import safetensors.torch
import torch._dynamo  # each child would import it for itself
from thirtytwo import recipe as recipes
from thirtytwo.train import resume, train

SPEC = "shapes:training=150,test=20"
WORDS = ["batch_size=32", "model.stages=[[4], [8]]", "model.hidden_units=8", "epochs=5", "averaging.epochs=0.7"]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(training, number):
    # Counts steps over all processes: what the checkpoint holds, and one more for each forward pass.
    def hook(network, *_):
        progress = training._state.progress
        if network.training and progress.epoch * training._loader.steps + progress.step >= number:
            kill()
    training.network.register_forward_hook(hook)


def at_point(name, epoch, training):
    # Kills at one point of the write of the checkpoint after this epoch; the points are those of write_atomic.
    here = lambda: training._state.progress.epoch == epoch
    opened, fsync, replace, save = Path.open, os.fsync, os.replace, safetensors.torch.save
    state = {"fsync": 0}
    def my_save(*words, **more):
        if here() and name == "before anything is written":
            kill()
        return save(*words, **more)
    def my_open(path, mode="r", *words, **more):
        file = opened(path, mode, *words, **more)
        if here() and mode == "wb" and "newest" in path.name:
            if name == "file made, still empty":
                kill()
            if name == "half written":
                write = file.write
                class Half:
                    def __enter__(self): return self
                    def __exit__(self, *_): pass
                    def write(self, content):
                        write(content[: len(content) // 2]); file.flush(); kill()
                return Half()
        return file
    def my_fsync(number):
        if not here():
            return fsync(number)
        state["fsync"] += 1
        if state["fsync"] == 1 and name == "written, not on the disk":
            kill()
        if state["fsync"] == 2 and name == "renamed, folder not on the disk":
            kill()
        fsync(number)
        if state["fsync"] == 2 and name == "all done":
            kill()
    def my_replace(source, target):
        if here() and name == "on the disk, not renamed":
            kill()
        replace(source, target)
        if here() and name == "renamed":
            kill()
    Path.open, os.fsync, os.replace, safetensors.torch.save = my_open, my_fsync, my_replace, my_save


def before_file(name):
    # Kills when the file is about to take its place.
    replace = os.replace
    def my_replace(source, target):
        if Path(target).name == name:
            kill()
        replace(source, target)
    os.replace = my_replace


def child(order):
    os.chdir(order["folder"])
    if order.get("file"):
        before_file(order["file"])
    run = Path("run")
    words = [*WORDS, f"checkpoint_minutes={order['minutes']}", *order.get("words", [])]
    begun = (run / "environment.json").exists()
    training = resume(run) if begun else train(recipes.load("classic", words), SPEC, seed=4, out=run)
    if order.get("step") is not None:
        at_step(training, order["step"])
    if order.get("point"):
        at_point(order["point"], order["epoch"], training)
    training.finish()


for line in sys.stdin:
    order = json.loads(line)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            child(order)
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""

STEPS_PER_EPOCH, EPOCHS = 5, 5  # 135 training images in batches of at most 32

Start = Callable[..., int]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Runs a training in a process of its own until it ends or is killed; returns its exit code."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None

    def run(folder: Path, minutes: float = 0.0, **order: Any) -> int:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"folder": str(folder), "minutes": minutes, **order}) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield run
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder) == 0
    return Run.open(folder / "run")


def assert_same(one: Run, other: Run) -> None:
    """Weights, optimiser state, best weights, metrics: everything but times, bit for bit."""
    for path in ("model_path", "checkpoint_path"):
        tensors, others = read_tensors(getattr(one, path))[0], read_tensors(getattr(other, path))[0]
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            assert tensor.numpy().tobytes() == others[name].numpy().tobytes(), name
    times = ("images_per_second", "seconds")
    rows, other_rows = (
        [{k: v for k, v in row.items() if k not in times} for row in run.metrics] for run in (one, other)
    )
    assert rows == other_rows


@pytest.mark.parametrize("minutes", [0.0, 1e-9], ids=["checkpoint each epoch", "checkpoint each step"])
def test_killed_at_any_step_a_run_ends_with_the_same_bits(
    start: Start, undisturbed: Run, tmp_path: Path, minutes: float
) -> None:
    steps = sorted(random.Random(32).sample(range(1, STEPS_PER_EPOCH * EPOCHS), 20 if minutes else 10))
    for step in steps:
        assert start(tmp_path, minutes, step=step) == -signal.SIGKILL
    assert start(tmp_path, minutes) == 0
    assert_same(Run.open(tmp_path / "run"), undisturbed)


def test_killed_at_any_step_a_run_with_a_teacher_and_weights_to_begin_with_ends_with_the_same_bits(
    start: Start, undisturbed: Run, tmp_path: Path
) -> None:
    words = [f"teacher.model={undisturbed.path}", f"start.model={undisturbed.path}", "augmentation.mixup_alpha=0.3"]
    for place in ("whole", "killed"):
        (tmp_path / place).mkdir()
    assert start(tmp_path / "whole", words=words) == 0
    for step in (3, 9, 10, 17, 24):
        assert start(tmp_path / "killed", 1e-9, words=words, step=step) == -signal.SIGKILL
    assert start(tmp_path / "killed", words=words) == 0
    whole = Run.open(tmp_path / "whole" / "run")
    assert_same(Run.open(tmp_path / "killed" / "run"), whole)
    assert whole.result["teacher"]["model"] == whole.result["start"]["model"] == str(undisturbed.path.resolve())


@pytest.mark.parametrize(
    "point",
    [
        "before anything is written",
        "file made, still empty",
        "half written",
        "written, not on the disk",
        "on the disk, not renamed",
        "renamed",
        "renamed, folder not on the disk",
        "all done",
    ],
)
def test_killed_at_any_point_of_a_checkpoints_write_a_run_ends_with_the_same_bits(
    start: Start, undisturbed: Run, tmp_path: Path, point: str
) -> None:
    assert start(tmp_path, point=point, epoch=3) == -signal.SIGKILL
    header = read_tensors(Run.open(tmp_path / "run").checkpoint_path)[1]
    # Either the old checkpoint or the new one, whole.
    assert header["progress"]["epoch"] == (
        3 if point in ("renamed", "renamed, folder not on the disk", "all done") else 2
    )
    assert start(tmp_path) == 0
    assert_same(Run.open(tmp_path / "run"), undisturbed)
    assert not list((tmp_path / "run").rglob("*.part"))


def program(*words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "thirtytwo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        **more,
    )


COMMAND = (
    "train", "classic", "--data", "shapes:training=150,test=20", "--seed", "4", "--epochs", "5",
    "--set", "batch_size=32", "--set", "model.stages=[[4], [8]]", "--set", "model.hidden_units=8",
    "--set", "checkpoint_minutes=0.0", "--set", "averaging.epochs=0.7",
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill -9", "ctrl-c", "kill"])
def test_the_program_resumes_to_the_same_bits_scores_once_and_reports(
    undisturbed: Run, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = program(*COMMAND, "--out", str(run))
    assert process.stdout is not None
    sent = False
    for line in process.stdout:
        if line.startswith("    2/5  "):
            process.send_signal(number)
            sent = True
            break
    rest, problems = process.communicate()
    assert sent
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    elif process.returncode != 0:  # it may have been past its last step when the signal came
        assert process.returncode == 128 + number
        assert f"--resume {run}" in rest
    assert "Traceback" not in problems
    again = program("train", "--resume", str(run), "--json")
    output, problems = again.communicate()
    assert again.returncode == 0, problems
    assert json.loads(output)["test"]["accuracy"] == Run.open(run).result["test"]["accuracy"]
    assert json.loads(output)["test_opening"] == 1
    assert_same(Run.open(run), undisturbed)
    assert "<html" in (run / "report.html").read_text()


@pytest.mark.parametrize("name", ["recipe.toml", "environment.json", "newest.safetensors", "model.safetensors"])
def test_killed_before_a_file_is_in_its_place_a_run_ends_with_the_same_bits(
    start: Start, undisturbed: Run, tmp_path: Path, name: str
) -> None:
    assert start(tmp_path, file=name) == -signal.SIGKILL
    assert start(tmp_path) == 0
    assert_same(Run.open(tmp_path / "run"), undisturbed)


def test_of_two_runs_in_one_folder_one_trains_and_the_other_says_why_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = [program(*COMMAND, "--out", str(run)) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2]
    for process, (_, problems) in zip(processes, outputs, strict=True):
        assert "Traceback" not in problems
        if process.returncode == 2:
            assert "choose another --out" in problems
    assert Run.open(run).result["test"]


def test_out_of_memory_is_a_clear_error(tmp_path: Path) -> None:
    words = ["--set", "batch_size=4000", "--set", "model.stages=[[256]]", "--out", str(tmp_path / "run")]
    command = [
        sys.executable,
        "-m",
        "thirtytwo",
        "train",
        "classic",
        "--data",
        "shapes:training=4000,test=20",
        "--epochs",
        "1",
    ]
    limited = ["sh", "-c", 'ulimit -v 3500000; exec "$@"', "sh", *command, *words]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "out of memory with batch_size 4000" in done.stderr
    assert "batch_size=2000" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_room(undisturbed: Run, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        ballast = place / "ballast"
        size = undisturbed.checkpoint_path.stat().st_size
        ballast.write_bytes(bytes(4 * 2**20 - 2**16 - size))
        process = program(*COMMAND, "--out", str(place / "run"))
        _, problems = process.communicate()
        assert process.returncode == 1
        assert "disk is full" in problems
        assert "Traceback" not in problems
        ballast.unlink()
        again = program("train", "--resume", str(place / "run"))
        _, problems = again.communicate()
        assert again.returncode == 0, problems
        assert_same(Run.open(place / "run"), undisturbed)
    finally:
        subprocess.run(["umount", str(place)], check=True)
