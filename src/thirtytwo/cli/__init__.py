"""The command line: one verb each, joining what the layers below return.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from thirtytwo import __version__
from thirtytwo.cli.signals import caught
from thirtytwo.errors import Diverged, ImageError, InputError, OutOfMemory, RunError, ThirtytwoError

if TYPE_CHECKING:
    from thirtytwo.classifier import Classifier
    from thirtytwo.cli.show import Screen
    from thirtytwo.recipe import Recipe
    from thirtytwo.study import Chosen, Pool, Student, Trials, Watcher
    from thirtytwo.study.pool import Judge
    from thirtytwo.study.task import Ended, Task
    from thirtytwo.train import Training

app = typer.Typer(
    name="thirtytwo",
    help="Train and judge classifiers of small images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

GOES_ON = "Interrupted; nothing is lost. The same command continues from here."

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, an ensemble's folder, a model file, or pretrained: the model in the package, for CIFAR-10.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
DATA_HELP = "cifar10, cifar100, shapes, or a path. Default: $THIRTYTWO_DATA, then cifar10."
DataOption = Annotated[str | None, typer.Option("--data", metavar="SPEC", help=DATA_HELP)]
CORRUPTED_HELP = "Also score N of the images with noise, blur, JPEG, changed brightness and contrast, and shifts."
DeviceOption = Annotated[str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")]


class SplitName(StrEnum):
    """Splits that can be scored."""

    test = "test"
    validation = "validation"
    training = "training"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"thirtytwo {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train and judge classifiers of small images."""


@app.command("data")
def data_command(
    spec: Annotated[str | None, typer.Argument(metavar="SPEC", help=DATA_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Find or download a data set, verify it, and show what is in it."""
    from thirtytwo import data

    screen = _screen(as_json)
    with screen.download() as progress:
        source = data.find(spec, progress=progress)
    images = source.read_training()
    if as_json:
        _print_json(
            {
                "spec": source.spec,
                "name": images.name,
                "location": source.location,
                "fingerprint": images.fingerprint,
                "images": len(images),
                "size": images.size,
                "classes": dict(zip(images.classes, images.per_class, strict=True)),
                "warnings": images.warnings,
            }
        )
    else:
        screen.data(source, images)


@app.command("train")
def train_command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, or the path of a .toml file. Default: fast94."),
    ] = None,
    data: DataOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Decides everything that is random. Default: 0.", min=0)
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Short for --set epochs=N.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, such as optimizer.learning_rate=0.01. May be given more than once; "
            "docs/settings.md lists all settings.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run folder. Default: `runs/<recipe>-<n>`.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices",
            metavar="N",
            help="Train on N GPUs, or in N processes on a CPU, each with a part of every batch. Default: 1; with "
            "--resume, as many as the run was begun with.",
            min=1,
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Continue an interrupted run.")] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            metavar="FILE",
            help="Leave out the training images named in a table of `audit`, such as label_issues.csv; of duplicates, "
            "one stays. May be given more than once.",
        ),
    ] = None,
    corrupted: Annotated[
        int | None,
        typer.Option(
            "--corrupted",
            metavar="N",
            help=f"{CORRUPTED_HELP} Default: 1000, or a fifth of them if that is fewer.",
            min=0,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, score the test set once, and write a report.

    If neither --data nor $THIRTYTWO_DATA names data, it trains on CIFAR-10, or on `shapes` if CIFAR-10 cannot be had.
    On several machines, start it with torchrun: `torchrun … -m thirtytwo train …`.
    """
    if resume is not None:
        given = {
            "RECIPE": recipe,
            "--seed": seed,
            "--epochs": epochs,
            "--set": overrides,
            "--out": out,
            "--device": device,
            "--exclude": exclude,
        }
        if extra := [name for name, value in given.items() if value not in (None, [])]:
            raise InputError(
                f"--resume goes on with what {resume} was started with; found {', '.join(extra)} as well; "
                "leave that out, or start a new run"
            )
    from thirtytwo import recipe as recipes
    from thirtytwo.cli import launch

    settings = None
    if resume is None:
        if epochs is not None and any(word.partition("=")[0].strip() == "epochs" for word in overrides or []):
            raise InputError("--epochs and --set epochs: both found; expected one of them; leave one out")
        words = [*(overrides or []), *([f"epochs={epochs}"] if epochs is not None else [])]
        settings = recipes.load(recipe or recipes.DEFAULT, words)
        if out is not None and (out / "environment.json").exists():  # said before anything is downloaded or computed
            # Started by others, this may be a restart of theirs, with the words of the start (torchrun --max-restarts).
            started_by = "torchrun … -m " if launch.is_launched() else ""
            raise RunError(
                f"{out}: holds a run already; `{started_by}thirtytwo train --resume {out}` goes on with it, or choose "
                "another --out"
            )

    if launch.is_launched():
        launch.hold_lifeline()
        launch.check(devices)
    elif (processes := devices or (launch.begun_by(resume) if resume is not None else 1)) > 1:
        raise typer.Exit(launch.run(processes))

    from thirtytwo import evaluate_run, report
    from thirtytwo.data import exclusion, find
    from thirtytwo.ranks import joined
    from thirtytwo.run import Run
    from thirtytwo.train import resume as resume_training
    from thirtytwo.train import train

    tables = exclusion.read(exclude or [])  # a mistake there is told before anything is downloaded
    where = device or (str(Run.open(resume).environment.get("device", "auto")) if resume is not None else "auto")
    with joined(where) as ranks:
        screen = _screen(as_json, silent=not ranks.is_first)
        if settings is None:
            assert resume is not None
            with screen.download() as progress:
                training = resume_training(resume, data, progress=progress, ranks=ranks)
        else:
            with screen.download() as progress:
                source = find(data, progress=progress, fallback=data is None)
            training = train(settings, source, seed=seed or 0, out=out, device=where, exclude=tables, ranks=ranks)
        screen.training_begins(training)
        with _broken_off(screen, training), _interruptible(training) as received, screen.training(training) as display:
            for event in training:
                display.show(event)
    if training.interrupted:
        screen.interrupted(training.run)
        raise typer.Exit(128 + (received or [signal.SIGTERM])[0])  # the signal may have come to another process
    if not ranks.is_first:
        return
    with _broken_off(screen, training):
        with screen.busy("scoring the test set, once"):
            result = evaluate_run(training.run, training.source, training.classifier, corrupted_images=corrupted)
        with screen.busy("drawing the report"):
            page = report.write(training.run)
    if as_json:
        _print_json(result)
    else:
        screen.result(result, training.run, page)


@app.command("evaluate")
def evaluate_command(
    model: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="cifar10, cifar100, shapes, or a path. Default: the data that the model was trained on.",
        ),
    ] = None,
    split: Annotated[SplitName, typer.Option("--split", help="Which images to score.")] = SplitName.test,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            metavar="FILE",
            help="Report the scores once more, without the test images named in a table of `audit`; of duplicates.csv, "
            "those with a copy among the training images. May be given more than once.",
        ),
    ] = None,
    corrupted: Annotated[int, typer.Option("--corrupted", metavar="N", help=CORRUPTED_HELP, min=0)] = 0,
    device: DeviceOption = "auto",
    as_json: Json = False,
) -> None:
    """Score a model on a split. Openings of the test set are counted: every result says which one it was."""
    from thirtytwo import Classifier, environment, evaluate
    from thirtytwo.data import exclusion, find
    from thirtytwo.evaluate import under_corruption

    tables = exclusion.read(exclude or [])
    screen = _screen(as_json)
    classifier = Classifier.load(model, device=environment.device(device))
    with screen.download() as progress:
        source = find(data or classifier.facts.get("spec"), progress=progress)
    with screen.busy(f"scoring the {split.value} images"):
        scored = evaluate(classifier, source, split=split.value, exclude=tables)
    screen.warn(source, scored.images.warnings)
    result = {
        **{name: fact for name, fact in classifier.facts.items() if name != "excluded"},  # thousands of numbers
        "data": scored.images.name,
        "warnings": list(scored.images.warnings),
        "test_opening": scored.opening,
        split.value: scored.summary(),
    }
    if (rest := scored.without_excluded) is not None:
        left_out = len(scored.images) - len(rest.images)
        result["without_excluded"] = {"files": list(map(str, exclude or [])), "excluded": left_out, **rest.summary()}
    if corrupted:
        with screen.busy("scoring them once more, corrupted"):
            result["corrupted"] = under_corruption(classifier, scored.images, corrupted)
    if as_json:
        _print_json(result)
    else:
        screen.scores(result, split.value)


@app.command("predict")
def predict_command(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE", help="Image files, or folders: all files in them that end like an image, at any depth."
        ),
    ],
    unknown_below: Annotated[
        str | None,
        typer.Option(
            "--unknown-below",
            metavar="P",
            help="Answer `unknown` if no class reaches this probability; `auto` takes the one that the model suggests.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    as_json: Json = False,
) -> None:
    """Classify your own image files, of any size. Files that cannot be read are named; the others are classified."""
    from dataclasses import asdict

    from thirtytwo import Classifier, environment
    from thirtytwo.data import image_files

    screen = _screen(as_json)
    classifier = Classifier.load(model, device=environment.device(device))
    least = _probability(unknown_below, classifier)
    files = image_files(images)
    unreadable: ImageError | None = None
    try:
        predictions = classifier.predict(files, unknown_below=least)
    except ImageError as error:
        unreadable = error
        readable = [file for file in files if str(file) not in error.paths]
        predictions = classifier.predict(readable, unknown_below=least)
    if as_json:
        rows = [asdict(prediction) for prediction in predictions]
        _print_json([{"class" if key == "label" else key: value for key, value in row.items()} for row in rows])
    elif predictions:
        screen.predictions(predictions)
    if unreadable is not None:
        raise unreadable


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or an ensemble's folder.")],
    as_json: Json = False,
) -> None:
    """Draw a run's report.html, or an ensemble's ensemble.html, again from what the folder holds."""
    from thirtytwo import Run, report
    from thirtytwo.classifier import is_ensemble

    if is_ensemble(run):
        from thirtytwo.study import Chosen, Student

        page = report.write_ensemble(run, Chosen.recalled(run), Student.recalled(run))
    else:
        page = report.write(Run.open(run))
    if as_json:
        _print_json({"report": str(page)})
    else:
        _screen(as_json).say(f"Report: {page}")


def _probability(text: str | None, classifier: Classifier) -> float:
    """What --unknown-below says."""
    if text == "auto":
        if not classifier.unknown_below:
            raise InputError(
                "--unknown-below auto: this model suggests no probability, since none was fitted when it was trained; "
                "expected one from you, such as --unknown-below 0.8"
            )
        return classifier.unknown_below
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InputError(f"--unknown-below {text}: expected a probability from 0 to 1, or auto")
    return value


RunsOption = Annotated[int, typer.Option("--runs", metavar="N", help="Number of seeds.", min=1)]
SeedOption = Annotated[int, typer.Option("--first-seed", metavar="SEED", help="The seeds count up from this.", min=0)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as optimizer.learning_rate=0.01. May be given more than once.",
    ),
]
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
    from thirtytwo.study import Spread, Trial, Trials, repeat

    _check_cluster(ray, gpu_share)
    screen = _screen(as_json)
    with screen.download() as progress:
        source = find(data, progress=progress)
    settings = _recipe(recipe, overrides)
    done: list[Trial] = []
    diverged: dict[int, Diverged] = {}

    def tell(seed: int, error: Diverged) -> None:
        diverged[seed] = error
        screen.say(f"seed {seed}: {error}")

    with screen.trials_under_way(runs) as display, _pool(screen, display, ray, gpu_share, device) as pool:
        trials = Trials.of(settings, source, out, device, pool)
        screen.study_begins([trials])
        for trial in repeat(trials, range(first_seed, first_seed + runs), pool, tell):
            done.append(trial)
            screen.trial(trial)
    if not done:
        raise Diverged(f"all of {runs} trainings diverged; expected some that do not; lower the learning rate")
    done.sort(key=lambda trial: trial.seed)  # on a cluster, they end in another order
    spread = Spread.of([trial.accuracy for trial in done])
    figure = report.write_spread(trials.path, trials.recipe.name, spread)
    if as_json:
        seeds = [trial.seed for trial in done]
        facts = {"seeds": seeds, "diverged_seeds": sorted(diverged), **spread.to_json(), "figure": str(figure)}
        _print_json({**_told(trials), **facts})
    else:
        screen.spread(spread, figure)


@app.command("compare")
def compare_command(
    first: Annotated[str, typer.Argument(metavar="A", help="A recipe, optionally with changes: 'fast94 epochs=20'.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another recipe, likewise.")],
    runs: Annotated[int, typer.Option("--runs", metavar="N", help="Most pairs to train, one per seed.", min=1)] = 30,
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
    from thirtytwo.study.compare import SIZES

    _check_cluster(ray, gpu_share)
    screen = _screen(as_json)
    with screen.download() as progress:
        source = find(data, progress=progress).in_memory()
    recipes = [_recipe(name, overrides) for name in (first, second)]
    found = Comparison(())
    with screen.trials_under_way(2 * runs) as display, _pool(screen, display, ray, gpu_share, device) as pool:
        one, other = (Trials.of(recipe, source, out, device, pool) for recipe in recipes)
        if one.path == other.path:
            screen.say("These are the same recipe: every pair will be a draw.")
        screen.study_begins([one, other])
        for found in compare(one, other, range(first_seed, first_seed + runs), stop_early=not all_runs, pool=pool):
            screen.outcome(found)
    if not found.pairs:
        lost = wording.diverged(found.diverged, runs)
        raise Diverged(f"{lost}; expected a seed with which neither does; lower the learning rate")
    figure = report.write_comparison(other.path, found, f"against-{one.path.name}")
    if as_json:
        sizes = SIZES if difference is None else (difference / 100,)
        _print_json({"a": _told(one), "b": _told(other), **found.to_json(sizes), "figure": str(figure)})
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
    screen = _screen(as_json)
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
        _print_json({**found.to_json(), "page": str(page)})
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
        typer.Option("--train", metavar="N", help="Train RECIPE with N seeds first, to choose among them, too.", min=0),
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
    from thirtytwo.run import Run, write_atomic
    from thirtytwo.study import Trials, as_seen, ensemble, repeat, students
    from thirtytwo.study import distil as teach
    from thirtytwo.study.distil import check_untaught

    paths = list(models or [])
    if len(paths) + train < 2:
        raise InputError(
            f"{len(paths)} models and --train {train}; expected at least two models; name more, or let more be trained"
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
    screen = _screen(as_json)
    # A cluster trains on what is asked for; who asks the models, here, need not have it.
    here = environment.device(device) if ray is None else environment.device_here(device)
    members = [Classifier.load(path, device=here) for path in paths]
    with screen.download() as progress:
        source = find(data or (members[0].facts.get("spec") if members else None), progress=progress).in_memory()
    source = as_seen(members, list(map(str, paths)), source)  # so that what is trained for them sees the same
    if settings is None:
        screen.warn(source, source.read_training().warnings)
    else:
        seeds = range(first_seed, first_seed + train)
        with screen.trials_under_way(train) as display, _pool(screen, display, ray, gpu_share, device) as pool:
            trials = Trials.of(settings, source, device=device, pool=pool)
            screen.study_begins([trials])
            for trial in repeat(trials, seeds, pool, lambda seed, error: screen.say(f"seed {seed}: {error}")):
                screen.trial(trial)
        # In the order of the seeds, in whichever they ended: ties between models are decided by it.
        trained = [trials.run(seed).path for seed in seeds if trials.is_finished(seed)]
        members += [Classifier.load(path, device=here) for path in trained]
        paths += trained
        if len(paths) < 2:
            raise Diverged(f"{train - len(trained)} of {train} trainings diverged; expected two models at least")
    with screen.busy("scoring the models on the validation images"):
        chosen = ensemble(members, list(map(str, paths)), source)
    folder = _folder_of(chosen, out, goes_on=pupil is not None)
    if not is_ensemble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        chosen.ensemble.save(Run(folder).model_path)

    def tell(taught: list[Student]) -> dict[str, Any]:
        result = {**chosen.to_json(), "out": str(folder), "page": str(report.write_ensemble(folder, chosen, taught))}
        result |= {"distilled": taught[0].to_json()} if taught else {}
        write_atomic(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
        return result

    result = tell([])
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
        _print_json(result)


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
    """Whether an ensemble may come to lie in a folder: a new one, or one of an ensemble if it may be the same."""
    from thirtytwo.classifier import is_ensemble

    if not place.exists():
        return True
    return goes_on and place.is_dir() and (is_ensemble(place) or not any(place.iterdir()))


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
    screen = _screen(as_json)
    with _goes_on(screen):
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
                words=recipe,
            )
        edited = findings.write_tables(folder, found.tables)
        with screen.busy("drawing the page"):
            page = report.write_audit(folder, found, edited, planner.precision_of_pairs(found.name))
    if as_json:
        _print_json({**found.to_json(), "tables_left_alone": list(edited), "page": str(page)})
    else:
        screen.audit(found, page)
    screen.tables_left_alone(folder, edited)


def _recipe(words: str | None, overrides: list[str] | None) -> Recipe:
    """The recipe whose name, or path, and changes are separated by spaces."""
    from thirtytwo import recipe as recipes

    try:
        split = [words] if words and Path(words).is_file() else shlex.split(words or "")
        name, *changes = split or [recipes.DEFAULT]
    except ValueError as error:
        raise InputError(f"{words}: {error}; expected a recipe, and changes such as epochs=20 after it") from None
    return recipes.load(name, [*changes, *(overrides or [])])


def _told(trials: Trials) -> dict[str, Any]:
    recipe = trials.recipe
    facts = {"recipe": recipe.name, "data": trials.source.name, "validation": recipe.validation}
    return {**facts, "runs": str(trials.path)}


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

        with _interruptible(self) as received:
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


@contextlib.contextmanager
def _goes_on(screen: Screen) -> Iterator[None]:
    """Say that the same command goes on, at whatever Ctrl-C or a polite kill ends it; a second one ends it at once."""

    def end(number: int) -> None:
        _as_before(number)
        raise KeyboardInterrupt  # ends, in order, whatever is under way: what is kept in pieces keeps what it has

    with caught(end) as received:
        try:
            yield
        except KeyboardInterrupt:
            screen.say(GOES_ON)
            raise typer.Exit(128 + (received or [signal.SIGINT])[0]) from None


@contextlib.contextmanager
def _broken_off(screen: Screen, training: Training) -> Iterator[None]:
    """Say how to go on after a second Ctrl-C, or one after the training."""
    try:
        yield
    except KeyboardInterrupt:
        screen.interrupted(training.run)
        raise typer.Exit(130) from None


def _interruptible(training: Training | Pool) -> AbstractContextManager[list[int]]:
    """Let Ctrl-C and a polite kill end training after a step, with a checkpoint; a second one ends it at once.

    Yields a list to which the signals that arrive are appended.
    """

    def ask(number: int) -> None:
        training.interrupt()
        _as_before(number)

    return caught(ask)


def _as_before(number: int) -> None:
    """Let a signal do what it does to any program."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _screen(as_json: bool, *, silent: bool = False) -> Screen:
    from thirtytwo.cli.show import Screen

    return Screen(to_stderr=as_json, silent=silent)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _fail(message: str, code: int) -> NoReturn:
    from thirtytwo.cli import launch

    typer.echo(f"error: {launch.who()}{message}", err=True)
    sys.exit(code)


def main() -> None:
    """Run the program; every error that the package raises on purpose becomes a message and an exit code."""
    from thirtytwo.cli import launch

    try:
        app()
    except ThirtytwoError as error:
        _fail(str(error), launch.exit_code(error))
    except (MemoryError, RuntimeError) as error:
        from thirtytwo.environment import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail("out of memory; expected room for the data and the network; close other programs", OutOfMemory.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
