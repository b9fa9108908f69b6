"""What is wrong with a data set itself: labels, duplicates, leaks between its splits, images that show nothing, files
that are no images.

Networks are trained on parts of the training images and asked about what they have not seen (`folds`); their answers
say which labels are in doubt (`label_errors`), and their features which images to compare (`duplicates`). Test images
are asked about, never trained on, and the ledger counts it.

    <out>/networks-<digest>/     what `folds` and `duplicates` keep there; the same audit finds it again and goes on
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thirtytwo import environment, metrics, references
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source, image_sizes
from thirtytwo.data.exclusion import file_of, picture_of
from thirtytwo.data.images import Split
from thirtytwo.errors import InputError
from thirtytwo.evaluate import check_test, open_for_audit
from thirtytwo.recipe import Recipe
from thirtytwo.study import duplicates, label_errors
from thirtytwo.study.findings import Audit, BrokenFile, LabelIssue, OddImage, Overview, Pair
from thirtytwo.study.folds import Answers, Folds, together
from thirtytwo.study.piecewise import Busy, unseen
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.trials import commits, digest, rounding

FOLDS = 3
"""Networks. More of them see more images each, and take longer by more than that."""


def audit(
    source: Source,
    recipe: Recipe,
    out: Path,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    device: str = "auto",
    pool: Pool | None = None,
    busy: Busy = unseen,
    recipe_words: Sequence[str] = (),
) -> Audit:
    """Search a data set for what is wrong with it.

    Stopped, by whatever, and called again with the same arguments, it goes on where it was.

    Args:
        source: the data; broken files are named, and the rest is audited, if `find` was told to leave them out.
        recipe: of the networks.
        out: folder for what has to be kept in between.
        folds: number of networks, at least 2.
        seed: of the first; the others count up.
        device: ``auto``, ``cpu`` or ``cuda``.
        pool: where the networks are trained; None is here, one after another. They are asked here.
        busy: see `Busy`; the default shows nothing.
        recipe_words: what was asked for as the recipe, for people: its name, or path, and changes to it.

    Raises:
        DataError: files are missing or damaged, or there are no test images; nothing has been trained then.
        InputError: there are fewer than two networks, or fewer images than networks, or the recipe names a model.
        MissingExtra: cleanlab is not installed.
        Interrupted: trainings were asked to stop.
    """
    label_errors.check_installed()  # before anything is trained
    training = source.read_training()
    if not 2 <= folds <= len(training) // 2:
        raise InputError(
            f"{folds} networks for {len(training):,} training images; expected at least 2 networks, and two images for "
            "each, since each leaves out its share of them; choose another --networks"
        )
    for role, model in references.places(recipe).items():
        raise InputError(
            f"{role}.model: found {model}; expected none in an audit, which asks networks about images that they have "
            "not seen, and another model may have seen them; leave it out"
        )
    check_test(source)
    networks = Folds.of(recipe, source, out, folds, seed, device)
    pool = pool or Local()
    key = digest(networks.recipe, training, pool.ask(rounding, networks.recipe, device), folds, seed)
    networks = replace(networks, path=out / f"networks-{key}")
    networks.train(pool)
    trained_on = pool.ask(_described, device)
    # As it was trained: resolved for the device, and for as many images as a network saw.
    trained = networks.run(0).recipe
    facts = {"audit": str(out.resolve()), "recipe": recipe.name}
    opened = open_for_audit(source, key=f"audit-{key}", model=_fingerprint(networks), facts=facts)
    answers: list[Answers] = []
    with busy("asking the networks about images that they have not seen") as progress:
        answers += networks.answers(opened.images, progress)
    images: dict[Split, Images] = {"training": training, "test": opened.images}
    asked = dict(zip(images, together(answers, len(training)), strict=True))
    started = time.perf_counter()
    with busy("looking for doubtful labels"):
        issues = [issue for split in images for issue in label_errors.find(images[split], split, asked[split])]
    searched = time.perf_counter() - started
    found = duplicates.find(
        training,
        opened.images,
        answers[0].features,
        kept=networks.path / f"pairs-{opened.images.fingerprint[:10]}",
        busy=busy,
    )
    odd = [image for split in images for image in _odd(images[split], split)]
    named = _named(issues, found.pairs, odd)
    return Audit(
        name=source.name,
        spec=source.spec,
        location=source.location,
        notice=source.notice,
        warnings=(*training.warnings, *opened.warnings),
        classes=training.classes,
        splits={split: _overview(images[split]) for split in images},
        issues=tuple(sorted(issues, key=lambda issue: -issue.score)),
        pairs=found.pairs,
        odd=tuple(odd),
        broken=tuple(BrokenFile(split, each.path, each.reason) for split in images for each in images[split].broken),
        recipe=_said(" ".join(recipe_words) or recipe.name, trained),
        recipe_digest=trained.digest,
        recipe_words=tuple(recipe_words),
        epochs=recipe.epochs,
        folds=folds,
        accuracy={split: _agreement(asked[split], images[split]) for split in images},
        test_opening=opened.number,
        seconds=sum(each.seconds for each in answers) + searched + found.seconds,
        pixels={(split, index): images[split].pixels[index] for split, index in named},
        labels={(split, index): images[split].classes[images[split].labels[index]] for split, index in named},
        same_picture=duplicates.SAME_PICTURE,
        environment=trained_on,
        network_commits=tuple(commits(map(networks.run, range(folds)))),
        paths={(split, index): images[split].paths[index] for split, index in named if images[split].paths},
    )


def _said(words: str, trained: Recipe) -> str:
    """What networks were trained with: what was asked for, and what that came to."""
    epochs = "1 epoch" if trained.epochs == 1 else f"{trained.epochs} epochs"
    return f"{words}: {epochs} in batches of {trained.batch_size}, no validation images"


def _described(device: str) -> dict[str, Any]:
    """What networks are trained on and with."""
    return environment.describe(environment.device(device))


def _fingerprint(networks: Folds) -> str:
    """Stands for all of their weights."""
    together = hashlib.sha256()
    for network in range(networks.number):
        together.update(Classifier.load(networks.run(network)).fingerprint.encode())
    return together.hexdigest()


def _named(issues: list[LabelIssue], pairs: tuple[Pair, ...], odd: list[OddImage]) -> list[tuple[Split, int]]:
    """Every image that is to be shown, once."""
    places = [(issue.split, issue.index) for issue in issues] + [(image.split, image.index) for image in odd]
    for pair in pairs:
        places += [(pair.split_a, pair.index_a), (pair.split_b, pair.index_b)]
    return list(dict.fromkeys(places))


def _agreement(probabilities: Tensor, images: Images) -> float:
    return metrics.accuracy(probabilities, torch.from_numpy(images.labels))


def _overview(images: Images) -> Overview:
    sizes = image_sizes(images.paths) if images.paths else {images.size: len(images)}
    frequent = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    return Overview(len(images), tuple(images.per_class), frequent)


def _odd(images: Images, split: Split) -> list[OddImage]:
    """Images of one colour."""
    return [
        OddImage(split, index, file_of(images, index), "one colour", picture_of(images, index))
        for index in map(int, np.flatnonzero(duplicates.is_flat(images)))
    ]
