from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from thirtytwo.data.corrupt import STRENGTHS, Corruption, corrupted


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Smooth colours with edges, like pictures."""
    places = np.arange(32)
    waves = np.sin(places[:, None] / 5)[None, :, :, None] * np.cos(places / 7)[None, None, :, None]
    tones = np.random.default_rng(0).uniform(40, 80, (12, 1, 1, 3))
    images: NDArray[np.float64] = 128 + tones * waves
    images[:, 8:20, 10:24] += 30
    pictures: NDArray[np.uint8] = images.round().astype(np.uint8)
    return pictures


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("kind", STRENGTHS)
def test_stronger_is_further_from_the_original(kind: Corruption, pixels: NDArray[np.uint8]) -> None:
    before = pixels.copy()
    versions = [corrupted(pixels, kind, strength) for strength in range(1, 6)]
    assert all(version.shape == pixels.shape and version.dtype == np.uint8 for version in versions)
    distances = [distance(version, pixels) for version in versions]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("kind", STRENGTHS)
def test_an_image_is_the_same_in_any_company(kind: Corruption, pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(corrupted(pixels, kind, 3)[:5], corrupted(pixels[:5], kind, 3))
    assert len(corrupted(pixels[:0], kind, 3)) == 0


def test_only_noise_and_shifts_are_drawn(pixels: NDArray[np.uint8]) -> None:
    drawn = {kind for kind in STRENGTHS if distance(corrupted(pixels, kind, 5, 0), corrupted(pixels, kind, 5, 1))}
    assert drawn == {"noise", "shift"}


def test_what_each_does(pixels: NDArray[np.uint8]) -> None:
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    assert corrupted(grey, "noise", 5).std() == pytest.approx(0.1 * 255, rel=0.02)
    assert np.array_equal(corrupted(grey, "blur", 5), grey)
    assert (corrupted(grey, "brightness", 3) == 128 + round(0.15 * 255)).all()
    assert np.array_equal(corrupted(grey, "contrast", 5), grey)
    assert corrupted(pixels, "contrast", 4).std((1, 2, 3)) == pytest.approx(0.3 * pixels.std((1, 2, 3)), rel=0.02)
    moved = corrupted(pixels, "shift", 2)
    inner = slice(6, -6)
    candidates = [np.roll(pixels, (down, right), (1, 2)) for down in (-2, 2) for right in (-2, 2)]
    for index in range(len(pixels)):
        assert any(np.array_equal(moved[index, inner, inner], one[index, inner, inner]) for one in candidates)


def test_a_dot_is_blurred_into_a_gaussian() -> None:
    dot = np.zeros((1, 31, 31, 3), np.uint8)
    dot[0, 15, 15] = 255
    seen = corrupted(dot, "blur", 5)[0, :, :, 0].astype(float)
    squares = (np.arange(31) - 15.0) ** 2
    assert seen.sum() == pytest.approx(255, rel=0.05)
    assert (seen.sum(0) * squares).sum() / seen.sum() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("kind", "strength"), [("fog", 1), ("noise", 0), ("noise", 6)])
def test_an_unknown_corruption_is_refused(kind: Corruption, strength: int, pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="expected one of noise"):
        corrupted(pixels, kind, strength)
