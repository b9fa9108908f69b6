"""Hyper-parameters: a recipe's `search` section says which values may vary, many short trainings say which are better.

Every trial is a training with other values, judged by its best validation accuracy; the test set is not touched. Optuna
(Akiba et al. 2019, arXiv 1907.10902) proposes the values, from all trials so far (TPE, Bergstra et al. 2011), and ends
trials early that lag behind. What was tried is in its database, by default

    <out>/study.db
    <out>/trials/            the trainings, each a run folder
    <out>/<recipe>-tuned.toml    what was found
    <out>/<recipe>-own.toml      what it is to be compared with

so that the same command goes on where it was stopped, be it in the middle of a trial, and several processes can share
one database. Where several trials run at once, the next values are proposed when there is room for a trial, from what
has ended by then: the values of a trial then depend on which of the others were quicker.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thirtytwo import teacher
from thirtytwo.data import Source
from thirtytwo.errors import Diverged, MissingExtra, OutOfMemory, RecipeError, RunInUse
from thirtytwo.events import Epoch
from thirtytwo.recipe import Recipe
from thirtytwo.run import write_atomic
from thirtytwo.settings import Choice
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.task import Ended, Task
from thirtytwo.study.trials import Trials, digest, rounding

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "halving", "none"]
State = Literal["complete", "pruned", "failed"]
Values = dict[str, Any]


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
    """How much of the differences in accuracy each value explains (PED-ANOVA, Watanabe et al. 2023); may be empty."""

    @property
    def best(self) -> TuningTrial:
        """The most accurate trial."""
        return max(_complete(self.trials), key=lambda trial: trial.accuracy or 0.0)

    @property
    def own(self) -> TuningTrial | None:
        """The trial of the recipe's own values; None if it has not ended yet, in another process."""
        return next((trial for trial in self.trials if trial.number == 0), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recipe": self.name,
            "tuned": str(self.path),
            "best": vars(self.best),
            "own": None if self.own is None else vars(self.own),
            "n": len(self.trials),
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
) -> Tuned:
    """Search for better values.

    Args:
        recipe: with a `search` section.
        source: the data.
        out: folder for everything; what is there is gone on with.
        trials: how many there shall be in all, those of earlier calls included.
        seed: of every training, so that trials differ by their values alone, and of the sampler.
        sampler: what proposes values.
        pruner: what ends trials early, by their validation accuracy after each epoch.
        storage: any URL that Optuna takes; None is a file in `out`.
        device: ``auto``, ``cpu`` or ``cuda``.
        pool: where trials run; None is here, one after another.
        done: is given each trial that has ended.

    Raises:
        RecipeError: there is nothing to search for.
        ModelError: the recipe's teacher cannot be read.
        MissingExtra: Optuna is not installed.
        Diverged: no trial came to an end.
        Interrupted: trials were asked to stop.
    """
    optuna = imported()
    if not recipe.search:
        raise RecipeError(
            f"recipe {recipe.name}: has no [search] section; expected the values that may vary, such as "
            '"optimizer.learning_rate" = { low = 1e-3, high = 1e-2, log = true }; write one into a copy of the recipe'
        )
    source, pool = source.in_memory(), pool or Local()
    base = teacher.identified(recipe.replace("search={}"))
    out.mkdir(parents=True, exist_ok=True)
    _check_space(recipe, base)
    space = json.dumps({key: value.model_dump(mode="json") for key, value in recipe.search.items()}, sort_keys=True)
    space_number = int(hashlib.sha256(space.encode()).hexdigest(), 16)
    where = pool.ask(rounding, base, device)
    name = f"{recipe.name}-{digest(base, source.read_training(), where, seed, space_number)}"
    study = optuna.create_study(
        storage=storage or f"sqlite:///{out / 'study.db'}",
        study_name=name,
        direction="maximize",
        pruner=_pruner(optuna, pruner),
        load_if_exists=True,
    )
    begun = len(study.get_trials())
    # Gone on with, it shall not propose once more what it proposed at the beginning.
    study.sampler = _sampler(optuna, sampler, seed + begun)
    if not begun:
        study.enqueue_trial(_own(recipe))
    running = optuna.trial.TrialState.RUNNING
    left_behind = [optuna.trial.Trial(study, each._trial_id) for each in study.get_trials(states=(running,))]
    search = _Search(optuna, study, recipe, base, source, out, seed, device, pool, trials, done, left_behind)
    while search.number_ended < trials:
        search.go_on()
    return _found(optuna, study, recipe, base, out)


@dataclass
class _Search:
    """A search while it goes on."""

    api: Any
    """Optuna."""
    study: optuna.study.Study
    recipe: Recipe
    """The one with the values that may vary."""
    base: Recipe
    """The same without them."""
    source: Source
    out: Path
    seed: int
    device: str
    pool: Pool
    trials: int
    """That there shall be in all."""
    done: Callable[[TuningTrial], None]
    left_behind: list[optuna.trial.Trial]
    """By earlier processes, unless another one is still at them."""
    taken_over: set[int] = field(default_factory=set)
    """Those that were left behind, and tried."""
    under_way: dict[int, optuna.trial.Trial] = field(default_factory=dict)
    told: set[tuple[int, int]] = field(default_factory=set)
    """Trials and the epochs that the study knows of."""

    @property
    def number_ended(self) -> int:
        """Trials that have ended, here or in other processes."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def go_on(self) -> None:
        """Do the trials that are missing, or fewer, where other processes are at some of them."""
        with contextlib.closing(self.pool.run(self._tasks(), self._is_worth_it)) as ends:
            for task, ended in ends:
                self._tell(task, ended)

    def _tasks(self) -> Iterator[Task]:
        """Each with the values that are proposed when there is room for it; those that were left behind come first."""
        while self.number_ended + len(self.under_way) < self.trials:
            if self.left_behind:
                trial = self.left_behind.pop(0)
                self.taken_over.add(trial.number)
            else:
                trial = self.study.ask()
            yield from self._task(trial)

    def _task(self, trial: optuna.trial.Trial) -> Iterator[Task]:
        """The training with the values of a trial; none if no recipe can have them."""
        values = _suggested(trial, self.recipe)
        self.told |= {(trial.number, step) for step in self.study.get_trials()[trial.number].intermediate_values}
        try:
            recipe = _with(self.base, values)
            trainings = Trials.of(recipe, self.source, self.out / "trials", self.device, self.pool)
        except RecipeError:
            self._end(trial, self.api.trial.TrialState.FAIL)
            return
        self.under_way[trial.number] = trial
        yield trainings.task(self.seed, trial.number, f"trial {trial.number}")

    def _is_worth_it(self, task: Task, epoch: Epoch) -> bool:
        """Tell the study of an epoch, and ask whether the trial is to go on."""
        trial, step = self.under_way[task.number], epoch.epoch - 1
        if epoch.validation_accuracy is None:
            return True
        if (task.number, step) not in self.told:  # as it is when it has been trained again
            self.told.add((task.number, step))
            trial.report(epoch.validation_accuracy, step)
        return epoch.epoch == task.recipe.epochs or not trial.should_prune()

    def _tell(self, task: Task, ended: Ended) -> None:
        trial = self.under_way.pop(task.number)
        states = self.api.trial.TrialState
        if ended.how in ("trained", "found"):
            self._end(trial, states.COMPLETE, float(task.run.result["validation"]["accuracy"]))
        elif ended.how == "given up":
            shutil.rmtree(task.path.parent, ignore_errors=True)
            self._end(trial, states.PRUNED)
        elif isinstance(ended.error, Diverged | OutOfMemory | RecipeError):  # such as a network that they do not fit
            shutil.rmtree(task.path.parent, ignore_errors=True)
            self._end(trial, states.FAIL)
        elif not (isinstance(ended.error, RunInUse) and task.number in self.taken_over):  # another process is at it
            ended.check()

    def _end(self, trial: optuna.trial.Trial, state: Any, accuracy: float | None = None) -> None:
        self.study.tell(trial, accuracy, state=state, skip_if_finished=True)
        self.done(_plain(self.api, self.study.get_trials()[trial.number]))


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


def _pruner(optuna: Any, name: Pruner) -> Any:
    match name:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner()
        case "none":
            return optuna.pruners.NopPruner()


def _own(recipe: Recipe) -> Values:
    """The values that a recipe has, of those that may vary."""
    values: Values = {}
    for key in recipe.search:
        found: Any = recipe
        for part in key.split("."):
            found = getattr(found, part)
        values[key] = found
    return values


def _check_space(recipe: Recipe, base: Recipe) -> None:
    """That the recipe's own values lie in the space, and that its ends are values that the recipe can have.

    Raises:
        RecipeError: says what does not fit.
    """
    for key, value in _own(recipe).items():
        space = recipe.search[key]
        if isinstance(space, Choice):
            fits, ends = value in space.choices, list(space.choices)
        else:
            fits, ends = space.low <= value <= space.high, [space.low, space.high]
        if not fits:
            raise RecipeError(
                f"search: {key}: the recipe has {value!r}, which lies outside of {ends}; expected its own value among "
                "those that are tried, since it is tried first; widen the search, or change the value"
            )
        for end in ends:
            _with(base, {key: end})


def _suggested(trial: optuna.trial.Trial, recipe: Recipe) -> Values:
    values: Values = {}
    for key, space in recipe.search.items():
        if isinstance(space, Choice):
            values[key] = trial.suggest_categorical(key, list(space.choices))
        elif isinstance(space.low, int) and isinstance(space.high, int):
            values[key] = trial.suggest_int(key, space.low, space.high, log=space.log)
        else:
            values[key] = trial.suggest_float(key, space.low, space.high, log=space.log)
    return values


def _with(base: Recipe, values: Values) -> Recipe:
    return base.replace(*(f"{key}={json.dumps(value)}" for key, value in values.items()))


def _found(optuna: Any, study: optuna.study.Study, recipe: Recipe, base: Recipe, out: Path) -> Tuned:
    found = tuple(_plain(optuna, trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())
    complete = _complete(found)
    if not complete:
        raise Diverged(f"none of {len(found)} trials came to an end; expected some; lower the rates that are searched")
    best = max(complete, key=lambda trial: trial.accuracy or 0.0)
    name = f"{recipe.name[:50]}-tuned"
    tuned = _with(base, best.values).model_copy(
        update={"name": name, "description": f"{recipe.name}, tuned in {len(found)} trials."}
    )
    path = out / f"{name}.toml"
    write_atomic(path, tuned.to_toml().encode())
    own_path = out / f"{recipe.name[:50]}-own.toml"
    write_atomic(own_path, base.to_toml().encode())
    importances: dict[str, float] = {}
    if len(complete) >= 4 and len({trial.accuracy for trial in complete}) > 1 and len(recipe.search) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is new there
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            importances = dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    return Tuned(tuned, path, own_path, recipe.name, found, importances)


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
