"""Searches in several real processes, held, stopped with SIGKILL, and left to race: no trial too many, and none lost.

A server process imports the package once and forks each search from there; it never computes anything itself, so that
its children start with no threads but their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = r"""
import json, os, sys, time
from pathlib import Path
import optuna.storages._rdb.storage, torch._dynamo  # which every child would import anew
from thirtytwo import recipe as recipes
from thirtytwo.data import find
from thirtytwo.events import Epoch
from thirtytwo.study import Local, Watcher, tune
from thirtytwo.study.tune import imported

imported()
SERVER = os.getpid()
SMALL = ["epochs=2", "batch_size=40", "model.stages=[[4],[8]]", "model.hidden_units=8", "validation=0.25"]


class Held(Watcher):
    # Stops for as long as the file `go` is missing, after the first epoch of one trial; notes where each trial begins.
    def __init__(self, trial):
        self.trial, self.first_epochs = trial, {}

    def happens(self, task, event):
        self.first_epochs.setdefault(task.number, event.epoch)
        if isinstance(event, Epoch) and task.number == self.trial and event.epoch == 1:
            Path("held").touch()
            while not Path("go").exists():
                if os.getppid() != SERVER:  # the test has failed
                    os._exit(1)
                time.sleep(0.02)


def child(order):
    os.chdir(order["folder"])
    ended, watcher = [], Held(order.get("hold"))
    found = tune(
        recipes.load("classic", [*SMALL, f"search={order['search']}"]), find("shapes:training=160,test=20"),
        Path("search"), trials=order["trials"], sampler="random", pruner="none", storage=order.get("storage"),
        pool=Local(watcher), done=lambda trial: ended.append(trial.number), waits=lambda _: Path("waits").touch(),
    )
    trials = [[trial.number, trial.values, trial.accuracy] for trial in found.trials]
    told = {"ended": ended, "first_epochs": watcher.first_epochs, "trials": trials}
    Path(order["name"]).write_text(json.dumps(told))


for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    process = os.fork()
    if process == 0:
        code = 1
        try:
            child(order)
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(code)
    print(process, flush=True)
"""

RATES = '{"optimizer.learning_rate" = {low = 1e-4, high = 3e-2, log = true}}'
POLICIES = '{"augmentation.policy" = {choices = ["none", "trivial"]}}'


class Server:
    """Begins searches in processes of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def begin(self, name: str, trials: int, search: str = RATES, **more: Any) -> int:
        """Its process number; what comes of it is then in the file of that name."""
        return self.ask(folder=str(Path.cwd()), name=name, trials=trials, search=search, **more)

    def end(self, process: int) -> int:
        """Its exit status."""
        return self.ask(wait=process)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield Server(process)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def appears(name: str) -> None:
    until = time.monotonic() + 120
    while not Path(name).exists():
        assert time.monotonic() < until, f"no {name}"
        time.sleep(0.02)


def told(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(name).read_text())
    return found


def test_a_trial_that_another_process_is_at_is_waited_for(server: Server) -> None:
    first = server.begin("first", 3, hold=0)
    appears("held")
    second = server.begin("second", 3)
    appears("waits")
    Path("go").touch()
    assert (server.end(first), server.end(second)) == (0, 0)
    assert (told("first")["ended"], told("second")["ended"]) == ([0], [1, 2])
    assert told("first")["trials"] == told("second")["trials"]
    assert len(told("first")["trials"]) == 3


def test_of_a_killed_process_the_trial_is_gone_on_with_by_another_one(server: Server) -> None:
    first = server.begin("first", 2, hold=1)
    appears("held")
    second = server.begin("second", 2)
    appears("waits")  # as long as the first one lives
    os.kill(first, signal.SIGKILL)
    assert (server.end(first), server.end(second)) == (-signal.SIGKILL, 0)
    assert told("second")["ended"] == [1]
    assert told("second")["first_epochs"] == {"1": 2}  # the first epoch is not trained once more
    Path("whole").mkdir()
    os.chdir("whole")
    assert server.end(server.begin("undisturbed", 2)) == 0
    assert told("undisturbed")["trials"] == told("../second")["trials"]


def test_trials_of_the_same_values_in_two_processes_are_trained_once(server: Server) -> None:
    first = server.begin("first", 5, POLICIES, hold=0)
    appears("held")
    second = server.begin("second", 5, POLICIES)
    appears("waits")
    Path("go").touch()
    assert (server.end(first), server.end(second)) == (0, 0)
    trials = told("second")["trials"]
    assert [number for number, _, _ in trials] == list(range(5))
    assert sum(values == trials[0][1] for _, values, _ in trials) > 1  # one that it had to wait for, at least
    assert len({(json.dumps(values), accuracy) for _, values, accuracy in trials}) == 2


def test_processes_that_race_do_as_many_trials_as_they_are_asked_for(server: Server) -> None:
    storage = f"sqlite:///{Path.cwd() / 'shared.db'}"
    processes = [server.begin(name, 6, storage=storage) for name in ("one", "two")]
    assert [server.end(process) for process in processes] == [0, 0]
    one, two = told("one"), told("two")
    assert sorted(one["ended"] + two["ended"]) == list(range(6))
    assert one["trials"] == two["trials"]
    assert len({values["optimizer.learning_rate"] for _, values, _ in one["trials"]}) == 6
