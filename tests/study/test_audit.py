"""Audits: what was planted is found, nothing is lost when they are stopped, and looking at test images is counted."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source, find, from_arrays
from thirtytwo.data.images import Split
from thirtytwo.data.shapes import Drawn, draw
from thirtytwo.errors import InputError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.study import Audit, Interrupted, Local, Watcher, audit, findings, label_errors
from thirtytwo.study.folds import Folds
from thirtytwo.study.task import Task

SPEC = "shapes:training=1500,test=300,label_errors=0.05,duplicates=0.05"


def small(*words: str) -> Recipe:
    changes = ["batch_size=50", "model.stages=[[4],[8]]", "model.hidden_units=8", "validation=0.25"]
    return recipes.load("classic", ["epochs=2", *changes, *words])


def tiny() -> Source:
    return find("shapes:training=90,test=30")


def planted(split: Split) -> Drawn:
    """What `SPEC` draws, with the truth about it."""
    number = 1500 if split == "training" else 300
    return draw(number, split=split, training_number=1500, label_errors=0.05, duplicates=0.05)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit of drawn shapes, with labels and copies planted of which the truth is known."""
    recipe = recipes.load("fast94", ["epochs=20", "model.widths=[24, 64, 64]", "batch_size=50"])
    return audit(find(SPEC), recipe, tmp_path_factory.mktemp("audit"))


@pytest.mark.slow
def test_planted_label_errors_are_named_first(found: Audit) -> None:
    for split in get_args(Split):
        drawn = planted(split)
        wrong = set(drawn.label_errors.tolist())
        named = [issue.index for issue in found.issues if issue.split == split]
        assert named
        first = named[: len(wrong)]
        assert len(wrong & set(first)) >= 0.6 * len(first)  # precision at as many as there are
        assert len(wrong & set(named)) >= 0.6 * len(wrong)  # recall
        suggestions = [issue for issue in found.issues if issue.split == split and issue.index in wrong]
        right = [drawn.images.classes[drawn.true_labels[issue.index]] == issue.suggested for issue in suggestions]
        assert np.mean(right) >= 0.8


@pytest.mark.slow
def test_planted_duplicates_are_found_and_nothing_else(found: Audit) -> None:
    within = {tuple(pair) for pair in planted("training").duplicates.tolist()}
    across = {tuple(pair) for pair in planted("test").duplicates.tolist()}
    said_within = {(pair.index_a, pair.index_b) for pair in found.pairs if pair.split_b == "training"}
    said_across = {(pair.index_a, pair.index_b) for pair in found.leaks}
    assert len(within & said_within) >= 0.9 * len(within)
    assert len(across & said_across) >= 0.9 * len(across)
    wrong = (said_within - within) | (said_across - across)
    assert len(wrong) <= 0.1 * len(found.pairs)


@pytest.mark.slow
def test_what_is_named_can_be_shown(found: Audit) -> None:
    for issue in found.issues:
        assert found.labels[issue.split, issue.index] == issue.given != issue.suggested
        assert found.pixels[issue.split, issue.index].shape == (32, 32, 3)
    assert found.splits["training"].images == 1500
    assert found.splits["test"].sizes == {(32, 32): 300}
    assert list(found.issues) == sorted(found.issues, key=lambda issue: -issue.score)


def test_stopped_at_any_network_it_ends_as_if_it_had_not_been() -> None:
    whole = audit(tiny(), small(), Path("whole"), folds=3)

    class Stop(Watcher):
        def begins(self, task: Task) -> None:
            self.seen = 0

        def happens(self, task: Task, event: Step | Epoch) -> None:
            if self.seen == task.number:
                pool.interrupt()
            self.seen += 1

    pool = Local(Stop())
    for _ in range(20):
        try:
            stopped = audit(tiny(), small(), Path("stopped"), folds=3, pool=pool)
            break
        except Interrupted:
            continue
    assert stopped.issues == whole.issues
    assert stopped.pairs == whole.pairs
    assert stopped.accuracy == whole.accuracy


def test_looking_at_test_images_is_counted_once_an_audit() -> None:
    first = audit(tiny(), small(), Path("one"), folds=2)
    again = audit(tiny(), small(), Path("one"), folds=2)
    other = audit(tiny(), small("epochs=3"), Path("one"), folds=2)
    assert (first.test_opening, again.test_opening, other.test_opening) == (1, 1, 2)
    assert again.issues == first.issues


def test_no_network_has_seen_what_it_is_asked_about() -> None:
    source = tiny()
    folds = Folds.of(small(), source, Path("folds"), 3)
    folds.train()
    images = source.read_training()
    for network, unseen in enumerate(folds.parts):
        facts = folds.run(network).environment["data"]
        seen = np.setdiff1d(np.arange(90), unseen)
        assert facts["fingerprint"] == images.take(seen).fingerprint
        assert Classifier.load(folds.run(network)).facts["validation_fraction"] == 0


@pytest.mark.parametrize("folds", [1, 46])
def test_too_few_or_too_many_networks_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match="at least 2 networks"):
        audit(tiny(), small(), Path("out"), folds=folds)


def test_an_image_of_one_colour_is_named() -> None:
    drawn = find("shapes:training=60,test=20").read_training()
    pixels = drawn.pixels.copy()
    pixels[7] = 12
    source = from_arrays((pixels, drawn.labels), (drawn.pixels[:20], drawn.labels[:20]), name="mine")
    (odd,) = audit(source, small(), Path("out"), folds=2).odd
    assert (odd.split, odd.index, odd.reason) == ("training", 7, "one colour")


def made(labels: list[int]) -> Images:
    return Images(np.zeros((len(labels), 2, 2, 3), np.uint8), np.array(labels), ("a", "b", "c"), "made")


def test_labels_that_networks_agree_with_are_not_doubted() -> None:
    labels = [0, 1, 2] * 20
    sure = torch.full((60, 3), 0.05)
    sure[torch.arange(60), torch.tensor(labels)] = 0.9
    assert label_errors.find(made(labels), "test", sure) == ()
    sure[7] = torch.tensor([0.02, 0.03, 0.95])
    (issue,) = label_errors.find(made(labels), "test", sure)
    assert (issue.index, issue.given, issue.suggested) == (7, "b", "c")
    assert issue.score == pytest.approx(0.95 / 0.98)


def test_a_class_without_images_does_no_harm() -> None:
    labels = [0, 2] * 20
    answers = torch.full((40, 3), 0.05)
    answers[torch.arange(40), torch.tensor(labels)] = 0.9
    answers[3] = torch.tensor([0.9, 0.05, 0.05])
    (issue,) = label_errors.find(made(labels), "training", answers)
    assert (issue.index, issue.suggested) == (3, "a")


def test_tables_say_what_was_found() -> None:
    issue = findings.LabelIssue("test", 3, 'a,"b".png', "cat", "dog", 0.98765)
    text = findings.table(findings.ISSUE_COLUMNS, [issue]).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row == {
        "split": "test", "index": "3", "path": 'a,"b".png', "given": "cat", "suggested": "dog", "score": "0.9877"
    }  # fmt: skip
    assert findings.table(findings.PAIR_COLUMNS, []).decode() == "split_a,index_a,split_b,index_b,distance,kind\n"
