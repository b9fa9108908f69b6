from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thirtytwo.data.augment import Augment, moved, scaled_down, shifts
from thirtytwo.data.loader import seeded

EVERYTHING = Augment(rotation_degrees=15, width_shift=0.1, height_shift=0.1, horizontal_flip=True)


def changed(augment: Augment, images: Tensor, generator: torch.Generator) -> Tensor:
    return augment(images, augment.draw(len(images), generator))


@pytest.fixture
def images() -> Tensor:
    return torch.rand((64, 3, 16, 12), generator=seeded(1))


def test_strength_zero_is_the_identity_to_the_bit(images: Tensor) -> None:
    assert torch.equal(changed(Augment(), images, seeded(0)), images)


def test_same_seed_same_pictures(images: Tensor) -> None:
    assert torch.equal(changed(EVERYTHING, images, seeded(7)), changed(EVERYTHING, images, seeded(7)))
    assert not torch.equal(changed(EVERYTHING, images, seeded(7)), changed(EVERYTHING, images, seeded(8)))


def test_flip_mirrors_about_half_of_the_images_exactly(images: Tensor) -> None:
    flipped = changed(Augment(horizontal_flip=True), images, seeded(0))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 16 < int(mirrored.sum()) < 48


def test_flip_in_a_resampling_agrees_with_the_exact_flip(images: Tensor) -> None:
    exact = changed(Augment(horizontal_flip=True), images, seeded(3))
    resampled = changed(Augment(horizontal_flip=True, rotation_degrees=1e-6), images, seeded(3))
    assert torch.allclose(exact, resampled, atol=1e-4)


def test_shift_moves_by_at_most_its_share_and_by_every_amount_between() -> None:
    ramp = (torch.arange(32.0) / 31).expand(2000, 1, 32, 32).contiguous()  # value = column / 31
    moved = changed(Augment(width_shift=0.125), ramp, seeded(0))[:, 0, 16, 16] * 31 - 16
    assert moved.abs().max() <= 4.0 + 1e-4
    assert moved.min() < -3.8
    assert moved.max() > 3.8
    assert abs(float(moved.mean())) < 0.2


def test_height_shift_moves_rows_only() -> None:
    columns = (torch.arange(32.0) / 31).expand(10, 1, 32, 32).contiguous()
    assert torch.allclose(changed(Augment(height_shift=0.2), columns, seeded(0)), columns, atol=1e-4)


def test_rotation_stays_within_its_range_and_keeps_an_oblong_image_undistorted() -> None:
    height, width = 33, 65
    y, x = torch.meshgrid(torch.arange(height) - 16.0, torch.arange(width) - 32.0, indexing="ij")
    radius = ((x**2 + y**2).sqrt() / 40).expand(20, 1, height, width).contiguous()
    turned = changed(Augment(rotation_degrees=180), radius, seeded(0))
    inside = radius[0, 0] < 14 / 40  # what stays in the picture however it is turned
    assert (turned - radius)[:, 0, inside].abs().max() < 0.6 / 40  # circles stay circles

    gradient = (x / 64 + 0.5).expand(500, 1, height, width).contiguous()
    turned = changed(Augment(rotation_degrees=20), gradient, seeded(0))
    angles = torch.rad2deg(
        torch.atan2(turned[:, 0, 18, 32] - turned[:, 0, 14, 32], turned[:, 0, 16, 34] - turned[:, 0, 16, 30])
    )
    assert angles.abs().max() <= 20.1
    assert angles.max() > 18
    assert angles.min() < -18


def test_values_stay_between_zero_and_one_though_bicubic_weights_overshoot() -> None:
    edges = (torch.rand((64, 3, 16, 16), generator=seeded(1)) < 0.5).float()
    found = changed(EVERYTHING, edges, seeded(0))
    assert found.shape == edges.shape
    assert found.min() >= 0
    assert found.max() <= 1


def test_brightness_shifts_and_contrast_scales_every_image_by_its_own_amount() -> None:
    grey = 0.4 + 0.2 * torch.rand((400, 3, 8, 8), generator=seeded(2))
    shifted = (changed(Augment(brightness=0.2), grey, seeded(0)) - grey).flatten(1)
    assert torch.allclose(shifted, shifted[:, :1].expand_as(shifted), atol=1e-6)
    assert -0.2 <= shifted.min() < -0.19
    assert 0.19 < shifted.max() <= 0.2 + 1e-6

    scaled = changed(Augment(contrast=0.5), grey, seeded(0))
    mean = grey.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(scaled.mean((1, 2, 3), keepdim=True), mean, atol=1e-6)
    factors = ((scaled - mean) / (grey - mean)).flatten(1).median(1).values
    assert torch.allclose(scaled - mean, (grey - mean) * factors[:, None, None, None], atol=1e-5)
    assert 0.5 - 1e-3 <= factors.min() < 0.52
    assert 1.48 < factors.max() <= 1.5 + 1e-3


@pytest.mark.parametrize("side", [1, 5, 12])
def test_cutout_paints_one_square_inside_each_image_and_nothing_else(images: Tensor, side: int) -> None:
    fill = (2.0, 3.0, 4.0)  # no pixel has such a colour
    painted = changed(Augment(cutout_pixels=side, fill=fill), images, seeded(0))
    covered = painted == torch.tensor(fill)[:, None, None]
    assert torch.equal(covered, covered[:, :1].expand_as(covered))
    assert torch.equal(painted[~covered], images[~covered])
    for square in covered[:, 0]:
        rows, columns = square.any(1).nonzero(), square.any(0).nonzero()
        assert int(square.sum()) == side**2
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == side - 1
    if side == 1:  # 64 places among 16 × 12
        assert len({tuple(square.nonzero()[0].tolist()) for square in covered[:, 0]}) > 40


def test_cutout_beyond_the_border_keeps_the_centre_of_its_square_inside() -> None:
    pictures = torch.zeros((4000, 3, 10, 10))
    cut = Augment(cutout_pixels=4, cutout_beyond_border=True, fill=(1.0, 1.0, 1.0))
    covered = changed(cut, pictures, seeded(0))[:, 0].bool()
    heights, widths = covered.any(2).sum(1), covered.any(1).sum(1)
    assert torch.equal(covered.sum((1, 2)), heights * widths)  # rectangles
    assert set(heights.tolist()) == set(widths.tolist()) == {2, 3, 4}  # half of it is always inside
    # Pixel x is covered if the centre lies at x - 1 to x + 2, of ten places.
    expected = torch.tensor([3, 4, 4, 4, 4, 4, 4, 4, 3, 2]) / 10
    assert torch.allclose(covered.float().mean(0), expected[:, None] * expected, atol=0.03)


def test_one_change_leaves_the_randomness_of_the_others_alone(images: Tensor) -> None:
    flipped = changed(Augment(horizontal_flip=True), images, seeded(0))
    both = changed(Augment(horizontal_flip=True, cutout_pixels=4, fill=(2.0, 2.0, 2.0)), images, seeded(0))
    assert torch.equal(both[both != 2.0], flipped[both != 2.0])


def test_erasing_paints_one_rectangle_inside_of_some_images() -> None:
    pictures = torch.rand((400, 3, 32, 32), generator=seeded(1))
    painted = changed(Augment(erasing_probability=0.25, fill=(2.0, 2.0, 2.0)), pictures, seeded(0))
    covered = (painted == 2.0).all(1)
    assert torch.equal(painted[~covered[:, None].expand_as(painted)], pictures[~covered[:, None].expand_as(painted)])
    is_erased = covered.flatten(1).any(1)
    assert 70 < int(is_erased.sum()) < 130
    for rectangle in covered[is_erased]:
        rows, columns = int(rectangle.any(1).sum()), int(rectangle.any(0).sum())
        assert int(rectangle.sum()) == rows * columns
        assert 0.01 < rows * columns / 1024 < 0.36
        assert 1 / 4 <= rows / columns <= 4


@pytest.mark.parametrize("mirror", [False, True])
def test_moving_agrees_with_reflect_padding_and_cropping(mirror: bool) -> None:
    images = torch.randint(0, 256, (30, 3, 9, 7), dtype=torch.uint8, generator=seeded(1))
    images = images.contiguous(memory_format=torch.channels_last)
    chosen, shift = torch.randperm(30, generator=seeded(2))[:20], shifts(4, 20, seeded(3))
    mirrored = torch.rand(20, generator=seeded(4)) < 0.5 if mirror else None
    found = moved(images, chosen, shift, mirrored)
    assert found.dtype == torch.uint8
    assert found.is_contiguous(memory_format=torch.channels_last)
    for row, (number, down, right) in enumerate(zip(chosen, *shift, strict=True)):
        image = images[number].float()[None]
        if mirrored is not None and mirrored[row]:
            image = image.flip(3)
        padded = torch.nn.functional.pad(image, (4, 4, 4, 4), mode="reflect")
        expected = padded[0, :, 4 - down : 13 - down, 4 - right : 11 - right]
        assert torch.equal(found[row].float(), expected)


def test_moving_by_nothing_is_taking() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    chosen = torch.tensor([3, 1])
    nothing = torch.zeros((2, 2), dtype=torch.int64)
    assert torch.equal(moved(images, chosen, None, None), images[chosen])
    assert torch.equal(moved(images, chosen, nothing, torch.tensor([False, False])), images[chosen])


def test_shifts_are_even_in_both_directions() -> None:
    drawn = shifts(2, 5000, seeded(0))
    assert drawn.shape == (2, 5000)
    for axis in drawn:
        counts = torch.bincount(axis + 2, minlength=5)
        assert len(counts) == 5
        assert counts.min() > 900


@pytest.mark.parametrize("size", [(16, 16), (20, 20), (24, 28), (31, 31)])
def test_scaling_down_keeps_what_is_even_and_the_mean_of_what_is_not(size: tuple[int, int]) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    even = torch.full((1, 3, 32, 32), 0.25)
    torch.testing.assert_close(scaled_down(even, size), torch.full((1, 3, *size), 0.25))
    small = scaled_down(images, size)
    assert small.shape == (4, 3, *size)
    assert bool((small.mean((2, 3)) - images.mean((2, 3))).abs().max() < 0.03)
    assert scaled_down(images, (32, 32)) is images


def test_scaling_down_does_not_alias() -> None:
    stripes = (torch.arange(32) % 2).float().expand(1, 3, 32, 32)
    inside = scaled_down(stripes, (16, 16))[..., 2:-2]
    assert bool((inside - 0.5).abs().max() < 0.1)  # every second column alone would be all 0 or all 1
