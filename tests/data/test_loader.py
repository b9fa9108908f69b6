from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.data.augment import Augment
from thirtytwo.data.images import Images
from thirtytwo.data.loader import Loader, Standardise, on_device, seeded


def numbered(images: Images) -> Images:
    """Writes each image's number into its first pixel."""
    pixels = images.pixels.copy()
    pixels[:, 0, 0, 0] = range(len(images))
    return Images(pixels, images.labels, images.classes, images.name)


def loader(images: Images, batch_size: int = 32, seed: int = 0) -> Loader:
    return Loader(images, batch_size=batch_size, seed=seed, standardise=Standardise())


def epoch_of(made: Loader, epoch: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch from a step on."""
    plan = made.plan(epoch)
    return [made.batch(made.draw(epoch, step, plan[step]))[:2] for step in range(start, len(plan))]


@given(batch_size=st.integers(1, 300), epoch=st.integers(0, 5))
def test_an_epoch_shows_every_image_once_in_batches_that_differ_by_one_at_most(batch_size: int, epoch: int) -> None:
    labels = np.arange(200, dtype=np.int64) % 4
    images = numbered(Images(np.zeros((200, 2, 2, 3), np.uint8), labels, ("a", "b", "c", "d"), "made"))
    batches = epoch_of(loader(images, batch_size), epoch)
    seen = torch.cat([(inputs[:, 0, 0, 0] * 255).round().long() for inputs, _ in batches])
    assert sorted(seen.tolist()) == list(range(200))
    assert torch.equal(torch.cat([part for _, part in batches]), torch.from_numpy(labels)[seen])
    sizes = [len(part) for _, part in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_order_is_a_function_of_seed_and_epoch(small_images: Images) -> None:
    def order(seed: int, epoch: int) -> list[float]:
        return [
            float(v)
            for inputs, _ in epoch_of(loader(numbered(small_images), seed=seed), epoch)
            for v in inputs[:, 0, 0, 0]
        ]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_a_sample_is_drawn_by_the_seed_from_the_whole_set(small_images: Images) -> None:
    def sample(number: int, seed: int = 0) -> list[float]:
        return [float(value) for value in loader(numbered(small_images), seed=seed).sample(number)[:, 0, 0, 0]]

    everything = sample(len(small_images))
    assert len(set(everything)) == len(small_images)
    assert sorted(sample(10 * len(small_images))) == sorted(everything)
    assert sample(20) == sample(20) != sample(20, seed=1)
    assert max(sample(20)) > 20 / 255  # not the first ones


def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(small_images: Images) -> None:
    def make() -> Loader:
        augment = Augment(rotation_degrees=10, horizontal_flip=True)
        return Loader(small_images, batch_size=32, seed=3, standardise=Standardise(), augment=augment)

    whole, rest = epoch_of(make(), 4), epoch_of(make(), 4, start=3)
    assert len(rest) == len(whole) - 3
    for (inputs, labels), (inputs_again, labels_again) in zip(whole[3:], rest, strict=True):
        assert torch.equal(inputs, inputs_again)
        assert torch.equal(labels, labels_again)


def test_pixels_become_zero_to_one_then_standardised() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 1, 1, 3).repeat(1, 3, 1, 1)
    assert torch.equal(Standardise()(pixels)[0, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    standardised = Standardise((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))(pixels)
    assert torch.allclose(standardised[0, :, 0, 2], torch.tensor([2.0, 1.0, 0.5]))


def test_augmentation_sees_values_from_zero_to_one() -> None:
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    seen: list[torch.Tensor] = []

    def look(values: torch.Tensor) -> torch.Tensor:
        seen.append(values.clone())
        return values

    Standardise((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))(pixels, look)
    assert float(seen[0].max()) == 1.0


def test_images_lie_on_the_device_as_bytes_in_channels_last_order(small_images: Images) -> None:
    pixels, labels = on_device(small_images, torch.device("cpu"))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels.permute(0, 2, 3, 1), torch.from_numpy(small_images.pixels))
    assert labels.dtype == torch.int64


def test_streams_of_different_numbers_are_different() -> None:
    draws = {tuple(torch.rand(2, generator=seeded(a, b)).tolist()) for a in range(30) for b in range(30)}
    assert len(draws) == 900


def test_dropping_the_last_batch_makes_all_of_one_size_and_leaves_out_others_each_epoch(small_images: Images) -> None:
    made = Loader(numbered(small_images), batch_size=60, seed=0, standardise=Standardise(), drop_last=True)
    assert (made.steps, made.images, made.smallest_batch) == (3, 180, 60)
    epochs = []
    for epoch in range(2):
        batches = epoch_of(made, epoch)
        assert [len(labels) for _, labels in batches] == [60, 60, 60]
        seen = torch.cat([(inputs[:, 0, 0, 0] * 255).round().long() for inputs, _ in batches]).tolist()
        assert len(set(seen)) == 180
        epochs.append(set(seen))
    assert epochs[0] != epochs[1]
    few = Loader(small_images, batch_size=1000, seed=0, standardise=Standardise(), drop_last=True)
    assert (few.steps, few.images) == (1, 200)


def test_two_epochs_of_alternating_flips_show_each_image_both_ways(small_images: Images) -> None:
    pixels = small_images.pixels.copy()
    pixels[:, 0, 0, 0], pixels[:, 0, -1, 0] = 0, 255  # the corners tell left from right
    pixels[:, 1, :, 0] = np.arange(200, dtype=np.uint8)[:, None]  # and this says which image it is
    images = Images(pixels, small_images.labels, small_images.classes, "made")
    made = Loader(images, batch_size=32, seed=0, standardise=Standardise(), alternating_flip=True)
    ways = []
    for epoch in range(3):
        inputs = torch.cat([inputs for inputs, _ in epoch_of(made, epoch)])
        order = (inputs[:, 0, 1, 0] * 255).round().long().argsort()
        ways.append(inputs[order, 0, 0, 0] == 1.0)
    assert torch.equal(ways[0], ~ways[1])
    assert torch.equal(ways[0], ways[2])
    assert 70 < int(ways[0].sum()) < 130


@given(share=st.floats(0, 1), drop_last=st.booleans(), batch_size=st.integers(1, 100))
def test_what_is_left_out_is_in_no_batch_and_the_rest_as_before(share: float, drop_last: bool, batch_size: int) -> None:
    labels = np.arange(200, dtype=np.int64) % 4
    images = Images(np.zeros((200, 2, 2, 3), np.uint8), labels, ("a", "b", "c", "d"), "made")
    made = Loader(images, batch_size=batch_size, seed=0, standardise=Standardise(), drop_last=drop_last)
    left_out = torch.rand(200, generator=seeded(1)) < share
    kept = torch.cat(made.plan(2, left_out)).tolist()
    whole = [place for place in torch.cat(made.plan(2)).tolist() if not left_out[place]]
    everything = int((~left_out).sum())
    both = min(len(kept), len(whole))
    assert kept[:both] == whole[:both]  # in the same order
    assert len(set(kept)) == len(kept)
    assert not left_out[kept].any()
    assert len(kept) == (min(everything, max(everything // batch_size, 1) * batch_size) if drop_last else everything)
