from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from thirtytwo.data import policies
from thirtytwo.data.augment import Augment
from thirtytwo.data.loader import seeded
from thirtytwo.data.policies import (
    GEOMETRIC,
    OPERATIONS,
    OTHER_THAN_CORRUPTIONS,
    PHOTOMETRIC,
    AugMix,
    Limits,
    Policy,
    RandAugment,
    TrivialAugment,
    changed_by,
    drawn,
)

POLICIES = [RandAugment(2, 0.7), RandAugment(3, 1.0), TrivialAugment(), AugMix(strength=0.7)]
NEUTRAL = sorted(set(OPERATIONS) - {"autocontrast", "equalize"})  # what has an amount that changes nothing


@pytest.fixture
def images() -> Tensor:
    levels = torch.randint(0, 256, (40, 3, 16, 12), generator=seeded(1))
    return levels / 255


def by(name: str, images: Tensor, amount: float, limits: Limits | None = None) -> Tensor:
    which = torch.full((len(images),), OPERATIONS.index(name))
    return changed_by(images, which, torch.full((len(images),), amount), limits or Limits())


def numbers(policy: Policy, images: Tensor, seed: int = 0) -> Tensor:
    return torch.rand((policy.numbers, len(images)), generator=seeded(seed))


@pytest.mark.parametrize("name", NEUTRAL)
def test_an_amount_of_zero_changes_nothing(name: str, images: Tensor) -> None:
    assert torch.allclose(by(name, images, 0.0), images, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
@pytest.mark.parametrize("amount", [-1.0, 1.0])
def test_every_operation_changes_pictures_and_stays_between_zero_and_one(
    name: str, amount: float, images: Tensor
) -> None:
    soft = 0.2 + 0.5 * images
    found = by(name, soft, amount)
    assert found.shape == soft.shape
    assert not torch.allclose(found, soft, atol=1e-3)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_same_numbers_same_pictures_and_each_image_is_on_its_own(policy: Policy, images: Tensor) -> None:
    draws = numbers(policy, images)
    found = policy(images, draws)
    assert torch.equal(found, policy(images, draws))
    assert not torch.equal(found, policy(images, numbers(policy, images, seed=1)))
    order = torch.randperm(len(images), generator=seeded(2))
    assert torch.allclose(policy(images[order], draws[:, order]), found[order], atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_a_strength_of_zero_leaves_only_what_has_no_strength(images: Tensor) -> None:
    policy = RandAugment(1, 0.0)
    draws = numbers(policy, images)
    which, _ = drawn(draws[0], draws[1], draws[0])
    strengthless = torch.isin(which, torch.tensor([OPERATIONS.index(name) for name in ("autocontrast", "equalize")]))
    found = policy(images, draws)
    assert torch.allclose(found[~strengthless], images[~strengthless], atol=1e-6)


def test_every_operation_is_drawn_as_often_both_ways() -> None:
    draws = torch.rand((2, 28_000), generator=seeded(0))
    which, amounts = drawn(draws[0], draws[1], torch.ones(28_000))
    counts = torch.bincount(which, minlength=len(OPERATIONS))
    assert len(counts) == len(OPERATIONS) == len(PHOTOMETRIC) + len(GEOMETRIC) == 14
    assert counts.min() > 1800
    assert abs(float(amounts.mean())) < 0.02


def test_equalize_makes_histograms_even() -> None:
    dark = torch.rand((4, 3, 64, 64), generator=seeded(0)) ** 1.3
    found = by("equalize", dark, 1.0)
    counts = torch.histc(found, bins=8, min=0, max=1) / found.numel()
    assert (counts - 1 / 8).abs().max() < 0.02
    channel = by("equalize", dark[:1, :1].expand(1, 3, 64, 64), 1.0)[0, 0].flatten()
    assert bool((channel[dark[0, 0].flatten().argsort()].diff() >= 0).all())  # brighter stays brighter


def test_autocontrast_spans_the_whole_range_and_one_colour_stays(images: Tensor) -> None:
    found = by("autocontrast", 0.3 + 0.2 * images, 1.0)
    assert torch.allclose(found.amin((2, 3)), torch.zeros(()), atol=1e-5)
    assert torch.allclose(found.amax((2, 3)), torch.ones(()), atol=1e-5)
    flat = torch.full((1, 3, 8, 8), 0.4)
    for name in ("autocontrast", "equalize", "sharpness", "contrast"):
        assert torch.allclose(by(name, flat, 1.0), flat, atol=1e-6), name


def test_posterize_leaves_few_levels_and_solarize_inverts_what_is_bright(images: Tensor) -> None:
    limits = Limits(levels=1.0)
    levels = [len(torch.unique(by("posterize", images, amount, limits))) for amount in (0.0, 1 / 3, 2 / 3, 1.0)]
    assert levels[-1] == 4
    assert all(fewer < more for more, fewer in pairwise(levels))
    assert torch.allclose(by("solarize", images, 1.0)[images > 0], 1 - images[images > 0])


def test_translation_moves_by_its_share_and_fills_with_black() -> None:
    columns = (torch.arange(20.0) / 19).expand(1, 3, 10, 20).contiguous()
    moved = by("translate_x", columns, 1.0, Limits(translation=0.25))
    assert torch.allclose(moved[..., :15], columns[..., 5:], atol=1e-5)
    assert torch.allclose(moved[..., 15:], torch.zeros(1, 3, 10, 5), atol=1e-4)
    assert torch.allclose(by("translate_y", columns.mT, 1.0, Limits(translation=0.25)), moved.mT, atol=1e-5)


def test_a_turn_by_ninety_degrees_is_a_turn_by_ninety_degrees() -> None:
    square = torch.rand((1, 3, 9, 9), generator=seeded(3))
    turned = by("rotate", square, 1.0, Limits(degrees=90))
    assert torch.allclose(turned, square.rot90(1, (2, 3)), atol=1e-5) or torch.allclose(
        turned, square.rot90(-1, (2, 3)), atol=1e-5
    )


def test_augmix_leaves_out_what_robustness_is_measured_by(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    change = policies.changed_by

    def look(images: Tensor, which: Tensor, amounts: Tensor, limits: Limits) -> Tensor:
        seen.update(OPERATIONS[number] for number in which.tolist())
        return change(images, which, amounts, limits)

    monkeypatch.setattr(policies, "changed_by", look)
    for seed in range(10):
        AugMix()(images, numbers(AugMix(), images, seed))
    assert seen - {"identity"} == set(OPERATIONS) - {"identity", "brightness", "colour", "contrast", "sharpness"}


def test_each_of_some_operations_is_drawn_as_often() -> None:
    draws = torch.rand((2, 9_000), generator=seeded(0))
    which, _ = drawn(draws[0], draws[1], torch.ones(9_000), OTHER_THAN_CORRUPTIONS)
    counts = torch.bincount(which, minlength=len(OPERATIONS))
    assert {place for place, count in enumerate(counts.tolist()) if count} == set(OTHER_THAN_CORRUPTIONS)
    assert counts[list(OTHER_THAN_CORRUPTIONS)].min() > 850


def test_an_augmix_picture_lies_between_the_image_and_its_chains(images: Tensor) -> None:
    policy = AugMix(strength=1.0)
    draws = numbers(policy, images)
    draws[0] = 0.999999  # all of the image itself
    assert torch.allclose(policy(images, draws), images, atol=1e-4)
    draws[0] = 0.0  # nothing of it
    draws[[1, 9, 17]] = torch.tensor([0.0, 0.9, 0.0])[:, None]  # one chain only
    alone = AugMix(chains=1, strength=1.0)(images, draws[[0, *range(9, 17)]])
    assert torch.allclose(policy(images, draws), alone, atol=1e-5)


def test_a_policy_leaves_the_other_changes_randomness_alone(images: Tensor) -> None:
    plain, more = Augment(horizontal_flip=True), Augment(horizontal_flip=True, policy=RandAugment(2, 0.5))
    first, second = (augment.draw(len(images), seeded(0)) for augment in (plain, more))
    second[[13, 15], :10] = 0.0  # nothing is what these get twice
    assert torch.equal(first, second[: len(first)])
    which, _ = drawn(second[13], second[14], second[13])
    unchanged = (which == 0) & (drawn(second[15], second[16], second[15])[0] == 0)
    assert int(unchanged.sum()) >= 10
    assert torch.equal(more(images, second)[unchanged], plain(images, first)[unchanged])
