"""What people see of a study's trainings while they go on: one after another here, or several on a cluster."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from rich.progress import Progress, TaskID

from thirtytwo.events import Epoch, Step
from thirtytwo.study.pool import Watcher
from thirtytwo.study.task import Ended, Task


class TrialsDisplay(Watcher):
    """Trainings of a study: a line for each that is under way, and one that counts them where there are several."""

    def __init__(self, say: Callable[[str], None], progress: Progress, trials: int) -> None:
        """Made by `Screen.trials_under_way`."""
        self._say, self._progress, self._trials = say, progress, trials
        self._lines: dict[Task, TaskID] = {}
        self._sum: TaskID | None = None
        self._ended = 0

    def begins(self, task: Task) -> None:
        """A training has a line."""
        words = f"{task.recipe.name}, {task.words}"
        self._lines[task] = self._progress.add_task(words, total=task.recipe.epochs, state="")
        self._count()

    def happens(self, task: Task, event: Step | Epoch) -> None:
        """It moves on."""
        if isinstance(event, Step):
            left = datetime.timedelta(seconds=round(event.seconds_left))
            done = event.epoch - 1 + event.step / event.steps
            state = f"acc {event.accuracy:.1%}  {left} left"
            self._progress.update(self._lines[task], completed=done, state=state)

    def ends(self, task: Task, ended: Ended | None) -> None:
        """It goes."""
        self._progress.remove_task(self._lines.pop(task))
        self._ended += ended is not None and ended.how != "interrupted"
        self._count()

    def tells(self, words: str) -> None:
        """A line that stays."""
        self._say(words)

    def _count(self) -> None:
        if self._sum is None:
            if len(self._lines) < 2:
                return
            self._sum = self._progress.add_task("", total=self._trials, state="")
        words = f"{len(self._lines)} running"
        self._progress.update(
            self._sum, description=words, completed=self._ended, state=f"{self._ended} of {self._trials} done"
        )


class NetworksDisplay(Watcher):
    """Networks of an audit in one bar; where nothing can move, a line for each epoch."""

    def __init__(self, say: Callable[[str], None], progress: Progress, networks: int) -> None:
        """Made by `Screen.networks_under_way`."""
        self._say, self._progress, self._networks = say, progress, networks
        self._task = progress.add_task("", total=networks, state="", visible=False)
        self._shares: dict[Task, float] = {}  # of each network that was seen, how much of it is done
        self._under_way: set[Task] = set()

    def begins(self, task: Task) -> None:
        """A network is trained."""
        self._under_way.add(task)

    def happens(self, task: Task, event: Step | Epoch) -> None:
        """It moves on."""
        words = f"network {task.number + 1} of {self._networks}"
        if isinstance(event, Epoch):
            if self._progress.disable:
                self._say(f"{words}: epoch {event.epoch}, training accuracy {event.train_accuracy:.1%}")
            return
        share = (event.epoch - 1 + event.step / event.steps) / event.epochs
        self._shares[task] = share
        missing = self._networks - sum(self._shares.values())
        # Of all networks, at the speed of this one.
        ahead = event.seconds_left / max(1 - share, 1e-3) * missing / len(self._under_way)
        left = datetime.timedelta(seconds=round(ahead))
        state = f"epoch {event.epoch}/{event.epochs}  acc {event.accuracy:.1%}  {left} left"
        if len(self._under_way) > 1:
            words = f"{len(self._under_way)} of {self._networks} networks"
        done = self._networks - missing
        self._progress.update(self._task, completed=done, description=words, state=state, visible=True)

    def ends(self, task: Task, ended: Ended | None) -> None:
        """It is trained, or given back."""
        self._under_way.discard(task)
        self._shares[task] = float(ended is not None and ended.how in ("trained", "found"))

    def tells(self, words: str) -> None:
        """A line that stays."""
        self._say(words)
