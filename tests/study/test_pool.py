"""Where trainings run changes nothing about them: here, on a cluster, on machines that die under them."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo import environment
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, find, from_arrays
from thirtytwo.data.sealed import open_test
from thirtytwo.errors import ClusterError, DataError, Diverged, StorageError, WorkerLost
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.study import Interrupted, Local, OnRay, Trials, Watcher, audit, compare, pool, repeat, tune
from thirtytwo.study.pool import in_order, packed, room_on, unpack
from thirtytwo.study.task import Ended, Task

SPEC = "shapes:training=300,test=50"
WORDS = ["batch_size=50", "model.stages=[[4],[8]]", "model.hidden_units=8", "validation=0.25"]


def small(*words: str) -> Recipe:
    return recipes.load("classic", ["epochs=3", *WORDS, *words])


def trials(folder: str, *words: str, where: OnRay | None = None) -> Trials:
    return Trials.of(small(*words), find(SPEC), Path(folder), pool=where)


def outcome(run: Run) -> tuple[Any, ...]:
    """Everything that a training comes to, but for the time that it took."""
    classifier, result = Classifier.load(run), run.result
    return (
        classifier.fingerprint,
        classifier.temperature,
        result["validation"],
        [row["train_loss"] for row in run.metrics],
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings here, each of which is done once for all tests."""
    return tmp_path_factory.mktemp("alone")


def assert_same_as_alone(study: Trials, seeds: Iterable[int], alone: Path) -> None:
    here = Trials.of(study.recipe, study.source, alone)
    assert here.path.name == study.path.name
    for trial in repeat(here, list(seeds)):
        assert outcome(study.run(trial.seed)) == outcome(trial.run)


# Without a cluster ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "demand", "room"),
    [
        ({"CPU": 8.0, "memory": 1e9}, {"CPU": 2}, 4),
        ({"CPU": 3.0}, {"CPU": 2}, 1),
        ({"CPU": 1.0}, {"CPU": 2}, 0),
        ({"CPU": 64.0, "GPU": 8.0}, {"CPU": 1, "GPU": 1.0}, 8),
        ({"CPU": 64.0, "GPU": 2.0}, {"CPU": 1, "GPU": 1 / 3}, 6),
        ({"CPU": 64.0, "GPU": 2.0}, {"CPU": 1, "GPU": 0.7}, 2),  # what is left of two GPUs is no GPU
        ({"CPU": 2.0, "GPU": 8.0}, {"CPU": 1, "GPU": 1.0}, 2),
        ({"CPU": 64.0}, {"CPU": 1, "GPU": 0.5}, 0),
        ({}, {"CPU": 1}, 0),
    ],
)
def test_room_on_a_machine(resources: dict[str, float], demand: dict[str, float], room: int) -> None:
    assert room_on(resources, demand) == room


@dataclass
class Shuffled:
    """Ends tasks in an order of its own, with some of them under way at once."""

    seed: int
    room: int
    most: int = 0

    def run(self, tasks: Iterable[Task], judge: pool.Judge | None = None) -> Generator[tuple[Task, Ended]]:
        draw, more, busy = random.Random(self.seed), iter(tasks), list[Task]()
        while True:
            while len(busy) < self.room and (task := next(more, None)) is not None:
                busy.append(task)
            if not busy:
                return
            self.most = max(self.most, len(busy))
            yield busy.pop(draw.randrange(len(busy))), Ended("trained")

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def interrupt(self) -> None: ...


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 12))
def test_in_order_is_the_order_of_the_tasks_whichever_ends_first(seed: int, room: int, number: int) -> None:
    recipe, source = small(), find(SPEC)
    tasks = [Task(recipe, source, each, Path(str(each)), "cpu", each, "") for each in range(number)]
    shuffled = Shuffled(seed, room)
    assert [task for task, _ in in_order(shuffled, tasks)] == tasks
    assert shuffled.most == min(room, number)


def test_a_task_is_asked_for_when_there_is_room_for_it() -> None:
    study, said = trials("study"), list[str]()

    def tasks() -> Iterator[Task]:
        for seed in range(2):
            said.append(f"asked for {seed}")
            yield study.task(seed)

    for task, ended in Local().run(tasks()):
        said.append(f"{ended.how} {task.seed}")
    assert said == ["asked for 0", "trained 0", "asked for 1", "trained 1"]


def test_what_a_judge_gives_up_lets_go_of_its_folder() -> None:
    study = trials("study")
    (end,) = Local().run([study.task(0)], lambda _, epoch: epoch.epoch < 2)
    assert end[1].how == "given up"
    assert [row["epoch"] for row in study.run(0).metrics] == [1, 2]
    with study.run(0).locked():
        pass


def test_a_failure_is_an_end_that_keeps_no_training_alive() -> None:
    ((_, ended),) = Local().run([trials("study", "optimizer.learning_rate=1e30").task(0)])
    assert isinstance(ended.error, Diverged)
    assert ended.error.__traceback__ is None
    with pytest.raises(Diverged):
        ended.check()


def test_a_run_folder_travels_whole_and_comes_to_be_a_run_at_last(tmp_path: Path) -> None:
    run = trials("study").trial(0).run
    (run.path / "checkpoint").mkdir()
    run.checkpoint_path.write_bytes(b"checkpoint")
    files = packed(run.path)
    unpack(tmp_path / "there", files)
    assert packed(tmp_path / "there") == files
    assert outcome(Run(tmp_path / "there")) == outcome(run)
    assert not any(name.startswith(".") for name in files)
    without = {name: content for name, content in files.items() if "checkpoint" not in name}
    unpack(tmp_path / "there", without)
    assert packed(tmp_path / "there") == without
    assert packed(tmp_path / "nothing") == {}
    with pytest.raises((StorageError, ValueError)):
        unpack(tmp_path / "broken", {**files, "a\0name": b""})  # in the midst of it
    assert sorted(path.name for path in tmp_path.iterdir() if "broken" in path.name) == []


def test_training_images_travel_and_test_images_do_not() -> None:
    source = find(SPEC)
    sent = pickle.loads(pickle.dumps(source.with_training(source.read_training())))
    assert sent.read_training().fingerprint == source.read_training().fingerprint
    assert (sent.spec, sent.name, sent.location) == (source.spec, source.name, source.location)
    with pytest.raises(DataError, match="only its training images"):
        open_test(sent, key="key", model="model", facts={})


# On a cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster on this machine: a head with room for one training, to which tests add others."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("HOME", folder)
        patch.setenv("RAY_TMPDIR", folder)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made
        made.shutdown()  # type: ignore[no-untyped-call]


@dataclass
class Seen(Watcher):
    """Calls somebody at each epoch, and takes down the rest."""

    epoch: Callable[[Task, Epoch], None] = lambda *_: None
    begun: list[Task] = field(default_factory=list)
    ended: list[Ended | None] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def begins(self, task: Task) -> None:
        self.begun.append(task)

    def happens(self, task: Task, event: Step | Epoch) -> None:
        if isinstance(event, Epoch):
            self.epoch(task, event)

    def ends(self, task: Task, ended: Ended | None) -> None:
        self.ended.append(ended)

    def tells(self, words: str) -> None:
        self.told.append(words)


@pytest.fixture(scope="module")
def shared(cluster: Any) -> Iterator[OnRay]:
    """A pool for all tests that leave its workers alive."""
    with OnRay(cluster.address, watcher=Seen()) as made:
        yield made


@pytest.fixture
def ray_pool(shared: OnRay) -> OnRay:
    shared._watcher = Seen()
    return shared


def make_room(where: OnRay) -> None:
    """For another pool."""
    for worker in list(where._workers):
        where._dismiss(worker)


def at(where: OnRay, task: Task) -> Any:
    """The worker that is at a task."""
    return next(worker for worker in where._workers if worker.job is not None and worker.job.task is task)


@pytest.mark.slow
def test_trainings_on_a_cluster_end_with_the_same_bits(ray_pool: OnRay, alone: Path) -> None:
    study = trials("study", where=ray_pool)
    first = list(repeat(study, [0, 1], ray_pool))
    assert [trial.new for trial in first] == [True, True]
    again = list(repeat(study, [0, 1, 2], ray_pool))
    assert [trial.new for trial in again] == [False, False, True]
    assert not study.run(0).checkpoint_path.exists()
    assert study.run(0).environment["command"] == environment.command()
    assert_same_as_alone(study, range(3), alone)


@pytest.mark.slow
def test_models_travel_with_the_recipe_that_names_them(ray_pool: OnRay, alone: Path) -> None:
    teacher, start = (trials("models").trial(seed).run.path.absolute() for seed in (7, 8))
    study = trials("study", f"teacher.model={teacher}", f"start.model={start}", where=ray_pool)
    list(repeat(study, [0], ray_pool))
    for model in (teacher, start):
        shutil.move(model, f"elsewhere-{model.name}")
    list(repeat(study, [1], ray_pool))  # they have been sent, and nobody looks for them where they were
    for run in (study.run(0), study.run(1)):
        assert (run.recipe.teacher, run.recipe.start) == (study.recipe.teacher, study.recipe.start)
    for model in (teacher, start):
        shutil.move(f"elsewhere-{model.name}", model)
    assert_same_as_alone(study, range(2), alone)


@pytest.mark.slow
def test_a_comparison_on_a_cluster_finds_the_same(ray_pool: OnRay, small_images: Images) -> None:
    bright = from_arrays((small_images.pixels, small_images.labels), classes=small_images.classes)
    able = small("epochs=8", "optimizer.learning_rate=0.01", "augmentation.rotation_degrees=0")
    unable = small("epochs=2", "optimizer.learning_rate=1e-9")

    def comparison(folder: str, where: OnRay | None) -> Any:
        first, second = (Trials.of(recipe, bright, Path(folder), pool=where) for recipe in (unable, able))
        *_, found = compare(first, second, range(12), pool=where)
        return found.to_json()

    found, here = comparison("there", ray_pool), comparison("here", None)
    for each in (found, here):
        del each["commits"]  # somebody may change a file meanwhile
    assert found == here
    assert found["better"] == "B"
    assert found["n"] < 12


@pytest.mark.slow
def test_a_recipe_beside_itself_is_trained_once(ray_pool: OnRay) -> None:
    study = trials("study", where=ray_pool)
    *_, found = compare(study, study, range(2), stop_early=False, pool=ray_pool)
    assert found.differences == [0, 0]
    assert len({task.path for task in ray_pool._watcher.begun}) == 2  # type: ignore[attr-defined]
    *_, found = compare(study, study, range(5, 9), pool=ray_pool)
    assert found.differences == [0]
    assert len({task.path for task in ray_pool._watcher.begun}) == 3  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_search_on_a_cluster_tries_the_same_values_where_they_are_drawn(ray_pool: OnRay) -> None:
    searched = small('search={"optimizer.learning_rate" = {low = 1e-4, high = 3e-2, log = true}}')
    source = find(SPEC)
    there = tune(searched, source, Path("there"), trials=3, sampler="random", pruner="none", pool=ray_pool)
    here = tune(searched, source, Path("here"), trials=3, sampler="random", pruner="none")
    assert there.trials == here.trials


@pytest.mark.slow
def test_a_judge_ends_a_training_on_a_cluster(ray_pool: OnRay) -> None:
    study = trials("study", where=ray_pool)
    tasks = [study.task(0), study.task(1)]
    ends = dict(ray_pool.run(tasks, lambda task, epoch: (task.seed, epoch.epoch) != (1, 2)))
    assert [ends[task].how for task in tasks] == ["trained", "given up"]
    assert [row["epoch"] for row in study.run(1).metrics] == [1, 2]


@pytest.mark.slow
def test_an_audit_on_a_cluster_finds_the_same(ray_pool: OnRay) -> None:
    source = find("shapes:training=90,test=30")
    there = audit(source, small(), Path("there"), folds=2, pool=ray_pool)
    here = audit(source, small(), Path("here"), folds=2)
    assert there.issues == here.issues
    assert there.accuracy == here.accuracy
    assert there.test_opening == here.test_opening == 1  # the same networks, so the same opening


@pytest.mark.slow
def test_a_failure_on_a_cluster_is_told_as_one_here(ray_pool: OnRay) -> None:
    wild = trials("study", "optimizer.learning_rate=1e30", where=ray_pool)
    told: dict[int, Diverged] = {}
    assert list(repeat(wild, [0], ray_pool, told.__setitem__)) == []
    ((_, here),) = Local().run([trials("alone", "optimizer.learning_rate=1e30").task(0)])
    assert str(told[0]).partition(" The last")[0] == str(here.error).partition(" The last")[0]


@pytest.mark.slow
@pytest.mark.parametrize("sees_the_disk", [True, False])
def test_stopped_on_a_cluster_it_goes_on_anywhere(
    ray_pool: OnRay, monkeypatch: pytest.MonkeyPatch, alone: Path, sees_the_disk: bool
) -> None:
    # A machine of its own would not see the folder; this one does as if.
    monkeypatch.setattr(OnRay, "_sees", lambda *_: sees_the_disk)
    study = trials("study", where=ray_pool)
    ray_pool._watcher = Seen(lambda *_: ray_pool.interrupt())
    with pytest.raises(Interrupted):
        list(repeat(study, [0], ray_pool))
    assert study.run(0).checkpoint_path.exists()
    assert not study.is_finished(0)
    identity = study.run(0).environment["run_id"]
    ray_pool._watcher = Seen()
    list(repeat(study, [0], ray_pool if not sees_the_disk else None))
    assert study.run(0).environment["run_id"] == identity
    assert_same_as_alone(study, [0], alone)


@pytest.mark.slow
@pytest.mark.parametrize("sees_the_disk", [True, False])
def test_a_machine_that_dies_costs_no_training(
    cluster: Any, shared: OnRay, monkeypatch: pytest.MonkeyPatch, alone: Path, sees_the_disk: bool
) -> None:
    import ray

    monkeypatch.setattr(OnRay, "_sees", lambda *_: sees_the_disk)
    other = cluster.add_node(num_cpus=1)
    killed: list[tuple[Task, str]] = []

    def kill(task: Task, _: Epoch) -> bool:
        """At the first epoch on the other machine, whose worker waits for an answer meanwhile: in the middle of it."""
        if not killed and at(where, task).machine.identity == other.node_id:
            identity = task.run.environment["run_id"] if sees_the_disk else ""
            killed.append((task, identity))
            # A process outlives its machine's raylet for a moment, in which it could come to an end.
            process, _ = ray.get(at(where, task).actor.call.remote(os.getpid))
            os.kill(process, signal.SIGKILL)
            cluster.remove_node(other, allow_graceful=False)
        return True

    where = shared
    where._watcher = seen = Seen()
    # Both are waited for: else this machine could have done it all before the other one has a worker.
    here = cluster.head_node.node_id
    while not {here, other.node_id} <= {worker.machine.identity for worker in where._workers if worker.is_ready}:
        where._hire(2)
        assert not list(where._news())
    study = trials("study", where=where)
    ends = {task.seed: ended.how for task, ended in where.run(map(study.task, range(4)), kill)}
    ((task, identity),) = killed
    assert ends == dict.fromkeys(range(4), "trained")
    assert seen.ended.count(None) == 1
    assert len(seen.told) == 1
    assert f"{task.words}: its process on" in seen.told[0]
    if sees_the_disk:
        assert task.run.environment["run_id"] == identity  # it has gone on, and was not begun anew
    assert_same_as_alone(study, range(4), alone)


@pytest.mark.slow
def test_a_training_that_kills_its_processes_ends_the_study(ray_pool: OnRay, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(pool, "LOSSES", 2)
    study = trials("study", where=ray_pool)
    ray_pool._watcher = seen = Seen(lambda task, _: ray.kill(at(ray_pool, task).actor))
    with pytest.raises(WorkerLost, match="2 processes died under it"):
        list(repeat(study, [0], ray_pool))
    assert seen.ended == [None, None]


@pytest.mark.slow
def test_a_full_disk_ends_a_study_and_the_other_training_keeps_its_checkpoint(
    cluster: Any, ray_pool: OnRay, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    monkeypatch.setattr(OnRay, "_sees", lambda *_: False)
    short, long = trials("study", where=ray_pool), trials("study", "epochs=500", where=ray_pool)
    whole = pool.unpack
    other = cluster.add_node(num_cpus=1)
    while sum(worker.is_ready for worker in ray_pool._workers) < 2:
        ray_pool._hire(2)
        assert not list(ray_pool._news())

    def fail_once(folder: Path, files: Any) -> None:
        monkeypatch.setattr(pool, "unpack", whole)
        raise StorageError(f"{folder}: the disk is full")

    monkeypatch.setattr(pool, "unpack", fail_once)
    try:
        with pytest.raises(StorageError, match="the disk is full"):
            list(ray_pool.run([long.task(1), short.task(0)]))
    finally:
        make_room(ray_pool)
        cluster.remove_node(other)
    assert long.run(1).checkpoint_path.exists()
    assert not short.run(0).path.exists()
    list(repeat(short, [0], ray_pool))
    assert_same_as_alone(short, [0], alone)


def test_what_a_workers_own_disk_refuses_is_how_its_task_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    source = find(SPEC)
    ((ended, files),) = pool.Remote(["thirtytwo"], 1).work(1, {}, source, None, None, False, 0.0)
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, StorageError)
    assert "No space left" in str(ended.error)
    assert files is None


@pytest.mark.slow
def test_machines_of_another_kind_are_not_used(cluster: Any, shared: OnRay) -> None:
    make_room(shared)
    seen = Seen()
    with OnRay(cluster.address, watcher=seen) as other:
        other._kind = {"device": "cpu", "device_name": "another one", "threads": 1, "versions": {}}
        with pytest.raises(ClusterError, match="none of its machines can be used"):
            other.ask(len, "text")
    assert any("is of another kind" in words for words in seen.told)


@pytest.mark.slow
def test_the_program_trains_on_a_cluster_and_ctrl_c_costs_nothing(cluster: Any, shared: OnRay, alone: Path) -> None:
    make_room(shared)
    words = ["repeat", "classic", "--data", SPEC, *(word for each in WORDS for word in ("--set", each)), "--runs", "20"]
    command = [sys.executable, "-m", "thirtytwo", *words, "--set", "epochs=3", "--ray", cluster.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("seed "):  # one has ended, another one is under way
            process.send_signal(signal.SIGINT)
            break
    output, problems = process.communicate()
    assert process.returncode == 130, problems
    assert "Interrupted; nothing is lost" in output
    assert "Traceback" not in problems
    study = trials("runs/study")
    first, _ = repeat(study, range(2))
    assert not first.new
    assert not study.is_finished(19)
    assert_same_as_alone(study, range(2), alone)
