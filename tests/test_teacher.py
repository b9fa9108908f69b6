"""Teachers: what is minimised is the formula, what they see is what the network sees, and nothing is given away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, linear

from tests.test_step import FAST, TRAINING, VARIANTS, repeated, settings_of
from tests.test_train import rows, same, small, source, weights
from thirtytwo import models, references
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier, Ensemble
from thirtytwo.data.images import Images
from thirtytwo.data.loader import Standardise
from thirtytwo.errors import InputError, ModelError, RecipeError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.study import Interrupted, Local, Trials, Watcher, audit
from thirtytwo.study.task import Task
from thirtytwo.train import Training, resume, train

STANDARDISED = ["pixels.mean=[0.4, 0.5, 0.6]", "pixels.standard_deviation=[0.2, 0.25, 0.3]"]
PLAIN = [
    "batch_size=200", "epochs=1", "validation=0", "early_stopping.patience=0", "schedule.name=constant",
    "optimizer.name=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.learning_rate=0.1",
    "augmentation.rotation_degrees=0", "augmentation.width_shift=0", "augmentation.height_shift=0",
    "augmentation.horizontal_flip=false",
]  # fmt: skip


@pytest.fixture
def teacher(small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that knows something, and has held out a fifth of the images; its pixels are prepared in its own way."""
    monkeypatch.chdir(tmp_path)
    train(small("epochs=6", *STANDARDISED), source(small_images), seed=9, out=tmp_path / "teacher").finish()
    return tmp_path / "teacher"


@pytest.fixture
def several(teacher: Path, small_images: Images, tmp_path: Path) -> Path:
    """An ensemble of it and another one, which prepares pixels otherwise."""
    other = train(small("epochs=3"), source(small_images), seed=8).finish()
    one = Classifier.load(teacher)
    facts = {key: one.facts[key] for key in ("fingerprint", "validation_fraction")}
    both = Ensemble.of([one, other], [3, 1], facts)
    both.temperature = 1.3
    (tmp_path / "both").mkdir()
    both.save(tmp_path / "both" / "model.safetensors")
    return tmp_path / "both"


def taught(recipe: Recipe, teacher: Path, *words: str) -> Recipe:
    return recipe.replace(f"teacher.model={teacher}", *words)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_teacher_without_weight_changes_no_bit(variant: str, small_images: Images, teacher: Path) -> None:
    recipe = settings_of(variant).replace("validation=0.2", "loss.label_smoothing=0.1")
    plain = train(recipe, source(small_images))
    plain.finish()
    idle = train(taught(recipe, teacher, "teacher.weight=0"), source(small_images))
    idle.finish()
    assert same(weights(plain), weights(idle))
    assert rows(plain) == rows(idle)


@pytest.mark.parametrize(
    ("weight", "temperature", "reduction", "smoothing"),
    [(1.0, 1.0, "mean", 0.0), (1.0, 4.0, "mean", 0.2), (0.9, 2.0, "sum", 0.1), (0.25, 3.0, "mean", 0.1)],
)
@pytest.mark.parametrize("who", ["teacher", "several"])
def test_a_step_follows_the_gradient_of_the_formula(
    weight: float, temperature: float, reduction: str, smoothing: float, who: str,
    small_images: Images, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Hinton et al. 2015, for a linear network and one step of gradient descent, in float64."""
    place = request.getfixturevalue(who)
    rate = 0.1 if reduction == "mean" else 0.1 / len(small_images)
    words = [*PLAIN, f"optimizer.learning_rate={rate}", f"loss.reduction={reduction}"]
    words += [f"loss.label_smoothing={smoothing}", f"teacher.weight={weight}", f"teacher.temperature={temperature}"]
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    layer = network[1]
    assert isinstance(layer, nn.Linear)
    leaves = [parameter.detach().double().clone().requires_grad_() for parameter in layer.parameters()]
    pixels = torch.from_numpy(small_images.pixels).movedim(-1, 1)
    labels = torch.from_numpy(small_images.labels)
    scores = linear(pixels.double().flatten(1) / 255, leaves[0], leaves[1])
    said = Classifier.load(place).probabilities(pixels).double().log()
    softened = (said / temperature).softmax(1)
    divergence = kl_div((scores / temperature).log_softmax(1), softened, reduction="batchmean")
    loss = (1 - weight) * cross_entropy(scores, labels, label_smoothing=smoothing)
    loss = loss + weight * temperature**2 * divergence
    gradients = torch.autograd.grad(loss, leaves)
    train(taught(recipes.load("classic", words), place), source(small_images), network=network).finish()
    for parameter, leaf, gradient in zip(layer.parameters(), leaves, gradients, strict=True):
        assert torch.allclose(parameter.double(), leaf.detach() - 0.1 * gradient, atol=2e-6)


def test_what_was_prepared_for_one_network_is_what_another_takes(
    small_images: Images, teacher: Path, several: Path
) -> None:
    pixels = torch.from_numpy(small_images.pixels[:20]).movedim(-1, 1)
    for prepared in (Standardise(), Standardise((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), Standardise((0.4, 0.5, 0.6))):
        for place in (teacher, several):
            model = Classifier.load(place)
            with torch.no_grad():
                answers = model.calibrated_scores(prepared(pixels), prepared).softmax(1)
            assert torch.allclose(answers, model.probabilities(pixels), atol=1e-5)


class Watched:
    """What a network and its teacher were shown, step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.teacher: list[Tensor] = []
        self.network: list[Tensor] = []
        asked = Classifier.calibrated_scores

        def ask(classifier: Classifier, inputs: Tensor, prepared: Standardise) -> Tensor:
            self.teacher.append(inputs.clone())
            return asked(classifier, inputs, prepared)

        monkeypatch.setattr(Classifier, "calibrated_scores", ask)

    def follow(self, training: Training) -> None:
        def look(network: nn.Module, inputs: tuple[Any, ...]) -> None:
            if network.training and inputs[0].any():  # operations are counted with black images
                self.network.append(inputs[0].detach().clone())

        training.network.register_forward_pre_hook(look)
        training.finish()


def test_a_teacher_sees_what_the_network_sees(
    small_images: Images, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    recipe = settings_of("mixed").replace("validation=0.2", "augmentation.cutout_pixels=2", *STANDARDISED)
    watched.follow(train(taught(recipe, teacher), source(small_images)))
    assert len(watched.teacher) == len(watched.network) == 2 * 4
    assert all(torch.equal(one, other) for one, other in zip(watched.teacher, watched.network, strict=True))


def test_a_sharpness_aware_step_asks_once(small_images: Images, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.follow(train(taught(settings_of("sharpness-aware"), teacher), source(small_images)))
    assert len(watched.network) == 2 * len(watched.teacher)


def test_images_that_are_scaled_down_are_shown_to_a_teacher_as_they_were(
    small_images: Images, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    recipe = recipes.load("fast94", [*FAST, "validation=0.2", "image_scales=[0.75, 1.0]"])
    watched.follow(train(taught(recipe, teacher), source(small_images)))
    assert {tuple(inputs.shape[2:]) for inputs in watched.teacher} == {(8, 8)}
    assert {tuple(inputs.shape[2:]) for inputs in watched.network} == {(6, 6), (8, 8)}
    full = [inputs.shape[2] == 8 for inputs in watched.network]
    pairs = zip(watched.teacher, watched.network, full, strict=True)
    assert all(torch.equal(one, other) for one, other, is_full in pairs if is_full)


@pytest.mark.parametrize("variant", ["fast", "classic", "mixed", "selected and scaled"])
@pytest.mark.parametrize("is_recorded", [False, True], ids=["asked", "recorded"])
def test_an_interrupted_lesson_resumes_to_the_same_bits(
    variant: str, is_recorded: bool, small_images: Images, several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_recorded:
        monkeypatch.setattr(TRAINING, "recorder", repeated)
    recipe = taught(settings_of(variant), several, "validation=0.2")
    whole = train(recipe, source(small_images))
    whole.finish()
    part = train(recipe, source(small_images))
    for number, _ in enumerate(part):
        if number == 0:
            part.interrupt()
    assert part.interrupted
    again = resume(part.run, source(small_images))
    again.finish()
    assert same(weights(whole), weights(again))
    assert rows(whole) == rows(again)


def test_a_training_goes_on_with_its_own_teacher_only(small_images: Images, teacher: Path, tmp_path: Path) -> None:
    part = train(taught(small(), teacher), source(small_images))
    for _ in part:
        part.interrupt()
    shutil.move(teacher, tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"teacher\.model: .*no such file or folder"):
        resume(part.run, source(small_images))
    train(small("epochs=1"), source(small_images), seed=3, out=tmp_path / "other").finish()
    with pytest.raises(ModelError, match="has the fingerprint"):
        resume(part.run, source(small_images), teacher=tmp_path / "other")
    again = resume(part.run, source(small_images), teacher=tmp_path / "elsewhere")
    again.finish()
    shutil.rmtree(tmp_path / "elsewhere")
    resume(part.run, source(small_images)).finish()  # there is nothing left to learn


def test_a_teacher_that_has_moved_teaches_the_same(small_images: Images, teacher: Path, tmp_path: Path) -> None:
    recipe = references.identified(taught(small("epochs=2"), teacher), small_images, 0.1)
    here = train(recipe, source(small_images))
    here.finish()
    train(small("epochs=1"), source(small_images), seed=3, out=tmp_path / "other").finish()
    shutil.move(teacher, tmp_path / "elsewhere")
    there = train(recipe, source(small_images), teacher=tmp_path / "elsewhere")
    there.finish()
    assert same(weights(here), weights(there))
    assert here.run.recipe == there.run.recipe
    assert here.run.environment["teacher"] == there.run.environment["teacher"]
    with pytest.raises(ModelError, match="has the fingerprint"):
        train(recipe, source(small_images), teacher=tmp_path / "other")


def test_a_study_goes_on_with_a_teacher_that_has_moved(small_images: Images, teacher: Path, tmp_path: Path) -> None:
    class Stop(Watcher):
        def happens(self, task: Task, event: Step | Epoch) -> None:
            pool.interrupt()

    pool, here = Local(Stop()), source(small_images)
    study = Trials.of(taught(small(), teacher), here)
    with pytest.raises(Interrupted):
        study.trial(0, pool)
    whole = Trials.of(taught(small(), teacher), here, tmp_path / "whole").trial(0)
    shutil.move(teacher, tmp_path / "elsewhere")
    moved = Trials.of(taught(small(), tmp_path / "elsewhere"), here)
    assert moved.run(0).path == study.run(0).path
    trial = moved.trial(0)
    assert Classifier.load(trial.run).fingerprint == Classifier.load(whole.run).fingerprint


def test_what_is_sent_of_a_teacher_is_the_whole_of_it(
    small_images: Images, teacher: Path, several: Path, tmp_path: Path
) -> None:
    for place in (teacher, teacher / "model.safetensors", several):
        content = references.content(taught(small(), place))
        assert content.keys() == {"teacher"}
        (tmp_path / "sent").write_bytes(content["teacher"])
        assert Classifier.load(tmp_path / "sent").fingerprint == Classifier.load(place).fingerprint
    assert references.content(small()) == {}
    assert references.content(taught(small(), Path("pretrained"))) == {}  # is there already
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelError, match=r"teacher\.model: "):
            references.content(taught(small(), place))


def test_everything_says_who_taught(small_images: Images, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(teacher.parent)
    training = train(taught(small(), Path("teacher")), source(small_images))
    classifier = training.finish()
    expected = {"model": str(teacher.resolve()), "fingerprint": Classifier.load(teacher).fingerprint}
    stored = training.run.recipe.teacher
    assert (stored.model, stored.fingerprint) == tuple(expected.values())
    for facts in (training.run.environment, training.run.result, classifier.facts, Classifier.load(training.run).facts):
        assert facts["teacher"] == {**expected, "recipe": "classic"}
    assert training._teacher is not None
    assert training._teacher.fingerprint == expected["fingerprint"]  # to the bit what it was
    untaught = train(small(), source(small_images))
    untaught.finish()
    assert "teacher" not in untaught.run.environment.keys() | untaught.run.result.keys()


def test_a_stored_recipe_takes_no_other_teacher_than_its_own(small_images: Images, teacher: Path) -> None:
    recipe = train(taught(small("epochs=1"), teacher), source(small_images)).run.recipe
    train(small("epochs=1"), source(small_images), out=teacher.with_name("other")).finish()
    shutil.copy(teacher.with_name("other") / "model.safetensors", teacher)
    with pytest.raises(ModelError, match="has the fingerprint"):
        train(recipe, source(small_images))
    train(recipe.replace("teacher.fingerprint="), source(small_images))
    assert recipe.replace(f"teacher.model={teacher}2").teacher.fingerprint == ""


def test_a_teacher_for_a_recipe_that_names_none_is_refused(small_images: Images, teacher: Path) -> None:
    with pytest.raises(RecipeError, match=r"names no teacher; .* set teacher\.model"):
        train(small(), source(small_images), teacher=teacher)


def test_a_teacher_that_may_have_seen_validation_images_is_refused(
    small_images: Images, teacher: Path, tmp_path: Path
) -> None:
    train(small("epochs=1", "validation=0", "early_stopping.patience=0"), source(small_images), out="all").finish()
    with pytest.raises(ModelError, match=r"through it, the network would know the images.*--set validation=0"):
        train(taught(small(), tmp_path / "all"), source(small_images))
    with pytest.raises(ModelError, match="held out 20% of the training images, expected 40%"):
        train(taught(small("validation=0.4"), teacher), source(small_images))
    fewer = small_images.take(np.arange(100))
    table = tmp_path / "table.csv"
    table.write_text("split,index\ntraining,3\n")
    train(small("epochs=1"), source(small_images), out="less", exclude=table).finish()
    with pytest.raises(ModelError, match=r"than these, without 1 of them \(table\.csv\).*with the same --exclude"):
        train(taught(small(), tmp_path / "less"), source(small_images))
    with pytest.raises(ModelError, match="with the same --exclude"):
        train(taught(small(), teacher), source(small_images), exclude=table)
    train(taught(small("epochs=1"), tmp_path / "less"), source(small_images), out="taught", exclude=table).finish()
    with pytest.raises(ModelError, match="was trained on other images than these"):
        train(taught(small(), teacher), source(fewer))
    for place in (tmp_path / "all", teacher):  # there is nothing to be known
        train(taught(small("epochs=1", "validation=0", "early_stopping.patience=0"), place), source(fewer))
    assert not (tmp_path / "runs" / "classic-3").exists()


def test_a_teacher_of_something_else_is_refused(small_images: Images, teacher: Path) -> None:
    renamed = Images(small_images.pixels, small_images.labels, ("a", "b", "d", "c"), "renamed")
    with pytest.raises(ModelError, match=r"renamed has the classes .* in another order: label 2 is d, not c"):
        train(taught(small("validation=0", "early_stopping.patience=0"), teacher), source(renamed))
    larger = Images(small_images.pixels.repeat(2, 1), small_images.labels, small_images.classes, "larger")
    with pytest.raises(ModelError, match="takes images of 8 × 8 pixels; expected 16 × 8, as larger has"):
        train(taught(small("validation=0", "early_stopping.patience=0"), teacher), source(larger))
    with pytest.raises(ModelError, match=r"teacher\.model: nowhere: no such file or folder"):
        train(taught(small(), Path("nowhere")), source(small_images))
    with pytest.raises(RecipeError, match=r"no teacher\.model"):
        small(f"teacher.fingerprint={'0' * 64}")
    for wrong in ("weight=1.5", "temperature=0", "fingerprint=abc"):
        with pytest.raises(RecipeError, match=rf"teacher\.{wrong.partition('=')[0]}"):
            taught(small(), teacher, f"teacher.{wrong}")
    assert not Path("runs").exists()


def test_an_audit_takes_no_teacher(small_images: Images, teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    with pytest.raises(InputError, match="expected none in an audit"):
        audit(source(small_images), taught(small(), teacher), tmp_path / "audit")


def test_a_digest_stands_for_what_a_teacher_says_and_not_for_where_it_lies(
    small_images: Images, teacher: Path, several: Path, tmp_path: Path
) -> None:
    shutil.copytree(teacher, tmp_path / "copy")
    here = source(small_images)

    def place(teacher: Path | None, *words: str) -> str:
        return Trials.of(small(*words) if teacher is None else taught(small(*words), teacher), here).path.name

    assert place(teacher) == place(tmp_path / "copy")
    named = {place(None), place(teacher), place(several), place(teacher, "teacher.weight=0.5")}
    assert len(named) == 4
    assert place(None) == place(None, "teacher.weight=0.5")  # nobody teaches
    stored = Trials.of(taught(small(), teacher), here).recipe
    moved = Trials.of(taught(small(), tmp_path / "copy"), here).recipe
    assert stored.digest == moved.digest != small().digest == small("teacher.weight=0.5").digest


def test_a_teachers_answers_count_as_work(small_images: Images, teacher: Path, several: Path) -> None:
    student = small("epochs=2")
    plain, one, two = (
        train(recipe, source(small_images)).finish().facts["flops"]
        for recipe in (student, taught(student, teacher), taught(student, several))
    )
    forward = models.flops_per_image(Classifier.load(teacher).network, (8, 8), backward=False)
    assert 0 < forward < models.flops_per_image(Classifier.load(teacher).network, (8, 8)) / 2
    assert one - plain == 2 * 160 * forward
    assert two - plain == 2 * (one - plain)


def test_a_taught_network_agrees_with_its_teacher(small_images: Images, tmp_path: Path) -> None:
    """With a teacher that believes something of its own: what it calls b and c is the other way about."""
    swapped = Images(small_images.pixels, np.array([0, 2, 1, 3])[small_images.labels], small_images.classes, "swapped")
    contrary = train(small("epochs=12"), source(swapped), out=tmp_path / "contrary").finish()
    recipe = small("epochs=12", "validation=0", "early_stopping.patience=0")
    pixels = small_images.pixels
    untaught = train(recipe, source(small_images)).finish()
    pupil = train(taught(recipe, tmp_path / "contrary", "teacher.weight=1"), source(small_images)).finish()
    opinion = torch.from_numpy(contrary(pixels)).argmax(1)
    assert float((torch.from_numpy(pupil(pixels)).argmax(1) == opinion).double().mean()) > 0.9
    assert float((torch.from_numpy(untaught(pixels)).argmax(1) == opinion).double().mean()) < 0.6
