"""Laws of the drawn data set."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thirtytwo.data.shapes import CLASSES, Drawn, draw
from thirtytwo.errors import DataError

NEAR = 6.0
"""Root mean square difference, in levels of 255, below which one image is a near copy of another."""


def distances(ones: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Root mean square difference of each image to each other, mirrored or not, moved by up to a pixel: (n, m)."""
    height, width = ones.shape[1:3]
    targets = centred(others[:, 1:-1, 1:-1])
    nearest = np.full((len(ones), len(others)), np.inf, dtype=np.float32)
    for moved in (ones, ones[:, :, ::-1]):
        for down in range(3):
            for right in range(3):
                sources = centred(moved[:, down : down + height - 2, right : right + width - 2])
                squares = np.square(sources).sum(axis=1)[:, None] + np.square(targets).sum(axis=1)
                squares -= 2 * sources @ targets.T
                np.minimum(nearest, squares / sources.shape[1], out=nearest)
    np.maximum(nearest, 0, out=nearest)
    return np.sqrt(nearest, out=nearest)


def centred(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flat images without their mean brightness: (n, pixels)."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat


def near_pairs(ones: NDArray[np.uint8], others: NDArray[np.uint8]) -> set[tuple[int, int]]:
    return {(int(one), int(other)) for one, other in np.argwhere(distances(ones, others) < NEAR)}


def planted_pairs(drawn: Drawn) -> set[tuple[int, int]]:
    return {(int(original), int(copy)) for original, copy in drawn.duplicates}


def test_same_arguments_give_same_bytes() -> None:
    one, other = (draw(60, 3, label_errors=0.2, duplicates=0.2) for _ in range(2))
    assert one.images.fingerprint == other.images.fingerprint
    assert np.array_equal(one.true_labels, other.true_labels)
    assert np.array_equal(one.label_errors, other.label_errors)
    assert np.array_equal(one.duplicates, other.duplicates)


@pytest.mark.parametrize(
    ("arguments", "fingerprint"),
    [
        ({"split": "training"}, "48e42a20ee332d4e412ffe5473c723f348c57b2274775071de07bddaa33297c1"),
        ({"split": "test"}, "3aa9e9ad4bea3436578d78c7e2e09dbe6b006ae71fe1b4640c2b93841da3e903"),
        (
            {"seed": 7, "label_errors": 0.1, "duplicates": 0.1},
            "3ed13bb17b692d99c696bc58ecb78329616b6fe750ba1f81f5a28c249705e362",
        ),
        (
            {"split": "test", "duplicates": 0.1, "training_number": 50},
            "bc246cf65faf054f919ee1a1c75caa3720302f8580805547511a0707e7315f62",
        ),
        ({"size": 47}, "0d966a5c75dea15d3d77e58c2ce955df232c06a682ccf6882d378303bfb1f7e9"),
    ],
)
def test_bytes_are_the_same_on_every_machine(arguments: dict[str, Any], fingerprint: str) -> None:
    assert draw(100, **arguments).images.fingerprint == fingerprint


def test_fewer_images_are_the_first_of_more() -> None:
    few, many = draw(97, 1), draw(1400, 1)
    assert np.array_equal(few.images.pixels, many.images.pixels[:97])
    assert np.array_equal(few.images.labels, many.images.labels[:97])


def test_no_image_comes_twice_in_any_seed_or_split() -> None:
    sets = [draw(100, seed, split=split).images.pixels for seed in (0, 1) for split in ("training", "test")]
    pixels = np.concatenate(sets)
    assert near_pairs(pixels, pixels) == {(index, index) for index in range(len(pixels))}


def test_images_are_named_typed_and_sized_as_asked() -> None:
    images = draw(12, size=20).images
    assert images.name == "shapes"
    assert images.classes == CLASSES
    assert len(set(CLASSES)) == 10
    assert images.pixels.shape == (12, 20, 20, 3)
    assert images.labels.dtype == np.int64
    assert draw().images.pixels.shape == (5000, 32, 32, 3)


def test_every_ten_images_in_a_row_hold_each_class_once() -> None:
    labels = draw(500, 2, size=8).images.labels
    assert np.array_equal(np.sort(labels.reshape(50, 10), axis=1), np.tile(np.arange(10), (50, 1)))


def test_order_of_the_classes_is_mixed() -> None:
    rows = draw(1000, size=8).images.labels.reshape(100, 10)
    assert len({tuple(row) for row in rows}) == 100
    for label in range(10):  # each class turns up in each of the ten places
        assert set(np.argwhere(rows == label)[:, 1]) == set(range(10))


def test_same_scene_is_drawn_at_every_size() -> None:
    small, large = draw(100).images.pixels, draw(100, size=64).images.pixels
    shrunk = large.reshape(100, 32, 2, 32, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    between = distances(shrunk, small)
    assert np.array_equal(between.argmin(axis=1), np.arange(100))


@settings(max_examples=30)
@given(
    number=st.integers(1, 80),
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0, 1),
    split=st.sampled_from(("training", "test")),
)
def test_label_errors_are_exactly_where_given_and_true_labels_differ(
    number: int, seed: int, share: float, split: Any
) -> None:
    drawn = draw(number, seed, split=split, size=8, label_errors=share)
    assert np.array_equal(drawn.label_errors, np.flatnonzero(drawn.images.labels != drawn.true_labels))
    assert len(drawn.label_errors) == round(share * number)


def test_label_errors_take_every_wrong_class_and_touch_no_pixel() -> None:
    plain, planted = draw(2000, size=8), draw(2000, size=8, label_errors=0.5)
    assert np.array_equal(plain.images.pixels, planted.images.pixels)
    assert np.array_equal(plain.true_labels, planted.true_labels)
    wrong = planted.label_errors
    shifts = (planted.images.labels[wrong] - planted.true_labels[wrong]) % 10
    assert np.bincount(shifts, minlength=10)[1:].min() > 60  # about 111 each
    assert np.bincount(planted.true_labels[wrong], minlength=10).min() > 60  # about 100 each


def test_planted_duplicates_are_near_and_no_others_are() -> None:
    drawn = draw(300, 4, duplicates=0.1)
    assert len(drawn.duplicates) == 30
    found = {(one, other) for one, other in near_pairs(drawn.images.pixels, drawn.images.pixels) if one < other}
    assert found == planted_pairs(drawn)


def test_planted_duplicates_carry_the_label_of_their_originals_and_are_not_exact() -> None:
    drawn = draw(300, 4, duplicates=0.5)
    originals, copies = drawn.duplicates.T
    assert len(np.unique(drawn.duplicates)) == 300  # half the images are copies, and each is in one pair only
    assert (originals < copies).all()
    assert (np.diff(copies) > 0).all()
    assert np.array_equal(drawn.images.labels[originals], drawn.images.labels[copies])
    pixels = drawn.images.pixels.astype(int)
    assert (pixels[originals] != pixels[copies]).any(axis=(1, 2, 3)).all()


def test_planting_duplicates_changes_the_copies_only() -> None:
    plain, planted = draw(200, 5), draw(200, 5, duplicates=0.2)
    changed = (plain.images.pixels != planted.images.pixels).any(axis=(1, 2, 3))
    assert np.array_equal(np.flatnonzero(changed), planted.duplicates[:, 1])


def test_duplicates_in_the_test_split_are_near_copies_of_training_images_and_no_others_are() -> None:
    training = draw(400, 6, duplicates=0.2)
    test = draw(150, 6, split="test", duplicates=0.2, training_number=400)
    assert len(test.duplicates) == 30
    assert near_pairs(training.images.pixels, test.images.pixels) == planted_pairs(test)
    originals, copies = test.duplicates.T
    assert np.array_equal(training.true_labels[originals], test.true_labels[copies])
    assert not set(originals.tolist()) & set(training.duplicates.reshape(-1).tolist())


def test_every_test_image_can_be_a_leak() -> None:
    drawn = draw(40, split="test", size=8, duplicates=1.0, training_number=40)
    assert sorted(drawn.duplicates[:, 0]) == list(range(40))
    assert drawn.duplicates[:, 1].tolist() == list(range(40))


@pytest.mark.parametrize("number", range(1, 8))
def test_any_share_of_any_number_can_be_planted(number: int) -> None:
    assert len(draw(number, size=8, duplicates=0.5).duplicates) == min(round(number / 2), number // 2)


def test_linear_classifiers_stay_under_forty_percent() -> None:
    training, test = draw(2000), draw(1000, split="test")
    x_train, x_test = centred(training.images.pixels) / 255, centred(test.images.pixels) / 255
    linear: Any = sklearn.linear_model
    models = linear.RidgeClassifier(1e4), linear.RidgeClassifier(300), linear.LogisticRegression(C=1e-3, max_iter=30)
    for model in models:
        model.fit(x_train, training.images.labels)
        assert model.score(x_test, test.images.labels) < 0.4


@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        ({"number": 0}, "number is 0", "from 1 to 10000000"),
        ({"number": 10**12}, "number is 1000000000000", "from 1 to 10000000"),
        ({"number": 5.0}, "number is 5.0", "whole number"),
        ({"number": True}, "number is True", "whole number"),
        ({"seed": -1}, "seed is -1", "from 0 to"),
        ({"seed": "a"}, "seed is 'a'", "whole number"),
        ({"size": 7}, "size is 7", "from 8 to 256"),
        ({"split": "validation"}, "split is 'validation'", "training, test"),
        ({"split": ["test"]}, "split is ['test']", "training, test"),
        ({"label_errors": 1.1}, "label_errors is 1.1", "from 0 to 1"),
        ({"label_errors": math.nan}, "label_errors is nan", "from 0 to 1"),
        ({"label_errors": "0.1"}, "label_errors is '0.1'", "from 0 to 1"),
        ({"duplicates": 0.6}, "duplicates is 0.6", "training images from 0 to 0.5"),
        (
            {"number": 10, "split": "test", "duplicates": 0.6, "training_number": 5},
            "duplicates is 0.6",
            "from 0 to 0.5",
        ),
        ({"training_number": 0}, "training_number is 0", "from 1 to"),
    ],
)
def test_wrong_argument_is_named_with_what_was_expected(arguments: dict[str, Any], found: str, expected: str) -> None:
    with pytest.raises(DataError) as error:
        draw(**arguments)
    assert found in str(error.value)
    assert expected in str(error.value)


def test_drawing_loads_no_torch() -> None:
    program = "import sys, thirtytwo.data.shapes as shapes; shapes.draw(1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
