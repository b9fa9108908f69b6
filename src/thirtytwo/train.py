"""The training loop: one for every recipe.

It yields what happened, prints nothing, and can be killed at any moment. All randomness of a step is a function of
(seed, epoch, step), and all decisions of the schedule and of early stopping are functions of the epochs so far; so a
checkpoint needs no more than weights, optimiser state and that history, and a training that goes on from it ends with
the same bits as one that was never interrupted (on the same machine and number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thirtytwo import early_stopping, environment, metrics, models, optim
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source, augmenter, find, standardiser
from thirtytwo.data.loader import Loader, on_device, seeded
from thirtytwo.errors import DataError, Diverged, OutOfMemory, RunError
from thirtytwo.recipe import Recipe
from thirtytwo.recipe import load as load_recipe
from thirtytwo.run import Run, read_tensors, remove_leftovers, write_tensors
from thirtytwo.settings import CustomModel

INITIALISATION, NOISE = 3, 4  # purposes of random streams, beside the loader's


@dataclass(frozen=True)
class Step:
    """How far a training is; yielded several times a second, not for every step."""

    epoch: int
    """Counted from 1."""
    epochs: int
    """Most epochs that there will be."""
    step: int
    """Steps done in this epoch."""
    steps: int
    """Steps in an epoch."""
    loss: float
    """Mean training loss of this epoch so far, in nats."""
    accuracy: float
    """Training accuracy of this epoch so far, on augmented images."""
    learning_rate: float
    """Of the last step."""
    images_per_second: float
    """Over this epoch so far, in this process."""
    seconds_left: float
    """Until the last epoch ends, at this speed, validation not included."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought; the row that metrics.csv holds for it."""

    epoch: int
    """Counted from 1."""
    learning_rate: float
    """Of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's steps, in nats."""
    train_accuracy: float
    """Over the epoch's steps, on augmented images."""
    validation_loss: float | None
    """In nats; None without validation images."""
    validation_accuracy: float | None
    """None without validation images."""
    images_per_second: float
    """Training images, validation and checkpoints not counted. Like `seconds`, this differs from run to run."""
    seconds: float
    """Since the first use of training data: everything but the time that the training lay interrupted."""


@dataclass
class _Progress:
    """All of a training's state that is not a tensor: what a checkpoint's header holds."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done in the epoch under way."""
    loss_sum: float = 0.0
    """Of the epoch under way, over images."""
    correct: int = 0
    """Of the epoch under way."""
    seen: int = 0
    """Images of the epoch under way."""
    finished: bool = False
    train_seconds: float = 0.0
    """Spent on steps."""
    epoch_seconds: float = 0.0
    """Spent on steps of the epoch under way."""
    elapsed_seconds: float = 0.0
    """Spent on everything since the first use of training data."""


class Training:
    """A training that can be iterated over, interrupted and resumed; made by `train` and `resume`.

    Attributes:
        run: its folder.
        recipe: complete, as resolved for the data.
        source: where the data comes from.
        network: what is being trained; holds the weights that were kept, once the training has ended.
        history: the epochs so far.
        interrupted: whether it stopped because `interrupt` was called.
    """

    def __init__(
        self, run: Run, recipe: Recipe, source: Source, images: Images, network: nn.Module | None, facts: dict[str, Any]
    ) -> None:
        """See `train`; `facts` is the run's environment."""
        self.run, self.recipe, self.source = run, recipe, source
        self.history: list[Epoch] = []
        self.interrupted = False
        self._facts = facts
        self._stop = False
        self._earlier_seconds = 0.0  # in processes before this one
        self._progress = _Progress()
        self._device = torch.device(facts["device"])
        kept, held_out = images.split(recipe.validation)
        if len(kept) < 2:
            raise DataError(f"{images.name}: {len(kept)} images to train on; expected at least 2")
        self._classes, self._size = images.classes, images.size
        with torch.random.fork_rng():  # the caller's random numbers stay as they are
            torch.manual_seed(seeded(self.seed, INITIALISATION).initial_seed())
            self.network = (
                network if network is not None else models.build(recipe.model, len(self._classes), self._size)
            )
        self.network.to(self._device)
        self._loader = Loader(
            images.take(kept),
            batch_size=recipe.batch_size,
            seed=self.seed,
            standardise=standardiser(recipe.pixels),
            augment=augmenter(recipe.augmentation),
            device=self._device,
        )
        self._validation = on_device(images.take(held_out), self._device) if len(held_out) else None
        self._optimizer = optim.build(recipe.optimizer, self.network)
        self._schedule = optim.build_schedule(recipe.schedule, epochs=recipe.epochs, steps_per_epoch=self._loader.steps)
        self._best: dict[str, Tensor] = {}
        self._flops_per_image = models.flops_per_image(self.network, self._size)
        self._final: dict[str, Any] = {}

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
    def kept_epoch(self) -> int:
        """Number of the epoch whose weights would be kept if the training ended now; 0 before the first."""
        return early_stopping.kept_epoch(self._validation_losses, self.recipe.early_stopping)

    @property
    def device_name(self) -> str:
        """The processor that it runs on, for people."""
        return str(self._facts["device_name"])

    @property
    def classifier(self) -> Classifier:
        """The network as a `Classifier`, with the weights that it has now."""
        return Classifier(
            network=self.network,
            model=self.recipe.model,
            classes=self._classes,
            size=self._size,
            pixels=self.recipe.pixels,
            facts={
                **(self._final or self._result()),
                "spec": self._facts["data"]["spec"],
                "fingerprint": self._facts["data"]["fingerprint"],
                "validation_fraction": self.recipe.validation,
            },
        )

    def interrupt(self) -> None:
        """Ask the training to write a checkpoint and end after the step under way; safe in a signal handler."""
        self._stop = True

    def finish(self) -> Classifier:
        """Train to the end without looking at what happens on the way."""
        for _ in self:
            pass
        return self.classifier

    def __iter__(self) -> Iterator[Step | Epoch]:
        """Train, from the newest checkpoint if there is one.

        Raises:
            Diverged: the loss is NaN or infinite; the last good checkpoint is kept.
            OutOfMemory: a step does not fit into memory.
            StorageError: a checkpoint cannot be written; the one before it is kept.
            RunError: another process is training in this folder.
        """
        with self.run.locked():
            for folder in (self.run.path, self.run.checkpoint_path.parent):
                remove_leftovers(folder)
            if self.run.checkpoint_path.exists():
                self._restore()
            yield from self._epochs()

    def _epochs(self) -> Iterator[Step | Epoch]:
        progress = self._progress
        clock = _Clock(progress.elapsed_seconds)
        while not progress.finished:
            yield from self._steps(clock)
            if self._stop:
                progress.elapsed_seconds = clock.seconds
                self._checkpoint()
                self.interrupted = True
                return
            self.history.append(self._close_epoch(clock))
            progress.finished = progress.epoch >= self.recipe.epochs or early_stopping.is_over(
                self._validation_losses, self.recipe.early_stopping
            )
            self._checkpoint()
            self.run.metrics = [asdict(epoch) for epoch in self.history]
            yield self.history[-1]
        if self._best:
            self.network.load_state_dict(self._best)
        self.run.metrics = [asdict(epoch) for epoch in self.history]
        if stored := self.run.result:  # killed between here and there, or resumed when there was nothing left to do
            self._final = {key: stored[key] for key in self._result()}
        else:
            self._final = self.run.result = self._result()
        self.classifier.save(self.run.model_path)

    def _steps(self, clock: _Clock) -> Iterator[Step]:
        """The steps of the epoch under way, from where it is."""
        progress, loader = self._progress, self._loader
        self.network.train()
        losses = [epoch.validation_loss for epoch in self.history if epoch.validation_loss is not None]
        last_checkpoint = last_report = time.monotonic()
        started, seen_before = time.perf_counter(), progress.seen
        seconds_before = (progress.train_seconds, progress.epoch_seconds)
        paused = 0.0  # time that the caller and checkpoints took
        for inputs, labels in loader.epoch(progress.epoch, start=progress.step):
            rate = self.recipe.optimizer.learning_rate * self._schedule(
                progress.epoch * loader.steps + progress.step, losses
            )
            loss, correct = self._step(inputs, labels, rate)
            progress.step += 1
            if not math.isfinite(loss):
                raise Diverged(
                    f"epoch {progress.epoch + 1}, step {progress.step}: the loss is {loss} at rate {rate:.3g}, "
                    f"expected a finite number. The last good checkpoint is kept in {self.run.path}; train anew with a "
                    f"lower rate, such as --set optimizer.learning_rate={self.recipe.optimizer.learning_rate / 4:.2g}"
                )
            progress.loss_sum += loss * len(labels)
            progress.correct += correct
            progress.seen += len(labels)
            seconds = time.perf_counter() - started - paused
            progress.train_seconds, progress.epoch_seconds = (before + seconds for before in seconds_before)
            if self._stop:
                return
            now = time.monotonic()
            if now - last_report >= 0.1:
                last_report = now
                pause = time.perf_counter()
                yield self._report(rate, (progress.seen - seen_before) / seconds)
                paused += time.perf_counter() - pause
            if progress.step < loader.steps and now - last_checkpoint >= 60 * self.recipe.checkpoint_minutes > 0:
                last_checkpoint = now
                pause = time.perf_counter()
                progress.elapsed_seconds = clock.seconds
                self._checkpoint()
                paused += time.perf_counter() - pause

    def _step(self, inputs: Tensor, labels: Tensor, rate: float) -> tuple[float, int]:
        """One update of the weights; returns the batch's mean loss and its number of correct predictions."""
        progress = self._progress
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        try:
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                # Dropout draws from the global generator; seeded for every step, it needs no place in a checkpoint.
                torch.manual_seed(seeded(self.seed, NOISE, progress.epoch, progress.step).initial_seed())
                scores = self.network(inputs)  # (batch, classes)
                loss = cross_entropy(scores, labels, label_smoothing=self.recipe.loss.label_smoothing)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            if math.isfinite(value):
                self._optimizer.step()
            return value, int((scores.detach().argmax(1) == labels).sum())
        except (RuntimeError, MemoryError) as error:
            if environment.is_out_of_memory(error):
                raise OutOfMemory(
                    f"epoch {progress.epoch + 1}, step {progress.step + 1}: out of memory with batch_size "
                    f"{self.recipe.batch_size}; expected a step to fit. What was saved is kept in {self.run.path}; "
                    f"train anew with --set batch_size={max(1, self.recipe.batch_size // 2)}, or give it more memory"
                ) from error
            raise

    def _report(self, rate: float, images_per_second: float) -> Step:
        progress, steps = self._progress, self._loader.steps
        images = len(self._loader.labels)
        left = (self.recipe.epochs - progress.epoch) * images - progress.seen
        return Step(
            epoch=progress.epoch + 1,
            epochs=self.recipe.epochs,
            step=progress.step,
            steps=steps,
            loss=progress.loss_sum / progress.seen,
            accuracy=progress.correct / progress.seen,
            learning_rate=rate,
            images_per_second=images_per_second,
            seconds_left=left / images_per_second,
        )

    def _close_epoch(self, clock: _Clock) -> Epoch:
        """Validate, keep the weights if they are the best so far, and start counting anew."""
        progress = self._progress
        validation_loss = validation_accuracy = None
        if self._validation is not None:
            pixels, labels = self._validation
            probabilities = self.classifier.probabilities(pixels)
            validation_loss = metrics.cross_entropy(probabilities, labels)
            validation_accuracy = metrics.accuracy(probabilities, labels)
        rate = self._optimizer.param_groups[0]["lr"]
        epoch = Epoch(
            epoch=progress.epoch + 1,
            learning_rate=float(rate),
            train_loss=progress.loss_sum / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            images_per_second=progress.seen / progress.epoch_seconds,
            seconds=clock.seconds,
        )
        losses = [*self._validation_losses, validation_loss]
        settings = self.recipe.early_stopping
        if settings.patience and early_stopping.improvements(losses, settings)[-1:] == [len(losses)]:
            self._best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        progress.epoch += 1
        progress.step = progress.correct = progress.seen = 0
        progress.loss_sum = progress.epoch_seconds = 0.0
        progress.elapsed_seconds = epoch.seconds
        return epoch

    @property
    def _validation_losses(self) -> list[float | None]:
        return [epoch.validation_loss for epoch in self.history]

    def _checkpoint(self) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optim.state_tensors(self._optimizer).items()}
        header = {"progress": asdict(self._progress), "history": [asdict(epoch) for epoch in self.history]}
        write_tensors(self.run.checkpoint_path, tensors, header)

    def _restore(self) -> None:
        tensors, header = read_tensors(self.run.checkpoint_path)
        try:
            self._progress = _Progress(**header["progress"])
            self._earlier_seconds = self._progress.elapsed_seconds
            self.history = [Epoch(**row) for row in header["history"]]
            self.network.load_state_dict(_within(tensors, "network."))
            self._best = {name: tensor.to(self._device) for name, tensor in _within(tensors, "best.").items()}
            optim.restore_state(self._optimizer, _within(tensors, "optimizer."))
        except (KeyError, TypeError, RuntimeError) as error:
            raise RunError(
                f"{self.run.checkpoint_path}: does not fit this run's network ({error}); expected the checkpoint that "
                "this run wrote, and the same network if it is your own"
            ) from None

    def _result(self) -> dict[str, Any]:
        """What is known when training ends; `evaluate` adds the scores."""
        progress = self._progress
        images_seen = len(self._loader.labels) * progress.epoch
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "data": self._facts["data"]["name"],
            "images": self._facts["data"]["images"],
            "epochs": progress.epoch,
            "kept_epoch": self.kept_epoch,
            "train_seconds": progress.train_seconds,
            "cold_seconds": self._earlier_seconds + environment.process_seconds(),
            "flops": self._flops_per_image * images_seen,
            "parameters": models.parameters(self.network),
            "peak_memory_bytes": environment.peak_memory_bytes(self._device),
        }


class _Clock:
    """Seconds that the training has taken, over all of the processes that it ran in."""

    def __init__(self, before: float) -> None:
        self._origin = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._origin


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train(
    recipe: Recipe | str | Path = "classic",
    data: Source | str | None = None,
    *,
    seed: int = 0,
    network: nn.Module | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> Training:
    """Prepare a training; iterate over what is returned, or call its `finish`, to run it.

    Args:
        recipe: a recipe, the name of a shipped one, or the path of a TOML file.
        data: a SPEC such as ``cifar10``, ``shapes`` or a path; None is ``$THIRTYTWO_DATA``, then ``cifar10``.
        seed: decides everything that is random.
        network: a module of your own, float32 (batch, 3, height, width) -> (batch, classes), trained in place of the
            recipe's model. It is trained where it is, not copied.
        out: the run folder; None takes ``runs/<recipe>-<n>``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: one of its kinds, for anything that cannot be used; nothing has been written then.
    """
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = environment.device(device)
    source = data if isinstance(data, Source) else find(data)
    images = source.read("training")
    settings = settings.for_images(len(images))
    if network is not None:
        module = CustomModel(module=f"{type(network).__module__}.{type(network).__qualname__}")
        settings = settings.model_copy(update={"model": module})
    facts = {
        **environment.describe(chosen),
        "seed": seed,
        "data": {
            "spec": source.spec,
            "name": images.name,
            "location": source.location,
            "fingerprint": images.fingerprint,
            "images": len(images),
            "classes": list(images.classes),
            "size": list(images.size),
            "warnings": list(images.warnings),
            "notice": source.notice,
        },
    }
    # Built before the folder is made: a mistake in the settings leaves no empty folder behind.
    training = Training(Run(Path()), settings, source, images, network, facts)
    training.run = Run.create(out, settings.name)
    training.run.recipe = settings
    training.run.environment = facts
    return training


def resume(
    run: Run | str | Path,
    data: Source | str | None = None,
    *,
    network: nn.Module | None = None,
) -> Training:
    """Prepare to go on with a training that was interrupted; see `train` for what to do with it.

    It goes on with the device and the number of threads that it began with (torch's number of threads is set for this
    process), since other ones would round differently.

    Args:
        run: the run folder.
        data: where the data is now, if it has moved; it must be the same images.
        network: the module, if the training began with one of your own.

    Raises:
        InputError: one of its kinds: no such run, other data, no network.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    recipe, facts = run.recipe, run.environment
    try:
        began_with, threads = facts["data"], int(facts["threads"])
        spec, fingerprint, chosen = began_with["spec"], began_with["fingerprint"], str(facts["device"])
        int(facts["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path / 'environment.json'}: {error!r} is missing or damaged; start a new run") from None
    environment.device(chosen)
    if isinstance(recipe.model, CustomModel) and network is None:
        raise RunError(
            f"{run.path}: trains a network of its owner's ({recipe.model.module}); "
            "expected resume(run, network=module) with a freshly made one"
        )
    source = data if isinstance(data, Source) else find(data or spec)
    images = source.read("training")
    if images.fingerprint != fingerprint:
        raise DataError(
            f"{source.location}: not the images that {run.path} was started with (fingerprint "
            f"{images.fingerprint[:12]}, expected {fingerprint[:12]}); give the same ones with --data, or start anew"
        )
    torch.set_num_threads(threads)
    return Training(run, recipe, source, images, network, facts)
