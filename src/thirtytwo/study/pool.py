"""Where the trainings of a study run: one after another in this process, or side by side on a Ray cluster.

A study hands tasks to a pool and is told how each of them ended; it knows no more of where they run. Nothing but this
module knows Ray (Moritz et al. 2018, arXiv 1712.05889).

On a cluster every training has a process of its own, on a machine of the same kind, with as many threads as it would
have here: so it ends with the same bits, and results of both are the same results. Training images, and models that
recipes name, travel to each machine once. A process or machine that dies costs what it was at: that is trained again
elsewhere, from its checkpoint if the run folder lies on a disk that all machines see, and from the start if not; then,
the finished folder is sent.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import queue
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

from thirtytwo import environment, models, references
from thirtytwo.data import Exclusion, Source
from thirtytwo.errors import ClusterError, MissingExtra, RunInUse, StorageError, ThirtytwoError, WorkerLost
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.references import Role
from thirtytwo.run import storing, write_atomic
from thirtytwo.settings import SpeedModel
from thirtytwo.study.task import Ended, Interrupted, Task
from thirtytwo.train import Training

Answer = TypeVar("Answer")
Judge = Callable[[Task, Epoch], bool]
"""Is asked after each epoch of a task whether it is worth going on."""

LOSSES = 3
"""Processes that may die under one training before it is its fault."""
BUSY_SECONDS = 20.0
"""After which a machine that has not begun what it was given counts as busy with somebody else's work."""
STOP_SECONDS = 60.0
"""That trainings have to write a checkpoint when they are asked to stop."""
LET_GO_SECONDS = 60.0
"""That a process which was lost may hold on to its run folder: of a machine that cannot be reached, it may live on."""
CONNECT_SECONDS = 10.0
"""That the head of a cluster may take to answer."""
LOOK_SECONDS = 1.0
"""Between two looks at which machines there are."""


class Watcher:
    """Sees the trainings of a pool happen; this one looks away."""

    def begins(self, task: Task) -> None:
        """A task is being worked on."""

    def happens(self, task: Task, event: Step | Epoch) -> None:
        """A step or an epoch of it."""

    def ends(self, task: Task, ended: Ended | None) -> None:
        """It is no longer worked on; None where it has not ended: it was lost, and will be begun once more."""

    def tells(self, words: str) -> None:
        """Something that a user should know."""


class Pool(Protocol):
    """A place where trainings run."""

    def run(self, tasks: Iterable[Task], judge: Judge | None = None) -> Generator[tuple[Task, Ended]]:
        """Work off tasks.

        Args:
            tasks: each is asked for when there is room for it, and not before.
            judge: is asked after each epoch of a task whether it is worth going on; None goes on to the end.

        Returns:
            Tasks and how they ended, in the order in which they did. Those that are under way when nobody wants to know
            any more, which closes this, are stopped with a checkpoint.

        Raises:
            Interrupted: they were asked to stop.
        """

    def ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a function of a module returns where the trainings run."""

    def interrupt(self) -> None:
        """Ask all trainings to write a checkpoint and end after their step; safe in a signal handler."""


def in_order(pool: Pool, tasks: Iterable[Task]) -> Generator[tuple[Task, Ended]]:
    """What a pool tells of tasks, in their own order: what ends early waits for those before it."""
    ahead: deque[Task] = deque()
    ended: dict[Task, Ended] = {}

    def taken() -> Iterator[Task]:
        for task in tasks:
            ahead.append(task)
            yield task

    with contextlib.closing(pool.run(taken())) as done:
        for task, end in done:
            ended[task] = end
            while ahead and ahead[0] in ended:
                first = ahead.popleft()
                yield first, ended.pop(first)


class Local:
    """One training after another, in this process."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        """With somebody who watches, or unseen."""
        self._watcher = watcher or Watcher()
        self._training: Training | None = None
        self._stop = False

    def run(self, tasks: Iterable[Task], judge: Judge | None = None) -> Generator[tuple[Task, Ended]]:
        """See `Pool`."""
        self._stop = False
        for task in tasks:
            ended = Ended("interrupted") if self._stop else self._work(task, judge)
            if ended.how == "interrupted":
                raise Interrupted
            yield task, ended

    def _work(self, task: Task, judge: Judge | None) -> Ended:
        self._watcher.begins(task)
        ended, told = None, False

        def patient() -> bool:
            nonlocal told
            if task.waits and not told:
                self._watcher.tells(f"{task.words}: another process is training it; waiting for that one")
                told = True
            return task.waits and not self._stop

        judged = judge and functools.partial(judge, task)
        try:
            with contextlib.closing(task.work(self._hold, judged, patient=patient)) as events:
                for event in events:
                    if isinstance(event, Ended):
                        ended = event
                    else:
                        self._watcher.happens(task, event)
        finally:
            self._training = None
            self._watcher.ends(task, ended)
        assert ended is not None, "a task says how it ended"
        return Ended("interrupted") if self._stop and isinstance(ended.error, RunInUse) else ended

    def _hold(self, training: Training) -> None:
        self._training = training
        if self._stop:  # before there was anything to stop
            training.interrupt()

    def ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """See `Pool`."""
        return function(*arguments)

    def interrupt(self) -> None:
        """See `Pool`."""
        self._stop = True
        if self._training is not None:
            self._training.interrupt()


def imported() -> Any:
    """Ray.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        need, where = "several machines are reached with ray", ", here and on each of them"
        raise MissingExtra.of(need, "cluster", error, where) from None
    return ray


class OnRay:
    """Trainings side by side on a Ray cluster; to be entered before it is used.

    Workers are processes that hold their share of a machine and work off one task after another.
    """

    def __init__(
        self, address: str, *, device: str = "auto", gpu_share: float = 1.0, watcher: Watcher | None = None
    ) -> None:
        """Nothing is connected yet.

        Args:
            address: ``auto`` for the cluster that this machine is part of, or ``HOST:PORT`` of its head. A program that
                has called ``ray.init`` itself stays with that cluster.
            device: where trainings run: ``auto`` takes GPUs if the cluster has any.
            gpu_share: the share of a GPU that a training takes, above 0 and at most 1.
            watcher: sees the trainings happen.

        Raises:
            MissingExtra: Ray is not installed.
        """
        self._ray = imported()
        self._address, self._device, self._gpu_share = address, device, gpu_share
        self._watcher = watcher or Watcher()
        self._threads = torch.get_num_threads()
        self._demand: dict[str, float] = {}  # of a training
        self._connected = self._stop = self._is_waiting = False
        self._workers: list[_Worker] = []
        self._kind: dict[str, Any] = {}  # of the machines that are used
        self._commit = environment.commit()  # of the program here, as it was when it was started
        self._left_out: dict[str, str] = {}  # machines that are not, and why
        self._spared: dict[str, float] = {}  # machines where a worker could not begin, and until when none is begun
        self._machines: list[_Machine] = []
        self._looked = -LOOK_SECONDS
        self._shipped: dict[tuple[Any, ...], Any] = {}  # data sets and models in the cluster's memory
        self._jobs = 0
        self._heard: deque[tuple[_Worker, Step | Epoch | Ended | Exception]] = deque()  # while something else was asked

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ClusterError: there is no such cluster, or no machine in it with room for a training.
        """
        self._connect()
        try:
            has_gpus = self._ray.cluster_resources().get("GPU", 0) > 0
            wants_gpu = self._device.startswith("cuda") or (self._device == "auto" and has_gpus)
            self._demand = {"CPU": 1, "GPU": self._gpu_share} if wants_gpu else {"CPU": self._threads}
            if not self.room:
                said = " and ".join(f"{amount:g} {kind}" for kind, amount in self._demand.items())
                remedy = "ask for --device cpu" if wants_gpu else "set OMP_NUM_THREADS to fewer threads"
                raise ClusterError(
                    f"Ray cluster {self._address}: none of its {len(self._machines)} machines has {said}; expected "
                    f"room for a training on one of them; add a machine, or {remedy}"
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what is held, and disconnect."""
        for worker in list(self._workers):
            self._dismiss(worker)
        self._shipped.clear()
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    @property
    def room(self) -> int:
        """How many trainings the cluster can take at once, if nobody else is using it."""
        self._look()
        return sum(machine.room for machine in self._machines)

    def run(self, tasks: Iterable[Task], judge: Judge | None = None) -> Generator[tuple[Task, Ended]]:
        """See `Pool`; a task in whose folder another one is training waits for that one, and is found."""
        self._stop = False
        more: Iterator[Task] | None = iter(tasks)
        waiting: deque[Task] = deque()
        twins: list[Task] = []
        losses: Counter[Path] = Counter()
        try:
            while True:
                busy = [worker.job.task for worker in self._workers if worker.job]
                while more is not None and len(busy) + len(waiting) < max(self.room, 1):
                    if (task := next(more, None)) is None:
                        more = None
                    elif task.is_finished and not self._stop:
                        found = Ended("found")
                        self._watcher.begins(task)
                        self._watcher.ends(task, found)
                        yield task, found
                    elif task.path in {other.path for other in (*busy, *waiting)}:
                        twins.append(task)
                    else:
                        waiting.append(task)
                if not busy and not waiting:
                    return
                if self._stop:
                    raise Interrupted
                self._hire(len(busy) + len(waiting))
                for worker in self._workers:
                    if waiting and worker.is_ready and worker.job is None:
                        task = waiting.popleft()
                        if not self._give(worker, task, judge is not None, lost=losses[task.path] > 0):
                            waiting.appendleft(task)
                            break  # the worker is gone
                for worker, item in self._news():
                    assert worker.job is not None
                    task = worker.job.task
                    if isinstance(item, Exception):
                        self._lose(worker, item)
                        losses[task.path] += 1
                        if losses[task.path] == LOSSES:
                            raise WorkerLost(
                                f"{task.recipe.name}, {task.words}: {LOSSES} processes died under it, one after "
                                f"another ({self._reason(item)}); expected it to end; check that these machines have "
                                "enough memory"
                            )
                        waiting.appendleft(task)
                    elif isinstance(item, Ended) and isinstance(item.error, StorageError) and worker.job.is_away:
                        self._leave_out(worker, f"cannot store a training: {item.error}")  # a full disk, say
                        waiting.appendleft(task)
                    elif isinstance(item, Ended):
                        self._finish(worker, item)
                        if item.how == "interrupted":
                            raise Interrupted
                        yield task, item
                        same = [twin for twin in twins if twin.path == task.path]
                        twins = [twin for twin in twins if twin.path != task.path]
                        for twin in same:
                            yield twin, Ended("found") if item.how == "trained" else item
                    else:
                        self._watcher.happens(task, item)
                        if judge is not None and isinstance(item, Epoch):
                            worker.actor.answer.remote(worker.job.number, judge(task, item))
        except KeyboardInterrupt:  # a second one: at once
            for worker in list(self._workers):
                self._dismiss(worker)
            raise
        finally:
            self._recall()

    def ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """See `Pool`; waits for a first worker."""
        dead: list[_Worker] = []
        while True:
            worker = next((worker for worker in self._workers if worker.is_ready and worker not in dead), None)
            if worker is None:
                self._hire(1 + sum(worker in self._workers for worker in dead))
                heard = list(self._news())
                self._heard.extend(heard)
                continue
            try:
                answer, error = self._ray.get(worker.actor.call.remote(function, *arguments))
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError:
                dead.append(worker)  # what it was at, `run` will hear of
                if worker.job is None:
                    self._dismiss(worker)
                continue
            if error is not None:
                raise error
            return answer  # type: ignore[no-any-return]

    def interrupt(self) -> None:
        """See `Pool`; `run` looks at it, since nothing may be asked of Ray in a signal handler."""
        self._stop = True

    # The cluster ------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        expected = (
            "expected `auto` on a machine of a cluster, or HOST:PORT of its head; `ray start --head` starts one, "
            "`ray start --address=HOST:PORT` on another machine joins it"
        )
        host, colon, port = self._address.rpartition(":")
        if self._address != "auto":
            if not colon or not port.isdigit() or "/" in host:
                raise ClusterError(f"Ray cluster {self._address!r}: no such address; {expected}")
            try:
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            except (OSError, OverflowError) as error:  # asked first, since Ray itself would try for long
                raise ClusterError(f"Ray cluster {self._address}: nobody answers ({error}); {expected}") from None
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ClusterError(
                f"Ray cluster {self._address}: cannot be joined ({_first_line(error)}); {expected}"
            ) from None
        self._connected = True

    def _look(self) -> None:
        """Which machines there are now; workers without a task on one that is gone are forgotten."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        here = self._ray.get_runtime_context().get_node_id()
        self._machines = [
            _Machine(node["NodeID"], node["NodeManagerAddress"], room_on(node["Resources"], self._demand))
            for node in sorted(self._ray.nodes(), key=lambda node: (node["NodeID"] != here, node["NodeManagerAddress"]))
            if node["Alive"] and node["NodeID"] not in self._left_out
        ]
        alive = {machine.identity for machine in self._machines}
        for worker in [worker for worker in self._workers if worker.job is None]:
            if worker.machine.identity not in alive:
                self._dismiss(worker)

    def _hire(self, number: int) -> None:
        """Have at least so many workers that can be counted on, as far as there is room."""
        self._look()
        while sum(worker.is_useful for worker in self._workers) < number:
            taken = Counter(worker.machine.identity for worker in self._workers)
            free = {
                machine: machine.room - taken[machine.identity]
                for machine in self._machines
                if machine.room > taken[machine.identity]
                and self._spared.get(machine.identity, 0.0) <= time.monotonic()
            }
            if not free:
                break
            # The first one decides which kind is used: that of this machine if there is room here.
            machine = max(free, key=free.__getitem__) if self._workers else next(iter(free))
            self._workers.append(self._start(machine))
        if any(worker.is_useful for worker in self._workers):
            self._is_waiting = False
            return
        has_room = bool(self._workers) or any(machine.room for machine in self._machines)
        if not has_room and self._left_out:
            reasons = "; ".join(self._left_out.values())
            raise ClusterError(
                f"Ray cluster {self._address}: none of its machines can be used: {reasons}; expected the same versions "
                "as here on machines of one kind; install them there"
            )
        if not self._is_waiting:
            self._is_waiting = True
            self._watcher.tells(
                "nothing has started on the cluster yet, which may be busy with other work; waiting"
                if has_room
                else "no machine of the cluster is left; waiting for one to join it"
            )

    def _start(self, machine: _Machine) -> _Worker:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(machine.identity, soft=False)
        remote = self._ray.remote(
            num_cpus=self._demand["CPU"],
            num_gpus=self._demand.get("GPU", 0),
            max_concurrency=4,  # so that it can be asked to stop while it is at it
            scheduling_strategy=strategy,
        )(Remote)
        actor = remote.remote(sys.argv, self._threads)
        return _Worker(actor, machine, actor.call.remote(_kind_of_machine, self._device))

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if worker.job is not None:
            self._watcher.ends(worker.job.task, None)
        with contextlib.suppress(Exception):  # that it is gone already
            self._ray.kill(worker.actor)

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Forget a worker that died."""
        self._dismiss(worker)
        if worker.job is not None:
            task, where = worker.job.task, worker.machine.address
            self._watcher.tells(
                f"{task.recipe.name}, {task.words}: its process on {where} died ({self._reason(error)}); another one "
                "takes over"
            )

    def _reason(self, error: Exception) -> str:
        """What a worker died of: of what it raised, Ray tells the traceback first."""
        raised = isinstance(error, self._ray.exceptions.RayTaskError)
        return _last_line(error) if raised else _first_line(error)

    def _leave_out(self, worker: _Worker, reason: str) -> None:
        """Begin nothing more on a machine."""
        self._dismiss(worker)
        if worker.machine.identity not in self._left_out:
            self._left_out[worker.machine.identity] = f"{worker.machine.address} {reason}"
            self._looked = -LOOK_SECONDS
            self._watcher.tells(f"{worker.machine.address} is not used: it {reason}")

    # Its workers ------------------------------------------------------------------------------------------------------

    def _news(self) -> Iterator[tuple[_Worker, Step | Epoch | Ended | Exception]]:
        """What busy workers have to say, after a moment if there is nothing yet; an exception if they died."""
        silent = set[_Worker]()  # have nothing to add to what was heard
        while self._heard:
            worker, item = self._heard.popleft()
            if isinstance(item, Ended | Exception):
                silent.add(worker)
            yield worker, item
        waited = {
            worker.job.stream if worker.job else worker.hello: worker
            for worker in self._workers
            if worker not in silent and (worker.job or not worker.is_ready)
        }
        if not waited:
            time.sleep(LOOK_SECONDS)  # until there is another machine
            return
        self._ray.wait(list(waited), timeout=LOOK_SECONDS)
        ready, _ = self._ray.wait(list(waited), num_returns=len(waited), timeout=0)
        for each in ready:
            worker = waited[each]
            if worker not in self._workers:
                continue  # left out meanwhile
            if worker.job is None:
                self._greet(worker)
                continue
            try:
                item, files = self._ray.get(next(each))
            except self._ray.exceptions.RayError as error:  # it died, or raised what it should not
                yield worker, error
                continue
            if files:
                try:
                    unpack(worker.job.task.path, files)
                except BaseException:
                    self._dismiss(worker)  # it has nothing more to say; the others stop with a checkpoint
                    raise
            yield worker, item

    def _greet(self, worker: _Worker) -> None:
        """Take a worker in that has answered, if trainings there are what they are here and on the others."""
        try:
            found, error = self._ray.get(worker.hello)
        except self._ray.exceptions.RayError as lost:
            if worker.machine.identity in self._spared:
                self._leave_out(worker, f"cannot begin: {_last_line(lost)}")
            else:  # the machine may have died, which the cluster does not know at once
                self._spared[worker.machine.identity] = time.monotonic() + BUSY_SECONDS
                self._dismiss(worker)
            return
        if error is not None:
            self._leave_out(worker, f"cannot begin: {error}")
            return
        commit = found.pop("commit")
        if commit and self._commit and commit.rstrip("+") != self._commit.rstrip("+"):
            self._leave_out(worker, f"has commit {commit} of this program, expected {self._commit}")
            return
        if not self._kind:
            own = environment.describe(torch.device("cpu"))["versions"]
            if found["versions"] != own:
                self._leave_out(worker, f"has {_differing(found['versions'], own)}")
                return
            self._kind = found
        if found != self._kind:
            self._leave_out(worker, f"is of another kind: {_differing(found, self._kind)}")
            return
        worker.is_ready = True

    def _give(self, worker: _Worker, task: Task, is_judged: bool, lost: bool) -> bool:
        """Let a worker begin with a task; False if it turns out to be gone."""
        try:
            files = None if self._sees(worker, task.path) else packed(task.path)
            self._jobs += 1
            facts = {each.name: getattr(task, each.name) for each in fields(task) if each.name != "source"}
            facts["path"] = task.path.absolute()
            patience = LET_GO_SECONDS if lost else math.inf if task.waits else 0.0
            stream = worker.actor.work.options(num_returns="streaming").remote(
                self._jobs, facts, self._ship(task.source), self._ship_models(task.recipe), files, is_judged, patience
            )
        except self._ray.exceptions.RayError:
            self._dismiss(worker)
            return False
        worker.job = _Job(task, self._jobs, stream, is_away=files is not None)
        self._watcher.begins(task)
        return True

    def _sees(self, worker: _Worker, path: Path) -> bool:
        """Whether a worker's machine sees the disk on which a run folder is to lie."""
        marker = path.absolute().parent / f".seen-{uuid.uuid4().hex}"
        with storing(str(marker.parent)):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            try:
                return bool(self._ray.get(worker.actor.sees.remote(marker)))
            finally:
                marker.unlink()

    def _ship(self, source: Source) -> Any:
        """A reference to the training images in the cluster's memory: a machine fetches them once."""
        images = source.without(Exclusion()).read_training()
        key = (source.spec, source.name, source.location, source.notice, source.exclusion, images.fingerprint)
        if key not in self._shipped:
            self._shipped[key] = self._ray.put(source.with_training(images))
        return self._shipped[key]

    def _ship_models(self, recipe: Recipe) -> Any:
        """The same for the files of models that a recipe names; None where there are none to be sent."""
        key = tuple((each.model, each.fingerprint) for each in (recipe.teacher, recipe.start))
        if key not in self._shipped:
            content = references.content(recipe)
            self._shipped[key] = self._ray.put(content) if content else None
        return self._shipped[key]

    def _finish(self, worker: _Worker, ended: Ended) -> None:
        assert worker.job is not None
        self._watcher.ends(worker.job.task, ended)
        worker.job = None

    def _recall(self) -> None:
        """Stop what is under way, with a checkpoint; what takes too long is ended where it is."""
        until = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            if worker.job is not None:
                worker.actor.interrupt.remote(worker.job.number)
                worker.actor.answer.remote(worker.job.number, True)  # its epoch may have been heard and not judged
        try:
            while any(worker.job for worker in self._workers) and time.monotonic() < until:
                try:
                    for worker, item in self._news():
                        if isinstance(item, Exception):
                            self._dismiss(worker)
                        elif isinstance(item, Ended):
                            self._finish(worker, item)
                        elif isinstance(item, Epoch) and worker.job is not None:
                            worker.actor.answer.remote(worker.job.number, True)  # if it waits for a judge
                except StorageError as error:  # what another one has sent may still have room
                    self._watcher.tells(f"a checkpoint could not be stored: {error}")
        finally:
            for worker in [worker for worker in self._workers if worker.job]:
                self._dismiss(worker)
            self._heard.clear()


@dataclass(frozen=True)
class _Machine:
    """A node of the cluster."""

    identity: str
    address: str
    room: int
    """Trainings that it can take at once."""


@dataclass
class _Job:
    """What a worker is at."""

    task: Task
    number: int
    stream: Any
    """Of what happens."""
    is_away: bool
    """Whether it trains in a folder of its own machine, since that does not see the run's."""


@dataclass(eq=False)
class _Worker:
    """A process on some machine, as it is seen from here."""

    actor: Any
    machine: _Machine
    hello: Any
    """Is there when it has started."""
    job: _Job | None = None
    is_ready: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def is_useful(self) -> bool:
        """Whether it works, or is about to."""
        return self.is_ready or time.monotonic() - self.since < BUSY_SECONDS


class Remote:
    """A worker as it is seen from within: does one task after another, in a process of its own.

    Ray calls its methods in several threads, of which one is at a task.
    """

    def __init__(self, command: list[str], threads: int) -> None:
        """Become like the process that the study runs in.

        Args:
            command: of that process, which runs say they were made by.
            threads: that trainings have.
        """
        sys.argv = command
        self._threads = threads
        self._number = 0
        self._training: Training | None = None
        self._stopped: set[int] = set()
        self._answers: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()

    def call(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, ThirtytwoError | None]:
        """What a function returns here, or the error that it raises on purpose."""
        torch.set_num_threads(self._threads)  # each thread of a process has such a number of its own
        try:
            return function(*arguments), None
        except ThirtytwoError as error:
            return None, error

    def sees(self, path: Path) -> bool:
        """Whether a file is there."""
        return path.exists()

    def work(
        self,
        number: int,
        facts: dict[str, Any],
        source: Source,
        named: Mapping[Role, bytes] | None,
        files: Mapping[str, bytes] | None,
        is_judged: bool,
        patience: float,
    ) -> Iterator[tuple[Step | Epoch | Ended, dict[str, bytes] | None]]:
        """Do a task.

        Args:
            number: of this job.
            facts: the task without its data.
            source: the data.
            named: files of the models that the recipe names, but for what lies in the package; None if there are none.
            files: what the run folder holds, where this machine does not see it: it is then sent back at the end.
            is_judged: whether each epoch is answered by whether to go on.
            patience: seconds for which somebody else may still be training there.
        """
        torch.set_num_threads(self._threads)
        self._number = number
        until = time.monotonic() + patience
        result = None
        try:
            with tempfile.TemporaryDirectory(prefix="thirtytwo-") as folder:
                place = Path(folder) / "run"
                if files is not None:
                    unpack(place, files)
                    facts = {**facts, "path": place}
                places = {role: Path(folder) / f"{role}.safetensors" for role in named or {}}
                for role, content in (named or {}).items():
                    write_atomic(places[role], content)
                ended = yield from self._done(Task(source=source, **facts), places, is_judged, until)
                if files is not None:
                    result = packed(place)
        except (OSError, StorageError) as error:  # of this machine's own disk
            ended, result = Ended("failed", StorageError(str(error))), None
        yield ended, result  # last of all: whoever gets it may end this process

    def _done(
        self, task: Task, places: Mapping[Role, Path], is_judged: bool, until: float
    ) -> Generator[tuple[Step | Epoch, None], None, Ended]:
        """Do a task, once nobody else is training there, or fail by that when it is too late; see `work`."""
        judge = self._wait_for_answer if is_judged else None
        number, ended = self._number, None

        def patient() -> bool:
            return time.monotonic() < until and number not in self._stopped

        for event in task.work(self._hold, judge, places, patient):
            if isinstance(event, Ended):
                ended = event
            else:
                yield event, None
        self._training = None
        assert ended is not None
        is_stopped = number in self._stopped and isinstance(ended.error, RunInUse)
        return Ended("interrupted") if is_stopped else ended

    def interrupt(self, number: int) -> None:
        """Let a job end after its step, with a checkpoint."""
        self._stopped.add(number)
        if self._number == number and (training := self._training) is not None:
            training.interrupt()

    def answer(self, number: int, goes_on: bool) -> None:
        """Say whether a job is worth going on."""
        self._answers.put((number, goes_on))

    def _hold(self, training: Training) -> None:
        self._training = training
        if self._number in self._stopped:  # before there was anything to stop
            training.interrupt()

    def _wait_for_answer(self, _: Epoch) -> bool:
        while True:
            number, goes_on = self._answers.get()
            if number == self._number:
                return goes_on


def _kind_of_machine(device: str) -> dict[str, Any]:
    chosen = environment.device(device)
    facts = environment.describe(chosen)
    # Asked whatever is trained, since a pool knows nothing of that: a machine that cannot compile rounds otherwise.
    compiled = SpeedModel(kernels="compiled")
    facts["kernels"] = [models.kernels(compiled, chosen, own) for own in ("float32", models.HALF_PRODUCTS)]
    return {key: facts[key] for key in ("device", "device_name", "threads", "versions", "commit", "kernels")}


def room_on(resources: Mapping[str, float], demand: Mapping[str, float]) -> int:
    """How many trainings a machine can take at once.

    Args:
        resources: what it has, such as ``{"CPU": 8, "GPU": 1}``.
        demand: what a training takes of them; shares of a GPU do not add up over GPUs.
    """
    each = [resources.get("CPU", 0) // demand["CPU"]] if "CPU" in demand else []
    if gpu_share := demand.get("GPU"):
        each.append(int(resources.get("GPU", 0)) * int(1 / gpu_share + 1e-9))
    return int(min(each, default=0))


def packed(folder: Path) -> dict[str, bytes]:
    """What a run folder holds, by the path inside it; nothing where it is not begun."""
    if not (folder / "environment.json").exists():
        return {}
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def unpack(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a run folder hold these files, and no checkpoint but one among them.

    A folder that is not there yet comes to its place as a whole: in one that holds a part of a run, nothing could be
    begun.
    """
    place = folder
    if not folder.exists():
        place = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    with storing(str(folder)):
        place.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in files.items():
            write_atomic(place / name, content)
        if not any(name.startswith("checkpoint") for name in files):
            shutil.rmtree(place / "checkpoint", ignore_errors=True)
        if place != folder:
            with storing(str(folder)):
                place.rename(folder)
    finally:
        if place != folder:
            shutil.rmtree(place, ignore_errors=True)  # there is one only if something went wrong


def _differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    pairs = [f"{key} {found[key]}, expected {expected[key]}" for key in expected if found[key] != expected[key]]
    return "; ".join(pairs)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
