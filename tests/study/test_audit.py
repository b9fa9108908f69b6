"""Audits: what was planted is found, nothing is lost when they are stopped, and looking at test images is counted."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import Images, Source, find, from_arrays
from thirtytwo.data.images import Split
from thirtytwo.data.shapes import Drawn, draw
from thirtytwo.errors import DataError, InputError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run, write_atomic
from thirtytwo.study import Audit, Interrupted, Local, Watcher, audit, duplicates, findings, folds, label_errors
from thirtytwo.study.folds import Folds
from thirtytwo.study.piecewise import Progress
from thirtytwo.study.task import Task

SPEC = "shapes:training=1000,test=300,label_errors=0.05,duplicates=0.05"


def small(*words: str) -> Recipe:
    changes = ["batch_size=50", "model.stages=[[4],[8]]", "model.hidden_units=8", "validation=0.25"]
    return recipes.load("classic", ["epochs=2", *changes, *words])


def tiny() -> Source:
    return find("shapes:training=90,test=30")


def planted(split: Split) -> Drawn:
    """What `SPEC` draws, with the truth about it."""
    number = 1000 if split == "training" else 300
    return draw(number, split=split, training_number=1000, label_errors=0.05, duplicates=0.05)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit of drawn shapes, with labels and copies planted of which the truth is known."""
    recipe = recipes.load("fast94", ["epochs=16", "model.widths=[24, 64, 64]", "batch_size=50"])
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
    assert found.splits["training"].images == 1000
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


PHASES = {
    "asking the networks about images that they have not seen": 0,
    "looking for doubtful labels": 0,
    "looking for images that look alike": 0,
    "comparing these pixel by pixel": 0,
}
"""Everything that takes a while once networks are trained, by the words that tell it."""


def test_stopped_in_any_other_phase_it_ends_as_if_it_had_not_been(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "ASKED", 40)
    monkeypatch.setattr(duplicates, "ROWS", 50)
    monkeypatch.setattr(duplicates, "PAIRS", 60)
    begun: list[str] = []
    told: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def seen(words: str) -> Iterator[Progress]:
        begun.append(words)
        yield told.setdefault(words, []).append

    source = find("shapes:training=90,test=30,duplicates=0.2")
    whole = audit(source, small(), Path("whole"), folds=2, busy=seen)
    assert begun == list(PHASES)
    for words in ("asking", "looking for images", "comparing"):
        (shares,) = (shares for phase, shares in told.items() if phase.startswith(words))
        assert len(shares) > 3  # not once a network, say
        assert shares == sorted(shares)
        assert shares[-1] == 1

    stops = dict(PHASES)

    @contextlib.contextmanager
    def stopping(words: str) -> Iterator[Progress]:
        calls = 0

        def progress(share: float) -> None:
            nonlocal calls
            calls += 1
            if calls == 2 and share < 1:
                stops[words] += 1
                raise KeyboardInterrupt

        if words == "looking for doubtful labels" and not stops[words]:
            stops[words] += 1
            raise KeyboardInterrupt
        yield progress

    for _ in range(40):
        try:
            stopped = audit(source, small(), Path("stopped"), folds=2, busy=stopping)
            break
        except KeyboardInterrupt:
            continue
    assert all(stops.values())
    assert stopped.pairs
    assert stopped.tables == whole.tables
    assert stopped.accuracy == whole.accuracy
    assert stopped.test_opening == whole.test_opening  # the same models


def test_other_test_images_are_asked_about_anew() -> None:
    training, test = (
        find("shapes:training=90,test=30").read_training(),
        find("shapes:training=30,seed=5").read_training(),
    )
    numbers = []
    for count in (20, 25):
        part = test.take(range(count))
        source = from_arrays((training.pixels, training.labels), (part.pixels, part.labels), name="mine")
        numbers.append(audit(source, small(), Path("one"), folds=2).splits["test"].images)
    assert numbers == [20, 25]


def folder(place: Path) -> Path:
    """Drawn shapes as a folder of pictures: 90 for training, 30 for the test."""
    for split, number in (("train", 90), ("test", 30)):
        images = find(f"shapes:training={number},seed={number}").read_training()
        for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            path = place / split / images.classes[label] / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return place.absolute()


def test_broken_files_are_all_named_and_the_rest_is_audited() -> None:
    place = folder(Path("pictures"))
    training, test = (sorted((place / split).rglob("*.png")) for split in ("train", "test"))
    contents = {training[0]: b"", training[40]: b"no picture", training[41]: training[41].read_bytes()[:60]}
    contents |= {test[3]: b"", test[29]: b"neither"}
    for path, content in contents.items():
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as images"):
        find(str(place)).read_training()  # a training goes on refusing
    found = audit(find(str(place), leave_out_broken=True), small(), Path("out"), folds=2)
    assert [(each.split, each.path) for each in found.broken] == [
        ("test" if path in test else "training", str(path)) for path in contents
    ]
    assert all("; expected an image file" in each.reason and each.path not in each.reason for each in found.broken)
    assert [overview.images for overview in found.splits.values()] == [87, 28]
    (row, *_) = csv.DictReader(io.StringIO(found.tables["broken_files.csv"].decode()))
    assert row == {"split": "training", "path": str(training[0]), "reason": found.broken[0].reason}
    # Positions are those of the images once the files are removed, which is what the tables are for.
    for path in contents:
        path.unlink()
    after = audit(find(str(place)), small(), Path("out"), folds=2)
    assert after.broken == ()
    assert {**after.tables, "broken_files.csv": b""} == {**found.tables, "broken_files.csv": b""}
    assert after.test_opening == found.test_opening == 1


def test_what_is_wrong_with_the_test_part_is_told_before_anything_is_trained() -> None:
    training = tiny().read_training()
    without = from_arrays((training.pixels, training.labels), name="mine")
    place = folder(Path("pictures"))
    sorted((place / "test").rglob("*.png"))[7].write_bytes(b"no picture")
    for source, said in ((without, "holds no test images"), (find(str(place)), "1 of 30 files cannot be read")):
        with pytest.raises(DataError, match=said):
            audit(source, small(), Path("out"), folds=2)
    for path in (place / "test").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="30 of 30 files cannot be read"):
        audit(find(str(place), leave_out_broken=True), small(), Path("out"), folds=2)
    assert not Path("out").exists()
    assert not (Path(os.environ["THIRTYTWO_STATE"]) / "openings").exists()  # nor was it opened


def test_networks_are_called_by_what_they_were_trained_with() -> None:
    changes = ["epochs=1", "fewer_images.exponent=0.1", "batch_size=50", "fewer_images.minimum_steps=3"]
    recipe = small(*changes)  # which grows for few images
    found = audit(tiny(), recipe, Path("out"), folds=2, recipe_words=("classic", "and", "so", "on"))
    (folder,) = Path("out").glob("networks-*")
    trained = Run(folder / "network-1").recipe
    assert (trained.epochs, trained.batch_size) == (2, 15)
    assert found.recipe == "classic and so on: 2 epochs in batches of 15, no validation images"
    assert found.recipe_words == ("classic", "and", "so", "on")
    assert found.recipe_digest == trained.digest
    assert audit(tiny(), recipe, Path("out"), folds=2).recipe.startswith("classic: 2 epochs")


def test_a_table_that_somebody_has_changed_is_left_as_it_is() -> None:
    place, one, other = Path("tables"), {"a.csv": b"1\n", "b.csv": b"2\n"}, {"a.csv": b"3\n", "b.csv": b"4\n"}
    assert findings.write_tables(place, one) == ()
    assert findings.write_tables(place, other) == ()  # nobody has touched them
    assert {name: (place / name).read_bytes() for name in other} == other
    (place / "a.csv").write_bytes(b"mine\n")
    for tables in (one, other, one):
        assert findings.write_tables(place, tables) == ("a.csv",)
        assert (place / "a.csv").read_bytes() == b"mine\n"
        assert (place / "b.csv").read_bytes() == tables["b.csv"]
    (place / "a.csv").unlink()
    assert findings.write_tables(place, other) == ()
    assert (place / "a.csv").read_bytes() == b"3\n"


@pytest.mark.parametrize("digests", [None, b"", b"[1]", b'{"a.csv": 5}'])
def test_a_table_of_which_nothing_is_known_is_somebodys(digests: bytes | None) -> None:
    place = Path("tables")
    place.mkdir()
    (place / "a.csv").write_bytes(b"mine\n")
    if digests is not None:
        (place / findings.DIGESTS).write_bytes(digests)
    assert findings.write_tables(place, {"a.csv": b"1\n"}) == ("a.csv",)
    assert findings.write_tables(place, {"a.csv": b"mine\n"}) == ()  # it is what is to be written
    assert findings.write_tables(place, {"a.csv": b"1\n"}) == ()


@pytest.mark.parametrize("name", ["a.csv", findings.DIGESTS])
def test_tables_of_which_some_were_written_are_no_ones_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, one, other = Path("tables"), {"a.csv": b"1\n", "b.csv": b"2\n"}, {"a.csv": b"3\n", "b.csv": b"4\n"}
    findings.write_tables(place, one)

    def killed(path: Path, content: bytes) -> None:
        write_atomic(path, content)
        if path.name == name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(findings, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            findings.write_tables(place, other)
    assert findings.write_tables(place, other) == ()
    assert {name: (place / name).read_bytes() for name in other} == other


def test_looking_at_test_images_is_counted_once_an_audit() -> None:
    first = audit(tiny(), small(), Path("one"), folds=2)
    again = audit(tiny(), small(), Path("one"), folds=2)
    other = audit(tiny(), small("epochs=3"), Path("one"), folds=2)
    assert (first.test_opening, again.test_opening, other.test_opening) == (1, 1, 2)
    assert again.issues == first.issues


def test_no_network_has_seen_what_it_is_asked_about() -> None:
    source = tiny()
    networks = Folds.of(small(), source, Path("folds"), 3)
    networks.train()
    images = source.read_training()
    for network, unseen in enumerate(networks.parts):
        facts = networks.run(network).environment["data"]
        seen = np.setdiff1d(np.arange(90), unseen)
        assert facts["fingerprint"] == images.take(seen).fingerprint
        assert Classifier.load(networks.run(network)).facts["validation_fraction"] == 0


@pytest.mark.parametrize("number", [1, 46])
def test_too_few_or_too_many_networks_are_refused(number: int) -> None:
    with pytest.raises(InputError, match="at least 2 networks"):
        audit(tiny(), small(), Path("out"), folds=number)


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
        "split": "test", "index": "3", "path": 'a,"b".png', "given": "cat", "suggested": "dog", "score": "0.9877",
        "picture": "",
    }  # fmt: skip
    strange = findings.table(findings.BROKEN_COLUMNS, [findings.BrokenFile("test", "a/Gr\udc94e.png", "0 bytes")])
    assert rb"test,a/Gr\udc94e.png,0 bytes" in strange
    columns = "split_a,index_a,split_b,index_b,distance,kind,path_a,path_b,picture_a,picture_b\n"
    assert findings.table(findings.PAIR_COLUMNS, []).decode() == columns
