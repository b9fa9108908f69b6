"""Commands that train and judge many models, or look at the data through them."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.app import DATA_HELP, DataOption, DeviceOption, Json, SetOption, app, print_json, screen_for
from thirtytwo.cli.signals import GOES_ON, goes_on, interruptible
from thirtytwo.errors import Diverged, InputError, ModelError, RecipeError, RunError

if TYPE_CHECKING:
    from thirtytwo.cli.show import Screen
    from thirtytwo.recipe import Recipe
    from thirtytwo.study import Chosen, Pool, Student, Trial, Trials, Watcher
    from thirtytwo.study.pool import Judge
    from thirtytwo.study.task import Ended, Task

RunsOption = Annotated[int, typer.Option("--runs", metavar="N", help="Number of seeds.", min=1)]
SeedOption = Annotated[int, typer.Option("--first-seed", metavar="SEED", help="The seeds count up from this.", min=0)]
StudyOption = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="Folder of all studies' runs. What is found there is not trained again."),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the trainings over a Ray cluster: auto for the one that this machine is part of, or HOST:PORT of "
        "its head node.",
    ),
]
GpuShareOption = Annotated[
    float,
    typer.Option(
        "--gpu-share", metavar="SHARE", help="With --ray: share of a GPU that each training takes.", min=0.01, max=1.0
    ),
]


@app.command("repeat")
def repeat_command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="As for `train`, optionally with changes: 'classic model.dropout=0.4'."),
    ] = None,
    runs: RunsOption = 5,
    first_seed: SeedOption = 0,
    data: DataOption = None,
    overrides: SetOption = None,
    out: StudyOption = Path("runs/study"),
    device: DeviceOption = "auto",
    ray: RayOption = None,
    gpu_share: GpuShareOption = 1.0,
    as_json: Json = False,
) -> None:
    """Train a recipe with several seeds, and report the mean of their validation accuracies and how much they differ.

    The test set is not opened. If a recipe holds out no validation images, a tenth of the training images is held out.
    """
    from thirtytwo import report
    from thirtytwo.data import find
    from thirtytwo.study import Repeated, Trials

    _check_cluster(ray, gpu_share)
    screen = screen_for(as_json)
    with screen.download() as progress:
        source = find(data, progress=progress)
    settings, asked = _recipe(recipe, overrides), _asked(recipe, overrides)
    with screen.trials_under_way(runs) as display, _pool(screen, display, ray, gpu_share, device) as pool:
        trials = Trials.of(settings, source, out, device, pool, " ".join(asked))
        done, diverged = _repeated(screen, trials, range(first_seed, first_seed + runs), pool)
    if not done:
        raise Diverged(f"all of {runs} trainings diverged; expected some that do not; lower the learning rate")
    found = Repeated(tuple(done))
    figure = report.write_spread(trials.path, trials.words, found)
    if as_json:
        facts = {"diverged_seeds": diverged, **found.to_json(), "figure": str(figure)}
        print_json({**_told(trials, asked[1:]), **facts})
    else:
        screen.repeated(found, figure)


def _repeated(screen: Screen, trials: Trials, seeds: range, pool: Pool) -> tuple[list[Trial], list[int]]:
    """Train with several seeds, shown as they end; those that ended, and the seeds that diverged, in their order."""
    from thirtytwo.study import repeat

    diverged: list[int] = []

    def tell(seed: int, error: Diverged) -> None:
        diverged.append(seed)
        screen.say(f"seed {seed}: {error}")

    done: list[Trial] = []
    screen.study_begins([trials])
    for trial in repeat(trials, seeds, pool, tell):
        done.append(trial)
        screen.trial(trial)
    return sorted(done, key=lambda trial: trial.seed), sorted(diverged)  # on a cluster, they end in another order


@app.command("compare")
def compare_command(
    first: Annotated[str, typer.Argument(metavar="A", help="A recipe, optionally with changes: 'fast94 epochs=20'.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another recipe, likewise.")],
    runs: Annotated[
        int,
        typer.Option("--runs", metavar="N", help="Most pairs to train, one per seed; under 5 settle nothing.", min=1),
    ] = 30,
    first_seed: SeedOption = 0,
    data: DataOption = None,
    overrides: SetOption = None,
    all_runs: Annotated[
        bool, typer.Option("--all", help="Train all pairs, even if the answer is clear before.")
    ] = False,
    difference: Annotated[
        float | None,
        typer.Option(
            "--difference",
            metavar="POINTS",
            help="Report how many more pairs would settle a difference of this many percentage points. Default: 0.1, "
            "0.3 and 1.",
            min=0.01,
            max=100,
        ),
    ] = None,
    out: StudyOption = Path("runs/study"),
    device: DeviceOption = "auto",
    ray: RayOption = None,
    gpu_share: GpuShareOption = 1.0,
    as_json: Json = False,
) -> None:
    """Is B better than A? Train both with the same seeds, pair by pair, until the answer is clear or N pairs are done.

    Pairs are judged by validation accuracy, with a test that stays valid although it looks after every pair. The test
    set is not opened. A seed with which a training diverges makes no pair, and is reported. --set changes both recipes.
    """
    from thirtytwo import report
    from thirtytwo.data import find
    from thirtytwo.report import wording
    from thirtytwo.study import Comparison, Trials, compare
    from thirtytwo.study.compare import FEWEST_PAIRS, SIZES

    _check_cluster(ray, gpu_share)
    screen = screen_for(as_json)
    with screen.download() as progress:
        source = find(data, progress=progress).in_memory()
    sides = [(_recipe(text, overrides), " ".join(_asked(text, overrides))) for text in (first, second)]
    found = Comparison(())
    with screen.trials_under_way(2 * runs) as display, _pool(screen, display, ray, gpu_share, device) as pool:
        one, other = (Trials.of(recipe, source, out, device, pool, words) for recipe, words in sides)
        if other.is_same_as(one):
            other = replace(other, path=one.path)  # trained once, whatever they are called
            so = "every pair is a draw" if all_runs else "one training is enough"
            screen.say(f"A and B are the same recipe, so {so}.")
        screen.study_begins([one, other])
        if runs < FEWEST_PAIRS and not other.is_same_as(one):
            screen.caution(f"--runs {runs}: settles nothing; expected at least {FEWEST_PAIRS} pairs")
        for found in compare(one, other, range(first_seed, first_seed + runs), stop_early=not all_runs, pool=pool):
            screen.outcome(found)
    if not found.pairs:
        lost = wording.diverged(found.diverged, runs)
        raise Diverged(f"{lost}; expected a seed with which neither does; lower the learning rate")
    figure = report.write_comparison(other.path, found, (one.words, other.words), f"against-{one.path.name}")
    if as_json:
        sizes = SIZES if difference is None else (difference / 100,)
        asked = zip("ab", (one, other), (first, second), strict=True)
        told = {side: _told(trials, _asked(text, overrides)[1:]) for side, trials, text in asked}
        print_json({**told, **found.to_json(sizes), "figure": str(figure)})
    else:
        screen.comparison(found, figure, difference)


class SamplerName(StrEnum):
    """What proposes values."""

    TPE = "tpe"
    RANDOM = "random"


class PrunerName(StrEnum):
    """What ends trials early."""

    MEDIAN = "median"
    HALVING = "halving"
    NONE = "none"


@app.command("tune")
def tune_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A recipe with a `search` section, optionally with changes: 'classic epochs=4'."
        ),
    ],
    trials: Annotated[
        int, typer.Option("--trials", metavar="N", help="Number of trials in all, earlier ones included.", min=1)
    ] = 40,
    data: DataOption = None,
    overrides: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the search. Default: `runs/tune/<recipe>-<digits>`."),
    ] = None,
    sampler: Annotated[SamplerName, typer.Option("--sampler", help="What proposes the values.")] = SamplerName.TPE,
    pruner: Annotated[
        PrunerName, typer.Option("--pruner", help="What stops trials that lag behind.")
    ] = PrunerName.MEDIAN,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="URL of a database for Optuna. Default: a file in the folder."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all trainings and of the sampler.", min=0)] = 0,
    device: DeviceOption = "auto",
    ray: RayOption = None,
    gpu_share: GpuShareOption = 1.0,
    as_json: Json = False,
) -> None:
    """Search for better values of the settings that a recipe's `search` section names.

    Trials are judged by validation accuracy; the test set is not opened. If stopped, the same command goes on from
    there. It writes a new recipe, and a page that shows which settings mattered.
    """
    from thirtytwo import report
    from thirtytwo.data import find
    from thirtytwo.study import tune
    from thirtytwo.study.space import Space, check_searched
    from thirtytwo.study.tune import ROOT, imported

    imported()
    _check_cluster(ray, gpu_share)
    screen = screen_for(as_json)
    settings = _recipe(recipe, overrides)
    check_searched(settings)
    with screen.download() as progress:
        source = find(data, progress=progress).in_memory()
    with screen.trials_under_way(trials) as display, _pool(screen, display, ray, gpu_share, device) as pool:
        space = Space.of(settings, source, seed=seed, device=device, pool=pool)
        folder = out or ROOT / space.name  # other changes, data or seeds are another search
        screen.tuning_begins(space.recipe, source, trials, folder)
        found = tune(
            settings,
            source,
            folder,
            trials=trials,
            seed=seed,
            sampler=sampler.value,
            pruner=pruner.value,
            storage=storage,
            device=device,
            pool=pool,
            done=screen.tuning_trial,
            waits=screen.tuning_waits,
        )
    page = report.write_tuning(folder, found)
    if as_json:
        print_json({**found.to_json(), "page": str(page)})
    else:
        screen.tuned(found, page)


@app.command("ensemble")
def ensemble_command(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL", help="Run folders or model files; at least two, with those of --train."),
    ] = None,
    train: Annotated[
        int,
        typer.Option(
            "--train", metavar="N", help="First train RECIPE with N seeds, and choose among these networks, too.", min=0
        ),
    ] = 0,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="For --train: a recipe, optionally with changes: 'fast94 epochs=20'. Default: fast94.",
        ),
    ] = None,
    first_seed: SeedOption = 0,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="cifar10, cifar100, shapes, or a path. Default: what the first MODEL was trained on; without one, "
            "$THIRTYTWO_DATA, then cifar10.",
        ),
    ] = None,
    distil: Annotated[
        str | None,
        typer.Option(
            "--distil",
            metavar="RECIPE",
            help="Then train one network that imitates them: a recipe, optionally with changes: 'fast94 epochs=20'.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the training that --distil asks for.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the ensemble. Default: `ensembles/<n>`.")
    ] = None,
    device: DeviceOption = "auto",
    ray: RayOption = None,
    gpu_share: GpuShareOption = 1.0,
    as_json: Json = False,
) -> None:
    """Let models answer together: average their probabilities, with weights chosen on the validation images.

    The result is a model like any other, for `evaluate` and `predict`, and a page that shows what it gains. Models that
    --train trains are kept in runs/study, where `repeat` and `compare` find them, too. With --distil, the ensemble then
    teaches a single network, in DIR/distilled. If stopped, the same command goes on from there. The test set is not
    opened.
    """
    from thirtytwo import Classifier, environment, report
    from thirtytwo.classifier import is_ensemble
    from thirtytwo.data import find
    from thirtytwo.report import wording
    from thirtytwo.run import Run, remove_leftovers, storing, write_atomic
    from thirtytwo.study import Trials, as_seen, ensemble, shared_validation, students
    from thirtytwo.study import distil as teach
    from thirtytwo.study.distil import check_untaught

    paths = list(models or [])
    if len(paths) + train < 2:
        raise InputError(
            f"{wording.plural(len(paths), 'model')} and --train {train}; expected at least two models; name more, or "
            "let more be trained"
        )
    if not train and (recipe, first_seed) != (None, 0):
        raise InputError("--recipe and --first-seed: are for what --train trains; expected --train N as well")
    if distil is None and seed:
        raise InputError("--seed: is for what --distil trains; expected --distil RECIPE as well, or --first-seed")
    if not train and distil is None and ray is not None:
        raise InputError("--ray: is for what is trained; expected --train N, or --distil RECIPE, as well")
    _check_cluster(ray, gpu_share)
    if out is not None and not _may_hold(out, goes_on=distil is not None):  # said before anything is trained
        raise _taken(out)
    settings = _recipe(recipe, None) if train else None
    pupil = None if distil is None else _recipe(distil, None)
    if pupil is not None:
        check_untaught(pupil)
    screen = screen_for(as_json)
    # A cluster trains on what is asked for; who asks the models, here, need not have it.
    here = environment.device(device) if ray is None else environment.device_here(device)
    members = [Classifier.load(path, device=here) for path in paths]
    with screen.download() as progress:
        source = find(data or (members[0].facts.get("spec") if members else None), progress=progress).in_memory()
    source = as_seen(members, list(map(str, paths)), source)  # so that what is trained for them sees the same
    if settings is None:
        _check_pupil(pupil, shared_validation(members, list(map(str, paths)), source))
        screen.warn(source, source.read_training().warnings)
    else:
        seeds = range(first_seed, first_seed + train)
        with screen.trials_under_way(train) as display, _pool(screen, display, ray, gpu_share, device) as pool:
            trials = Trials.of(settings, source, device=device, pool=pool, words=" ".join(_asked(recipe)))
            share = trials.recipe.validation
            if members and (theirs := shared_validation(members, list(map(str, paths)), source)) != share:
                raise ModelError(
                    f"{', '.join(map(str, paths))}: held out {theirs:.0%} of the training images, {settings.name} "
                    f"would hold out {share:.0%}; expected the same share; add validation={theirs:g} to --recipe"
                )
            _check_pupil(pupil, share)
            if pupil is not None:  # whether it may begin as it says is asked before others are trained for hours
                Trials.of(pupil.holding_out(share), source, device=device, pool=pool)
            done, _ = _repeated(screen, trials, seeds, pool)
        trained = [trial.run.path for trial in done]  # ties between models are decided by the order of the seeds
        members += [Classifier.load(path, device=here) for path in trained]
        paths += trained
        if len(paths) < 2:
            raise Diverged(f"{train - len(trained)} of {train} trainings diverged; expected two models at least")
    with screen.busy("scoring the models on the validation images"):
        chosen = ensemble(members, list(map(str, paths)), source)
    folder = _folder_of(chosen, out, goes_on=pupil is not None)
    if not is_ensemble(folder):
        with storing(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        chosen.ensemble.save(Run(folder).model_path)

    def tell(taught: list[Student]) -> dict[str, Any]:
        result = {**chosen.to_json(), "out": str(folder), "page": str(report.write_ensemble(folder, chosen, taught))}
        result |= {"distilled": taught[0].to_json()} if taught else {}
        write_atomic(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
        return result

    result = tell(_students_in(folder))
    if not as_json or pupil is not None:
        screen.ensemble(chosen, folder, Path(result["page"]))
    if pupil is not None:
        with screen.trials_under_way(1) as display, _pool(screen, display, ray, gpu_share, device) as pool:
            trials = students(pupil, folder, source, device, pool)
            screen.student_begins(trials)
            student = teach(trials, chosen.ensemble, seed, pool)
        result = tell([student])
        screen.student(student, chosen)
    if as_json:
        print_json(result)


def _check_pupil(pupil: Recipe | None, share: float) -> None:
    """That a network that is to be taught will hold out what its teachers did, or whatever they did.

    Raises:
        RecipeError: it would hold out another share.
    """
    if pupil is not None and pupil.validation not in (0, share):
        raise RecipeError(
            f"--distil: recipe {pupil.name} holds out {pupil.validation:.0%} of the training images, its teachers held "
            f"out {share:.0%}; expected the same images; add validation={share:g} to it"
        )


def _students_in(folder: Path) -> list[Student]:
    """Of an ensemble that is there already: told until there is another one."""
    from thirtytwo.study import Student

    try:
        return Student.recalled(folder)
    except RunError:
        return []  # a damaged result.json is about to be written anew


def _folder_of(chosen: Chosen, out: Path | None, *, goes_on: bool) -> Path:
    """The folder of an ensemble: a new one, or one that holds it already if something is to go on there.

    Raises:
        RunError: the one that was asked for holds something else.
    """
    from thirtytwo.classifier import is_ensemble

    places = [out] if out is not None else (Path("ensembles") / str(n) for n in itertools.count(1))
    for place in places:
        if _may_hold(place, goes_on=goes_on) and (not is_ensemble(place) or chosen.is_kept_in(place)):
            return place
    raise _taken(place)


def _may_hold(place: Path, *, goes_on: bool) -> bool:
    """Whether an ensemble may come to lie in a folder: a new one, or one of an ensemble if it may be the same.

    One without a result was being written when its process died.
    """
    from thirtytwo.classifier import is_ensemble
    from thirtytwo.run import is_leftover

    if not place.exists():
        return True
    if not place.is_dir():
        return False
    is_open = goes_on or not (place / "result.json").exists()
    return all(is_leftover(path.name) for path in place.iterdir()) or (is_open and is_ensemble(place))


def _taken(place: Path) -> RunError:
    return RunError(
        f"{place}: exists already; expected a new folder, or, with --distil, that of the same ensemble; choose another "
        "--out"
    )


@app.command("audit")
def audit_command(
    spec: Annotated[str | None, typer.Argument(metavar="SPEC", help=DATA_HELP)] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Recipe of the networks, optionally with changes: 'classic epochs=8'."
        ),
    ] = "fast94 epochs=8 views.translate_pixels=0",
    networks: Annotated[
        int,
        typer.Option(
            "--networks",
            metavar="N",
            help="Number of networks; each is trained without an Nth of the training images.",
        ),
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first network; the others count up.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for what is found. Default: `audits/<name>`.")
    ] = None,
    device: DeviceOption = "auto",
    ray: RayOption = None,
    gpu_share: GpuShareOption = 1.0,
    as_json: Json = False,
) -> None:
    """Search a data set for wrong labels, duplicates, leaks between splits, images that show nothing, and broken files.

    It trains networks and asks them about images that they have not seen. If stopped, the same command goes on from
    there. It looks at the test images, which is counted. It writes label_issues.csv, duplicates.csv, odd_images.csv,
    broken_files.csv and audit.html; a table that you have changed by hand is left as it is.
    """
    screen = screen_for(as_json)
    with goes_on(screen.say):
        from thirtytwo import planner, report
        from thirtytwo.data import find
        from thirtytwo.study import audit, findings, label_errors

        label_errors.check_installed()
        _check_cluster(ray, gpu_share)
        with screen.download() as progress:
            source = find(spec, progress=progress, leave_out_broken=True).in_memory()
        settings = _recipe(recipe, None)
        folder = out or Path("audits") / source.name
        screen.audit_begins(source, recipe, networks, folder)
        with screen.networks_under_way(networks) as display, _pool(screen, display, ray, gpu_share, device) as pool:
            found = audit(
                source,
                settings,
                folder,
                folds=networks,
                seed=seed,
                device=device,
                pool=pool,
                busy=screen.busy,
                recipe_words=_asked(recipe),
            )
        edited = findings.write_tables(folder, found.tables)
        with screen.busy("drawing the page"):
            page = report.write_audit(folder, found, edited, planner.precision_of_pairs(found.name))
    if as_json:
        print_json({**found.to_json(), "tables_left_alone": list(edited), "page": str(page)})
    else:
        screen.audit(found, page)
    screen.tables_left_alone(folder, edited)


def _recipe(words: str | None, overrides: list[str] | None) -> Recipe:
    """The recipe that is asked for."""
    from thirtytwo import recipe as recipes

    name, *changes = _asked(words, overrides)
    return recipes.load(name, changes)


def _asked(words: str | None, overrides: list[str] | None = None) -> list[str]:
    """A recipe's name, or path, and its changes: those after it, which spaces separate, and those of --set."""
    from thirtytwo import recipe as recipes

    try:
        split = [words] if words and Path(words).is_file() else shlex.split(words or "")
    except ValueError as error:
        raise InputError(f"{words}: {error}; expected a recipe, and changes such as epochs=20 after it") from None
    return [*(split or [recipes.DEFAULT]), *(overrides or [])]


def _told(trials: Trials, changes: Sequence[str]) -> dict[str, Any]:
    """What was trained.

    Args:
        trials: its trainings.
        changes: of its recipe, as they were asked for.
    """
    recipe = trials.recipe
    facts = {"recipe": recipe.name, "changes": list(changes), "data": trials.source.name}
    return {**facts, "validation": recipe.validation, "runs": str(trials.path)}


def _check_cluster(ray: str | None, gpu_share: float) -> None:
    """What --ray needs, before anything is downloaded."""
    if ray is not None:
        from thirtytwo.study import pool

        pool.imported()
    elif gpu_share != 1:
        raise InputError(
            f"--gpu-share {gpu_share:g}: expected --ray as well; without it, there is one training at a time"
        )


@contextlib.contextmanager
def _pool(screen: Screen, display: Watcher, ray: str | None, gpu_share: float, device: str) -> Iterator[Pool]:
    """Where a study's trainings run: here, or on a Ray cluster; shown while they go on, and to be interrupted."""
    from thirtytwo.study import Local, OnRay

    if ray is None:
        yield _Interruptible(Local(display), screen)
        return
    with OnRay(ray, device=device, gpu_share=gpu_share, watcher=display) as pool:
        screen.cluster(ray, pool.room)
        yield _Interruptible(pool, screen)


class _Interruptible:
    """A pool whose trainings Ctrl-C and a polite kill stop, with checkpoints; that ends the command."""

    def __init__(self, pool: Pool, screen: Screen) -> None:
        self._pool, self._screen = pool, screen

    def run(self, tasks: Iterable[Task], judge: Judge | None = None) -> Generator[tuple[Task, Ended]]:
        from thirtytwo.study import Interrupted

        with interruptible(self) as received:
            try:
                yield from self._pool.run(tasks, judge)
            except Interrupted:
                if not received:
                    raise
        if received:
            self._screen.say(GOES_ON)
            raise typer.Exit(128 + received[0])

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.ask(function, *arguments)

    def interrupt(self) -> None:
        self._pool.interrupt()
