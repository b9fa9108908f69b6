"""What a training yields while it runs."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Mean training loss of this epoch so far; see `Epoch.train_loss`."""
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
    """Cross-entropy in nats, mean over the epoch's images, augmented and with dropout. Label smoothing, where a recipe
    minimises a smoothed loss, is left out, so that it can be compared with the validation loss."""
    train_accuracy: float
    """Over the epoch's steps, on augmented images."""
    validation_loss: float | None
    """In nats, before temperature scaling, which follows the last epoch: what a result says of the validation images is
    after it. None without validation images, and where a recipe does not look (`validate_every`)."""
    validation_accuracy: float | None
    """None where the loss is."""
    images_per_second: float
    """Training images, validation and checkpoints not counted. Like `seconds`, this differs from run to run."""
    seconds: float
    """Since the first use of training data: everything but the time that the training lay interrupted."""
