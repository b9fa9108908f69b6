"""Commands about one model, from its data to its report."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.app import (
    CORRUPTED_HELP,
    DATA_HELP,
    DataOption,
    DeviceOption,
    Json,
    ModelArgument,
    SetOption,
    app,
    print_json,
    screen_for,
)
from thirtytwo.cli.signals import broken_off, interruptible
from thirtytwo.errors import DataError, ImageError, InputError, ModelError, RunError, StorageError

if TYPE_CHECKING:
    from thirtytwo.classifier import Classifier, Prediction
    from thirtytwo.cli.show import Screen
    from thirtytwo.run import Run


class SplitName(StrEnum):
    """Splits that can be scored."""

    test = "test"
    validation = "validation"
    training = "training"


@app.command("data")
def data_command(
    spec: Annotated[str | None, typer.Argument(metavar="SPEC", help=DATA_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Find or download a data set, verify it, and show what is in it, and which models were scored on its test set."""
    from thirtytwo import data
    from thirtytwo.data import ledger
    from thirtytwo.evaluate import openings

    screen = screen_for(as_json)
    with screen.download() as progress:
        source = data.find(spec, progress=progress)
    images = source.read_training()
    warnings = [*images.warnings, *ledger.among_training(images)]
    known = None
    try:
        known = openings(source)
        warnings += known.warnings
    except DataError as error:  # what can be shown is shown
        warnings.append(str(error))
    if as_json:
        print_json(
            {
                "spec": source.spec,
                "name": images.name,
                "location": source.location,
                "fingerprint": images.fingerprint,
                "images": len(images),
                "size": images.size,
                "classes": dict(zip(images.classes, images.per_class, strict=True)),
                "warnings": warnings,
                "test_images": known and known.images,
                "opened": known and known.count,
                "openings": known and known.entries,
            }
        )
    else:
        screen.data(source, images, warnings, known)


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
    overrides: SetOption = None,
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
    else:
        from thirtytwo.run import Run

        if "test" in (run := Run.open(resume)).result:
            if not launch.rank():  # the others have nothing to say
                _show_finished(run, data, corrupted, as_json)
            return
    if launch.is_launched():
        launch.hold_lifeline()
        launch.check(devices)
    elif (processes := devices or (launch.begun_by(resume) if resume is not None else 1)) > 1:
        raise typer.Exit(launch.run(processes))

    from thirtytwo import evaluate_run, report
    from thirtytwo.data import exclusion, find
    from thirtytwo.evaluate import check_test
    from thirtytwo.ranks import joined
    from thirtytwo.train import resume as resume_training
    from thirtytwo.train import train

    tables = exclusion.read(exclude or [])  # a mistake there is told before anything is downloaded
    where = device or (str(Run.open(resume).environment.get("device", "auto")) if resume is not None else "auto")
    with joined(where) as ranks:
        screen = screen_for(as_json, silent=not ranks.is_first)
        for said in exclusion.of_other_split(tables, "training"):
            screen.caution(said)
        if settings is None:
            assert resume is not None
            with screen.download() as progress:
                training = resume_training(resume, data, progress=progress, ranks=ranks)
        else:
            with screen.download() as progress:
                source = find(data, progress=progress, fallback=data is None)
            if ranks.is_first:  # which scores
                check_test(source)  # a broken test image is not to be found after a night of training
            training = train(settings, source, seed=seed or 0, out=out, device=where, exclude=tables, ranks=ranks)
        screen.training_begins(training)
        if not as_json:  # a person waits
            screen.forecast(training)
        with (
            broken_off(screen.interrupted, training),
            interruptible(training) as received,
            screen.training(training) as display,
        ):
            for event in training:
                display.show(event)
    if training.interrupted:
        screen.interrupted(training.run)
        raise typer.Exit(128 + (received or [signal.SIGTERM])[0])  # the signal may have come to another process
    if not ranks.is_first:
        return
    with broken_off(screen.interrupted, training):
        with screen.busy("scoring the test set, once"):
            result = evaluate_run(training.run, training.source, training.classifier, corrupted_images=corrupted)
        with screen.busy("drawing the report"):
            page = report.write(training.run)
    if as_json:
        print_json(result)
    else:
        screen.result(result, training.run, page)


def _show_finished(run: Run, data: str | None, corrupted: int | None, as_json: bool) -> None:
    """Show a run that was trained and scored before; nothing is computed but its report."""
    from thirtytwo import evaluate_run, report

    if data is not None:
        raise InputError(
            f"--data {data}: {run.path} is trained and scored already; expected a run that is not; `thirtytwo evaluate "
            f"{run.path} --data {data}` scores its model on other data"
        )
    if corrupted is not None:
        raise InputError(
            f"--corrupted {corrupted}: {run.path} is trained and scored already; expected a run that is not; "
            f"`thirtytwo evaluate {run.path} --corrupted {corrupted}` scores it once more"
        )
    result = evaluate_run(run)  # which opens nothing, since it has been done
    page = report.write(run)
    if as_json:
        print_json(result)
    else:
        screen = screen_for(as_json)
        screen.finished(run)
        screen.result(result, run, page)


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
    from thirtytwo import evaluate
    from thirtytwo.classifier import where
    from thirtytwo.data import exclusion, find
    from thirtytwo.evaluate import under_corruption

    _check_is_no_picture(model)
    tables = exclusion.read(exclude or [])
    screen = screen_for(as_json)
    classifier = _loaded(model, device, screen)
    with screen.download() as progress:
        source = find(data or classifier.facts.get("spec"), progress=progress)
    with screen.busy(f"scoring the {split.value} images"):
        scored = evaluate(classifier, source, split=split.value, exclude=tables, facts={"run": where(model)})
    warnings = [*scored.images.warnings, *scored.warnings, *exclusion.of_other_split(tables, "test")]
    screen.warn(source, warnings)
    result = {
        # Two of them are thousands of numbers.
        **{name: fact for name, fact in classifier.facts.items() if name not in ("excluded", "seen")},
        "data": scored.images.name,
        "warnings": warnings,
        "test_opening": scored.opening,
        split.value: scored.summary(),
    }
    if (rest := scored.without_excluded) is not None:
        left_out = len(scored.images) - len(rest.images)
        facts = {"files": list(map(str, exclude or [])), "excluded": left_out, "opening": rest.opening}
        result["without_excluded"] = {**facts, **rest.summary()}
    if corrupted:
        with screen.busy("scoring them once more, corrupted"):
            result["corrupted"] = under_corruption(classifier, scored.images, corrupted)
    if as_json:
        print_json(result)
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
    from thirtytwo.data import image_files, ledger, read_images, unreadable
    from thirtytwo.data.images import digests

    _check_is_no_picture(model, images)
    screen = screen_for(as_json)
    classifier = _loaded(model, device, screen)
    least = _probability(unknown_below, classifier)
    files: list[Path] = []
    problems: dict[str, str] = {}
    for image in images:
        try:
            files += image_files([image])
        except ImageError as error:  # a folder without images is told like a file that is none
            files.append(image)
            problems[str(image)] = str(error).removeprefix(f"{image}: ")
    readable = [file for file in files if str(file) not in problems]
    try:
        pixels = read_images(readable, classifier.size)
    except ImageError as error:
        problems |= error.problems
        readable = [file for file in readable if str(file) not in problems]
        pixels = read_images(readable, classifier.size)
    predictions = classifier.predictions(list(map(str, readable)), pixels, unknown_below=least) if readable else []
    asked = None if unknown_below is None else least
    if as_json:
        print_json(_answers(files, predictions, problems, asked))
    elif predictions:
        screen.predictions(predictions, asked, is_own=unknown_below == "auto")
    if readable:
        with contextlib.suppress(StorageError):  # a ledger that cannot be read is no reason to answer less
            if (known := ledger.opened(digests(pixels))).shared:
                screen.tested(known)
    if problems:
        raise unreadable(problems, len(set(files)), others="classified")


def _check_is_no_picture(model: Path, images: Sequence[Path] = ()) -> None:
    """Whether a picture stands where a model is expected, as in `thirtytwo predict photo.jpg runs/first`.

    Args:
        model: what was given as MODEL.
        images: what was given as IMAGE.

    Raises:
        ModelError: it is a file that is named like a picture; the message shows the words in the right order.
    """
    from thirtytwo.classifier import PRETRAINED
    from thirtytwo.data import has_image_ending
    from thirtytwo.run import Run

    if not has_image_ending(model) or not model.is_file():
        return

    def is_model(path: Path) -> bool:
        is_run = Run(path).model_path.exists() or (path / "environment.json").exists()
        return is_run or path == Path(PRETRAINED) or path.suffix == ".safetensors"

    meant = next(filter(is_model, images), Path("MODEL"))
    pictures = [model, *(image for image in images if image != meant)]
    words = shlex.join(["thirtytwo", "predict", *map(str, (meant, *pictures))])
    raise ModelError(
        f"{model}: a picture; expected a model in first place, such as a run folder; `{words}` classifies "
        f"{'it' if len(pictures) == 1 else 'them'}"
    )


def _loaded(model: Path, device: str, screen: Screen) -> Classifier:
    """A model; where it has taken the place of the one that its run folder tells of, that is said."""
    from thirtytwo import Classifier, environment
    from thirtytwo.classifier import file_of
    from thirtytwo.run import Run

    classifier = Classifier.load(model, device=environment.device(device))
    if file_of(model).parent == model:  # a folder
        try:
            Run(model).check_unchanged()
        except RunError as error:
            screen.caution(str(error))
    return classifier


def _answers(
    files: Sequence[Path], predictions: Sequence[Prediction], problems: Mapping[str, str], unknown_below: float | None
) -> list[dict[str, Any]]:
    """What `predict` prints as JSON: an object for each file, in their order.

    All have the keys of an answer, so that a script may read them; those of a file without one are empty, and `error`
    says why.

    Args:
        files: as they were given, or found in folders.
        predictions: for those that could be read.
        problems: what is wrong with each of the others.
        unknown_below: the probability below which an answer is unknown, if somebody asked for that.
    """
    answers = {prediction.path: prediction for prediction in predictions}
    asked: dict[str, Any] = {} if unknown_below is None else {"unknown_below": unknown_below}

    def row(path: str) -> dict[str, Any]:
        if path in problems:
            return {"class": None, "probability": None, "probabilities": {}, "error": problems[path]}
        answer = answers[path]
        said = {"class": answer.label, "probability": answer.probability, "probabilities": answer.probabilities}
        # A class may itself be called unknown.
        return said if unknown_below is None else {**said, "answered": answer.answered}

    return [{"path": path, **row(path), **asked} for path in map(str, files)]


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
        print_json({"report": str(page)})
    else:
        screen_for(as_json).say(f"Report: {page}")


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
        hint = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise InputError(f"--unknown-below {text}: expected a probability from 0 to 1, or auto{hint}")
    return value
