"""Batches from images that lie on the device as uint8, in an order that is a function of (seed, epoch) alone.

Nothing here has state: the batch of any step can be made again from the numbers that name it, so a training that was
interrupted needs no loader state to go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from thirtytwo.data.augment import Augment, moved, scaled_down, shifts
from thirtytwo.data.images import Images
from thirtytwo.data.mixing import Mixing
from thirtytwo.data.policies import per_channel


class Draws(NamedTuple):
    """What a step takes, and what chance says of it: all that the making of a batch needs to be told."""

    chosen: Tensor
    """int64 (batch,): which images."""
    turned: Tensor
    """bool (): whether this epoch mirrors those that the first one did not, in place of those that it did."""
    shift: Tensor
    """int64 (2, batch): by how many pixels down and right; (2, 0) where nothing is shifted."""
    changes: Tensor
    """float32 (rows, batch): see `Augment.draw`; (0, batch) where nothing is changed."""
    mixing: Tensor
    """float32 (5, batch): see `Mixing.draw`; (5, 0) where nothing is mixed."""


class Batch(NamedTuple):
    """What a step trains on."""

    inputs: Tensor
    """float32 (batch, 3, height, width)."""
    labels: Tensor
    """int64 (batch,)."""
    others: Tensor | None
    """int64 (batch,): the label of the image before, which was mixed into this one; None where nothing is mixed."""
    share: Tensor | None
    """float32 (batch,): how much of an image its own label stands for; the rest is the other's. None likewise."""


@dataclass(frozen=True)
class Standardise:
    """What every network sees, in training and ever after: pixels / 255, minus mean, over standard deviation."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    standard_deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, pixels: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Turn pixels into a network's input.

        Args:
            pixels: uint8 (batch, 3, height, width).
            change: applied in between, to values in [0, 1]: where augmentation goes.

        Returns:
            float32 (batch, 3, height, width), in the memory format of `pixels`.
        """
        values = pixels.to(torch.float32).div_(255.0)
        if change is not None:
            values = change(values)
        if self.mean == (0.0, 0.0, 0.0) and self.standard_deviation == (1.0, 1.0, 1.0):
            return values
        mean, deviation = (per_channel(each, values.device) for each in (self.mean, self.standard_deviation))
        return (values - mean) / deviation

    def converted(self, inputs: Tensor, other: Standardise) -> Tensor:
        """What this one would have made of the pixels of which another one has made `inputs`, in the same shape."""
        if self == other:
            return inputs
        deviations = list(zip(other.standard_deviation, self.standard_deviation, strict=True))
        factor = tuple(theirs / ours for theirs, ours in deviations)
        means = zip(other.mean, self.mean, self.standard_deviation, strict=True)
        shift = tuple((theirs - ours) / deviation for theirs, ours, deviation in means)
        return torch.addcmul(per_channel(shift, inputs.device), inputs, per_channel(factor, inputs.device))


def on_device(images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """Move a set to a device once, as it is.

    Returns:
        pixels uint8 (n, 3, height, width) in channels-last memory format, and labels int64 (n,).
    """
    # (n, height, width, channels) in memory is exactly what channels-last means: a view, no copy on the CPU.
    pixels = torch.from_numpy(np.ascontiguousarray(images.pixels)).to(device).permute(0, 3, 1, 2)
    return pixels, torch.from_numpy(images.labels).to(device)


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream belongs to these numbers, such as (seed, purpose, epoch, step)."""
    state = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


class Loader:
    """Shuffled, augmented, standardised batches of a training set."""

    ORDER, CHANGES, MIRRORED, SHIFTS, MIXING, SAMPLE = 1, 2, 7, 8, 9, 10  # purposes of random streams

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        standardise: Standardise,
        augment: Augment | None = None,
        alternating_flip: bool = False,
        translate_pixels: int = 0,
        mixing: Mixing | None = None,
        drop_last: bool = False,
        device: torch.device | None = None,
        part: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        """Put the images on the device; see `on_device`.

        Args:
            images: to train on.
            batch_size: most images in a batch.
            seed: decides order and changes.
            standardise: pixels -> network input.
            augment: changes to values in [0, 1], if there are any.
            alternating_flip: mirror each image in every other epoch, half of them in the first one (Jordan 2024): two
                epochs show each image both ways, where chance would show one in two only.
            translate_pixels: shift by up to this many whole pixels.
            mixing: how images are mixed with each other, if they are.
            drop_last: every batch has `batch_size` images; an epoch leaves out those that are left over.
            device: where the images lie.
            part: images in a batch -> those that this process makes of it, from and to; None makes all. Plans and draws
                are those of the whole batch, so that processes together make the same images as one.
        """
        self.pixels, self.labels = on_device(images, device or torch.device("cpu"))
        self.batch_size = batch_size
        self.seed = seed
        self.standardise = standardise
        self.augment = augment
        self.translate_pixels = translate_pixels
        self.mixing = mixing
        self.drop_last = drop_last and batch_size < len(self.labels)
        first = torch.rand(len(self.labels), generator=seeded(seed, self.MIRRORED)) < 0.5
        self._mirrored_first = first.to(self.labels.device) if alternating_flip else None
        self._part = part

    @property
    def steps(self) -> int:
        """Batches in an epoch that leaves out no image on purpose."""
        return self._steps(len(self.labels))

    @property
    def images(self) -> int:
        """Images in such an epoch."""
        return self.steps * self.batch_size if self.drop_last else len(self.labels)

    @property
    def smallest_batch(self) -> int:
        """Images in the smallest of them."""
        return self.images // self.steps

    def sample(self, number: int) -> Tensor:
        """Some images of the set as a network sees them, unchanged: float32 (number or all, 3, height, width).

        Drawn by the seed: the first ones of a folder are all of one class.
        """
        chosen = torch.randperm(len(self.labels), generator=seeded(self.seed, self.SAMPLE))[:number]
        return self.standardise(self.pixels[chosen.to(self.pixels.device)])

    def plan(self, epoch: int, left_out: Tensor | None = None) -> tuple[Tensor, ...]:
        """Which images each step of an epoch takes.

        Args:
            epoch: counted from 0.
            left_out: bool (n,), images that this epoch does without; None uses all.

        Returns:
            For each step, int64 (batch,) on the device. No image comes twice. Batches differ in size by one image at
            most: a small last one would be a noisy step, and one of a single image would make batch normalisation fail.
        """
        order = torch.randperm(len(self.labels), generator=seeded(self.seed, self.ORDER, epoch))
        if left_out is not None:
            order = order[~left_out.cpu()[order]]
        steps = max(self._steps(len(order)), 1)
        kept = order[: steps * self.batch_size] if self.drop_last else order
        return kept.to(self.labels.device).tensor_split(steps)

    def lengths(self, images: int | None = None) -> list[int]:
        """Images in each batch of an epoch that takes so many; None are all of them."""
        number = len(self.labels) if images is None else images
        steps = max(self._steps(number), 1)
        number = min(number, steps * self.batch_size)
        return [number // steps + (step < number % steps) for step in range(steps)]

    def draw(self, epoch: int, step: int, chosen: Tensor) -> Draws:
        """What chance says of a batch; all of it lies on the CPU, but for `chosen`.

        Args:
            epoch: counted from 0.
            step: counted from 0; with the epoch it decides what is changed in the images.
            chosen: int64 (batch,), from `plan`.
        """
        batch = len(chosen)
        shift = torch.empty((2, 0), dtype=torch.int64)
        if self.translate_pixels:
            shift = shifts(self.translate_pixels, batch, seeded(self.seed, self.SHIFTS, epoch, step))
        changes = torch.empty((0, batch))
        if self.augment is not None:
            changes = self.augment.draw(batch, seeded(self.seed, self.CHANGES, epoch, step))
        mixing = torch.empty((5, 0))
        if self.mixing is not None:
            mixing = self.mixing.draw(batch, [self.seed, self.MIXING, epoch, step])
        return Draws(chosen, torch.tensor(epoch % 2 == 1), shift, changes, mixing)

    def batch(self, draws: Draws, size: tuple[int, int] | None = None) -> Batch:
        """What a step trains on: of the batch that is drawn, what this process takes.

        Args:
            draws: from `draw`, on the device.
            size: (height, width) that images are scaled down to, after they were changed; None leaves them as they are.
        """
        if self._part is not None:
            draws = self._own(draws, *self._part(len(draws.chosen)))

        def change(values: Tensor) -> Tensor:
            if self.augment is not None:
                values = self.augment(values, draws.changes)
            return values if size is None else scaled_down(values, size)

        # What needs no arithmetic is done while pixels are bytes.
        mirrored = None if self._mirrored_first is None else self._mirrored_first[draws.chosen] ^ draws.turned
        pixels = moved(self.pixels, draws.chosen, draws.shift if self.translate_pixels else None, mirrored)
        inputs, labels = self.standardise(pixels, change), self.labels[draws.chosen]
        if self.mixing is None:
            return Batch(inputs, labels, None, None)
        inputs, share = self.mixing(inputs, draws.mixing)
        made = Batch(inputs, labels, labels.roll(1), share)
        return made if self._part is None else Batch(*(each[1:] for each in made if each is not None))

    def _own(self, draws: Draws, begin: int, end: int) -> Draws:
        """A part of a batch; where images are mixed, with the image before it, which is mixed into its first one."""
        if self.mixing is not None:
            places = torch.arange(begin - 1, end, device=draws.chosen.device) % len(draws.chosen)
            part = [each[..., places] if each.dim() and each.shape[-1] else each for each in draws]
        else:
            part = [each[..., begin:end] if each.dim() else each for each in draws]
        return Draws(*part)

    def _steps(self, images: int) -> int:
        return images // self.batch_size if self.drop_last else math.ceil(images / self.batch_size)
