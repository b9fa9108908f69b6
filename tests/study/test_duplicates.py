"""Duplicates: what shows the same is found, however it was changed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import audit
from thirtytwo import load_data
from thirtytwo.data import Images
from thirtytwo.data import find as find_data
from thirtytwo.data.exclusion import picture_of
from thirtytwo.data.images import Split
from thirtytwo.data.shapes import draw
from thirtytwo.study import duplicates
from thirtytwo.study.duplicates import SAME_PICTURE, candidates, compared, find, is_flat


def images(pixels: NDArray[np.uint8]) -> Images:
    return Images(pixels, np.zeros(len(pixels), np.int64), ("a", "b"), "made")


def features(number: int, seed: int = 0) -> Tensor:
    rows = torch.randn((number, 16), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


DRAWN = draw(40, seed=3).images.pixels


@given(
    mirrored=st.booleans(),
    down=st.integers(-2, 2),
    right=st.integers(-2, 2),
    brightness=st.integers(-20, 20),
    contrast=st.floats(0.7, 1.0),
    number=st.integers(0, 39),
)
@settings(max_examples=25)
def test_a_changed_copy_is_near(
    mirrored: bool, down: int, right: int, brightness: int, contrast: float, number: int
) -> None:
    original = DRAWN[number].astype(np.float64)
    copy = np.roll(original[:, ::-1] if mirrored else original, (down, right), (0, 1))
    copy = np.clip((copy - 128) * contrast + 128 + brightness, 0, 255)
    if ((copy == 0) | (copy == 255)).mean() > 0.1:
        return  # too much of it is lost
    both = torch.from_numpy(np.stack([original, copy]).astype(np.uint8)).movedim(-1, 1)
    (distance,) = compared(both, torch.tensor([[0, 1]]))
    assert distance < SAME_PICTURE
    assert torch.allclose(compared(both, torch.tensor([[1, 0]])), distance, atol=1e-4)


def test_different_pictures_are_far_apart() -> None:
    pixels = torch.from_numpy(DRAWN).movedim(-1, 1)
    pairs = torch.combinations(torch.arange(40))
    assert (compared(pixels, pairs) < SAME_PICTURE).sum() == 0


def test_images_of_one_colour_are_like_each_other_only() -> None:
    pixels = np.concatenate([np.full((2, 32, 32, 3), 90, np.uint8), DRAWN[:1]])
    pixels[1] = 200
    distances = compared(torch.from_numpy(pixels).movedim(-1, 1), torch.tensor([[0, 1], [0, 2]]))
    assert distances.tolist() == [0.0, pytest.approx(1.0) if distances[1] < torch.inf else torch.inf]
    assert is_flat(images(pixels)).tolist() == [True, True, False]


def test_neighbours_are_those_with_the_largest_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 3)
    monkeypatch.setattr(duplicates, "ROWS", 7)
    training, test = features(20), features(11, seed=1)
    everything = torch.cat([training, test])
    likeness = everything @ everything.T
    likeness.fill_diagonal_(-2)
    expected = set()
    for row in range(31):
        parts = [range(20)] if row < 20 else [range(20), range(20, 31)]
        for part in parts:
            nearest = sorted(part, key=lambda column: -likeness[row, column])[:3]
            expected |= {(min(row, column), max(row, column)) for column in nearest}
    assert set(map(tuple, candidates(training, test).tolist())) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=12))
@settings(max_examples=40)
def test_of_equal_images_each_is_paired_once_and_each_leak_is_named(training: list[int], test: list[int]) -> None:
    found = find(
        images(DRAWN[training]),
        images(DRAWN[test]),
        {"training": features(len(training)), "test": features(len(test), seed=1)},
    ).pairs
    exact = [pair for pair in found if pair.kind == "exact"]
    assert all(pair.distance == 0 for pair in exact)
    leaked = {pair.index_b for pair in exact if pair.is_leak}
    assert leaked == {index for index, picture in enumerate(test) if picture in training}
    # What remains when the later of each pair is taken away: one of each picture.
    taken = {pair.index_b for pair in exact if (pair.split_a, pair.split_b) == ("training", "training")}
    assert sorted(training[index] for index in range(len(training)) if index not in taken) == sorted(set(training))


def test_copies_of_one_picture_hide_no_other_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 2)
    copied, other = DRAWN[0], np.clip(DRAWN[0].astype(int) + 6, 0, 255).astype(np.uint8)  # a little brighter
    training = images(np.stack([*[copied] * 6, other, *DRAWN[1:8]]))
    test = images(np.clip(DRAWN[:1].astype(int) + 12, 0, 255).astype(np.uint8))
    found = find(training, test, {"training": features(14), "test": features(1)}).pairs
    assert {pair.index_a for pair in found if pair.split_b == "test"} >= {0, 6}


def test_a_pair_says_which_pictures_it_means() -> None:
    training, test = images(DRAWN[[0, 1, 0]]), images(DRAWN[[1, 2]])
    for pair in find(training, test, {"training": features(3), "test": features(2)}).pairs:
        sets = {"training": training, "test": test}
        assert pair.picture_a == picture_of(sets[pair.split_a], pair.index_a) != ""
        assert pair.picture_b == picture_of(sets[pair.split_b], pair.index_b)
        assert (pair.path_a, pair.path_b) == ("", "")
        assert pair.picture_a == pair.picture_b or pair.kind == "near"


def test_a_copy_of_a_leaked_test_image_is_leaked_too() -> None:
    # The test images are equal to each other, and nearly equal to a training image.
    shown = DRAWN[[4, 4]] // 2 + 20
    training, test = images(DRAWN[:6]), images(np.concatenate([DRAWN[20:23], shown]))
    same = torch.from_numpy(np.concatenate([training.pixels, test.pixels]).reshape(11, -1)).float()
    same = torch.nn.functional.normalize(same - same.mean(1, keepdim=True))
    found = find(training, test, {"training": same[:6], "test": same[6:]}).pairs
    leaks = {(pair.index_a, pair.index_b, pair.kind) for pair in found if pair.is_leak}
    assert leaks == {(4, 3, "near"), (4, 4, "near")}


def test_however_pairs_are_divided_their_distances_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(DRAWN).movedim(-1, 1)
    pairs = torch.combinations(torch.arange(12))
    whole = compared(pixels, pairs)
    monkeypatch.setattr(duplicates, "PAIRS", 7)
    torch.testing.assert_close(compared(pixels, pairs), whole)
    assert compared(pixels, pairs[:0]).shape == (0,)


def test_leaks_come_first_then_the_nearest() -> None:
    drawn = draw(200, seed=1, duplicates=0.1)
    training, test = drawn.images.take(range(150)), drawn.images.take(range(150, 200))
    same = torch.nn.functional.normalize(torch.from_numpy(drawn.images.pixels.reshape(200, -1)).float())
    found = find(training, test, {"training": same[:150], "test": same[150:]}).pairs
    order = [(not pair.is_leak, pair.distance) for pair in found]
    assert order == sorted(order)
    assert any(pair.is_leak for pair in found)


def test_distances_are_kept_for_the_same_search_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(60, seed=1, duplicates=0.2).images
    training, test = drawn.take(range(40)), drawn.take(range(40, 60))
    same: dict[Split, Tensor] = {"training": features(40), "test": features(20, seed=1)}
    first = find(training, test, same, kept=tmp_path / "pairs")
    with monkeypatch.context() as without:
        without.setattr(duplicates, "_nearest", None)  # whoever looks again fails
        without.setattr(duplicates._Pictures, "compared", None)
        assert find(training, test, same, kept=tmp_path / "pairs").pairs == first.pairs
    assert find(training, test, same).pairs == first.pairs
    monkeypatch.setattr(duplicates, "COARSE", 0.2)
    monkeypatch.setattr(duplicates, "MEDIUM", 0.0)
    assert all(pair.kind == "exact" for pair in find(training, test, same, kept=tmp_path / "pairs").pairs)
    assert any(pair.kind == "near" for pair in first.pairs)


def test_pairs_of_cifar_that_were_looked_at_are_told_apart(cifar10: Path) -> None:
    judged = audit.read_judged()
    (_, _), (test, _) = load_data(str(cifar10))
    pixels_of = {"training": find_data(str(cifar10)).read_training().pixels, "test": test}
    shown = [pixels_of[split][index] for one in judged for split, index in sorted(one.pair)]
    pixels = torch.from_numpy(np.stack(shown)).movedim(-1, 1)
    is_named = compared(pixels, torch.arange(2 * len(judged)).reshape(-1, 2)) < SAME_PICTURE
    named = {one.pair for one, yes in zip(judged, is_named, strict=True) if yes}
    results = audit.by_own_eyes(named, judged)
    assert results.keys() == {"compared", "nearest", "within training", "within test"}
    assert all(found["precision"] > 0.8 for found in results.values())
    assert all(results[drawn]["recall"] > 0.9 for drawn in ("compared", "nearest"))
    assert all(found["recall"] > 0.7 for found in results.values())
