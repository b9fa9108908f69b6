from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thirtytwo import environment
from thirtytwo import recipe as recipes
from thirtytwo.errors import ModelError, RunError, StorageError
from thirtytwo.run import Row, Run, read_tensors, remove_leftovers, write_atomic, write_tensors


def complete(path: Path) -> Run:
    return Run.create(path, recipes.load("classic"), {"seed": 0})


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    run = complete(tmp_path / "run")
    rows: list[Row] = [
        {"epoch": 1, "train_loss": 0.1 + 0.2, "validation_loss": None},
        {"epoch": 2, "train_loss": 1e-300, "validation_loss": 3.0},
    ]
    run.metrics = rows
    run.result = {"accuracy": 1 / 3, "name": "é"}
    again = Run.open(run.path)
    assert again.recipe == recipes.load("classic")
    assert again.metrics == rows
    assert again.result == {"accuracy": 1 / 3, "name": "é"}


def test_nothing_in_a_run_folder_but_what_was_meant_for_it(tmp_path: Path) -> None:
    run = complete(tmp_path / "run")
    assert sorted(file.name for file in run.path.iterdir()) == [".lock", "environment.json", "recipe.toml"]


def test_default_folders_are_numbered_and_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Run.create(None, recipes.load("classic"), {}).path for _ in range(3)]
    assert [str(path) for path in paths] == ["runs/classic-1", "runs/classic-2", "runs/classic-3"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        complete(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    complete(tmp_path / "run")
    with pytest.raises(RunError, match=r"--resume .*run"):
        complete(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert complete(tmp_path / "empty").path == tmp_path / "empty"


def test_a_file_in_the_way_of_a_folder_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="choose another --out"):
            complete(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_whose_making_was_killed_is_taken_over(tmp_path: Path) -> None:
    whole = complete(tmp_path / "whole")
    for left in (
        [],
        [".lock"],
        [".lock", ".recipe.toml.999999999.part"],
        [".lock", "recipe.toml", ".environment.json.999999999.part"],
    ):
        path = tmp_path / f"left {len(left)}"
        path.mkdir()
        for name in left:
            (path / name).write_bytes(b"" if name == ".lock" else b"half")
        run = complete(path)
        assert sorted(file.name for file in run.path.iterdir()) == sorted(file.name for file in whole.path.iterdir())
        assert run.recipe == whole.recipe


def test_a_recipe_of_ones_own_in_the_folder_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    for name in ("recipe.toml", "mine.part", ".mine.txt.5.part"):
        path = tmp_path / name / "run"
        path.mkdir(parents=True)
        (path / name).write_text("mine")
        with pytest.raises(RunError, match="not empty"):
            complete(path)
        assert [file.name for file in path.iterdir()] == [name]


def test_a_run_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    run = complete(tmp_path / "run")
    shutil.rmtree(run.path)
    with pytest.raises(StorageError, match="cannot be written"):
        write_tensors(run.checkpoint_path, {}, {})
    assert not run.path.exists()


def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    living, gone = (tmp_path / f".result.json.{number}.part" for number in (os.getppid(), dead.stdout.strip()))
    living.touch()
    gone.touch()
    remove_leftovers(tmp_path)
    assert living.exists()
    assert not gone.exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run folder"):
        Run.open(tmp_path)
    run = complete(tmp_path / "run")
    (run.path / "environment.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        _ = run.environment


def test_a_run_folder_belongs_to_one_process_at_a_time_and_to_none_after_its_death(tmp_path: Path) -> None:
    run = complete(tmp_path / "run")
    script = f"""
import sys
from pathlib import Path
from thirtytwo.run import Run
with Run(Path({str(run.path)!r})).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="another process"), run.locked():
        pass
    holder.kill()
    holder.communicate()
    with run.locked():
        pass


def test_tensors_and_header_survive_to_the_bit(tmp_path: Path) -> None:
    shared = torch.rand(3, 4)
    tensors = {
        "a": torch.tensor([0.1, float("nan"), -0.0]),
        "shared": shared,
        "shared too": shared,
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "step": torch.tensor(3.0),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"pi": 3.141592653589793, "list": [1, None]})
    read, header = read_tensors(tmp_path / "x.safetensors")
    assert header == {"pi": 3.141592653589793, "list": [1, None]}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].nan_to_num(7), tensor.nan_to_num(7))


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x4B50], ids=hex)
def test_a_file_that_begins_like_a_pickle_by_chance_is_read(tmp_path: Path, length: int) -> None:
    # A safetensors file begins with the length of its header, and that can be any multiple of eight.
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"w": torch.ones(2)}, {"padding": ""})
    shortest = int.from_bytes(path.read_bytes()[:8], "little")
    write_tensors(path, {"w": torch.ones(2)}, {"padding": "x" * (length - shortest)})
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert torch.equal(read_tensors(path)[0]["w"], torch.ones(2))


def test_a_pickle_is_refused_without_being_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.system, (f"touch {tmp_path}/ran",))

    for name, content in (("p2", pickle.dumps(Evil(), 2)), ("p4", pickle.dumps(Evil(), 4))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="pickle"):
            read_tensors(tmp_path / name)
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="pickle"):
        read_tensors(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stored") / "model.safetensors"
    write_tensors(path, {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3)}, {"format": 1})
    return path.read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_never_a_crash(
    stored: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(stored)
    match data.draw(st.sampled_from(["cut", "flip", "noise"])):
        case "cut":
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        case "flip":
            for _ in range(data.draw(st.integers(1, 4))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        case "noise":
            content = bytearray(data.draw(st.binary(max_size=200)))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        read_tensors(path)
    except ModelError as error:
        assert "expected" in str(error)


def test_a_missing_or_foreign_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read_tensors(tmp_path / "none.safetensors")
    import safetensors.torch

    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="no 'thirtytwo' header"):
        read_tensors(tmp_path / "foreign.safetensors")


def test_a_full_disk_keeps_the_old_file_and_leaves_no_half_one(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        write_atomic(place / "state", b"old" * 1000)
        with pytest.raises(StorageError, match="disk is full") as caught:
            write_atomic(place / "state", bytes(400_000))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert (place / "state").read_bytes() == b"old" * 1000
        assert [file.name for file in place.iterdir()] == ["state"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_cannot_be_written_is_a_clear_error() -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomic(Path("/proc/thirtytwo/state"), b"")


def test_result_is_plain_json(tmp_path: Path) -> None:
    run = complete(tmp_path / "run")
    run.result = {"x": 1.5}
    assert json.loads((run.path / "result.json").read_text()) == {"x": 1.5}


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["/usr/bin/thirtytwo", "train", "a b"], "thirtytwo train 'a b'"),
        (["/somewhere/thirtytwo/__main__.py", "train"], "python -m thirtytwo train"),
        (
            ["/bin/thirtytwo", "--storage", "mysql+x://me:p:ss@host/db"],
            "thirtytwo --storage 'mysql+x://me:***@host/db'",
        ),
        (["/bin/thirtytwo", "a:b@c", "http://host:80/a"], "thirtytwo a:b@c http://host:80/a"),
    ],
)
def test_a_run_tells_the_command_as_somebody_would_type_it(
    words: list[str], typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert environment.command() == typed
