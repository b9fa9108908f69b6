"""Hyper-parameters: a recipe's `search` section says which values may vary, many short trainings say which are better.

Every trial is a training with other values, judged by the validation accuracy of the weights that it keeps; the test
set is not touched. Optuna (Akiba et al. 2019, arXiv 1907.10902) proposes the values, from all trials so far (TPE,
Bergstra et al. 2011), and ends trials early that lag behind. What was tried is in its database, by default

    <out>/study.db
    <out>/trials/            the trainings, each a run folder
    <out>/<recipe>-tuned.toml    what was found
    <out>/<recipe>-own.toml      what it is to be compared with
    <out>/search.json            which search this is: a folder holds one
    <out>/.claims/               which process is at which trial

so that the same command goes on where it was stopped, be it in the middle of a trial, and several processes can share
database and folder: a trial belongs to the process that has claimed it, until that has told how it ended, or has died.
Where several trials run at once, the next values are proposed when there is room for a trial, from what has ended by
then: the values of a trial then depend on which of the others were quicker.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thirtytwo import environment
from thirtytwo.data import Source
from thirtytwo.data.source import ARRAYS
from thirtytwo.errors import (
    Diverged,
    InputError,
    MissingExtra,
    OutOfMemory,
    RecipeError,
    RunError,
    RunInUse,
    StorageError,
)
from thirtytwo.events import Epoch
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run, storing, write_atomic
from thirtytwo.study.claims import Claims
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.space import Space, Values
from thirtytwo.study.task import LOOK_SECONDS, Ended, Task
from thirtytwo.study.trials import HELD_OUT, Trials, commits

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "halving", "none"]
State = Literal["complete", "pruned", "failed"]

ENOUGH_TO_TELL = 50
"""Trials that have to run to their end before it can be told what mattered: with fewer, there is a hint of it."""
ROOT = Path("runs/tune")
"""Where searches are kept if nobody says otherwise, each in a folder of its own."""
FOLDER = "folder"
"""Attribute of a study in the database: the `Claims.identity` of its trials."""


@dataclass(frozen=True)
class TuningTrial:
    """One set of values."""

    number: int
    values: Values
    state: State
    accuracy: float | None
    """Validation accuracy: of the weights that were kept, or the last one before it was pruned."""


@dataclass(frozen=True)
class Tuned:
    """What a search has found."""

    recipe: Recipe
    """The best one, under a name of its own, without a search space."""
    path: Path
    """Its file."""
    own_path: Path
    """That of the recipe as it was, with what was changed for the search: what to compare with."""
    name: str
    """Of the recipe that was tuned."""
    trials: tuple[TuningTrial, ...]
    """In the order in which they began; number 0 has the recipe's own values."""
    importances: dict[str, float]
    """How much each setting tells the best of the complete trials from all of them, as shares of 1 (PED-ANOVA, Watanabe
    et al. 2023); may be empty."""
    spec: str
    """Of the data that it was searched with."""
    others: str
    """Of images that the search has not seen; empty where there are none."""
    seed: int
    """Of all trials."""
    device: str
    """That trials were asked to run on."""
    images: int
    """Validation images by which all trials are judged."""
    data: str
    """Name of the data, as results have it."""
    sampler: Sampler
    pruner: Pruner
    """As asked for by the call that ended the search."""
    commits: tuple[str, ...] = ()
    """Of the program, that made the trainings which are kept, each once; without those that are not known."""

    @property
    def best(self) -> TuningTrial:
        """The most accurate trial."""
        return max(_complete(self.trials), key=lambda trial: trial.accuracy or 0.0)

    @property
    def own(self) -> TuningTrial | None:
        """The trial of the recipe's own values; None if it has not ended yet, in another process."""
        return next((trial for trial in self.trials if trial.number == 0), None)

    @property
    def is_hint(self) -> bool:
        """Whether too few trials ran to their end for more than a hint of what mattered."""
        return len(_complete(self.trials)) < ENOUGH_TO_TELL

    @property
    def is_better(self) -> bool:
        """Whether anything was found that does better than the recipe's own values, here and with this seed."""
        return self.best != self.own

    @property
    def comparison(self) -> list[str]:
        """Words of the command that tells whether it is better, with other seeds, and on other images if there are any.

        Empty where nothing better was found, and for data that only a program has, as arrays.
        """
        if self.spec == ARRAYS or not self.is_better:
            return []
        words = ["thirtytwo", "compare", str(self.own_path), str(self.path), "--data", self.others or self.spec]
        words += ["--first-seed", str(self.seed + 1)]
        return words if self.device == "auto" else [*words, "--device", self.device]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recipe": self.name,
            "data": self.data,
            "spec": self.spec,
            "seed": self.seed,
            "sampler": self.sampler,
            "pruner": self.pruner,
            "commits": list(self.commits),
            "tuned": str(self.path),
            "own_recipe": str(self.own_path),
            "comparison": self.comparison,
            "best": vars(self.best),
            "own": None if self.own is None else vars(self.own),
            "n": len(self.trials),
            "images": self.images,
            "trials": [vars(trial) for trial in self.trials],
            "importances": self.importances,
        }


def tune(
    recipe: Recipe,
    source: Source,
    out: Path,
    *,
    trials: int,
    seed: int = 0,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    storage: str | None = None,
    device: str = "auto",
    pool: Pool | None = None,
    done: Callable[[TuningTrial], None] = lambda _: None,
    waits: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """Search for better values.

    Args:
        recipe: with a `search` section.
        source: the data.
        out: folder for everything, of this search alone; what is there is gone on with.
        trials: how many there shall be in all, those of earlier calls included.
        seed: of every training, so that trials differ by their values alone, and of the sampler.
        sampler: what proposes values.
        pruner: what ends trials early, by their validation accuracy after each epoch.
        storage: any URL that Optuna takes; None is a file in `out`. Processes that share a search share `out`, too,
            which says which of them is at which trial.
        device: ``auto``, ``cpu`` or ``cuda``.
        pool: where trials run; None is here, one after another.
        done: is given each trial that has ended here.
        waits: is told how many trials are under way when there is nothing to do but wait for other processes.

    Raises:
        RecipeError: there is nothing to search for, or it does not fit the recipe.
        RunError: `out` holds another search, or one whose trials are in another database, or the database has trials
            of this search that were made in another folder.
        InputError: `storage` cannot be used.
        StorageError: the database of the search has failed.
        ModelError: a model that the recipe names cannot be read.
        MissingExtra: Optuna is not installed.
        Diverged: no trial came to an end.
        Interrupted: trials were asked to stop.
    """
    optuna = imported()
    source, pool = source.in_memory(), pool or Local()
    space = Space.of(recipe, source, seed=seed, device=device, pool=pool)
    with storing(str(out)):
        out.mkdir(parents=True, exist_ok=True)
    with Claims(out / ".claims") as claims:
        with claims.alone():
            is_known = _is_known(out, space)
            epochs = space.base.for_images(len(source.read_training())).epochs
            differ = any(key == "epochs" or key.startswith("fewer_images.") for key in space.recipe.search)
            with _opening(storage):
                study = optuna.create_study(
                    storage=storage or f"sqlite:///{out / 'study.db'}",
                    study_name=space.name,
                    direction="maximize",
                    pruner=_pruner(optuna, pruner, None if differ else epochs),
                    load_if_exists=True,
                )
                is_empty = not study.get_trials()
                folder = study.user_attrs.get(FOLDER)
            if is_known and is_empty:
                raise RunError(
                    f"{out}: holds a search, but its trials are in another database; expected the one that it began "
                    "with; give the same --storage as before, or choose another --out"
                )
            # A database in the folder itself goes where that goes.
            if storage is not None and folder not in (None, claims.identity):
                raise RunError(
                    f"{out}: the database has trials of this search that were made in another folder; expected that "
                    "one, on a disk that all processes see, so that none does what another one is doing; give the same "
                    "--out as there, or another --storage"
                )
            with _using(optuna):
                if folder != claims.identity:
                    study.set_user_attr(FOLDER, claims.identity)
                if is_empty:
                    study.enqueue_trial(space.own)
            if not is_known:
                facts = {"name": space.name, **space.facts}
                write_atomic(_facts(out), (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
        search = _Search(
            optuna, study, space, source, out, seed, sampler, pruner, device, pool, trials, claims, done, waits
        )
        with _using(optuna):
            while search.number_ended < trials:
                if not search.go_on():
                    search.wait()
            return _found(search)


@contextlib.contextmanager
def _opening(storage: str | None) -> Iterator[None]:
    """Say what is wrong with a database that cannot be opened; what drivers raise is of many kinds.

    Raises:
        InputError: it was asked for.
        StorageError: it is the file of the search.
    """
    try:
        yield
    except Exception as error:
        reason = environment.without_passwords(str(error).strip().partition("\n")[0]) or type(error).__name__
        if storage is None:
            raise StorageError(f"the database of the search: {reason}") from error
        raise InputError(
            f"--storage {environment.without_passwords(storage)}: cannot be used ({reason}); expected the URL of a "
            "database that answers, and its driver installed; sqlite:///search.db is a file"
        ) from error


@contextlib.contextmanager
def _using(optuna: Any) -> Iterator[None]:
    """Say that a database has failed while it was used.

    Raises:
        StorageError: it has.
    """
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        cause = error.__cause__ or error
        reason = str(cause).strip().partition("\n")[0]
        raise StorageError(f"the database of the search: {reason}; trials that have ended are kept") from error


def _facts(out: Path) -> Path:
    """The file that says which search a folder holds."""
    return out / "search.json"


def _is_known(out: Path, space: Space) -> bool:
    """Whether a folder holds this search; False where it holds none. Another one's results would replace it.

    Raises:
        RunError: it holds another search.
    """
    path = _facts(out)
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        name, differing = found["name"], [key for key, fact in space.facts.items() if found[key] != fact]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({error!r}); expected what `thirtytwo tune` wrote; delete it") from None
    if name != space.name:
        raise RunError(
            f"{out}: holds another search, of other {', '.join(differing)}; expected the same one, or a new folder; "
            "choose another --out, or none: then each search has a folder of its own"
        )
    return True


@dataclass
class _Search:
    """A search while it goes on."""

    api: Any
    """Optuna."""
    study: optuna.study.Study
    space: Space
    source: Source
    out: Path
    seed: int
    sampler: Sampler
    pruner: Pruner
    device: str
    pool: Pool
    trials: int
    """That there shall be in all."""
    claims: Claims
    done: Callable[[TuningTrial], None]
    waits: Callable[[int], None]
    waited_for: int = 0
    """Trials of other processes, as `waits` was told last."""
    under_way: dict[int, optuna.trial.Trial] = field(default_factory=dict)
    put_off: list[optuna.trial.Trial] = field(default_factory=list)
    """Claimed, but somebody else is training in their run folder."""
    told: set[tuple[int, int]] = field(default_factory=set)
    """Trials and the epochs that the study knows of."""

    @property
    def number_ended(self) -> int:
        """Trials that have ended, here or in other processes."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def go_on(self) -> bool:
        """Do the trials that are missing and that no other process is at; returns whether any has ended."""
        some = False
        with contextlib.closing(self.pool.run(self._tasks(), self._is_worth_it)) as ends:
            for task, ended in ends:
                some |= self._tell(task, ended)
        if some:
            self.waited_for = 0
        return some

    def wait(self) -> None:
        """Give other processes a moment for the rest."""
        running = self.api.trial.TrialState.RUNNING
        others = len(self.study.get_trials(deepcopy=False, states=(running,)))
        if others != self.waited_for:
            self.waited_for = others
            self.waits(others)
        time.sleep(LOOK_SECONDS)

    def _tasks(self) -> Iterator[Task]:
        """Each with the values that are proposed when there is room for it."""
        put_off, self.put_off = self.put_off, []
        for trial in put_off:
            yield from self._task(trial)
        while (claimed := self._claimed()) is not None:
            yield from self._task(claimed)

    def _claimed(self) -> optuna.trial.Trial | None:
        """A trial whose process has died or was stopped, or a new one; None if others are at all that are missing."""
        running = self.api.trial.TrialState.RUNNING
        with self.claims.alone():
            trials = self.study.get_trials(deepcopy=False)
            begun = [trial for trial in trials if trial.state == running]
            left = [trial for trial in begun if self.claims.is_free(trial.number)]
            if sum(trial.state.is_finished() for trial in trials) + len(begun) - len(left) >= self.trials:
                return None
            # Of the trial's own: processes that share a search propose different values, and so does one that goes on.
            number = left[0].number if left else len(trials)
            self.study.sampler = _sampler(self.api, self.sampler, (self.seed * 1_000_003 + number) % 2**32)
            trial = self.api.trial.Trial(self.study, left[0]._trial_id) if left else self.study.ask()
            self.claims.take(trial.number)
        return trial

    def _task(self, trial: optuna.trial.Trial) -> Iterator[Task]:
        """The training with the values of a trial; none if no recipe can have them."""
        values = self.space.suggested(trial)
        self.told |= {(trial.number, step) for step in self.study.get_trials()[trial.number].intermediate_values}
        try:
            recipe = self.space.having(values)
            trainings = Trials.of(recipe, self.source, self.out / "trials", self.device, self.pool)
        except RecipeError:
            self._end(trial, self.api.trial.TrialState.FAIL)
            return
        self.under_way[trial.number] = trial
        # Others can be trained while another process is at the same values.
        yield replace(trainings.task(self.seed, trial.number, f"trial {trial.number}"), waits=False)

    def _is_worth_it(self, task: Task, epoch: Epoch) -> bool:
        """Tell the study of an epoch, and ask whether the trial is to go on."""
        trial, step = self.under_way[task.number], epoch.epoch - 1
        if epoch.validation_accuracy is None:
            return True
        if (task.number, step) not in self.told:  # as it is when it has been trained again
            self.told.add((task.number, step))
            trial.report(epoch.validation_accuracy, step)
        return epoch.epoch == task.recipe.epochs or not trial.should_prune()

    def _tell(self, task: Task, ended: Ended) -> bool:
        """Tell the study how a trial ended; returns whether it has."""
        trial = self.under_way.pop(task.number)
        states = self.api.trial.TrialState
        if ended.how in ("trained", "found"):
            self._end(trial, states.COMPLETE, float(task.run.result["validation"]["accuracy"]))
        elif ended.how == "given up":
            _discard(task)
            self._end(trial, states.PRUNED)
        elif isinstance(ended.error, Diverged | OutOfMemory | RecipeError):  # such as a network that they do not fit
            _discard(task)
            self._end(trial, states.FAIL)
        elif isinstance(ended.error, RunInUse):
            # A trial of the same values in another process, or what a dead process has left on a cluster.
            self.put_off.append(trial)
            return False
        else:
            ended.check()
        return True

    def _end(self, trial: optuna.trial.Trial, state: Any, accuracy: float | None = None) -> None:
        with self.claims.alone():
            self.study.tell(trial, accuracy, state=state, skip_if_finished=True)
            self.claims.drop(trial.number)
        self.done(_plain(self.api, self.study.get_trials()[trial.number]))


def _discard(task: Task) -> None:
    """Delete the training of a trial, unless another one of the same values has begun to train there."""
    if task.path.exists():
        with contextlib.suppress(RunInUse), task.run.locked():
            shutil.rmtree(task.path.parent, ignore_errors=True)


def imported() -> Any:
    """Optuna, quiet.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra.of("tuning needs optuna", "tune", error) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(optuna: Any, name: Sampler, seed: int) -> Any:
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds[name](seed=seed)


def _pruner(optuna: Any, name: Pruner, epochs: int | None) -> Any:
    """What ends trials early.

    None is ended in the first third of its epochs. There, learning rates have hardly risen, and regularisation, which
    pays in the end, only holds up.

    Args:
        optuna: the module.
        name: which.
        epochs: of every trial; None where they differ, and nothing is comparable before the end.
    """
    if epochs is None:
        return optuna.pruners.NopPruner()
    spared = math.ceil(epochs / 3)
    match name:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=spared)
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=spared, reduction_factor=2)
        case "none":
            return optuna.pruners.NopPruner()


def _found(search: _Search) -> Tuned:
    """What a search has found that has ended; its recipes are written."""
    optuna, study, space, source, out = search.api, search.study, search.space, search.source, search.out
    found = tuple(_plain(optuna, trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())
    complete = _complete(found)
    if not complete:
        raise Diverged(f"none of {len(found)} trials ran to the end; expected one to; search lower learning rates")
    best = max(complete, key=lambda trial: trial.accuracy or 0.0)
    own_name = space.recipe.name
    name = f"{own_name[:50]}-tuned"
    tuned = space.having(best.values).model_copy(
        update={"name": name, "description": f"{own_name}, tuned in {len(found)} trials."}
    )
    path = out / f"{name}.toml"
    write_atomic(path, tuned.to_toml().encode())
    own_path = out / f"{own_name[:50]}-own.toml"
    write_atomic(own_path, space.base.to_toml().encode())
    importances: dict[str, float] = {}
    if len(complete) >= 4 and len({trial.accuracy for trial in complete}) > 1 and len(space.own) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is new there
            best_share = min(0.5, max(0.1, 5 / len(complete)))  # five of them at least, as Optuna advises
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best_share)
            importances = dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
        if max(importances.values()) - min(importances.values()) < 1e-9:  # said where it cannot tell
            importances = {}
    kept = (Run(path.parent) for path in sorted((out / "trials").glob("*/*/environment.json")))
    return Tuned(
        tuned, path, own_path, own_name, found, importances, spec=source.spec, others=source.others, seed=search.seed,
        device=search.device, images=len(source.read_training().split(space.base.validation or HELD_OUT)[1]),
        data=source.name, sampler=search.sampler, pruner=search.pruner, commits=tuple(commits(kept)),
    )  # fmt: skip


def _plain(optuna: Any, trial: optuna.trial.FrozenTrial) -> TuningTrial:
    states: dict[Any, State] = {
        optuna.trial.TrialState.COMPLETE: "complete",
        optuna.trial.TrialState.PRUNED: "pruned",
        optuna.trial.TrialState.FAIL: "failed",
    }
    accuracy = trial.value
    if trial.state != optuna.trial.TrialState.COMPLETE:
        accuracy = None if trial.last_step is None else trial.intermediate_values[trial.last_step]
    return TuningTrial(trial.number, dict(trial.params), states[trial.state], accuracy)


def _complete(trials: tuple[TuningTrial, ...]) -> list[TuningTrial]:
    return [trial for trial in trials if trial.state == "complete"]
