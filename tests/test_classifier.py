from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from thirtytwo import models
from thirtytwo.classifier import Classifier, class_difference
from thirtytwo.errors import ImageError, ModelError
from thirtytwo.run import read_tensors, write_tensors
from thirtytwo.settings import ClassicModel, CustomModel, Pixels, Views

CLASSES = ("cat", "dog", "frog")
SETTINGS = ClassicModel(stages=((4,), (8,)), hidden_units=8)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = models.build(SETTINGS, 3, (16, 16))
    pixels = Pixels(mean=(0.4, 0.5, 0.6), standard_deviation=(0.2, 0.3, 0.4))
    return Classifier(network, SETTINGS, CLASSES, (16, 16), pixels, temperature=1.7, facts={"seed": 3})


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)


def test_a_stored_model_answers_as_before_to_the_bit(
    classifier: Classifier, images: np.ndarray, tmp_path: Path
) -> None:
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors")
    assert np.array_equal(again(images), classifier(images))
    assert (again.classes, again.size, again.pixels) == (classifier.classes, classifier.size, classifier.pixels)
    assert again.temperature == 1.7
    assert again.facts == {"seed": 3}
    assert again.fingerprint == classifier.fingerprint


def test_answers_are_probabilities_of_the_network_on_prepared_pixels(
    classifier: Classifier, images: np.ndarray
) -> None:
    answers = classifier(images)
    assert answers.shape == (30, 3)
    assert answers.dtype == np.float32
    assert answers.sum(1) == pytest.approx(1, abs=1e-6)
    prepared = (images / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    scores = classifier.network.eval()(torch.from_numpy(prepared).float().permute(0, 3, 1, 2))
    assert answers == pytest.approx((scores / 1.7).softmax(1).detach().numpy(), abs=1e-5)


def test_answers_do_not_depend_on_batch_size_or_mode(classifier: Classifier, images: np.ndarray) -> None:
    classifier.network.train()
    whole = classifier.probabilities(images)
    assert classifier.network.training
    assert torch.allclose(whole, classifier.probabilities(images, batch_size=7), atol=1e-6)
    assert torch.equal(whole, classifier.probabilities(torch.from_numpy(images).permute(0, 3, 1, 2)))


def test_no_images_no_answers(classifier: Classifier, images: np.ndarray) -> None:
    assert classifier(images[:0]).shape == (0, 3)
    assert classifier.predict([]) == []


def test_images_of_another_size_or_type_are_refused(classifier: Classifier, images: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"expected uint8 \(n, "):
        classifier(images[:, :8])
    with pytest.raises(ModelError, match="float32"):
        classifier((images / 255).astype(np.float32))


def test_an_image_file_of_the_right_size_is_answered_like_its_pixels(
    classifier: Classifier, images: np.ndarray, tmp_path: Path
) -> None:
    for index in range(3):
        Image.fromarray(images[index]).save(tmp_path / f"{index}.png")
    predictions = classifier.predict([tmp_path / f"{index}.png" for index in range(3)])
    for prediction, row in zip(predictions, classifier(images[:3]), strict=True):
        assert [prediction.probabilities[name] for name in CLASSES] == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction.label == CLASSES[row.argmax()]
        assert prediction.probability == max(prediction.probabilities.values())
        assert list(prediction.probabilities.values()) == sorted(prediction.probabilities.values(), reverse=True)


def test_a_file_that_is_no_image_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ImageError, match=r"x\.png"):
        classifier.predict([tmp_path / "x.png"])


def test_fingerprint_changes_with_any_weight(classifier: Classifier) -> None:
    before = classifier.fingerprint
    with torch.no_grad():
        next(classifier.network.parameters())[0, 0, 0, 0] += 1e-6
    assert classifier.fingerprint != before


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1.5},
        {"views": Views(mirror=True)},
        {"pixels": Pixels(mean=(0.1, 0.0, 0.0))},
        {"classes": ("cat", "dog", "owl")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fingerprint_changes_with_anything_that_changes_the_answer(
    classifier: Classifier, change: dict[str, Any]
) -> None:
    assert replace(classifier, **change).fingerprint != classifier.fingerprint
    assert replace(classifier, facts={"note": "no difference"}).fingerprint == classifier.fingerprint


def test_threads_can_share_a_loaded_classifier(images: np.ndarray, classifier: Classifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path / "model.safetensors")
    before = loaded.fingerprint
    alone = loaded(images)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: loaded(images), range(40)))
    assert all(np.allclose(answer, alone, atol=1e-6) for answer in answers)
    assert loaded.fingerprint == before  # running averages included


def test_scoring_puts_every_part_of_a_network_back_into_its_mode(images: np.ndarray, classifier: Classifier) -> None:
    classifier.network.train()
    frozen = next(iter(classifier.network.children())).eval()
    classifier(images)
    assert classifier.network.training
    assert not frozen.training


def test_views_are_averaged_as_they_say(classifier: Classifier, images: np.ndarray) -> None:
    def scores(pixels: np.ndarray) -> torch.Tensor:
        return classifier.scores(np.ascontiguousarray(pixels))

    def mirrored(pixels: np.ndarray) -> torch.Tensor:
        return (scores(pixels) + scores(pixels[:, :, ::-1])) / 2

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    corners = padded[:, :16, :16], padded[:, 2:, 2:]
    expected = {
        Views(mirror=True): mirrored(images),
        Views(translate_pixels=1): scores(images) / 2 + (scores(corners[0]) + scores(corners[1])) / 4,
        Views(mirror=True, translate_pixels=1): mirrored(images) / 2
        + (mirrored(corners[0]) + mirrored(corners[1])) / 4,
    }
    for views, each in expected.items():
        assert torch.allclose(replace(classifier, views=views).scores(images), each, atol=1e-5)


def test_what_is_no_array_is_refused(classifier: Classifier) -> None:
    with pytest.raises(ModelError, match=r"images are str; expected .* predict"):
        classifier("photo.jpg")  # type: ignore[arg-type]
    assert "cat, dog, frog" in repr(classifier)


def test_only_doubtful_images_are_looked_at_again(classifier: Classifier, images: np.ndarray) -> None:
    plain = classifier.scores(images)
    every = replace(classifier, views=Views(mirror=True, translate_pixels=1)).scores(images)
    highest = plain.softmax(1).amax(1)
    for share in (0.0, 0.5, 1.0):
        threshold = float(highest.quantile(share)) if share else float(highest.min()) / 2
        views = Views(mirror=True, translate_pixels=1, below_probability=threshold)
        again = highest <= threshold
        assert (share == 0) == (not again.any())
        expected = torch.where(again[:, None], every, plain)
        assert torch.allclose(replace(classifier, views=views).scores(images), expected, atol=1e-5)


def test_a_stored_model_keeps_its_views(classifier: Classifier, tmp_path: Path) -> None:
    views = Views(mirror=True, translate_pixels=2)
    replace(classifier, views=views).save(tmp_path / "model.safetensors")
    assert Classifier.load(tmp_path / "model.safetensors").views == views


def test_half_the_space_answers_nearly_as_before(classifier: Classifier, images: np.ndarray, tmp_path: Path) -> None:
    classifier.save(tmp_path / "whole")
    classifier.save(tmp_path / "half", half=True)
    (whole, _), (half, _) = read_tensors(tmp_path / "whole"), read_tensors(tmp_path / "half")
    assert {name for name, tensor in half.items() if tensor.dtype == torch.float16} == {
        name for name, tensor in whole.items() if tensor.ndim > 1
    }
    again = Classifier.load(tmp_path / "half")
    assert {parameter.dtype for parameter in again.network.parameters()} == {torch.float32}
    assert again(images) == pytest.approx(classifier(images), abs=2e-3)
    again.save(tmp_path / "again", half=True)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "half").read_bytes()


def test_a_model_file_cut_short_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    classifier.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut short"):
        Classifier.load(path)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("classes", ["cat", "dog"], "do not fit a network for 2 classes"),
        ("classes", "cat", "header is damaged"),
        ("format", 99, "model format 99"),
        ("size", [32, 32], "do not fit"),
        ("size", [1, 1], "build no network"),
        ("size", [100_000, 100_000], "header is damaged"),
        ("size", [4096, 4096], "do not fit"),
        ("temperature", "warm", "header is damaged"),
        ("temperature", "1.5", "header is damaged"),
        ("temperature", 0, "header is damaged"),
        ("temperature", -1.0, "header is damaged"),
        ("classes", [], "header is damaged"),
        ("model", {"name": "unheard of"}, "header is damaged"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    classifier: Classifier, tmp_path: Path, key: str, value: object, problem: str
) -> None:
    path = tmp_path / "model.safetensors"
    classifier.save(path)
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {**header, key: value})
    with pytest.raises(ModelError, match=problem):
        Classifier.load(path)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (("cat", "dog", "frog"), ""),
        (("cat", "dog"), "has 2 classes (cat, dog), but the model was trained for 3 (cat, dog, frog)"),
        (("cat", "owl", "frog"), "as many as the model was trained for, but other ones: owl in place of dog"),
        (("a", "b", "c"), "but other ones: a, b, c in place of cat, dog, frog"),
        (("cat", "frog", "dog"), "classes that the model was trained for in another order: label 1 is frog, not dog"),
    ],
)
def test_how_classes_differ_is_said_by_name(found: tuple[str, ...], said: str) -> None:
    assert said in class_difference(found, CLASSES)
    assert bool(class_difference(found, CLASSES)) == (found != CLASSES)


def test_a_callers_own_network_is_asked_for_and_then_used(images: np.ndarray, tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 3))

    path = tmp_path / "model.safetensors"
    classifier = Classifier(make(), CustomModel(module="mine.Net"), CLASSES, (16, 16))
    classifier.save(path)
    with pytest.raises(ModelError, match=r"network=module"):
        Classifier.load(path)
    with pytest.raises(ModelError, match="do not fit"):
        Classifier.load(path, network=nn.Linear(3, 3))
    assert np.array_equal(Classifier.load(path, network=make())(images), classifier(images))


def test_an_unfinished_run_and_a_missing_file_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder; expected a run folder"):
        Classifier.load(tmp_path / "none")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({}))
    with pytest.raises(ModelError, match="--resume"):
        Classifier.load(tmp_path / "run")


def test_unknown_where_nothing_is_probable_enough(classifier: Classifier, images: np.ndarray, tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(images[index]).save(tmp_path / f"{index}.png")
    files = [tmp_path / f"{index}.png" for index in range(3)]
    plain = classifier.predict(files)
    middle = sorted(prediction.probability for prediction in plain)[1]
    for prediction, asked in zip(plain, classifier.predict(files, unknown_below=middle), strict=True):
        assert asked.label == (prediction.label if prediction.probability >= middle else "unknown")
        assert (asked.probability, asked.probabilities) == (prediction.probability, prediction.probabilities)


def test_a_stored_model_keeps_what_it_calls_unknown(classifier: Classifier, tmp_path: Path) -> None:
    replace(classifier, unknown_below=0.4).save(tmp_path / "model.safetensors")
    assert Classifier.load(tmp_path / "model.safetensors").unknown_below == 0.4
