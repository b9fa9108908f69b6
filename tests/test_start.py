"""Weights to begin with: they are those of the model, class by class, and nothing that judges them is given away."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.test_step import FAST, settings_of
from tests.test_train import rows, same, small, source, weights
from thirtytwo import models
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier, Ensemble
from thirtytwo.data import sketch
from thirtytwo.data.images import Images
from thirtytwo.errors import InputError, ModelError, RecipeError, StorageError
from thirtytwo.events import Epoch
from thirtytwo.recipe import Recipe
from thirtytwo.run import read_tensors
from thirtytwo.study import Trials, audit, tune
from thirtytwo.train import Training, resume, train

UNJUDGED = ("validation=0", "early_stopping.patience=0")
LAST = "dense2"
"""Layer of the network of `small`."""


@pytest.fixture
def start(small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that knows something, and has held out a fifth of the images."""
    monkeypatch.chdir(tmp_path)
    train(small("epochs=6"), source(small_images), seed=9, out=tmp_path / "start").finish()
    return tmp_path / "start"


def begun(recipe: Recipe, model: Path | str, *words: str) -> Recipe:
    return recipe.replace(f"start.model={model}", *words)


class _Begun(Exception):
    """A training is about to take its first step."""


def first(training: Training) -> dict[str, Tensor]:
    """The state that a training begins with, which its first checkpoint holds."""

    def stop(*_: object) -> None:
        raise _Begun

    training.network.register_forward_pre_hook(stop)
    with pytest.raises(_Begun):
        next(iter(training))
    tensors, _ = read_tensors(training.run.checkpoint_path)
    return {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}


def called(images: Images, *classes: str) -> Images:
    """The same pictures, of other classes; those of the last ones are left out."""
    kept = images.take(np.flatnonzero(images.labels < len(classes)))
    return Images(kept.pixels, kept.labels, classes, "renamed")


def test_a_training_begins_with_the_weights_of_a_model(small_images: Images, start: Path) -> None:
    found = first(train(begun(small(), start), source(small_images), seed=1))
    assert same(found, Classifier.load(start).network.state_dict())


def test_it_learns_what_is_left_to_learn(small_images: Images, start: Path) -> None:
    new, tuned = (
        train(recipe, source(small_images), seed=1) for recipe in (small("epochs=1"), begun(small("epochs=1"), start))
    )
    for training in (new, tuned):
        training.finish()
    assert tuned.history[0].train_loss < new.history[0].train_loss


def test_what_is_computed_from_images_is_taken_over_too(small_images: Images, tmp_path: Path) -> None:
    recipe = recipes.load("fast94", [*FAST, *UNJUDGED])
    train(recipe, source(small_images), out=tmp_path / "start").finish()
    darker = Images(small_images.pixels // 2, small_images.labels, small_images.classes, "darker")
    found = first(train(begun(recipe, tmp_path / "start"), source(darker)))
    assert same(found, Classifier.load(tmp_path / "start").network.state_dict())


def test_rows_of_the_last_layer_go_to_classes_of_the_same_names(small_images: Images, start: Path) -> None:
    known = Classifier.load(start).network.state_dict()
    last = {name for name in known if LAST in name}
    fewer = first(train(begun(small(*UNJUDGED), start), source(called(small_images, "c", "a"))))
    assert fewer.keys() == known.keys()
    assert len(last) == 2
    for name, tensor in fewer.items():
        assert torch.equal(tensor, known[name][[2, 0]] if name in last else known[name])


@pytest.mark.parametrize("classes", [("a", "b", "c", "e"), ("a", "b", "e"), ("a", "e")])
def test_for_new_classes_the_last_layer_begins_at_random(
    classes: tuple[str, ...], small_images: Images, start: Path
) -> None:
    images = called(small_images, *classes)
    new, taken = (
        first(train(recipe, source(images), seed=5)) for recipe in (small(*UNJUDGED), begun(small(*UNJUDGED), start))
    )
    known = Classifier.load(start).network.state_dict()
    for name, tensor in taken.items():
        assert torch.equal(tensor, new[name] if LAST in name else known[name])


@pytest.mark.parametrize("variant", ["fast", "lookahead", "ends of epochs"])
def test_it_resumes_to_the_same_bits(variant: str, small_images: Images, tmp_path: Path) -> None:
    settings = settings_of(variant)
    train(settings.replace("epochs=1"), source(small_images), seed=3, out=tmp_path / "start").finish()
    recipe = begun(settings, tmp_path / "start")
    whole, part = (train(recipe, source(small_images)) for _ in range(2))
    whole.finish()
    for event in part:
        if isinstance(event, Epoch) and event.epoch == 2:
            part.interrupt()
    assert part.interrupted
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_with_the_same_weights(
    small_images: Images, start: Path, tmp_path: Path
) -> None:
    images = called(small_images, "a", "b", "new")
    recipe = begun(small(*UNJUDGED), start)
    whole, killed = (train(recipe, source(images)) for _ in range(2))
    shutil.move(start, tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"start\.model: .*no such file or folder"):
        resume(killed.run, source(images))
    again = resume(killed.run, source(images), start=tmp_path / "elsewhere")
    for training in (whole, again):
        training.finish()
    assert same(weights(whole), weights(again))
    with pytest.raises(RecipeError, match=r"names no start; .* set start\.model"):
        train(small(), source(small_images), start=tmp_path / "elsewhere")


def test_a_training_that_has_begun_needs_nobodys_weights_any_more(small_images: Images, start: Path) -> None:
    whole, part = (train(begun(small(), start), source(small_images)) for _ in range(2))
    told = whole.finish().facts["seen"]
    for _ in part:
        part.interrupt()
    shutil.rmtree(start)
    again = resume(part.run, source(small_images))
    assert again.finish().facts["seen"] == told
    assert same(weights(whole), weights(again))
    assert resume(part.run, source(small_images)).finish().facts["seen"] == told  # there is nothing left to learn


def test_everything_says_what_a_training_began_with(small_images: Images, start: Path) -> None:
    training = train(begun(small(), Path("start")), source(small_images))
    classifier = training.finish()
    expected = {"model": str(start.resolve()), "fingerprint": Classifier.load(start).fingerprint}
    stored = training.run.recipe.start
    assert (stored.model, stored.fingerprint) == tuple(expected.values())
    for facts in (training.run.environment, training.run.result, classifier.facts):
        assert facts["start"] == {**expected, "recipe": "classic"}
    assert training.run.recipe.replace("start.model=elsewhere").start.fingerprint == ""


def test_a_model_has_seen_what_its_first_weights_have_seen(small_images: Images, tmp_path: Path) -> None:
    one, other = (small_images.take(np.arange(parity, 200, 2)) for parity in (0, 1))
    train(small("epochs=1"), source(one), out=tmp_path / "start").finish()
    found = train(begun(small("epochs=1"), tmp_path / "start"), source(other), out=tmp_path / "tuned").finish()
    assert found.seen is not None
    for images in (one, other):
        assert found.seen.look_up(images.digests) == (100, 100)


# What is refused -----------------------------------------------------------------------------------------------------


def test_weights_that_know_validation_images_are_refused(small_images: Images, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"held out 20% of them, expected at least 40%.* --set validation=0"):
        train(begun(small("validation=0.4"), start), source(small_images))
    train(begun(small("validation=0.1"), start), source(small_images))  # these are some of those that it held out
    train(small("epochs=1", *UNJUDGED), source(small_images), out=tmp_path / "all").finish()
    with pytest.raises(ModelError, match="held out 0% of them"):
        train(begun(small(), tmp_path / "all"), source(small_images))
    tuned = begun(small(*UNJUDGED, "epochs=1"), tmp_path / "all")
    train(tuned, source(small_images), out=tmp_path / "tuned").finish()
    fewer = small_images.take(np.arange(120))
    for place in (start, tmp_path / "tuned"):
        with pytest.raises(ModelError, match="was trained or selected with 24 of 24 validation images"):
            train(begun(small(), place), source(fewer))
    new = Images(small_images.pixels[::-1] // 2, small_images.labels[::-1], small_images.classes, "new")
    train(begun(small("epochs=1"), start), source(new), out=tmp_path / "new").finish()
    with pytest.raises(ModelError, match="with 24 of 24 validation images"):  # through the weights that it began with
        train(begun(small(), tmp_path / "new"), source(fewer))


def test_of_a_sample_one_known_picture_is_enough(
    small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sketch, "SIZE", 20)
    train(small("epochs=1", *UNJUDGED), source(small_images), out="sampled").finish()
    seen = Classifier.load("sampled").seen
    assert seen is not None
    assert not seen.is_whole
    known = np.isin(small_images.digests, seen.digests)
    images = small_images.take(np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])[:40])
    with pytest.raises(ModelError, match=r"with 20 of \d+ training and validation images looked up"):
        train(begun(small(), "sampled"), source(images))


def test_what_a_teacher_has_seen_is_known_through_whoever_it_taught(
    small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    darker, darkest = (
        Images(small_images.pixels // part, small_images.labels, small_images.classes, "dark") for part in (2, 3)
    )
    once = small("epochs=1", *UNJUDGED)
    train(once, source(small_images), out="teacher").finish()
    train(once.replace("teacher.model=teacher"), source(darker), out="taught").finish()
    train(begun(once, "taught"), source(darkest), out="heir").finish()
    known = small_images.take(np.arange(120))
    for place in ("taught", "heir"):
        with pytest.raises(ModelError, match="was taught by a model that was trained or selected with 24 of 24"):
            train(begun(small(), place), source(known))
        brighter = Images(small_images.pixels // 4, small_images.labels, small_images.classes, "bright")
        train(begun(small(), place), source(brighter))  # which nobody has seen


@pytest.mark.parametrize("hops", [1, 2])
def test_weights_whose_file_does_not_tell_are_refused_on_their_own_data_set(
    hops: int, start: Path, small_images: Images
) -> None:
    model = Classifier.load(start)
    model.facts = {key: fact for key, fact in model.facts.items() if key != "seen"} | {"data": "made-500"}
    model.save("untold.safetensors")
    other = Images(small_images.pixels // 2, small_images.labels, small_images.classes, "other-3-skip-4")
    train(begun(small("epochs=1"), "untold.safetensors"), source(other), out="tuned").finish()
    place = ("untold.safetensors", "tuned")[hops - 1]
    for name in ("made-100", "made", "made-100-skip-50", "made-coarse", "made-coarse-100"):
        images = Images(small_images.pixels[:100], small_images.labels[:100], small_images.classes, name)
        with pytest.raises(ModelError, match="learned from made, nobody has noted from which"):
            train(begun(small(), place), source(images))
    train(begun(small(*UNJUDGED), place), source(images))  # there is nothing to be known
    if hops == 1:  # of the images that it was trained on it says which it has held out
        train(begun(small(), place), source(small_images))


def test_weights_of_unknown_origin_are_refused_where_images_judge(small_images: Images, start: Path) -> None:
    model = Classifier.load(start)
    model.facts = {}
    model.save("unknown.safetensors")
    with pytest.raises(ModelError, match="does not say what it has learned from"):
        train(begun(small(), "unknown.safetensors"), source(small_images))
    train(begun(small(*UNJUDGED), "unknown.safetensors"), source(small_images))


def test_a_disk_that_is_full_changes_nothing_about_the_beginning(
    small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.load("fast94", [*FAST, *UNJUDGED])
    train(recipe, source(small_images), out=tmp_path / "start").finish()
    darker = Images(small_images.pixels // 2, small_images.labels, small_images.classes, "darker")
    training = train(begun(recipe, tmp_path / "start"), source(darker))

    def full(_: Training) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_checkpoint", full)
        with pytest.raises(StorageError):
            next(iter(training))
    assert same(first(training), Classifier.load(tmp_path / "start").network.state_dict())


def test_a_fingerprint_that_is_given_with_a_model_is_asked_for_in_any_order() -> None:
    words = [f"start.fingerprint={'0' * 64}", "start.model=nowhere"]
    for order in (words, words[::-1]):
        assert begun(small(), "", *order).start.fingerprint == "0" * 64
    assert begun(begun(small(), "", *words), "elsewhere").start.fingerprint == ""


def test_a_study_refuses_before_it_trains(small_images: Images, start: Path) -> None:
    for words in (["validation=0.4"], ["model.stages=[[4], [4]]"]):
        with pytest.raises(InputError, match=r"start\.model") as refused:
            Trials.of(begun(small(*words), start), source(small_images))
        assert "validation=0" not in str(refused.value)  # a study cannot do without


def test_a_search_refuses_before_it_leaves_anything(
    small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    once = small("epochs=1", *UNJUDGED, 'search={"optimizer.learning_rate" = {low = 1e-4, high = 1e-2}}')
    train(once, source(small_images), out="all").finish()
    with pytest.raises(ModelError, match=r"start\.model: .*held out 0% of them, expected at least 10%"):
        tune(begun(once, "all"), source(small_images), Path("search"), trials=1)
    assert not Path("search").exists()


def test_another_network_is_refused(small_images: Images, start: Path, tmp_path: Path) -> None:
    for words, problem in (
        (["model.stages=[[4], [4]]"], r"model\.stages differ"),
        (["model.hidden_units=8", "model.stages=[[4]]"], r"model\.stages, model\.hidden_units differ"),
        (["pixels.mean=[0.5, 0.5, 0.5]"], r"pixels\.mean differ"),
    ):
        with pytest.raises(RecipeError, match=rf"another network than recipe classic trains: {problem}"):
            train(begun(small(*words), start), source(small_images))
    train(begun(small("model.dropout=0.5"), start), source(small_images), out="freer")
    fast = recipes.load("fast94", [*FAST, "validation=0.2"])
    with pytest.raises(RecipeError, match=r"model\.name, .* differ, model\.name is 'classic' there and 'speed' here"):
        train(begun(fast, start), source(small_images))
    larger = Images(small_images.pixels.repeat(2, 1), small_images.labels, small_images.classes, "larger")
    with pytest.raises(ModelError, match="takes images of 8 × 8 pixels; expected 16 × 8, as larger has"):
        train(begun(small(), start), source(larger))
    one = Classifier.load(start)
    Ensemble.of([one]).save(tmp_path / "several")
    with pytest.raises(ModelError, match="is an ensemble; expected a single network"):
        train(begun(small(), tmp_path / "several"), source(small_images))
    own = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(RecipeError, match="but the network is your own"):
        train(begun(small(), start), source(small_images), network=own)
    with pytest.raises(ModelError, match=r"start\.model: nowhere: no such file or folder"):
        train(begun(small(), "nowhere"), source(small_images))
    with pytest.raises(RecipeError, match=r"no start\.model"):
        small(f"start.fingerprint={'0' * 64}")
    assert not Path("runs").exists()


def test_an_audit_begins_with_nothing(small_images: Images, start: Path, tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    with pytest.raises(InputError, match=r"start\.model: .*expected none in an audit"):
        audit(source(small_images), begun(small(), start), tmp_path / "audit")


def test_a_digest_stands_for_weights_and_not_for_where_they_lie(
    small_images: Images, start: Path, tmp_path: Path
) -> None:
    shutil.copytree(start, tmp_path / "copy")
    here = source(small_images)
    one, copy = (Trials.of(begun(small(), place), here) for place in (start, tmp_path / "copy"))
    assert one.path.name == copy.path.name != Trials.of(small(), here).path.name
    assert one.recipe.digest == copy.recipe.digest != small().digest


@pytest.mark.parametrize("name", [name for name in recipes.names() if name != "best"])
def test_what_belongs_to_classes_is_found_in_every_network(name: str) -> None:
    model = recipes.load(name).model
    ten, eleven = (models.shapes(model, classes) for classes in (10, 11))
    differ = [key for key in ten if ten[key] != eleven[key]]
    assert 1 <= len(differ) <= 2
    assert all(ten[key][0] == 10 for key in differ)
