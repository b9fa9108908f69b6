"""Scores a classifier on a split; the only way to the test images for anything that trains or chooses."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo import metrics
from thirtytwo.classifier import Classifier, class_difference, where
from thirtytwo.data import Exclusion, Images, Source, exclusion, find, ledger, sealed
from thirtytwo.data.corrupt import STRENGTHS, corrupted
from thirtytwo.data.loader import seeded
from thirtytwo.data.sketch import is_worth_telling
from thirtytwo.errors import DataError, InputError, ModelError, RunError
from thirtytwo.run import Run, write_tensors
from thirtytwo.settings import CustomModel

Split = Literal["training", "validation", "test"]

SHOWN_AT_RANDOM = 25
"""Test images in a report's random sample."""
SHOWN_PER_CLASS = 10
"""Training images of each class in a report."""
MOST_MISTAKES_SHOWN = 5_000
"""Misclassified test images whose pixels are kept for the report, most confident first."""

CORRUPTED = 1_000
"""Test images that are scored corrupted in every way there is, after a training."""

EXAMPLES, SAMPLE = 5, 6  # purposes of random streams, beside those of training


@dataclass(frozen=True, eq=False)
class Scored:
    """A classifier's answers on a split."""

    split: Split
    images: Images
    indices: Tensor
    """int64 (n,): positions in the data set's own order of this split."""
    probabilities: Tensor
    """float32 (n, classes), on the CPU."""
    opening: int | None
    """Which opening of the test set it was; None for other splits."""
    seconds: float
    """That classifying the images took."""
    warnings: tuple[str, ...] = ()
    """What a user has to know of this score, one sentence each, beside `Images.warnings`."""
    without_excluded: Scored | None = None
    """The same answers without the images that tables name, if `evaluate` was given any: a second look at these
    images, which replaces nothing."""

    @property
    def labels(self) -> Tensor:
        """int64 (n,)."""
        return torch.from_numpy(self.images.labels)

    def summary(self) -> dict[str, Any]:
        """Every measure of result.json for this split; rates are fractions, losses are in nats.

        ``accuracy_interval`` is a 95% interval for the draw of the images, see `metrics.wilson`; ``ece_by_chance`` is
        explained at `metrics.calibration_error_by_chance`.
        """
        probabilities, labels = self.probabilities, self.labels
        counts = metrics.confusion(probabilities, labels)
        precision, recall, f1 = metrics.per_class(counts)
        occurs = counts.sum(1) > 0
        return {
            "images": len(labels),
            "accuracy": metrics.accuracy(probabilities, labels),
            "accuracy_interval": list(metrics.accuracy_interval(probabilities, labels)),
            "loss": metrics.cross_entropy(probabilities, labels),
            "top5": metrics.top_k(probabilities, labels, 5),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
            "macro_f1": float(f1[occurs].mean()),
            "ece": metrics.expected_calibration_error(probabilities, labels),
            "ece_by_chance": metrics.calibration_error_by_chance(probabilities),
            "per_class": [
                {
                    "class": name,
                    "precision": float(precision[index]),
                    "recall": float(recall[index]),
                    "f1": float(f1[index]),
                    "images": int(counts[index].sum()),
                }
                for index, name in enumerate(self.images.classes)
            ],
            "confusion": counts.tolist(),
        }


def evaluate(
    model: Classifier | Run | str | Path,
    data: Source | str | None = None,
    *,
    split: Split = "test",
    validation: float | None = None,
    facts: Mapping[str, Any] | None = None,
    exclude: exclusion.Tables | exclusion.Table | str | Path = (),
) -> Scored:
    """Score a model on a split.

    Args:
        model: a classifier, or what `Classifier.load` takes.
        data: a SPEC or a source; None is what the model was trained on.
        split: ``test`` is counted in the ledger, see `data.sealed`, unless an error below says why not;
            ``validation`` and ``training`` are the two parts that a training divides the training images into.
        validation: share of the training images that is the validation part; None is what the model was trained with.
        facts: kept in the ledger, beside the model's recipe and where it lies.
        exclude: tables such as an audit's duplicates.csv, or their paths; see `data.exclusion`. All test images are
            scored, and `Scored.without_excluded` says what is left without those that a table names.

    Raises:
        ModelError: the model does not fit the data: other classes, or another image size; or the part is empty, or is
            not what it was when the model was trained.
        InputError: a table belongs to other images, names all of them, or is given with another split.
    """
    tables = exclusion.read(exclude)
    if tables and split != "test":
        raise InputError(
            f"exclude: found the split {split}; expected test, since a run has chosen its training images; leave it out"
        )
    classifier = model if isinstance(model, Classifier) else Classifier.load(model)
    source = data if isinstance(data, Source) else find(data or classifier.facts.get("spec"))
    if split == "test":
        source = source.without(Exclusion())
    elif left_out := classifier.exclusion:
        source = source.without(left_out)
    # Whether model and tables fit is asked of the training images: a test set is not opened in vain.
    training = _in_models_order(classifier, source.read_training())
    _fits(classifier, training)
    if split == "test":
        exclusion.training(tables, training)

        def check(images: Images) -> None:
            _stays(images, tables)

        recorded = {**({} if isinstance(model, Classifier) else {"run": where(model)}), **(facts or {})}
        scored = _open_and_score(classifier, source, key=uuid.uuid4().hex, facts=recorded, check=check)
        return replace(scored, without_excluded=_without(scored, tables)) if tables else scored
    trained_on = classifier.facts.get("fingerprint", training.fingerprint)
    share = classifier.facts.get("validation_fraction")
    is_own = classifier.facts.get("fingerprint") == training.fingerprint and validation in (None, share)
    if validation is None:
        validation = float(classifier.facts.get("validation_fraction", 0.1))
        if training.fingerprint != trained_on:
            raise ModelError(
                f"{source.location}: not the images that this model was trained on, so which of them it saw is not "
                "known; expected the same ones, or validation=SHARE to divide these; the test split can be scored"
            )
    kept, held_out = training.split(validation)
    indices = held_out if split == "validation" else kept
    if not len(indices):
        raise ModelError(
            f"{training.name}: the model was trained on all training images, so the {split} part is empty; "
            "expected images to score; choose another split"
        )
    scored = _score_part(classifier, split, training, indices)
    if is_own:
        return replace(scored, warnings=(_known_to_the_model(split),))
    # Whatever they are called here, they may have been shown to this model, or be somebody's test images.
    known = _trained_on(classifier, scored.images), ledger.among_training(scored.images)
    return replace(scored, warnings=tuple(itertools.chain(*known)))


def _known_to_the_model(split: Split) -> str:
    """What a score says on one of the two parts of the images that a model was trained with."""
    if split == "training":
        return (
            "the model was trained on these images: the accuracy says how well it remembers them, not how good it is "
            "on new ones"
        )
    # Whoever trains or chooses members fits a temperature, at least; some recipes choose the epoch, too.
    return (
        "parts of the model were fitted to these images, such as how sure it is: on new ones it may do slightly worse"
    )


def _stays(images: Images, tables: tuple[exclusion.Table, ...]) -> NDArray[np.int64]:
    """Positions of the test images that no table names.

    Raises:
        DataError: a table belongs to other images.
        InputError: tables name all of them.
    """
    named = sorted({index for table in tables for index in table.indices(images, "test")})
    stays = np.delete(np.arange(len(images)), named)
    if not len(stays):
        files = ", ".join(str(table.path) for table in tables)
        raise InputError(
            f"{files}: all {len(named):,} test images are named; expected some to score; leave a table out"
        )
    return stays


def _without(scored: Scored, tables: tuple[exclusion.Table, ...]) -> Scored:
    """What is left of a scored test set without the images that tables name: by itself, another test set."""
    stays = _stays(scored.images, tables)
    kept, images = torch.from_numpy(stays), scored.images.take(stays)
    return replace(
        scored,
        images=images,
        opening=ledger.read(images).count,  # this opening, which has shown all of them, is entered already
        indices=scored.indices[kept],
        probabilities=scored.probabilities[kept],
    )


def open_for_audit(source: Source, *, key: str, model: str, facts: Mapping[str, Any]) -> sealed.Opening:
    """Test images whose labels are to be doubted, rather than a model: counted like any other opening.

    Args:
        source: the data set.
        key: names the audit; the same audit, taken up again, is no further opening.
        model: stands for the networks that it asks.
        facts: kept in the ledger.
    """
    return sealed.open_test(source, key=key, model=model, facts=dict(facts))


@dataclass(frozen=True)
class Openings:
    """What may be known of a test set without opening it."""

    images: int
    count: int
    """How often its images were shown on average, to the nearest whole number."""
    entries: list[dict[str, Any]]
    """The openings that have shown any of them, oldest first: ``share``, of the images that each has shown, and what
    the ledger says: ``date``, ``data``, ``recipe``, ``run``, …; nothing more where its line cannot be read."""
    warnings: tuple[str, ...]
    """What a user has to know of how they were counted, one sentence each."""


def openings(source: Source) -> Openings:
    """How many test images a data set has, and which models this user has scored on them; counts nothing.

    Raises:
        DataError: there are no test images, or some cannot be read.
        StorageError: the ledger cannot be read.
    """
    known = sealed.known(source)
    entries = []
    for opening in known.openings:
        # Its number, when it was counted, among the openings of another set: no number here.
        facts = {name: fact for name, fact in opening.facts.items() if name != "opening"}
        entries.append({"share": opening.share, **facts})
    return Openings(len(known.shown), known.count, entries, known.warnings)


def check_test(source: Source) -> None:
    """Whether the test images can be read, before networks are trained that are to be asked about them; counts nothing.

    Raises:
        DataError: there are none, or some cannot be read.
        StorageError: the ledger, in which openings are counted, cannot be written.
    """
    sealed.check_readable(source)


def _score_part(classifier: Classifier, split: Split, training: Images, indices: NDArray[np.int64]) -> Scored:
    """Score one of the two parts of the training images."""
    return _score(classifier, split, training.take(indices), torch.from_numpy(indices), opening=None)


def _score(classifier: Classifier, split: Split, images: Images, indices: Tensor, opening: int | None) -> Scored:
    started = time.perf_counter()
    probabilities = classifier.probabilities(images.pixels).cpu()  # waits for the device
    return Scored(split, images, indices, probabilities, opening, time.perf_counter() - started)


def _open_and_score(
    classifier: Classifier,
    source: Source,
    *,
    key: str,
    facts: Mapping[str, Any],
    check: Callable[[Images], None] = lambda _: None,
) -> Scored:
    """Open the test set, which is counted, and score it."""
    recorded = {"recipe": classifier.facts.get("recipe"), **facts}
    opened = sealed.open_test(source, key=key, model=classifier.fingerprint, facts=recorded, check=check)
    images = _in_models_order(classifier, opened.images)
    scored = _score(classifier, "test", images, torch.arange(len(images)), opened.number)
    return replace(scored, warnings=(*opened.warnings, *_trained_on(classifier, opened.images)))


def _trained_on(classifier: Classifier, images: Images) -> tuple[str, ...]:
    """That images are pictures which the model was trained on, if it is so: then a score says little."""
    if (seen := classifier.seen) is None:
        return ()
    found, asked = seen.look_up(images.digests)
    if not is_worth_telling(found, asked):
        return ()
    among = f"{asked:,} of these {len(images):,} images were looked up, and {found:,} of them"
    which = f"{found:,} of these {len(images):,} images" if asked == len(images) else among
    return (
        f"{which} are pictures that this model was trained or selected with, to the pixel; how well it "
        "answers on them says nothing about new pictures",
    )


def evaluate_run(
    run: Run,
    data: Source | str | None = None,
    classifier: Classifier | None = None,
    *,
    corrupted_images: int | None = None,
) -> dict[str, Any]:
    """Score a finished training on its validation part and, once, on the test set, and complete its folder.

    A second call returns what the first one stored and opens nothing. ``model_fingerprint`` says which model was
    scored, ``files`` of which files of the run that came.

    Args:
        run: a run whose training has ended.
        data: where its data is; None finds what it was trained on.
        classifier: the run's, if it is at hand (or cannot be loaded without its owner's network).
        corrupted_images: about how many test images are scored corrupted, too, one of each class at least; see
            `under_corruption`. None is `CORRUPTED`, or a fifth of them if that is less; 0 is none.

    Returns:
        The complete result.

    Raises:
        RunError: training has not ended; or the run was scored, and one of its files has been changed since.
        DataError: these are not the images that the run was trained on.
    """
    with run.locked():
        result = run.result
        if not result:
            by_hand = isinstance(run.recipe.model, CustomModel)
            remedy = "resume(run, network=module)" if by_hand else f"`thirtytwo train --resume {run.path}`"
            raise RunError(f"{run.path}: training has not ended; expected a finished one; {remedy} goes on with it")
        if "test" in result:
            run.check_unchanged()
            return result
        trained_on = run.environment["data"]
        source = data if isinstance(data, Source) else find(data or trained_on["spec"])
        source = source.without(exclusion.recalled(trained_on))
        classifier = classifier or Classifier.load(run)
        training = source.read_training()
        _fits(classifier, training)
        if training.fingerprint != trained_on["fingerprint"]:
            raise DataError(
                f"{source.location}: not the images that {run.path} was trained on; expected the same ones; "
                "give them with --data, or score the model on these with `thirtytwo evaluate`"
            )
        seed = int(run.environment["seed"])
        kept, held_out = training.split(run.recipe.validation)
        scored: list[Scored] = []
        if len(held_out):
            scored.append(_score_part(classifier, "validation", training, held_out))
        recorded = {"run": str(run.path.resolve()), "seed": seed}
        scored.append(_open_and_score(classifier, source, key=run.environment["run_id"], facts=recorded))
        calibration = {"temperature": classifier.temperature, "unknown_below": classifier.unknown_below}
        _store(run, scored, _examples(training.take(kept), seed), seed, calibration)
        images = scored[-1].images
        if corrupted_images is None:
            # Each is scored in thirty ways: with few of them, that would take longer than the training.
            corrupted_images = min(CORRUPTED, max(len(images) // 5, 1))
        if corrupted_images:
            result["corrupted"] = under_corruption(classifier, images, corrupted_images)
        result["model_fingerprint"] = classifier.fingerprint
        result["files"] = run.digests()
        result["test_opening"] = scored[-1].opening
        result["test_warnings"] = list(scored[-1].warnings)
        result.setdefault("calibration", calibration)
        result["scoring_seconds"] = scored[-1].seconds
        for part in scored:
            result[part.split] = part.summary()
        run.result = result
        return result


def under_corruption(classifier: Classifier, images: Images, number: int = CORRUPTED) -> dict[str, Any]:
    """How much of its accuracy is left when pictures get worse; see `data.corrupt`.

    Args:
        classifier: whose first view of each picture is scored.
        images: as they are, such as those of a `Scored`: then the test set is not opened anew.
        number: so many of them, as many of each class as there are, or as the others have; all, if there are fewer.

    Returns:
        ``images``, how many; ``accuracy``, of the same images as they are; ``kinds``: for each kind of corruption the
        accuracies at strengths 1 to 5; ``mean`` of all of these.
    """
    if number < len(images):
        images = images.take(images.fewer(number))
    first = classifier.with_one_view()
    labels = torch.from_numpy(images.labels)

    def accuracy(pixels: NDArray[np.uint8]) -> float:
        return metrics.accuracy(first.probabilities(pixels).cpu(), labels)

    kinds = {
        str(kind): [accuracy(corrupted(images.pixels, kind, strength)) for strength in range(1, len(amounts) + 1)]
        for kind, amounts in STRENGTHS.items()
    }
    values = [value for row in kinds.values() for value in row]
    return {
        "images": len(images),
        "accuracy": accuracy(images.pixels),
        "kinds": kinds,
        "mean": sum(values) / len(values),
    }


def _in_models_order(classifier: Classifier, images: Images) -> Images:
    """The same images, with labels in the order of the model's classes, if they are of the same classes."""
    known = {name: label for label, name in enumerate(classifier.classes)}
    if images.classes == classifier.classes or set(images.classes) != known.keys():
        return images
    renumbered = np.array([known[name] for name in images.classes], dtype=np.int64)
    return replace(images, labels=renumbered[images.labels], classes=classifier.classes)


def _fits(classifier: Classifier, images: Images) -> None:
    if difference := class_difference(images.classes, classifier.classes):
        raise ModelError(
            f"{images.name} {difference}; expected the model's classes; name them (in a folder: the class folders) "
            "as the model does, or give the data that it was trained on with --data"
        )
    if classifier.size != images.size:
        raise ModelError(
            f"{images.name} has images of {images.size[0]} × {images.size[1]} pixels, the model expects "
            f"{classifier.size[0]} × {classifier.size[1]}; give other data with --data"
        )


def _examples(training: Images, seed: int) -> dict[str, Tensor]:
    """Random training images of each class.

    Returns:
        ``examples`` uint8 (classes, n, height, width, 3), black where a class has fewer than n, and ``examples.counts``
        int64 (classes,): how many there are.
    """
    generator = seeded(seed, EXAMPLES)
    examples = torch.zeros((len(training.classes), SHOWN_PER_CLASS, *training.size, 3), dtype=torch.uint8)
    counts = torch.zeros(len(training.classes), dtype=torch.int64)
    for label in range(len(training.classes)):
        members = torch.from_numpy(np.flatnonzero(training.labels == label))
        chosen = members[torch.randperm(len(members), generator=generator)[:SHOWN_PER_CLASS]]
        examples[label, : len(chosen)] = torch.from_numpy(training.pixels[chosen.numpy()])
        counts[label] = len(chosen)
    return {"examples": examples, "examples.counts": counts}


def _store(
    run: Run, scored: list[Scored], examples: Mapping[str, Tensor], seed: int, calibration: Mapping[str, float]
) -> None:
    """Write predictions.safetensors: per split its answers, and the pixels of those images that the report shows."""
    tensors = dict(examples)
    for part in scored:
        tensors |= {
            f"{part.split}.probabilities": part.probabilities,
            f"{part.split}.labels": part.labels,
            f"{part.split}.indices": part.indices,
        }
    test = scored[-1]
    at_random = torch.randperm(len(test.labels), generator=seeded(seed, SAMPLE))[:SHOWN_AT_RANDOM]
    confidence, predicted = test.probabilities.max(1)
    wrong = (predicted != test.labels).nonzero()[:, 0]
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES_SHOWN]
    pixels = torch.from_numpy(test.images.pixels)
    tensors |= {
        "random.rows": at_random,
        "random.pixels": pixels[at_random],
        "mistakes.rows": wrong,
        "mistakes.pixels": pixels[wrong],
    }
    header = {
        "classes": list(test.images.classes),
        "data": test.images.name,
        "opening": test.opening,
        **calibration,
    }
    write_tensors(run.predictions_path, tensors, header)
