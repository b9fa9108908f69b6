"""The training loop: one for every recipe.

It yields what happened, prints nothing, and can be killed at any moment. All randomness of a step is a function of
(seed, epoch, step), and all decisions of the schedule and of early stopping are functions of the epochs so far; so a
checkpoint needs no more than weights, optimiser state and that history, and a training that goes on from it ends with
the same bits as one that was never interrupted (on the same machine and number of threads).

Several processes can train together, each on a part of every batch (`ranks`). They decide the same, since they hold the
same; only what a clock or a signal says is settled between them. The first one writes and tells.
"""

from __future__ import annotations

import contextlib
import math
import operator
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from thirtytwo import early_stopping, environment, metrics, models, optim, preflight, references
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import (
    Exclusion,
    Images,
    Source,
    augmenter,
    exclusion,
    find,
    ledger,
    mixer,
    standardiser,
)
from thirtytwo.data.loader import Loader, on_device, seeded
from thirtytwo.data.selection import easiest
from thirtytwo.errors import DataError, DeviceError, Diverged, InputError, OutOfMemory, RankLost, RunError
from thirtytwo.events import Epoch, Step
from thirtytwo.ranks import ALONE, Meetings, Ranks
from thirtytwo.recipe import Recipe
from thirtytwo.references import ROLES, Role
from thirtytwo.run import Run, remove_leftovers
from thirtytwo.settings import CustomModel, Muon, SpeedModel
from thirtytwo.state import State
from thirtytwo.step import Stepper, Tally, recorder

INITIALISATION, NOISE = 3, 4  # purposes of random streams, beside the loader's


class Training:
    """A training that can be iterated over, interrupted and resumed; made by `train` and `resume`.

    Attributes:
        run: its folder.
        recipe: complete, as resolved for the data.
        source: where the data comes from.
        network: what is being trained; holds the weights that were kept, once the training has ended.
        interrupted: whether it stopped because `interrupt` was called.
    """

    run: Run

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        images: Images,
        network: nn.Module | None,
        named: Mapping[Role, Classifier],
        facts: dict[str, Any],
        ranks: Ranks = ALONE,
    ) -> None:
        """See `train`, which also makes the `run`; `named` are the recipe's, `facts` is the run's environment."""
        self.recipe, self.source = recipe, source
        self._ranks, self._meetings = ranks, Meetings(ranks)
        self.interrupted = False
        self._facts = facts
        self._stop = False  # whether this process has been asked to
        self._earlier_seconds: float | None = None  # in processes before this one, once it is known
        self._device = torch.device(facts["device"])
        if self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)  # steps are recorded on the current one, whatever they compute on
        environment.begin_counting_memory(self._device)
        kept, held_out = images.split(recipe.validation)
        preflight.check_parts(images, recipe, len(kept), len(held_out))
        preflight.check_augmentation(recipe, images.size)
        self._beginning = references.check(named, recipe, images)
        self._teacher = named.get("teacher")
        self._classes, self._size = images.classes, images.size
        self._seen = references.seen(images, facts) if ranks.is_first else None  # which alone saves the model
        with torch.random.fork_rng():  # the caller's random numbers stay as they are
            torch.manual_seed(seeded(self.seed, INITIALISATION).initial_seed())
            self.network = (
                network if network is not None else models.build(recipe.model, len(self._classes), self._size)
            )
        self.network.to(self._device)
        compiled = self.kernels == "compiled"  # stays so when it is resumed where a compiler has been installed
        self._torch_compiles = compiled and self._device.type == "cuda"
        if not compiled or self._torch_compiles:
            models.use_torch(self.network)
        asked = [self.network]
        if self._teacher is not None and compiled and not self._torch_compiles:
            models.answer_compiled(self._teacher.network)
            asked.append(self._teacher.network)
        if self.precision == models.HALF_PRODUCTS:
            for each in asked:
                models.use_half_products(each)
        models.check(self.network, len(self._classes), self._size)
        self._sizes = [recipe.image_size(epoch, self._size) for epoch in range(recipe.epochs)]
        preflight.check_sizes(self._sizes, self.network, len(self._classes), self._size)
        self._parameters = models.parameters(self.network)
        self._flops_per_image: dict[tuple[int, ...], float] = {}
        self._teacher_flops = self._teacher.flops_per_image if self._teacher is not None else 0.0
        for size in set(self._sizes):
            self._flops(size)
        half = self.precision == "bfloat16"
        optimizers = optim.build(recipe.optimizer, self.network, half=half, compiled=self._torch_compiles)
        self._state = State(self.network, optimizers)
        started = time.perf_counter()  # the data are used from here on
        self._loader = Loader(
            images.take(kept) if len(held_out) else images,
            batch_size=recipe.batch_size,
            seed=self.seed,
            standardise=standardiser(recipe.pixels),
            augment=augmenter(recipe.augmentation, recipe.pixels),
            alternating_flip=recipe.augmentation.alternating_flip,
            translate_pixels=recipe.augmentation.translate_pixels,
            mixing=mixer(recipe.augmentation),
            drop_last=recipe.drop_last,
            device=self._device,
            part=ranks.part if ranks.together else None,
        )
        preflight.check_batches(recipe, self._loader, self.network, ranks.size)
        self._validation = on_device(images.take(held_out), self._device) if len(held_out) else None
        self._state.progress.elapsed_seconds = time.perf_counter() - started
        self._schedule = optim.build_schedule(recipe.schedule, epochs=recipe.epochs, steps_per_epoch=self._loader.steps)
        calibration = recipe.calibration  # with validation images, it is fitted when training ends
        self._temperature = 1.0 if len(held_out) else calibration.temperature
        self._unknown_below = 0.0 if len(held_out) else calibration.unknown_below
        self._said: tuple[int, Tensor] | None = None  # of the epoch kept so far: its number, and what was said then
        self._batches: tuple[Tensor, ...] = ()  # of the epoch under way: which images each step takes
        self._final: dict[str, Any] = {}

    @property
    def history(self) -> list[Epoch]:
        """The epochs so far."""
        return self._state.history

    @property
    def seed(self) -> int:
        """Of this run."""
        return int(self._facts["seed"])

    @property
    def data(self) -> dict[str, Any]:
        """What environment.json says of the data, and into how many images of each part it was divided."""
        held_out = 0 if self._validation is None else len(self._validation[1])
        return {**self._facts["data"], "training_images": len(self._loader.labels), "validation_images": held_out}

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch whose weights are selected so far; None if none is, and the last ones would be kept."""
        return early_stopping.best_epoch(self._state.validation_losses, self.recipe.early_stopping)

    @property
    def device(self) -> str:
        """What it runs on: ``cpu`` or ``cuda``."""
        return self._device.type

    @property
    def device_name(self) -> str:
        """The processor that it runs on, for people, and how many of them."""
        name, size = str(self._facts["device_name"]), self._ranks.size
        if size == 1:
            return name
        return f"{name} in {size} processes" if self._device.type == "cpu" else f"{size} × {name}"

    @property
    def ranks(self) -> int:
        """Processes that train together, this one included."""
        return self._ranks.size

    @property
    def processes_here(self) -> int:
        """How many of them are on this machine."""
        return self._ranks.local_size

    @property
    def ranks_before(self) -> int:
        """Processes that trained together when it was last begun or gone on with, before these do."""
        return int([_ranks(self._facts), *self._facts.get("resumed_by_ranks", [])][-1])

    @property
    def precision(self) -> str:
        """What steps compute with: ``float32``, ``bfloat16`` (as torch's autocast has it) or ``bfloat16 products``."""
        return str(self._facts["precision"])

    @property
    def kernels(self) -> str:
        """What computes steps: ``compiled`` or ``torch``, with the reason where it is not as asked."""
        return str(self._facts["kernels"])

    @property
    def classifier(self) -> Classifier:
        """The network as a `Classifier`, with the weights that it has now."""
        return Classifier(
            network=self.network,
            model=self.recipe.model,
            classes=self._classes,
            size=self._size,
            pixels=self.recipe.pixels,
            views=self.recipe.views,
            temperature=self._temperature,
            unknown_below=self._unknown_below,
            facts={
                **(self._final or self._result()),
                "spec": self._facts["data"]["spec"],
                "fingerprint": self._facts["data"]["fingerprint"],
                "validation_fraction": self.recipe.validation,
                **({"seen": self._seen.to_json()} if self._seen is not None else {}),
                **{key: self._facts[key] for key in (references.SEEN_BY_TEACHERS,) if key in self._facts},
                **_excluded(self.source.exclusion),
            },
        )

    def interrupt(self) -> None:
        """Ask the training to write a checkpoint and end after the step under way; safe in a signal handler.

        Several processes that train together end after the same step, about a tenth of a second later, whichever of
        them was asked. Iterating again goes on.
        """
        self._stop = True

    def finish(self) -> Classifier:
        """Train without looking at what happens on the way, to the end or until `interrupt` is called.

        Returns:
            The classifier with the weights that were kept; with those of the last step if `interrupted`.
        """
        for _ in self:
            pass
        return self.classifier

    def __iter__(self) -> Generator[Step | Epoch]:
        """Train, from the newest checkpoint on; there is always one, since the first is written before the first step.

        Of several processes that train together only the first one yields.

        Raises:
            Diverged: the loss or the weights are NaN or infinite; the last good checkpoint is kept.
            OutOfMemory: a step does not fit into memory.
            StorageError: a checkpoint cannot be written; the one before it is kept.
            RunError: another process is training in this folder.
            RankLost: another process that trains together with this one has ended.
            RanksDiffer: these processes do not hold the same weights any more.
        """
        if self.interrupted:
            self.interrupted = self._stop = False
        is_first = self._ranks.is_first
        with self.run.locked() if is_first else contextlib.nullcontext(), self._memory(), self._company():
            if is_first:
                for folder in (self.run.path, self.run.checkpoint_path.parent):
                    remove_leftovers(folder)
                self._note_ranks()
            # Asked by the first one alone: of a folder that is shared over a network, others may know less.
            is_under_way, has_ended = self._ranks.from_first(
                [self.run.checkpoint_path.exists(), self.run.model_path.exists()]
            )
            if is_under_way:
                self._state.restore(self.run.checkpoint_path)
                if self._earlier_seconds is None:
                    self._earlier_seconds = self._state.progress.elapsed_seconds
            elif has_ended:  # and somebody has removed the checkpoint
                self._take_over()
                return
            else:
                self._earlier_seconds = 0.0
                self._begin()
            yield from self._epochs()

    def _note_ranks(self) -> None:
        """Record that other ranks than before go on."""
        if self._ranks.size != self.ranks_before and not self.run.model_path.exists():  # else nobody goes on
            self._facts["resumed_by_ranks"] = [*self._facts.get("resumed_by_ranks", []), self._ranks.size]
            self.run.environment = self._facts

    def _take_over(self) -> None:
        """The weights that were kept, and how sure they are, from the run's own model file."""
        ended = Classifier.load(self.run, network=self.network, device=self._device)
        self._temperature, self._unknown_below = ended.temperature, ended.unknown_below
        self._final = self.run.result
        self._state.progress.finished = True

    def _begin(self) -> None:
        """Take weights over, or compute what is computed from images, and write the first checkpoint."""
        started = time.perf_counter()
        if self._beginning:
            self.network.load_state_dict(self._beginning, strict=False)
        elif self.recipe.start.model:
            raise RunError(
                f"{self.run.path}: its checkpoint has gone since this training was prepared to go on from it; expected "
                "it to stay; begin anew with `thirtytwo train --resume`, which reads the weights to begin with again"
            )
        else:
            models.initialise(self.recipe.model, self.network, self._loader.sample)
        # A network of the caller's own may have been drawn otherwise on every rank.
        self._ranks.take_from_first(list(self.network.state_dict().values()))
        seconds = time.perf_counter() - started
        self._state.progress.elapsed_seconds += seconds
        self._state.progress.train_seconds += seconds
        self._checkpoint()
        self._beginning = {}  # not before: a disk that is full is asked again

    def _epochs(self) -> Iterator[Step | Epoch]:
        progress = self._state.progress
        stepper = self._stepper()
        clock = _Clock(progress.elapsed_seconds)
        while not progress.finished:
            if (yield from self._steps(stepper, clock)):
                progress.elapsed_seconds = clock.seconds
                self._checkpoint()
                self.interrupted = True
                return
            self.history.append(self._close_epoch(stepper, clock))
            progress.finished = progress.epoch >= self.recipe.epochs or early_stopping.is_over(
                self._state.validation_losses, self.recipe.early_stopping
            )
            self._checkpoint()
            if self._ranks.is_first:
                self.run.metrics = [asdict(epoch) for epoch in self.history]
                yield self.history[-1]
        self._state.end()
        self.network.eval()
        if self._ranks.is_first:
            self.run.metrics = [asdict(epoch) for epoch in self.history]
            # Stored already if it was killed between here and the model file, or resumed when nothing was left to do.
            stored = self.run.result
            self._final = {key: stored.get(key, value) for key, value in self._result().items()}
            self.run.result = {**self._final, **stored}
        self._calibrate()
        if self._ranks.is_first:
            calibration = {"temperature": self._temperature, "unknown_below": self._unknown_below}
            self.run.result = {**self.run.result, "calibration": calibration}
            self.classifier.save(self.run.model_path)

    def _stepper(self) -> Stepper:
        """What takes the steps from here on, ready for every kind of step that is to come."""
        recipe, loader, state, device = self.recipe, self._loader, self._state, self._device
        if recipe.selection.drop and state.losses is None:
            state.losses = torch.full((len(loader.labels),), math.inf, device=device)
        if recipe.lookahead.steps:
            state.begin_looking_back()
        self.network.train()
        stepper = Stepper(
            state,
            loader,
            recipe.loss,
            teacher=None if self._teacher is None else (self._teacher, recipe.teacher),
            device=device,
            half=self.precision == "bfloat16",
            compiled=self._torch_compiles,
            averaging=recipe.averaging.epochs > 0 and recipe.averaging.weighting == "exponential",
            lookahead=recipe.lookahead.steps > 0,
            record=recorder(recipe.model, device),
            ranks=self._ranks,
        )

        def kinds() -> Iterator[tuple[int, tuple[int, int], float]]:
            for epoch in range(state.progress.epoch, recipe.epochs):
                left_out = int(recipe.selection.drop * len(loader.labels)) if recipe.selects_images(epoch) else 0
                lengths = loader.lengths(len(loader.labels) - left_out)
                for step, length in enumerate(lengths):
                    yield length, self._sizes[epoch], (epoch + step / len(lengths)) / recipe.epochs

        stepper.prepare(kinds())
        return stepper

    def _steps(self, stepper: Stepper, clock: _Clock) -> Generator[Step, None, bool]:
        """The steps of the epoch under way, from where it is; returns whether all ranks are to stop."""
        progress, loader, is_first = self._state.progress, self._loader, self._ranks.is_first
        self.network.train()
        stepper.tally.begin(progress)
        last_checkpoint = last_report = time.monotonic()
        started, seen_before = time.perf_counter(), progress.seen
        seconds_before = (progress.train_seconds, progress.epoch_seconds)
        paused = 0.0  # time that the caller and checkpoints took

        def settle() -> float:
            """Wait for the device, take down what it has counted, and return the seconds that steps took here."""
            self._settle(stepper.tally)
            seconds = time.perf_counter() - started - paused
            progress.train_seconds, progress.epoch_seconds = (before + seconds for before in seconds_before)
            return seconds

        self._batches, stops = loader.plan(progress.epoch, self._left_out()), False
        for step in range(progress.step, len(self._batches)):
            factor = self._factor(step)
            self._step(stepper, self._batches[step], factor)
            now = time.monotonic()
            # The first one's clock counts, and a signal to any of them.
            stops, reports, saves = self._meetings.decide(
                self._stop,
                is_first and now - last_report >= 0.1,
                is_first and now - last_checkpoint >= 60 * self.recipe.checkpoint_minutes > 0,
            )
            if stops:
                break
            if reports:
                last_report = now
                seconds = settle()
                pause = time.perf_counter()
                if is_first:
                    yield self._report(factor, (progress.seen - seen_before) / seconds)
                paused += time.perf_counter() - pause
            if progress.step < len(self._batches) and saves:
                last_checkpoint = now
                settle()
                pause = time.perf_counter()
                progress.elapsed_seconds = clock.seconds
                self._checkpoint()
                paused += time.perf_counter() - pause
        settle()
        return self._ranks.is_wished(stops or self._stop)

    def _factor(self, step: int) -> float:
        """What the schedule says of a step of the epoch under way."""
        losses = [loss for loss in self._state.validation_losses if loss is not None]
        # An epoch that leaves out images has fewer steps; it moves the schedule on as far as any other.
        share = step * self._loader.steps // len(self._batches)
        return self._schedule(self._state.progress.epoch * self._loader.steps + share, losses)

    def _left_out(self) -> Tensor | None:
        """The images that the epoch under way does without: bool (n,); None if it uses all."""
        state, epoch = self._state, self._state.progress.epoch
        if self.recipe.selection.drop == 0:
            return None
        assert state.losses is not None
        if state.progress.step == 0:
            state.losses_before = state.losses.clone()
        assert state.losses_before is not None
        return easiest(state.losses_before, self.recipe.selection.drop) if self.recipe.selects_images(epoch) else None

    def _step(self, stepper: Stepper, chosen: Tensor, factor: float) -> None:
        """One update of the weights, at this factor of the peak rates, on these images."""
        progress, epoch_steps = self._state.progress, self._loader.steps
        done = (progress.epoch + progress.step / len(self._batches)) / self.recipe.epochs
        optim.set_rates(self._state.optimizers, factor, done)
        size = self._sizes[progress.epoch]
        draws = self._loader.draw(progress.epoch, progress.step, chosen)
        # The plain mean of all steps until there are enough: the weights that it began with are soon forgotten.
        reach = self.recipe.averaging.epochs * epoch_steps
        share = 1 / max(min(reach, progress.epoch * epoch_steps + progress.step + 1), 1)
        lookahead, number = self.recipe.lookahead, progress.step + 1
        is_time = lookahead.steps and (number % lookahead.steps == 0 or number == len(self._batches))
        with self._chance(progress.epoch, progress.step):
            stepper(draws, size, progress.step, share, lookahead.share if is_time else 0.0)
        if not environment.is_queue(self._device):  # others are asked now and then, about all steps since
            self._settle(stepper.tally)
        progress.step += 1
        progress.seen += len(chosen)
        progress.flops += len(chosen) * self._flops(size)

    @contextlib.contextmanager
    def _chance(self, epoch: int, step: int) -> Iterator[None]:
        """What the network draws in a step, such as dropout's, comes from a stream of its own."""
        if isinstance(self.recipe.model, SpeedModel):
            yield  # draws nothing
            return
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # Drawn from the global generator, which is seeded for every step, and so needs no place in a checkpoint.
            # Each rank draws for images of its own, and so otherwise than the others.
            own = [self._ranks.number] if self._ranks.number else []
            # Not torch.manual_seed, which would reseed all GPUs, also those that are the caller's.
            number = seeded(self.seed, NOISE, epoch, step, *own).initial_seed()
            torch.default_generator.manual_seed(number)
            if self._device.type == "cuda":
                torch.cuda.manual_seed(number)  # of the current one, which is this training's
            yield

    def _settle(self, tally: Tally) -> None:
        """Take down what has been counted; stop if some loss was not finite."""
        if (failed := tally.settle(self._state.progress)) is not None:
            step, loss = failed
            rate = self.recipe.optimizer.learning_rate * self._factor(step)
            raise self._diverged(f"step {step + 1}: the loss is {loss} at rate {rate:.3g}")

    def _flops(self, size: tuple[int, int]) -> float:
        """Floating-point operations of a step, per image, for images of this size and the weights trained now."""
        kind = (*size, models.parameters(self.network))
        if kind not in self._flops_per_image:
            passes = 2 if self.recipe.loss.sharpness_radius else 1
            self._flops_per_image[kind] = passes * models.flops_per_image(self.network, size) + self._teacher_flops
        return self._flops_per_image[kind]

    def _report(self, factor: float, images_per_second: float) -> Step:
        progress, steps = self._state.progress, len(self._batches)
        # Epochs of fewer or smaller images are quicker: what is left is counted in work, in images of the epoch now.
        now = self._flops(self._sizes[progress.epoch])
        later = sum(
            self._flops(size) * (1 - self.recipe.selection.drop * self.recipe.selects_images(epoch))
            for epoch, size in enumerate(self._sizes)
            if epoch > progress.epoch
        )
        left = sum(map(len, self._batches[progress.step :])) + (self._loader.images * later / now if now else 0.0)
        return Step(
            epoch=progress.epoch + 1,
            epochs=self.recipe.epochs,
            step=progress.step,
            steps=steps,
            loss=progress.loss_sum / progress.seen,
            accuracy=progress.correct / progress.seen,
            learning_rate=self.recipe.optimizer.learning_rate * factor,
            images_per_second=images_per_second,
            seconds_left=left / images_per_second,
        )

    def _close_epoch(self, stepper: Stepper, clock: _Clock) -> Epoch:
        """Validate, keep the weights if they are the best so far, and start counting anew."""
        if self.recipe.averaging.weighting == "equal":
            self._average_ends(stepper)
        with self._state.averaged():
            return self._judge(clock)

    def _average_ends(self, stepper: Stepper) -> None:
        """Let the weights that an epoch ends with count in the plain mean of such, if it is one of the last epochs."""
        state, epoch, epochs = self._state, self._state.progress.epoch + 1, self.recipe.epochs
        number = epoch - max(epochs - int(self.recipe.averaging.epochs), 0)  # which of those that count this is
        if number < 1:
            return
        started = time.perf_counter()
        state.average(1 / number)
        is_looked_at = self.recipe.validates(epoch - 1) or epoch == epochs
        if is_looked_at and models.has_batch_norm(self.network):
            # In an order, and with changes, of their own: those of an epoch that there is not.
            batches = enumerate(self._loader.plan(epochs))
            draws = (self._loader.draw(epochs, step, chosen) for step, chosen in batches)
            with state.averaged(), models.without_averages(self.network), self._chance(epochs, 0):
                stepper.renew_averages(draws)
                state.keep_mean()
            forward = models.flops_per_image(self.network, self._size, backward=False)
            state.progress.flops += self._loader.images * forward
        self._settle(stepper.tally)  # waits for the device
        state.progress.train_seconds += time.perf_counter() - started

    def _judge(self, clock: _Clock) -> Epoch:
        progress = self._state.progress
        scores = validation_loss = validation_accuracy = None
        if self._validation is not None and self.recipe.validates(progress.epoch):
            labels = self._validation[1]
            scores = self._answers(self.classifier.scores)
            probabilities = (scores / self._temperature).softmax(1)
            validation_loss = metrics.cross_entropy(probabilities, labels)
            validation_accuracy = metrics.accuracy(probabilities, labels)
            if math.isnan(validation_loss):
                raise self._diverged("the validation loss is nan")
        epoch = Epoch(
            epoch=progress.epoch + 1,
            learning_rate=self.recipe.optimizer.learning_rate * self._factor(len(self._batches) - 1),
            train_loss=progress.loss_sum / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            images_per_second=progress.seen / progress.epoch_seconds,
            seconds=clock.seconds,
        )
        losses, settings = [*self._state.validation_losses, validation_loss], self.recipe.early_stopping
        if early_stopping.best_epoch(losses, settings) == len(losses):
            self._state.keep_weights()
        if scores is not None and early_stopping.kept_epoch(losses, settings) == len(losses):
            self._said = len(losses), scores
        progress.begin_next_epoch()
        progress.elapsed_seconds = epoch.seconds
        return epoch

    def _calibrate(self) -> None:
        """Fit to the validation images, if there are any, how sure the classifier is to be."""
        if self._validation is None:
            return
        kept = early_stopping.kept_epoch(self._state.validation_losses, self.recipe.early_stopping)
        # The kept weights are asked again only where another process has asked them before.
        number, scores = self._said or (0, None)
        if scores is None or number != kept:
            scores = self._answers(self.classifier.scores)
        labels = self._validation[1]
        self._temperature = metrics.best_temperature(scores, labels)
        probabilities = (scores / self._temperature).softmax(1)
        self._unknown_below = metrics.confidence_of_share(probabilities, self.recipe.calibration.coverage)

    def _answers(self, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """What is said of the validation images, (n, classes): each rank asks about a part of them."""
        assert self._validation is not None
        pixels, _ = self._validation
        begin, end = self._ranks.part(len(pixels))
        part = classify(pixels[begin:end]) if begin < end else torch.empty((0, len(self._classes)), device=self._device)
        return self._ranks.put_together(part, len(pixels))

    def _checkpoint(self) -> None:
        """Replace the checkpoint, unless it is better than what would replace it."""
        if not self._state.is_finite():  # a finite loss can have gradients that are not
            step = self._state.progress.step
            where = f"step {step}" if step else "at its beginning"
            raise self._diverged(f"{where}: some weights are NaN or infinite")
        if self._ranks.together:
            self._ranks.check_same(
                self._state.checksums(),
                f"these are checksums of its bits, epoch {self._state.progress.epoch + 1}, step "
                f"{self._state.progress.step}. "
                "The cause may be processors or threads that round differently, or parts of your own network that "
                f"remember what one process has seen. The last good checkpoint is kept in {self.run.path}; continue "
                "from it on machines of one kind, or with --devices 1",
            )
        if self._ranks.is_first:
            self._state.save(self.run.checkpoint_path)

    def _diverged(self, what: str) -> Diverged:
        # Muon's own updates have a fixed size; what runs away beside it is the rest.
        key = "dense_learning_rate" if isinstance(self.recipe.optimizer, Muon) else "learning_rate"
        lower = f"--set optimizer.{key}={getattr(self.recipe.optimizer, key) / 4:.2g}"
        kept = f" The last good checkpoint is kept in {self.run.path};" if self.run.checkpoint_path.exists() else ""
        return Diverged(
            f"epoch {self._state.progress.epoch + 1}, {what}; expected a finite number.{kept} "
            f"train anew with a lower rate, such as {lower}"
        )

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        """Say clearly that memory ran out, wherever it did."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not environment.is_out_of_memory(error):
                raise
            progress, smaller = self._state.progress, max(2, self.recipe.batch_size // 2)
            raise OutOfMemory(
                f"epoch {progress.epoch + 1}, step {progress.step + 1}: out of memory with batch_size "
                f"{self.recipe.batch_size}; expected a step to fit. What was saved is kept in {self.run.path}; "
                f"train anew with --set batch_size={smaller}, and a learning rate to match, or give it more memory"
            ) from error

    @contextlib.contextmanager
    def _company(self) -> Iterator[None]:
        """Say where it can go on from when another rank is gone."""
        try:
            yield
        except RankLost as error:
            progress = self._state.progress
            raise RankLost(
                f"epoch {progress.epoch + 1}, step {progress.step + 1}: {error}. What was saved is kept in "
                f"{self.run.path}; `thirtytwo train --resume {self.run.path}` goes on with it"
            ) from error

    def _result(self) -> dict[str, Any]:
        """What is known when training ends; `evaluate` adds the scores."""
        progress = self._state.progress
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "data": self._facts["data"]["name"],
            "images": self._facts["data"]["images"],
            "excluded_images": len(self.source.exclusion.indices),
            **{role: self._facts[role] for role in ROLES if role in self._facts},
            "epochs": progress.epoch,
            "kept_epoch": self.best_epoch or progress.epoch,
            "train_seconds": progress.train_seconds,
            "cold_seconds": (self._earlier_seconds or 0.0) + environment.process_seconds(),
            "flops": progress.flops,
            "parameters": self._parameters,
            "peak_memory_bytes": environment.peak_memory_bytes(self._device),
        }


class _Clock:
    """Seconds that the training has taken, over all of the processes that it ran in."""

    def __init__(self, before: float) -> None:
        self._origin = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._origin


def precision(recipe: Recipe, device: torch.device) -> str:
    """What steps compute with on this device; see `Training.precision`."""
    if recipe.precision == "float32" or not environment.has_bfloat16(device):
        return "float32"
    if device.type == "cpu" and isinstance(recipe.model, SpeedModel):
        # There, our own kernels take two thirds of the time that torch's take in half precision, even in float32. Of
        # other networks, which they compute in part only, that has not been measured.
        for own in (models.HALF_PRODUCTS, "float32"):
            if models.kernels(recipe.model, device, own) == "compiled":
                return own
    return "bfloat16"


def _ranks(facts: Mapping[str, Any]) -> int:
    """How many processes a run was begun by; those of earlier versions say nothing of it."""
    return int(facts.get("ranks", 1))


def _agree(ranks: Ranks, recipe: Recipe, images: Images, facts: Mapping[str, Any]) -> None:
    """That processes which are to train together are about to do the same."""
    told: dict[str, Any] = {"recipe": recipe.to_toml(), "training images": images.fingerprint}
    told |= {key: facts[key] for key in ("seed", "device", "precision", "kernels")}
    if facts["device"] == "cpu":  # whose threads decide how sums are rounded
        told["threads"] = torch.get_num_threads()
    ranks.check_same(told, "start all of them with the same command, on machines of one kind, with the same data")


def _excluded(chosen: Exclusion) -> dict[str, Any]:
    """What facts say of images that were left out: nothing where nobody asked for it."""
    return {"excluded": chosen.to_json()} if chosen else {}


def train(
    recipe: Recipe | str | Path = recipes.DEFAULT,
    data: Source | str | None = None,
    *,
    seed: SupportsIndex = 0,
    network: nn.Module | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    exclude: exclusion.Tables | exclusion.Table | str | Path = (),
    teacher: str | Path | None = None,
    start: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> Training:
    """Prepare a training; iterate over what is returned, or call its `finish`, to run it.

    Args:
        recipe: a recipe, the name of a shipped one, or the path of a TOML file.
        data: a SPEC such as ``cifar10``, ``shapes`` or a path, or a source such as `from_arrays` makes; None is
            ``$THIRTYTWO_DATA``, then ``cifar10``.
        seed: decides everything that is random; from 0 to 2**63 - 1.
        network: a module of your own, float32 (batch, 3, height, width) -> (batch, classes), trained in place of the
            recipe's model. It is trained where it is, not copied.
        out: the run folder; None takes ``runs/<recipe>-<n>``.
        device: ``auto``, ``cpu`` or ``cuda``.
        exclude: tables of training images that are left out, such as an audit's label_issues.csv, or their paths; see
            `data.exclusion`.
        teacher: where the recipe's teacher is now, if it has moved.
        start: where the model is now whose weights the recipe begins with, if it has moved.
        ranks: what `ranks.joined` gives: the processes that train together with this one, all of which call this.

    Raises:
        InputError: one of its kinds, for anything that cannot be used; nothing has been written then.
        RanksDiffer: processes that are to train together were started differently.
    """
    settings = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    number = operator.index(seed)
    if not 0 <= number < 2**63:
        raise InputError(f"seed {number}: expected a whole number from 0 to 2**63 - 1")
    if network is not None and not isinstance(network, nn.Module):
        raise InputError(f"network is {type(network).__name__}; expected a torch.nn.Module; wrap what computes in one")
    chosen = environment.device(device)
    tables = exclusion.read(exclude)
    source = data if isinstance(data, Source) else find(data)
    if tables:
        images = source.without(Exclusion()).read_training()
        source = source.without(exclusion.training(tables, images))
        images = source.exclusion.applied(images)
    else:
        images = source.read_training()
    settings = settings.for_device(chosen.type).for_images(len(images))
    places: dict[Role, str | Path | None] = {"teacher": teacher, "start": start}
    named = references.load(settings, chosen, places)
    settings = references.named(settings, named)
    if network is not None:
        module = CustomModel(module=f"{type(network).__module__}.{type(network).__qualname__}")
        settings = settings.model_copy(update={"model": module})
    computes_with = precision(settings, chosen)
    facts = {
        **environment.describe(chosen, computes_with),
        "kernels": models.kernels(settings.model, chosen, computes_with),
        "seed": number,
        **references.told(settings, named),
        "ranks": ranks.size,
        "data": {
            "spec": source.spec,
            "name": images.name,
            "location": source.location,
            "fingerprint": images.fingerprint,
            "images": len(images),
            "classes": list(images.classes),
            "size": list(images.size),
            "warnings": [*images.warnings, *ledger.among_training(images)],
            "notice": source.notice,
            **_excluded(source.exclusion),
        },
    }
    # Built before the folder is made: a mistake in the settings leaves no empty folder behind.
    training = Training(settings, source, images, network, named, facts, ranks)
    _agree(ranks, settings, images, facts)
    facts["freed_memory"] = environment.keep_memory()  # not before: what held the data leaves holes that nothing fits
    if ranks.is_first:
        training.run = Run.create(out, settings, facts)
    place = ranks.from_first(str(training.run.path) if ranks.is_first else None)
    if not ranks.is_first:
        training.run = Run(Path(place))
    return training


def resume(
    run: Run | str | Path,
    data: Source | str | None = None,
    *,
    network: nn.Module | None = None,
    teacher: str | Path | None = None,
    start: str | Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    ranks: Ranks = ALONE,
) -> Training:
    """Prepare to go on with a training that was interrupted; see `train` for what to do with it.

    It goes on with the device, the number of threads and the kernels that it began with (torch's number of threads is
    set for this process), since other ones would round differently. Other `ranks` than it began with can go on as well:
    they take the same batches, and the bits are others from there on.

    Args:
        run: the run folder.
        data: where the data is now, if it has moved; it must be the same images.
        network: the module, if the training began with one of your own.
        teacher: where the recipe's teacher is now, if it has moved; it must be the same model.
        start: the same of the model whose weights it begins with; not needed once there is a checkpoint.
        progress: called while data are downloaded; see `find`.
        ranks: the processes that go on together; see `train`.

    Raises:
        InputError: one of its kinds: no such run, other data, no network, another teacher.
        RanksDiffer: processes that are to train together were started differently.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    recipe, facts = run.recipe, run.environment
    try:
        began_with, threads = facts["data"], int(facts["threads"])
        spec, fingerprint, chosen = began_with["spec"], began_with["fingerprint"], str(facts["device"])
        left_out = exclusion.recalled(began_with)
        int(facts["seed"]), str(facts["precision"]), str(facts["kernels"])
        references.check_told(facts)
        began_by = _ranks(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path / 'environment.json'}: {error!r} is missing or damaged; start a new run") from None
    try:
        environment.device(chosen)
    except DeviceError:
        raise RunError(
            f"{run.path}: was begun on {chosen}, which this machine lacks; expected the same kind of device; "
            "continue where there is one, or start a new run"
        ) from None
    now = models.kernels(recipe.model, environment.device(chosen), str(facts["precision"]))
    if facts["kernels"] == "compiled" and now != "compiled":
        raise RunError(
            f"{run.path}: was begun with compiled kernels in {facts['precision']}, which this machine lacks: {now}; "
            "expected the same, since others round differently; install a C compiler such as gcc, continue on a "
            "processor of the same kind, or start a new run"
        )
    if isinstance(recipe.model, CustomModel) and network is None:
        raise RunError(
            f"{run.path}: trains a custom network ({recipe.model.module}), whose code is not stored; "
            "expected a freshly made one, as in resume(run, network=module)"
        )
    source = data if isinstance(data, Source) else find(data or spec, progress=progress)
    source = source.without(left_out)
    images = source.read_training()
    if images.fingerprint != fingerprint:
        raise DataError(
            f"{source.location}: not the images that {run.path} was started with (fingerprint "
            f"{images.fingerprint[:12]}, expected {fingerprint[:12]}); give the same ones with --data, or start anew"
        )
    # Once training has ended, nobody is asked any more; weights to begin with are not needed once it has begun.
    places: dict[Role, str | Path | None] = {"teacher": teacher, "start": start}
    roles: list[Role] = [] if run.model_path.exists() else ["teacher"]
    roles += [] if run.model_path.exists() or run.checkpoint_path.exists() else ["start"]
    named = references.load(recipe, environment.device(chosen), places, roles)
    if ranks.size == began_by:  # otherwise they would be too many, or too few, for the processor
        torch.set_num_threads(threads)
    training = Training(recipe, source, images, network, named, facts, ranks)
    _agree(ranks, recipe, images, facts)
    environment.keep_memory()
    training.run = run
    return training
