"""What people see in the terminal; Rich lives here and nowhere else."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from thirtytwo import metrics, models, planner
from thirtytwo.cli.launch import cores
from thirtytwo.data import Images, Source
from thirtytwo.data.ledger import among_training, times
from thirtytwo.events import Epoch, Step
from thirtytwo.report.wording import (
    at_baseline,
    diverged,
    draw_of_images,
    duration,
    moment,
    plural,
    scaled,
    signed,
    trust_in_pairs,
    weak_networks,
)

if TYPE_CHECKING:
    from thirtytwo.classifier import Prediction
    from thirtytwo.cli.studies import NetworksDisplay, TrialsDisplay
    from thirtytwo.data.ledger import Known
    from thirtytwo.evaluate import Openings
    from thirtytwo.recipe import Recipe
    from thirtytwo.run import Run
    from thirtytwo.study import Audit, Chosen, Comparison, Repeated, Student, Trial, Trials, Tuned, TuningTrial
    from thirtytwo.train import Training

SHOWN = 10
"""Doubtful labels that are named."""
ENDS = {"complete": "", "pruned": " (stopped early)", "failed": " (failed)"}
"""What is said of a trial, by its state."""


class Screen:
    """A terminal, or a file that stands in for one: then lines are plain and nothing moves."""

    def __init__(self, *, to_stderr: bool = False, silent: bool = False) -> None:
        """Write to stdout, or to stderr where stdout belongs to JSON; nothing at all where another process tells."""
        self.console = Console(stderr=to_stderr, highlight=False, soft_wrap=True, quiet=silent)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(escape(text))

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[Callable[[float], None]]:
        """Show that something is going on; yields what may be told which share of it is done."""
        if not self.console.is_terminal:
            self.say(what + " …")
            yield lambda _: None
            return
        columns = (SpinnerColumn(), TextColumn(what), BarColumn(bar_width=20), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=None)
            yield lambda share: progress.update(task, completed=share, total=1.0)

    @contextlib.contextmanager
    def download(self) -> Iterator[Callable[[int, int | None], None]]:
        """Yields a callback (bytes so far, bytes in all) that draws a bar, or prints a line for every tenth."""
        columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=self.console, transient=True)
        task = None
        tenths = 0

        def report(done: int, total: int | None) -> None:
            nonlocal task, tenths
            if not self.console.is_terminal:
                if total and done * 10 // total > tenths:
                    tenths = done * 10 // total
                    self.say(f"downloading: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
                return
            if task is None:  # most data sets are on the machine already: then nothing is drawn
                progress.start()
                task = progress.add_task("download", total=total)
            progress.update(task, completed=done, total=total)

        try:
            yield report
        finally:
            if task is not None:
                progress.stop()

    def warn(self, source: Source, warnings: Sequence[str]) -> None:
        """What a user has to be told about data."""
        if source.notice:
            self._wrapped(f"[bold yellow]NOTICE[/bold yellow] {escape(source.notice)}")
        self.cautions(warnings)

    def cautions(self, warnings: Sequence[str]) -> None:
        """Warnings, one after another."""
        for warning in warnings:
            self.caution(warning)

    def caution(self, words: str) -> None:
        """One warning."""
        self._wrapped(f"[yellow]warning[/yellow] {escape(words)}")

    def explain(self, text: str) -> None:
        """A sentence, wrapped between words where somebody reads it: nothing that is to be copied from the screen."""
        self._wrapped(escape(text))

    def _wrapped(self, markup: str) -> None:
        """Text in Rich's markup, wrapped between words where somebody reads it."""
        self.console.print(markup, soft_wrap=not self.console.is_terminal)

    def data(self, source: Source, images: Images, warnings: Sequence[str], known: Openings | None) -> None:
        """What is in a data set, and which models were scored on its test set, if that can be read."""
        self.warn(source, warnings)
        height, width = images.size
        self.say(f"{images.name}: {len(images):,} training images of {height} × {width}, {len(images.classes)} classes")
        self.say(f"found in {source.location}")
        self.say(f"fingerprint {images.fingerprint[:16]}")
        table = Table("class", "training images", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for name, number in zip(images.classes, images.per_class, strict=True):
            table.add_row(escape(name), f"{number:,}")
        self.console.print(table)
        if known is not None:
            self._openings(known)

    def _openings(self, known: Openings) -> None:
        """Which models this user has scored on a test set: the newest."""
        number = len(known.entries)
        if not number:
            self.say(f"{plural(known.images, 'test image')}, sealed: no model has been scored on them yet")
            return
        often = times(known.count) if known.count else "less than once"
        parts = any(entry["share"] < 1 for entry in known.entries)
        how = f" by {plural(number, 'scoring')}, some of which have shown a part of them" if parts else ""
        self.say(f"{plural(known.images, 'test image')}, opened {often}{how}:")
        table = Table("date", "test set", "shown", "recipe", "run or audit", box=None, pad_edge=False)
        table.columns[2].justify = "right"
        for entry in known.entries[-SHOWN:]:
            by = entry.get("run") or entry.get("audit")
            said = [str(fact or "–") for fact in (entry.get("date"), entry.get("data"), entry.get("recipe"), by)]
            table.add_row(moment(said[0]), escape(said[1]), _share(entry["share"]), *map(escape, said[2:]))
        self.console.print(table)
        if number > SHOWN:
            self.say(f"These are the newest; --json lists all {number:,}.")

    def training_begins(self, training: Training) -> None:
        """The data, and the network: layers, output shapes, parameters."""
        facts, recipe = training.data, training.recipe
        self.warn(training.source, facts["warnings"])
        self.say(
            f"{recipe.name} on {facts['name']}: {facts['training_images']:,} training and "
            f"{facts['validation_images']:,} validation images"
        )
        if left_out := training.source.exclusion:
            of_all = plural(facts["images"] + len(left_out.indices), "training image")
            self.say(f"left out: {len(left_out.indices):,} of {of_all}, named in {left_out.tables}")
        where = f"{training.device_name}, {training.precision}"
        self.say(f"at most {plural(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}, on {where}")
        self._named(recipe)
        self._too_long(recipe)
        if not self.console.quiet:  # to count takes a step for each size of images
            images = facts["training_images"] + facts["validation_images"]
            work = planner.work(recipe, images, len(facts["classes"]), training.classifier.size, training.network)
            beside = ", and what its teacher takes" if recipe.teacher.model else ""
            self.say(f"to compute: {scaled(work.flops, 'FLOP')}{beside}")
        if (ranks := training.ranks) != training.ranks_before:
            self.say(
                f"trained by {plural(training.ranks_before, 'process', 'processes')} until now, by {ranks} from here "
                "on: the same batches, rounded differently"
            )
        if training.device == "cpu" and training.processes_here > (found := cores()):
            self.say(f"{training.processes_here} processes share {plural(found, 'core')}; fewer would be faster")
        if training.kernels.startswith("torch (no "):
            self.say(f"computed by {training.kernels}, which is slower")
        like = training.device, training.precision
        if known := planner.expected(recipe, facts["name"], facts["images"], *like):
            self.say(f"expected, from measurements: {_measured(known)}")
        if not facts["validation_images"]:
            self._calibration(recipe, facts["name"])
        table = Table("layer", "kind", "output", "parameters", box=None, pad_edge=False)
        table.columns[3].justify = "right"
        for layer in models.summary(training.network, training.classifier.size):
            shape = " × ".join(f"{number:,}" for number in layer.output)
            table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}" if layer.parameters else "")
        table.add_section()
        table.add_row("total", "", "", f"{models.parameters(training.network):,}")
        self.console.print(table)
        self.say(f"run folder: {training.run.path}")

    def forecast(self, training: Training) -> None:
        """How long the rest of a training will take here, about, where some steps can tell."""
        recipe, facts = training.recipe, training.data
        # A GPU's kernels are made, and its steps recorded, when training begins. A teacher takes time as well.
        if training.device != "cpu" or training.ranks > 1 or recipe.teacher.model or training.run.model_path.exists():
            return
        images = facts["training_images"], facts["validation_images"]
        half, begun = training.precision == "bfloat16", len(training.run.metrics)
        try:
            with self.busy("trying some steps"):
                seconds = planner.seconds(
                    recipe, training.network, *images, training.classifier.size, half=half, begun=begun
                )
        except (RuntimeError, ValueError, TypeError, MemoryError):  # what is wrong is told when it happens in training
            return
        most = "at most " if recipe.early_stopping.patience else ""
        self.say(f"forecast: {most}about {duration(seconds)} on this machine, going by steps that were tried")

    def _calibration(self, recipe: Recipe, data: str) -> None:
        """That nothing will be known of how sure answers may be, if it is so; there are no validation images."""
        carried = recipe.calibration
        if recipe.is_calibrated_for(data):
            return
        if carried.temperature == 1 and not carried.unknown_below:
            state = "its answers will not be calibrated"
        elif carried.data == data:
            state = "its answers will be calibrated with values fitted for other settings"
        else:
            state = f"its answers will be calibrated with values fitted on {carried.data or 'other images'}"
        self.say(f"{state}; --set validation=0.1 holds out images to calibrate them on")

    def _named(self, recipe: Recipe) -> None:
        """Whose weights a network begins with, and who teaches it, if somebody does."""
        if recipe.start.model:
            self.say(f"begins with the weights of {recipe.start.model}")
        if (teacher := recipe.teacher).model:
            how = f"{teacher.weight:.0%} of the loss, at temperature {teacher.temperature:g}"
            self.say(f"taught by {teacher.model}: {how}")

    def _too_long(self, recipe: Recipe) -> None:
        """What reaches beyond the end of training, if anything does: a recipe that was shortened, to try something."""
        if (rise := recipe.warmup_epochs) >= recipe.epochs:
            self.say(
                f"schedule.warmup_epochs is {rise:g}, of {plural(recipe.epochs, 'epoch')}: the learning rate rises to "
                f"the end and never falls; --set schedule.warmup_epochs={recipe.epochs / 5:g} would change that"
            )
        if (reach := recipe.averaging.epochs) > recipe.epochs:
            self.say(
                f"averaging.epochs is {reach:g}, of {plural(recipe.epochs, 'epoch')}: the mean of the weights reaches "
                f"back to the first; --set averaging.epochs={max(recipe.epochs // 5, 1)} would change that"
            )

    @contextlib.contextmanager
    def training(self, training: Training) -> Iterator[TrainingDisplay]:
        """Live progress of a training."""
        columns = (
            TextColumn("{task.fields[epoch]}"),
            BarColumn(bar_width=4),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield TrainingDisplay(self.console, progress, training)

    def interrupted(self, run: Run) -> None:
        """How to go on."""
        self.say(f"Interrupted; nothing is lost. To continue:\nthirtytwo train --resume {shlex.quote(str(run.path))}")

    def finished(self, run: Run) -> None:
        """That there is nothing left to do."""
        self.say(
            f"{run.path} is trained and scored: nothing is left to do, and the test set was not opened again. These "
            "are its stored scores:"
        )

    def result(self, result: dict[str, Any], run: Run, page: Path) -> None:
        """The end of `train`."""
        self.cautions(result.get("test_warnings", []))
        self.scores(result, "test")
        self._losses(result)
        epoch = result.get("kept_epoch", result["epochs"])
        kept = f"; kept the weights of epoch {epoch}" if epoch < result["epochs"] else ""
        seconds = f"{duration(result['train_seconds'])} of training, {duration(result['cold_seconds'])} from the start"
        self.say(f"{plural(result['epochs'], 'epoch')}, {seconds}{kept}")
        self.say(f"Report: {page}")
        self.say(f"Try it: thirtytwo predict {run.path} YOUR_IMAGE.jpg")

    def _losses(self, result: dict[str, Any]) -> None:
        """What the test loss compares with: not the losses of epochs, if a temperature has been fitted since."""
        if validation := result.get("validation"):
            images = plural(validation["images"], "image")
            self.say(f"validation accuracy {validation['accuracy']:.2%} on {images}, loss {validation['loss']:.4f}")
        if result.get("calibration", {}).get("temperature", 1) != 1:
            which = "test and validation loss are" if validation else "the test loss is"
            self.say(f"{which} after temperature scaling, the losses of the epochs before it")

    def scores(self, result: dict[str, Any], split: str) -> None:
        """Scores of one split."""
        scores = result[split]
        low, high = scores.get("accuracy_interval", (None, None))  # unknown to results of older versions
        interval = "" if low is None else f" (95% interval for the draw of the images: {low:.1%} to {high:.1%})"
        best = (
            f" (a perfectly calibrated network: about {scores['ece_by_chance']:.3f})"
            if "ece_by_chance" in scores
            else ""
        )
        self.console.print(
            f"[bold]{split} accuracy {scores['accuracy']:.2%}[/bold] on {scores['images']:,} images{interval}\n"
            f"loss {scores['loss']:.4f}   top-5 {scores['top5']:.2%}   calibration error {scores['ece']:.3f}{best}"
        )
        images, baseline = scores["images"], metrics.majority_baseline(row["images"] for row in scores["per_class"])
        if metrics.is_at_baseline(scores["accuracy"], baseline, images):
            self.caution(f"that is {at_baseline(baseline, images)}")
        if split == "test" and result.get("test_opening"):
            self.say(f"opening {result['test_opening']} of this test set")
        if rest := result.get("without_excluded"):
            names = ", ".join(Path(file).name for file in rest["files"])
            if rest["excluded"]:
                self.say(
                    f"without the {plural(rest['excluded'], 'image')} named in {names}: {rest['accuracy']:.2%} on "
                    f"{rest['images']:,} images, opening {rest['opening']} of these. Report it beside "
                    "the other accuracy, not in its place"
                )
            else:
                self.say(f"no test image is named in {names}, so leaving them out changes nothing")
        table = Table("class", "precision", "recall", "F1", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in scores["per_class"]:
            rates = [row[key] if row["images"] else None for key in ("precision", "recall", "f1")]
            table.add_row(escape(row["class"]), *("–" if rate is None else f"{rate:.1%}" for rate in rates))
        self.console.print(table)
        if corrupted := result.get("corrupted"):
            self.corrupted(corrupted)

    def corrupted(self, scores: dict[str, Any]) -> None:
        """Accuracy by kind and strength of what was done to the images."""
        self.say(
            f"corrupted: mean accuracy {scores['mean']:.1%} on {plural(scores['images'], 'image')}, against "
            f"{scores['accuracy']:.1%} uncorrupted; both without test-time augmentation"
        )
        table = Table("strength", *map(str, range(1, 6)), box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for kind, values in scores["kinds"].items():
            table.add_row(kind, *(f"{value:.1%}" for value in values))
        self.console.print(table)

    def study_begins(self, studies: Sequence[Trials]) -> None:
        """What is going to be trained."""
        images = studies[0].source.read_training()
        self.warn(studies[0].source, [*images.warnings, *among_training(images)])
        for letter, trials in zip("AB", studies, strict=False):
            self._trials_begin(trials, f"{letter}: " if len(studies) > 1 else "")

    def student_begins(self, trials: Trials) -> None:
        """What an ensemble is going to teach; of the data everything has been said."""
        self._trials_begin(trials, "the student: ")

    def _trials_begin(self, trials: Trials, which: str) -> None:
        recipe, images = trials.recipe, len(trials.source.read_training())
        self.explain(
            f"{which}{trials.words}: {plural(recipe.epochs, 'epoch')} on {trials.source.name}; {recipe.validation:.0%} "
            f"of its {plural(images, 'training image')} are held out for validation"
        )
        self.say(f"  runs are kept in {trials.path}")
        self._named(recipe)
        self._too_long(recipe)

    def trial(self, trial: Trial) -> None:
        """A training of a study."""
        how = duration(trial.seconds) if trial.new else "trained before"
        self.say(f"seed {trial.seed}: {trial.accuracy:.2%}, loss {trial.loss:.4f} ({how})")

    @contextlib.contextmanager
    def trials_under_way(self, trials: int) -> Iterator[TrialsDisplay]:
        """Yields what shows the trainings of a study in lines that go when they end.

        Args:
            trials: how many there may be.
        """
        from thirtytwo.cli.studies import TrialsDisplay

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[state]}"))
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield TrialsDisplay(self.say, progress, trials)

    def cluster(self, address: str, room: int) -> None:
        """What trainings run on."""
        self.say(f"Ray cluster {address}: room for {plural(room, 'training')} at once")

    def tuning_begins(self, recipe: Recipe, source: Source, trials: int, folder: Path) -> None:
        """What is searched, and where."""
        images = source.read_training()
        self.warn(source, [*images.warnings, *among_training(images)])
        trained = recipe.for_images(len(images))
        length = plural(trained.epochs, "epoch")
        self.say(f"tuning {recipe.name} on {source.name}: {plural(trials, 'trial')} of {length}")
        self._too_long(trained)
        if not recipe.validation:
            self.say("The recipe holds out no images; here, a tenth is held out for validation.")
        self.explain("settings to vary: " + ", ".join(recipe.search))
        self.say(f"folder: {folder}")

    def tuning_trial(self, trial: TuningTrial) -> None:
        """A trial that has ended."""
        accuracy = "–" if trial.accuracy is None else f"{trial.accuracy:.2%}"
        self.say(f"trial {trial.number}: {accuracy}{ENDS[trial.state]}  {_values(trial.values)}")

    def tuning_waits(self, others: int) -> None:
        """Nothing is left to be done here."""
        self.say(f"waiting for {plural(others, 'trial')} in other processes to end")

    def tuned(self, found: Tuned, page: Path) -> None:
        """What the search has come to."""
        best, own = found.best, found.own
        if found.is_better:
            self.console.print(f"[bold]best: {best.accuracy or 0:.2%}[/bold] on the validation images, with")
            self.say(_values(best.values))
            if own is not None and own.accuracy is not None:
                self.say(f"{own.accuracy:.2%} with the recipe's own values{ENDS[own.state]}")
        else:
            self.console.print(
                "[bold]nothing better was found[/bold] than the recipe's own values: "
                f"{best.accuracy or 0:.2%} on the validation images"
            )
        if found.importances:
            hint = " (only a hint)" if found.is_hint else ""
            table = Table(f"what mattered{hint}", "share", box=None, pad_edge=False)
            table.columns[1].justify = "right"
            for key, share in found.importances.items():
                table.add_row(key, f"{share:.0%}")
            self.console.print(table)
        self._commits(found.commits)
        if found.is_better:
            self.say("The best of many trials is partly luck.")
        if found.comparison:
            unseen = " and images that the search did not see" if found.others else ""
            self.explain(f"To see whether these values are really better, with other seeds{unseen}:")
            self.say(shlex.join(found.comparison))
        self.say(f"Page: {page}")

    def ensemble(self, chosen: Chosen, folder: Path, page: Path) -> None:
        """The members, and what they come to together."""
        table = Table("model", "validation accuracy", "loss", "weight", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for member in chosen.members:
            weight = f"{member.weight:.2f}" if member.weight else "–"
            table.add_row(escape(member.name), f"{member.accuracy:.2%}", f"{member.loss:.4f}", weight)
        table.add_section()
        table.add_row("[bold]together[/bold]", f"[bold]{chosen.accuracy:.2%}[/bold]", f"{chosen.loss:.4f}", "")
        self.console.print(table)
        points = 100 * (chosen.accuracy - chosen.best.accuracy)
        alone = len(chosen.ensemble.members) == 1
        members = (
            "it has one member, because adding any other does not lower the loss"
            if alone
            else f"its members disagree on {chosen.disagreement:.1%}"
        )
        self.explain(
            f"{signed(points)} points against the best of them, on the {plural(chosen.images, 'image')} that the "
            f"weights were chosen on, which makes it look better than it is; {members}"
        )
        if (gain := chosen.gain) is not None:
            low, high = gain.interval
            self._wrapped(
                f"[bold]{signed(100 * gain.difference)} points[/bold] on images by which neither the ensemble nor the "
                f"best model was chosen (95% interval {signed(100 * low)} to {signed(100 * high)})"
            )
        self.say(f"It is a model like any other: thirtytwo evaluate {shlex.quote(str(folder))}")
        self.say(f"Page: {page}")

    def student(self, student: Student, chosen: Chosen) -> None:
        """What a network has learned from an ensemble."""
        trial = student.trial
        self._wrapped(
            f"[bold]the student: {trial.accuracy:.2%}[/bold] on the same {chosen.images:,} images, where its teacher "
            f"reaches {chosen.accuracy:.2%}; they agree on {student.agreement:.2%}"
        )
        self.explain(
            f"to look at an image once, it computes {student.work:.0%} of what its teacher does; "
            f"{duration(trial.seconds)} of training{'' if trial.new else ', done before'}"
        )
        if comparison := student.comparison(chosen):
            self.say("To see whether it is better than without a teacher, with other seeds:")
            self.say(comparison)
        run = shlex.quote(str(trial.run.path))
        self.say(f"To score the test set, once, and write a report: thirtytwo train --resume {run}")

    def audit_begins(self, source: Source, recipe: str, networks: int, folder: Path) -> None:
        """What is going to be done."""
        images = source.read_training()
        self.warn(source, images.warnings)
        self.say(
            f"{source.name}: {plural(networks, 'network')} ({recipe}), each trained without its share of "
            f"{plural(len(images), 'training image')}, then asked about it and about the test images; in {folder}"
        )
        if images.broken:
            self.say(f"left out: {plural(len(images.broken), 'training file')} that cannot be read as images")

    @contextlib.contextmanager
    def networks_under_way(self, networks: int) -> Iterator[NetworksDisplay]:
        """Yields what shows the trainings of an audit's networks in one bar for all of them."""
        from thirtytwo.cli.studies import NetworksDisplay

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield NetworksDisplay(self.say, progress, networks)

    def audit(self, audit: Audit, page: Path) -> None:
        """What was found, in short."""
        table, splits = Table("", *audit.splits, box=None, pad_edge=False), list(audit.splits)
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("images", *(f"{audit.splits[split].images:,}" for split in splits))
        table.add_row("labels that the networks agree with", *(f"{audit.accuracy[split]:.2%}" for split in splits))
        table.add_row("doubtful labels", *(f"{len(audit.issues_in(split)):,}" for split in splits))
        table.add_row("pairs of duplicates", *(f"{len(audit.pairs_in(split)):,}" for split in splits))
        table.add_row("images of one colour", *(f"{len(audit.odd_in(split)):,}" for split in splits))
        if audit.broken:
            table.add_row("unreadable files", *(f"{len(audit.broken_in(split)):,}" for split in splits))
        self.console.print(table)
        labels = sum(overview.images for overview in audit.splits.values())
        doubted = len(audit.issues)
        self.console.print(
            f"[bold]{plural(doubted, 'label')} of {labels:,} ({doubted / max(labels, 1):.1%})[/bold] "
            f"{'is' if doubted == 1 else 'are'} in doubt"
        )
        self._commits(audit.network_commits)
        if audit.is_weak:
            self.caution(weak_networks(audit.accuracy["training"], audit.is_at_baseline))
        leaked, tested = len(audit.leaked), audit.splits["test"].images
        self.console.print(
            f"[bold]{plural(leaked, 'test image')} of {tested:,} ({leaked / max(tested, 1):.1%})[/bold] "
            f"{'seems' if leaked == 1 else 'seem'} to show the same picture as a training image"
        )
        if audit.pairs:
            self.say(trust_in_pairs(planner.precision_of_pairs(audit.name)))
        if audit.issues:
            self.say("the most doubtful labels:")
            table = Table("image", "given", "suggested", "score", box=None, pad_edge=False)
            table.columns[3].justify = "right"
            for issue in audit.issues[:SHOWN]:
                place = _inside(audit.location, issue.path) if issue.path else f"{issue.split} {issue.index}"
                table.add_row(escape(place), escape(issue.given), escape(issue.suggested), f"{issue.score:.4f}")
            self.console.print(table)
        self.say(
            f"These are suspicions: look at each. Opening {audit.test_opening} of this test set; "
            f"{duration(audit.seconds)}"
        )
        self.say(f"Page: {page}\nTables: {', '.join(audit.tables)} beside it")

    def tables_left_alone(self, folder: Path, names: Sequence[str]) -> None:
        """Which tables were not written, and how to get them."""
        for name in names:
            self.console.print(
                f"[yellow]warning[/yellow] {escape(str(folder / name))}: was changed since an audit wrote it, so it is "
                "left as it is; to have it written anew, delete it or move it, and give the same command"
            )

    def repeated(self, found: Repeated, figure: Path) -> None:
        """What several trainings say together."""
        spread, of, sharing = found.spread, "seeds", "runs"
        self.console.print(f"[bold]validation accuracy {spread.mean:.2%}[/bold], n = {spread.n}")
        if spread.standard_deviation is None:
            of, sharing = "one seed", ""
            self.say("one training has no spread; more --runs tell how much seeds differ")
        elif spread.interval is None:
            self.explain(
                f"all {spread.n} runs come to the same accuracy. Runs without any difference tell nothing about how "
                "much seeds differ, so there is no interval"
            )
        else:
            low, high = spread.interval
            interval = f"95% interval of the mean {low:.2%} to {high:.2%}"
            self.say(f"standard deviation {spread.standard_deviation:.2%}; {interval}")
        self.explain(f"This speaks of {of}, not of {draw_of_images(found.images, found.margin_of_images, sharing)}")
        if found.is_at_baseline:
            self.caution(f"that is {at_baseline(found.majority_baseline, found.images)}")
        self._commits(found.commits)
        self.say(f"Plot: {figure}")

    def _commits(self, found: Sequence[str]) -> None:
        """That trainings were made by several states of the program, if so."""
        if len(found) > 1:
            names = ", ".join(each[:12] + ("+" if each.endswith("+") else "") for each in found)
            self.caution(
                f"these trainings were made by {len(found)} commits of this program ({names}); where training has "
                "changed between them, they do not belong together; with another --out, all are trained anew"
            )

    def outcome(self, comparison: Comparison) -> None:
        """What came of the latest seed of a comparison, and what all of them say."""
        from thirtytwo.study import Unpaired

        latest = comparison.outcomes[-1]
        if isinstance(latest, Unpaired):
            for letter, error in (("A", latest.first), ("B", latest.second)):
                if error is not None:
                    self.say(f"seed {latest.seed}: no pair, {letter} diverged: {error}")
            return
        found = [letter for letter, trial in (("A", latest.first), ("B", latest.second)) if not trial.new]
        if comparison.is_same and len(found) == 1:
            found = []  # the pair's other training, moments ago
        which = f"{found[0]} " if len(found) == 1 else ""
        self.say(
            f"seed {latest.seed}: A {latest.first.accuracy:.2%}, B {latest.second.accuracy:.2%}, "
            f"difference {signed(100 * latest.difference)} points{f' ({which}trained before)' if found else ''}"
        )
        if len(comparison.pairs) > 1 and not comparison.is_same:
            self.say(f"  so far: {_mean_difference(comparison)}, p = {comparison.p_value:.3g}")

    def comparison(self, comparison: Comparison, figure: Path, difference: float | None = None) -> None:
        """The answer.

        Args:
            comparison: a pair at least.
            figure: its plot.
            difference: in percentage points, of which is told what would settle it.
        """
        from thirtytwo.study.compare import SIZES

        lost = diverged(comparison.diverged, len(comparison.outcomes))
        if comparison.is_same:
            verdict, mean = "A and B are the same recipe", "0"
        else:
            answers = {None: "Nothing is settled", "A": "A is better than B", "B": "B is better than A"}
            verdict = answers[comparison.better] + (", where neither diverged" if lost else "")
            mean = _mean_difference(comparison)
        self._wrapped(
            f"[bold]{verdict}[/bold]: difference {mean}, p = {comparison.p_value:.3g}, "
            f"n = {plural(len(comparison.pairs), 'pair')}"
        )
        if lost:
            self.console.print(f"[bold]{lost}[/bold], which the difference leaves out")
        if not comparison.is_same:
            if difference is not None:
                self._needed(comparison, [difference / 100])
            elif not comparison.is_settled:
                self._needed(comparison, SIZES)
            draw = draw_of_images(comparison.images, comparison.margin_of_images, "pairs")
            self.explain(f"This speaks of seeds, not of {draw}")
        if idle := [letter for letter, is_so in zip("AB", comparison.at_baseline, strict=True) if is_so]:
            are = "is" if len(idle) == 1 else "are"
            self.caution(f"{' and '.join(idle)} {are} {at_baseline(comparison.majority_baseline, comparison.images)}")
        self._commits(comparison.commits)
        self.say(f"Plot: {figure}")

    def _needed(self, comparison: Comparison, sizes: Sequence[float]) -> None:
        """How many more pairs would settle differences of these sizes."""
        from thirtytwo.study.compare import FEW_PAIRS
        from thirtytwo.study.sequential import MOST_PAIRS

        there = len(comparison.pairs)
        for size in sizes:
            if (needed := comparison.needed(size)) is None:
                which = "a single pair does" if there == 1 else f"{there:,} pairs that all differ alike do"
                self.say(f"{which} not tell how many more would settle a difference")
                return
            points = f"a true difference of {100 * size:g} point{'' if size == 0.01 else 's'}"
            if needed.more is None:
                self.say(f"{points} would take more than {MOST_PAIRS:,} pairs to show")
            elif needed.more:
                self.say(f"{points} would show after about {plural(needed.more, 'more pair')}")
            else:
                self.say(f"{points} would probably have shown by now")
        if there < FEW_PAIRS:
            self.say(f"a rough guess: {plural(there, 'pair')} hardly tell how much pairs differ")

    def tested(self, known: Known) -> None:
        """That images which were classified are test images."""
        belong = "belongs" if known.shared == 1 else "belong"
        self.caution(
            f"{known.shared:,} of these {plural(len(known.shown), 'image')} {belong} to a test set that was opened "
            f"({known.names}); looking at some of the answers does no harm, but to score a model, use `thirtytwo "
            "evaluate`, which counts it"
        )

    def predictions(
        self, predictions: Sequence[Prediction], unknown_below: float | None = None, *, is_own: bool = False
    ) -> None:
        """One line an image: its class, and the next two; beside "unknown" the probability says whose it is.

        Args:
            predictions: at least one.
            unknown_below: the probability below which they are unknown, if somebody asked for that.
            is_own: whether the model suggests it.
        """
        table = Table("image", "class", "probability", "next", box=None, pad_edge=False)
        table.columns[2].justify = "right"
        unknown = 0
        for prediction in predictions:
            best, *others = prediction.probabilities
            is_unknown = not prediction.answered
            unknown += is_unknown
            table.add_row(
                escape(prediction.path),
                escape(prediction.label),
                escape(f"{best} " if is_unknown else "") + f"{prediction.probability:.1%}",
                escape(", ".join(f"{name} {prediction.probabilities[name]:.1%}" for name in others[:2])),
            )
        self.console.print(table)
        if unknown_below is not None:
            suggested = ", which auto stands for with this model" if is_own else ""
            which = f"{unknown:,} of {plural(len(predictions), 'image')}"
            self.say(f"unknown: no class reaches {unknown_below:.2%}{suggested}; {which}")


def _share(share: float) -> str:
    """0.25 -> ``25%``; what is above 0 is not called 0%."""
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"


def _values(values: dict[str, Any]) -> str:
    said = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in values.items()}
    return ", ".join(f"{key}={value}" for key, value in said.items())


def _mean_difference(comparison: Comparison) -> str:
    """By how many points B is better on average, and the interval of that if there is one; there has to be a pair."""
    low, high = comparison.interval
    reach = f", 95% interval {signed(100 * low)} to {signed(100 * high)}" if low > float("-inf") else ""
    return f"{signed(100 * fmean(comparison.differences))} points{reach}"


def _inside(folder: str, path: str) -> str:
    """A file as it is called inside a folder; its whole path where it lies elsewhere."""
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path


def _measured(entry: dict[str, Any]) -> str:
    """One line about an entry of kind ``training``."""
    accuracy, deviation = entry["accuracy"]["mean"], entry["accuracy"]["standard_deviation"]
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    seconds = duration(entry["train_seconds"]["mean"])
    return f"test accuracy {100 * accuracy:.2f}{spread}% (n = {entry['n']}) after {seconds} on {planner.where(entry)}"


class TrainingDisplay:
    """Epochs as rows of a table that stay, the step under way as a line below them; everything fits 80 columns."""

    _HEADER = "  epoch     loss      acc  val loss   val acc      rate  img/s  elapsed"
    _PLAIN_SECONDS = 60.0
    """Between two lines about steps, where nothing can move."""

    def __init__(self, console: Console, progress: Progress, training: Training) -> None:
        """Made by `Screen.training`."""
        self._console, self._progress, self._training = console, progress, training
        self._task = progress.add_task("train", total=None, epoch="", state="")
        self._has_header = False
        self._last_line = time.monotonic()

    def show(self, event: Step | Epoch) -> None:
        """Draw what has happened."""
        if isinstance(event, Step):
            self._show_step(event)
        else:
            self._show_epoch(event)

    def _show_step(self, step: Step) -> None:
        epoch = f"{step.epoch}/{step.epochs}"
        left = datetime.timedelta(seconds=round(step.seconds_left))
        state = (
            f"{step.step}/{step.steps}  loss {step.loss:.3f}  acc {step.accuracy:.1%}  "
            f"rate {step.learning_rate:.2g}  {step.images_per_second:,.0f} img/s  {left} left"
        )
        if self._console.is_terminal:
            self._progress.update(self._task, completed=step.step, total=step.steps, epoch=epoch, state=state)
        elif time.monotonic() - self._last_line >= self._PLAIN_SECONDS:
            self._print(f"  {epoch} {state}")

    def _show_epoch(self, epoch: Epoch) -> None:
        if not self._has_header:
            self._has_header = True
            self._console.print(self._HEADER, style="bold")
        validation = " " * 18
        if epoch.validation_loss is not None and epoch.validation_accuracy is not None:
            mark = "*" if self._training.best_epoch == epoch.epoch else " "  # the lowest loss so far
            validation = f"{epoch.validation_loss:8.4f}{mark}  {epoch.validation_accuracy:7.2%}"
        self._print(
            f"{f'{epoch.epoch}/{self._training.recipe.epochs}':>7}  {epoch.train_loss:7.4f}  "
            f"{epoch.train_accuracy:7.2%}  {validation}  {epoch.learning_rate:8.2g}  "
            f"{epoch.images_per_second:5,.0f}  {duration(epoch.seconds)}"
        )

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line)
