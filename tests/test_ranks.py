"""Several processes train one network: the same images, the same weights but for rounding, and no process left behind.

Real processes that talk over gloo. A pair of them takes through all trainings that are compared with those of one
process, so that torch is imported twice and not forty times.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.test_step import VARIANTS, settings_of
from tests.test_train import rows, same, small, source, weights
from thirtytwo import ranks as ranks_module
from thirtytwo import recipe as recipes
from thirtytwo.cli.show import Screen
from thirtytwo.data import Images, augmenter, mixer
from thirtytwo.data.loader import Loader, Standardise
from thirtytwo.errors import DeviceError, RecipeError
from thirtytwo.ranks import Ranks, joined
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run, read_tensors
from thirtytwo.train import resume, train

ROOT = Path(__file__).parent.parent
SPEC = "shapes:training=150,test=20"
PLAIN = [
    "epochs=3", "batch_size=32", "optimizer.name=sgd", "optimizer.learning_rate=0.02", "schedule.name=constant",
]  # fmt: skip
SAME = {
    "plain": PLAIN,
    "sum": [*PLAIN, "loss.reduction=sum", "optimizer.learning_rate=0.001"],
    "mixed": [*PLAIN, "augmentation.mixup_alpha=0.4", "augmentation.cutmix_alpha=1.0", "augmentation.policy=rand"],
    "selected": [*PLAIN, "selection.drop=0.4", "drop_last=true"],
    "uphill": [*PLAIN, "loss.sharpness_radius=0.05"],
    "adam": ["epochs=2", "batch_size=33"],
    "muon": ["epochs=2", "batch_size=32", "optimizer.name=muon", "averaging.epochs=0.7"],
    "transformer": [
        *PLAIN, "model.name=transformer", "model.width=16", "model.depth=1", "model.heads=2", "model.tokenizer=2",
        "model.attention_dropout=0", "model.stochastic_depth=0",
    ],
}  # fmt: skip
"""Trainings without batch normalisation and without chance inside of the network, on one of our own unless it is named:
two processes end as one does."""
USUAL = ["epochs=4", "batch_size=32", "model.stages=[[4], [8]]", "model.hidden_units=16"]
"""Batch normalisation and dropout: two processes end about as one does."""

PAIR = r"""
import json, sys
from pathlib import Path
import torch
from thirtytwo import recipe as recipes
from thirtytwo.errors import RanksDiffer
from thirtytwo.ranks import joined
from thirtytwo.train import resume, train
from tests.test_ranks import PLAIN, SAME, SPEC, USUAL, network

told = {}


def flags(training):
    return [training.interrupted, training._state.progress.epoch, training._state.progress.step]


with joined("cpu") as ranks:
    # A network of its owner's is drawn otherwise on each rank: the first one's counts.
    for name, words in SAME.items():
        own = None if name == "transformer" else network(seed=ranks.number)
        train(recipes.load("classic", words), SPEC, network=own, out=name, ranks=ranks).finish()
    usual = recipes.load("classic", USUAL)
    events = list(train(usual, SPEC, out="usual", ranks=ranks))
    told["events"] = len(events)

    # The last one is asked to stop.
    training = train(usual, SPEC, out="stopped", ranks=ranks)
    steps = 0

    def stop(module, *_):
        global steps
        steps += module.training
        if steps == 7 and ranks.number == 1:
            training.interrupt()

    training.network.register_forward_hook(stop)
    training.finish()
    told["stopped"] = flags(training)
    resume("stopped", ranks=ranks).finish()

    training = train(usual, SPEC, out="tampered", ranks=ranks)

    def tamper(module, *_):
        if ranks.number == 1:
            with torch.no_grad():
                module.block1_1.convolution.weight[0, 0, 0, 0] += 1e-6

    training.network.register_forward_pre_hook(tamper)
    try:
        training.finish()
    except RanksDiffer as error:
        told["tampered"] = str(error)
    try:
        train(usual, SPEC, seed=ranks.number, out="seeds", ranks=ranks)
    except RanksDiffer as error:
        told["seeds"] = str(error)
    told["said"] = ranks.gathered({"name": "ä" * ranks.number})
Path(f"told-{ranks.number}.json").write_text(json.dumps(told))
"""


def network(seed: int) -> nn.Module:
    """A small network without batch normalisation."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **more}


def start(*words: str | Path) -> subprocess.Popen[str]:
    """The program, as somebody starts it."""
    command = [sys.executable, "-m", "thirtytwo", "train", *map(str, words)]
    return subprocess.Popen(command, text=True, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained together."""
    folder = tmp_path_factory.mktemp("pair")
    place = {"WORLD_SIZE": "2", ranks_module.STORE: str(folder / "store")}
    both = [
        subprocess.Popen([sys.executable, "-c", PAIR], cwd=folder, env=environment(RANK=str(number), **place))
        for number in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    return folder


def told(pair: Path) -> list[dict[str, Any]]:
    return [json.loads((pair / f"told-{number}.json").read_text()) for number in range(2)]


def checkpoint(run: Path) -> dict[str, Tensor]:
    return read_tensors(Run.open(run).checkpoint_path)[0]


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_parts_of_a_batch_are_all_of_it_and_equal_but_for_one_image(images: int, size: int) -> None:
    parts = [Ranks(number, size).part(images) for number in range(size)]
    assert [begin for begin, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == images
    lengths = {end - begin for begin, end in parts}
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) == images // size  # what preflight counts on


@pytest.mark.parametrize("words", [[], ["mixup_alpha=0.4", "cutmix_alpha=1.0"], ["alternating_flip=true"]])
def test_ranks_together_make_the_images_that_one_process_makes(words: list[str], small_images: Images) -> None:
    changes = ["policy=trivial", "erasing_probability=0.5", "cutout_pixels=2", "translate_pixels=1", "brightness=0.1"]
    plain = ["horizontal_flip=false"] if "alternating_flip=true" in words else []
    recipe = recipes.load("classic", [f"augmentation.{word}" for word in [*plain, *changes, *words]])

    def loader(ranks: Ranks | None) -> Loader:
        return Loader(
            small_images,
            batch_size=50,
            seed=5,
            standardise=Standardise(),
            augment=augmenter(recipe.augmentation, recipe.pixels),
            alternating_flip=recipe.augmentation.alternating_flip,
            translate_pixels=recipe.augmentation.translate_pixels,
            mixing=mixer(recipe.augmentation),
            part=None if ranks is None else ranks.part,
        )

    whole, parts = loader(None), [loader(Ranks(number, 3)) for number in range(3)]
    for epoch in range(2):
        for step, chosen in enumerate(whole.plan(epoch)):
            assert all(torch.equal(part.plan(epoch)[step], chosen) for part in parts)
            one = whole.batch(whole.draw(epoch, step, chosen))
            several = [part.batch(part.draw(epoch, step, chosen)) for part in parts]
            assert [len(batch.labels) for batch in several] == [16, 17, 17]
            for name in one._fields:
                expected, found = getattr(one, name), [getattr(batch, name) for batch in several]
                if expected is None:
                    assert found == [None] * 3
                else:
                    assert torch.allclose(torch.cat(found), expected, atol=1e-5), name


def check_company_of_none(
    recipe: Recipe, images: Images, device: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """That one rank, which talks to itself, ends with the bits of one process."""
    alone = train(recipe, source(images), device=device)
    alone.finish()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", ranks_module.STORE: str(folder / "store")}.items():
        monkeypatch.setenv(name, value)
    with joined(device) as ranks:
        assert ranks == Ranks(0, 1, 1, together=True)
        joint = train(recipe, source(images), device=device, ranks=ranks)
        joint.finish()
    assert same(weights(alone), weights(joint))
    assert rows(alone) == rows(joint)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rank_without_company_ends_with_the_bits_of_one_process(
    variant: str, small_images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_company_of_none(settings_of(variant), small_images, "cpu", monkeypatch, tmp_path)


@pytest.mark.parametrize("name", SAME)
def test_two_processes_end_with_the_weights_of_one(name: str, pair: Path, tmp_path: Path) -> None:
    own = None if name == "transformer" else network(seed=0)
    one = train(recipes.load("classic", SAME[name]), SPEC, network=own, out=tmp_path / "one")
    one.finish()
    expected, found = checkpoint(tmp_path / "one"), checkpoint(pair / name)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        assert torch.allclose(tensor, found[key], atol=2e-4, rtol=1e-3), (key, float((tensor - found[key]).abs().max()))
    for row, other in zip(one.run.metrics, Run.open(pair / name).metrics, strict=True):
        for key in ("learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert row[key] == pytest.approx(other[key], rel=1e-3), key


def test_with_batch_normalisation_and_dropout_two_processes_learn_as_one_does(pair: Path, tmp_path: Path) -> None:
    one = train(recipes.load("classic", USUAL), SPEC, out=tmp_path / "one")
    one.finish()
    losses = [[float(row["train_loss"] or 0) for row in run.metrics] for run in (one.run, Run.open(pair / "usual"))]
    for first, other in zip(*losses, strict=True):
        assert first == pytest.approx(other, rel=0.1)
    assert losses[1][-1] < losses[1][0]


def test_only_the_first_rank_tells_what_happens(pair: Path) -> None:
    first, other = told(pair)
    assert first["events"] >= 4
    assert other["events"] == 0


def test_a_signal_to_any_rank_stops_all_at_the_same_step_and_they_resume_to_the_same_bits(pair: Path) -> None:
    first, other = (each["stopped"] for each in told(pair))
    assert first == other
    interrupted, epoch, step = first
    assert interrupted
    assert (1, 2) <= (epoch, step) <= (1, 5)  # at once, or when the epoch ends, which has five steps
    assert same(checkpoint(pair / "stopped"), checkpoint(pair / "usual"))


def test_weights_that_differ_between_ranks_end_a_training(pair: Path) -> None:
    for each in told(pair):
        assert "network.block1_1.convolution.weight: process 1 has" in each["tampered"]
    assert not Run.open(pair / "tampered").result


def test_ranks_that_were_started_differently_do_not_begin(pair: Path) -> None:
    for each in told(pair):
        assert "seed: process 1 has 1; expected 0, as process 0" in each["seeds"]
    assert not (pair / "seeds").exists()


def test_what_ranks_say_arrives_in_their_order(pair: Path) -> None:
    assert [each["said"] for each in told(pair)] == [[{"name": ""}, {"name": "ä"}]] * 2


def test_a_run_says_how_many_began_it(pair: Path, small_images: Images) -> None:
    assert Run.open(pair / "plain").environment["ranks"] == 2
    assert train(small(), source(small_images)).run.environment["ranks"] == 1


def test_a_batch_too_small_for_its_ranks_is_a_clear_error(small_images: Images) -> None:
    with pytest.raises(
        RecipeError, match="batch normalisation needs at least 2 for each of 20 processes; choose a larger"
    ):
        train(small(), source(small_images), ranks=Ranks(0, 20))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(RecipeError, match="there has to be one for each of 33 processes"):
        train(small(), source(small_images), network=plain, ranks=Ranks(0, 33))
    with pytest.raises(
        RecipeError, match=r"selection.drop: 0.6 .* 18 processes; choose a smaller one or fewer --devices"
    ):
        train(small("selection.drop=0.6", "batch_size=40"), source(small_images), ranks=Ranks(0, 18))


def test_more_processes_than_cores_are_told(small_images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    for processes, told_so in ((1, False), (9999, True)):
        Screen().training_begins(train(small(), source(small_images), ranks=Ranks(0, 1, processes)))
        assert (f"{processes} processes share" in capsys.readouterr().out) is told_so


def test_more_ranks_than_gpus_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", ranks_module.STORE: "store"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=r"4 processes on this machine, which has 1 CUDA device; .* --devices 1, or"):
        joined("auto").__enter__()
    with pytest.raises(DeviceError, match="expected auto, cpu or cuda"):
        joined("cuda:1").__enter__()


def test_nobody_else_talks_to_other_processes() -> None:
    knowing = {
        path.name
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"^\s*(import|from) torch(\.| import )distributed", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert knowing == {"ranks.py"}


COMMAND = (
    "classic", "--data", SPEC, "--seed", "4", "--epochs", "8", "--corrupted", "0", "--set", "batch_size=32",
    "--set", "model.stages=[[4], [8]]", "--set", "model.hidden_units=8",
)  # fmt: skip


def children(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> process, of those that the program has started."""
    place = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not place.exists():
        pytest.skip("needs Linux's /proc to find processes")
    found: dict[int, int] = {}
    for number in map(int, place.read_text().split()):
        words = Path(f"/proc/{number}/environ").read_bytes().decode().split("\0")
        found |= {int(word.partition("=")[2]): number for word in words if word.startswith("RANK=")}
    return found


def lines_until(process: subprocess.Popen[str], beginning: str) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if line.startswith(beginning):
            return
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_rank_ends_the_training_which_resumes_with_any_number_of_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*COMMAND, "--devices", "2", "--out", run)
    for _ in lines_until(process, "    2/8  "):
        pass
    ranks = children(process)
    assert set(ranks) == {0, 1}
    os.kill(ranks[1], signal.SIGKILL)
    begun = time.monotonic()
    _, problems = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode == 1
    assert "error: process 1 of 2 was killed by SIGKILL" in problems
    assert f"--resume {run}" in problems  # of the first one, which knows where it is
    assert "Traceback" not in problems
    assert not any(map(is_running, ranks.values()))

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    both = start("--resume", run, "--corrupted", "0", "--json")
    answer, problems = both.communicate(timeout=60)
    assert both.returncode == 0, problems
    assert json.loads(answer)["epochs"] == 8
    assert json.loads(answer)["test_opening"] == 1
    facts = Run.open(run).environment
    assert (facts["ranks"], facts.get("resumed_by_ranks")) == (2, None)
    promised = {"recipe.toml", "metrics.csv", "model.safetensors", "predictions.safetensors", "report.html"}
    assert promised <= {path.name for path in run.iterdir()}
    assert [row["epoch"] for row in Run.open(run).metrics] == list(range(1, 9))

    alone = resume(copy)
    assert (alone.ranks_before, alone.ranks) == (2, 1)
    alone.finish()
    assert (alone.ranks_before, Run.open(copy).environment["resumed_by_ranks"]) == (1, [1])
    for one, other in zip(Run.open(run).metrics, Run.open(copy).metrics, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.3)


def test_devices_train_one_run_and_ctrl_c_leaves_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*COMMAND, "--devices", "2", "--out", run)
    said = list(lines_until(process, "    1/8  "))
    assert any(line.startswith("at most 8 epochs") and " in 2 processes, " in line for line in said)
    assert sum(line.startswith("run folder:") for line in said) == 1
    process.send_signal(signal.SIGINT)
    answer, problems = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been past its last step when the signal came
        assert process.returncode == 130, problems
        assert f"--resume {run}" in answer
        assert math.isfinite(float(Run.open(run).metrics[0]["train_loss"] or 0))
    assert problems == ""


def test_processes_whose_launcher_is_killed_end_as_well(tmp_path: Path) -> None:
    process = start(*COMMAND, "--devices", "2", "--epochs", "500", "--out", tmp_path / "run")
    for _ in lines_until(process, "  1/500  "):
        pass
    ranks = children(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(map(is_running, ranks.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, ranks.values()))


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    process = start(*COMMAND, "--devices", "2", "--out", tmp_path / "run", "--set", "batch_size=3")
    _, problems = process.communicate(timeout=60)
    assert process.returncode == 2
    assert problems.count("error:") == 1
    assert "batch normalisation needs at least 2 for each of 2 processes" in problems
    assert not (tmp_path / "run").exists()


def test_more_processes_than_a_machine_can_have_are_refused(tmp_path: Path) -> None:
    process = start(*COMMAND, "--devices", "9999", "--out", tmp_path / "run")
    _, problems = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"error: 9999 processes: .*; expected at most \d+, .*; name fewer with --devices\s*", problems)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_starts_a_training_too(tmp_path: Path) -> None:
    words = (
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "thirtytwo",
        "train",
        *COMMAND,
        "--out",
        str(tmp_path / "run"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1
    assert Run.open(tmp_path / "run").environment["ranks"] == 2
