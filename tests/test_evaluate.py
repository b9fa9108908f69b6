from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thirtytwo import evaluate as evaluate_function
from thirtytwo import models
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import find, from_arrays, ledger, sealed
from thirtytwo.data.corrupt import STRENGTHS, corrupted
from thirtytwo.data.source import Source
from thirtytwo.errors import DataError, InputError, ModelError, RunError, StorageError
from thirtytwo.evaluate import Split, evaluate, evaluate_run, under_corruption
from thirtytwo.run import Run, read_tensors
from thirtytwo.settings import ClassicModel
from thirtytwo.train import train

PARTS: tuple[Split, ...] = ("training", "validation")
WORDS = ["batch_size=32", "model.stages=[[4], [8]]", "model.hidden_units=8", "epochs=1"]


@pytest.fixture
def source() -> Source:
    return find("shapes:training=150,test=40")


@pytest.fixture
def trained(source: Source, tmp_path: Path) -> Run:
    training = train(recipes.load("classic", WORDS), source, out=tmp_path / "run")
    training.finish()
    return training.run


def openings(source: Source) -> int:
    path = ledger.path_of(sealed.read_unscored(source))
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_run_is_scored_on_its_validation_part_and_once_on_the_test_set(trained: Run, source: Source) -> None:
    assert openings(source) == 0  # training itself opened nothing
    result = evaluate_run(trained)
    assert openings(source) == result["test_opening"] == 1
    assert result["validation"]["accuracy"] == trained.metrics[-1]["validation_accuracy"]
    # It has been calibrated since; with so few images, one image more matters.
    assert result["validation"]["loss"] == pytest.approx(trained.metrics[-1]["validation_loss"], rel=0.2)
    assert result["test"]["images"] == sum(map(sum, result["test"]["confusion"])) == 40
    assert trained.result == result
    assert evaluate_run(trained) == result
    assert openings(source) == 1


def test_a_scoring_that_was_interrupted_is_the_same_opening(trained: Run, source: Source) -> None:
    trained.predictions_path.mkdir()  # in the way of the file
    with pytest.raises(StorageError):
        evaluate_run(trained)
    assert openings(source) == 1
    trained.predictions_path.rmdir()
    assert evaluate_run(trained)["test_opening"] == 1
    assert openings(source) == 1


def test_another_model_in_a_runs_folder_is_another_opening(trained: Run, source: Source) -> None:
    evaluate_run(trained)
    result = trained.result
    del result["test"]
    trained.result = result
    assert evaluate_run(trained)["test_opening"] == 1
    result = trained.result
    del result["test"]
    trained.result = result
    other = Classifier.load(trained)
    with torch.no_grad():
        next(other.network.parameters()).mul_(-1)
    assert evaluate_run(trained, classifier=other)["test_opening"] == 2
    assert openings(source) == 2


def test_images_without_those_that_a_table_names_are_a_test_set_of_their_own(
    trained: Run, source: Source, tmp_path: Path
) -> None:
    evaluate_run(trained)
    test, others = sealed.read_unscored(source), sealed.read_unscored(find("shapes:training=150,test=60,seed=5"))
    pixels, labels = (np.concatenate([getattr(test, name), getattr(others, name)]) for name in ("pixels", "labels"))
    training = source.read_training()
    diluted = from_arrays((training.pixels, training.labels), (pixels, labels), classes=training.classes)
    table = tmp_path / "others.csv"
    table.write_text("split,index\n" + "".join(f"test,{index}\n" for index in range(40, 100)))
    scored = evaluate(trained, diluted, exclude=table)
    assert scored.opening == 1  # two fifths of its images have been shown once
    assert scored.without_excluded is not None
    assert scored.without_excluded.opening == 2


def test_classes_in_another_order_are_the_same_classes(trained: Run, source: Source, tmp_path: Path) -> None:
    training, test = source.read_training(), sealed.read_unscored(source)
    order = np.array([3, 1, 2, 0, *range(4, 10)])  # its own inverse
    names = [training.classes[label] for label in order]
    other = from_arrays((training.pixels, order[training.labels]), (test.pixels, order[test.labels]), classes=names)
    one, another = evaluate(trained, source), evaluate(trained, other)
    assert another.summary() == one.summary()
    assert another.opening == 2


def test_a_run_is_scored_on_the_data_that_it_was_trained_on_and_no_other(trained: Run) -> None:
    other = find("shapes:training=160,test=40")
    with pytest.raises(DataError, match="not the images that"):
        evaluate_run(trained, other)
    assert openings(other) == 0


def test_without_data_a_model_is_scored_on_what_it_was_trained_on(trained: Run, source: Source) -> None:
    one, other = evaluate(trained, split="validation"), evaluate(trained, source, split="validation")
    assert one.images.fingerprint == other.images.fingerprint


def test_the_parts_of_other_images_are_not_known_to_a_model(trained: Run) -> None:
    other = find("shapes:training=160,test=40")
    with pytest.raises(ModelError, match="not the images that this model was trained on"):
        evaluate(trained, other, split="validation")
    assert len(evaluate(trained, other, split="validation", validation=0.25).labels) == 40


def test_a_score_on_images_that_the_model_knows_says_so(trained: Run, source: Source) -> None:
    (told,) = evaluate(trained, split="training").warnings
    assert told.startswith("the model was trained on these images: the accuracy says how well it remembers them")
    (told,) = evaluate(trained, split="validation").warnings
    assert told.startswith("parts of the model were fitted to these images")
    assert evaluate(trained, source).warnings == ()
    other = find("shapes:training=160,test=40")
    for part in PARTS:
        (told,) = evaluate(trained, other, split=part, validation=0.25).warnings
        assert "are pictures that this model was trained or selected with" in told
    by_hand = replace(Classifier.load(trained), facts={})
    assert evaluate(by_hand, source, split="training").warnings == ()


def test_examples_are_images_that_were_trained_on_and_counted(trained: Run, source: Source) -> None:
    with pytest.raises(RunError, match="has not been evaluated"):
        trained.predictions()
    evaluate_run(trained)
    tensors, _ = trained.predictions()
    images = source.read_training()
    kept = {images.pixels[index].tobytes() for index in evaluate(trained, split="training").indices.tolist()}
    for row, count in zip(tensors["examples"].numpy(), tensors["examples.counts"].tolist(), strict=True):
        assert count == 10
        assert all(image.tobytes() in kept for image in row[:count])


def test_moving_results_elsewhere_does_not_reset_the_count(source: Source, tmp_path: Path) -> None:
    numbers = []
    for index in range(2):
        training = train(recipes.load("classic", WORDS), source, out=tmp_path / str(index), seed=index)
        training.finish()
        numbers.append(evaluate_run(training.run)["test_opening"])
    assert numbers == [1, 2]


def test_scoring_the_same_model_again_is_another_opening(trained: Run, source: Source) -> None:
    assert [evaluate(trained, source).opening for _ in range(2)] == [1, 2]
    assert evaluate(trained, source, split="validation").opening is None
    assert openings(source) == 2


def test_stored_predictions_are_the_classifiers(trained: Run, source: Source) -> None:
    evaluate_run(trained)
    tensors, header = read_tensors(trained.predictions_path)
    test = sealed.read_unscored(source)
    assert header["classes"] == list(test.classes)
    assert np.array_equal(tensors["test.probabilities"].numpy(), Classifier.load(trained)(test.pixels))
    assert np.array_equal(tensors["test.labels"].numpy(), test.labels)
    training = source.read_training()
    assert np.array_equal(tensors["validation.labels"].numpy(), training.labels[tensors["validation.indices"].numpy()])
    for rows, pixels in (("random.rows", "random.pixels"), ("mistakes.rows", "mistakes.pixels")):
        assert np.array_equal(tensors[pixels].numpy(), test.pixels[tensors[rows].numpy()])
    predicted = tensors["test.probabilities"].argmax(1)
    wrong = (predicted != tensors["test.labels"]).nonzero()[:, 0]
    assert sorted(tensors["mistakes.rows"].tolist()) == wrong.tolist()
    confidence = tensors["test.probabilities"].max(1).values[tensors["mistakes.rows"]]
    assert torch.equal(confidence, confidence.sort(descending=True).values)


def test_the_two_parts_of_the_training_images_are_those_of_the_training(trained: Run, source: Source) -> None:
    validation = evaluate(trained, source, split="validation")
    training = evaluate(trained, source, split="training")
    assert sorted([*validation.indices.tolist(), *training.indices.tolist()]) == list(range(150))
    assert [int((validation.labels == label).sum()) for label in range(10)] == [2] * 10  # a tenth of 15, rounded


def test_a_model_that_does_not_fit_the_data_is_refused_before_the_test_set_is_opened(source: Source) -> None:
    settings = ClassicModel(stages=((4,),), hidden_units=8)
    other_classes = Classifier(models.build(settings, 2), settings, ("cat", "dog"))
    with pytest.raises(ModelError, match="trained for 2"):
        evaluate(other_classes, source)
    classes = source.read_training().classes
    one_differs = Classifier(models.build(settings, 10), settings, ("other", *classes[1:]))
    with pytest.raises(ModelError, match=f"but other ones: {classes[0]} in place of other; expected the model's"):
        evaluate(one_differs, source)
    other_size = Classifier(models.build(settings, 10, (16, 16)), settings, classes, (16, 16))
    with pytest.raises(ModelError, match="16 × 16"):
        evaluate(other_size, source)
    assert openings(source) == 0


def test_an_unfinished_run_is_not_scored(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", recipes.load("classic"), {})
    with pytest.raises(RunError, match="--resume"):
        evaluate_run(run)


def test_summary_has_every_measure_that_results_promise(trained: Run, source: Source) -> None:
    summary = evaluate(trained, source, split="validation").summary()
    promised = {"accuracy", "loss", "top5", "balanced_accuracy", "macro_f1", "ece", "per_class", "confusion"}
    assert promised <= summary.keys()
    assert [row["class"] for row in summary["per_class"]] == list(source.read_training().classes)


def test_the_public_name_is_the_function() -> None:
    assert evaluate_function is evaluate


def test_corrupted_images_are_of_each_class_and_open_nothing(trained: Run, source: Source) -> None:
    classifier = Classifier.load(trained)
    images = sealed.read_unscored(source)
    scores = under_corruption(classifier, images, number=20)
    assert openings(source) == 0
    assert scores["images"] == 20
    assert set(scores["kinds"]) == set(STRENGTHS)
    assert all(len(row) == 5 for row in scores["kinds"].values())
    assert scores["mean"] == pytest.approx(np.mean(list(scores["kinds"].values())))
    some = images.take(images.fewer(20))
    assert max(some.per_class) - min(some.per_class) <= 1
    predicted = classifier(corrupted(some.pixels, "noise", 2)).argmax(1)
    assert scores["kinds"]["noise"][1] == (predicted == some.labels).mean()
    assert under_corruption(classifier, images, number=10_000)["images"] == 40


@pytest.mark.parametrize(("asked", "scored"), [(0, None), (None, 8), (20, 20), (1000, 40)])
def test_how_many_are_corrupted_is_the_callers_choice_and_a_fifth_without_one(
    asked: int | None, scored: int | None, trained: Run
) -> None:
    result = evaluate_run(trained, corrupted_images=asked)
    assert result.get("corrupted", {}).get("images") == scored


def table(*lines: str) -> Path:
    path = Path("duplicates.csv")
    path.write_text("\n".join(["split_a,index_a,split_b,index_b,distance,kind", *lines]))
    return path


def test_accuracy_without_leaks_stands_beside_the_ordinary_one(trained: Run, source: Source) -> None:
    leaks = table("training,5,test,0,0,exact", "training,9,test,7,0.05,near", "test,1,test,2,0,exact")
    plain, scored = evaluate(trained), evaluate(trained, exclude=leaks)
    assert scored.summary() == plain.summary()
    assert plain.without_excluded is None
    rest = scored.without_excluded
    assert rest is not None
    stays = [number for number in range(40) if number not in (0, 7)]
    assert rest.indices.tolist() == stays
    hits = scored.probabilities.argmax(1) == scored.labels
    assert rest.summary()["accuracy"] == pytest.approx(float(hits[stays].double().mean()))
    assert openings(source) == 2  # one each


def test_a_table_that_does_not_fit_is_refused_before_the_test_set_is_opened(trained: Run, source: Source) -> None:
    with pytest.raises(DataError, match="line 2: training image 150"):
        evaluate(trained, exclude=table("training,150,test,0,0,exact"))
    with pytest.raises(InputError, match="expected test"):
        evaluate(trained, split="training", exclude=table())
    with pytest.raises(DataError, match="line 2: test image 40"):
        evaluate(trained, exclude=table("training,5,test,40,0,exact"))
    with pytest.raises(InputError, match="all 40 test images are named"):
        evaluate(trained, exclude=table(*(f"training,5,test,{index},0,exact" for index in range(40))))
    assert openings(source) == 0


def test_a_run_that_left_images_out_is_scored_without_them(source: Source) -> None:
    listed = Path("issues.csv")
    listed.write_text("split,index\n" + "\n".join(f"training,{index}" for index in range(0, 150, 3)))
    training = train(recipes.load("classic", WORDS), source, exclude=listed)
    training.finish()
    result = evaluate_run(training.run)  # which finds the data by itself
    assert (result["images"], result["excluded_images"]) == (100, 50)
    assert result["test"]["images"] == 40
    parts = [evaluate(training.run, split=part) for part in PARTS]
    assert sum(len(part.images) for part in parts) == 100
    assert parts[1].summary()["accuracy"] == result["validation"]["accuracy"]
