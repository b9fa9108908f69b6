from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.data import find, sealed
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.errors import StorageError

SPEC = "shapes:training=20,test=20"


@pytest.fixture
def source() -> Source:
    return find(SPEC)


def test_openings_are_counted_from_one(source: Source) -> None:
    numbers = [sealed.open_test(source, key=f"key {index}", model="m", facts={}).number for index in range(3)]
    assert numbers == [1, 2, 3]


def test_a_scoring_taken_up_again_keeps_its_number(source: Source) -> None:
    assert sealed.open_test(source, key="a", model="m", facts={}).number == 1
    assert sealed.open_test(source, key="b", model="m", facts={}).number == 2
    assert sealed.open_test(source, key="a", model="m", facts={}).number == 1


def test_another_model_under_the_same_key_is_another_opening(source: Source) -> None:
    assert sealed.open_test(source, key="a", model="one", facts={}).number == 1
    assert sealed.open_test(source, key="a", model="other", facts={}).number == 2
    assert sealed.open_test(source, key="a", model="one", facts={}).number == 1
    assert sealed.open_test(source, key="b", model="one", facts={}).number == 3


def test_facts_are_kept_and_replace_nothing_that_the_ledger_says(source: Source) -> None:
    facts = {"recipe": "classic", "opening": 99, "date": "never", "key": "b", "model": "other", "data": "cifar10"}
    opened = sealed.open_test(source, key="a", model="one", facts=facts)
    (line,) = sealed.ledger_path(opened.images).read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("date").startswith("20")
    assert entry == {"recipe": "classic", "opening": 1, "key": "a", "model": "one", "data": "shapes"}
    assert sealed.open_test(source, key="a", model="one", facts=facts).number == 1


def test_each_test_set_has_a_ledger_of_its_own_known_by_its_contents(source: Source) -> None:
    other = find("shapes:training=20,test=21")
    assert sealed.open_test(source, key="a", model="m", facts={}).number == 1
    assert sealed.open_test(other, key="b", model="m", facts={}).number == 1
    renamed = Source(
        spec="elsewhere",
        name="another name",
        location="elsewhere",
        notice="",
        reader=lambda _: sealed.read_unscored(source),
    )
    assert sealed.open_test(renamed, key="c", model="m", facts={}).number == 2


def test_an_entry_that_a_crash_cut_short_still_counts(source: Source) -> None:
    images = sealed.open_test(source, key="a", model="m", facts={}).images
    path = sealed.ledger_path(images)
    path.write_bytes(path.read_bytes()[:-20])
    assert sealed.open_test(source, key="b", model="m", facts={}).number == 2
    assert sealed.open_test(source, key="c", model="m", facts={}).number == 3


def test_no_images_without_a_ledger(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_STATE", "/proc/nowhere")
    with pytest.raises(StorageError, match="THIRTYTWO_STATE"):
        sealed.open_test(source, key="a", model="m", facts={})


def test_openings_at_the_same_time_get_different_numbers() -> None:
    script = f"""
import os
from thirtytwo.data import find, sealed
for index in range(5):
    print(sealed.open_test(find({SPEC!r}), key=f"{{os.getpid()}} {{index}}", model="m", facts={{}}).number)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    numbers = [int(line) for process in processes for line in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 16))


def test_load_data_returns_what_keras_returns() -> None:
    (x_train, y_train), (x_test, y_test) = thirtytwo.load_data("shapes:training=30,test=20")
    assert (x_train.shape, y_train.shape) == ((30, 32, 32, 3), (30, 1))
    assert (x_test.shape, y_test.shape) == ((20, 32, 32, 3), (20, 1))
    assert {part.dtype for part in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.int64)])
def test_labels_keep_their_numbers_however_many_classes_there_are(
    classes: int, dtype: type[np.generic], tmp_path: Path
) -> None:
    for label in range(classes):
        for index in range(2):
            path = tmp_path / f"{label:03}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 32), (label % 256, label // 256, 0)).save(path)
    for pixels, labels in thirtytwo.load_data(str(tmp_path)):
        assert labels.dtype == dtype
        assert labels.shape == (classes, 1)
        np.testing.assert_array_equal(labels[:, 0], pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1].astype(int))


# The door -------------------------------------------------------------------------------------------------------------


def test_a_source_hands_out_training_images_only(source: Source) -> None:
    assert {name for name in dir(source) if not name.startswith("_")} == {
        *("spec", "name", "location", "notice", "exclusion"),
        *("read_training", "without", "in_memory", "with_training"),
    }
    assert len(source.read_training()) == 20


def test_a_source_in_memory_reads_training_images_once_and_the_test_images_not_at_all() -> None:
    images, asked = find(SPEC).read_training(), []

    def read(split: str) -> Images:
        asked.append(split)
        return images

    source = Source(spec="made", name="mine", location="memory", notice="", reader=read).in_memory()
    assert asked == []
    assert source.read_training() is source.read_training()
    assert asked == ["training"]
    assert len(sealed.open_test(source, key="a", model="m", facts={}).images) == len(images)
    assert asked == ["training", "test"]


def test_images_are_called_what_their_source_is_called() -> None:
    images = find(SPEC).read_training()
    source = Source(spec="made", name="mine", location="memory", notice="", reader=lambda _: images)
    assert images.name == "shapes"
    assert source.read_training().name == "mine"
    assert sealed.read_unscored(source).name == "mine"
    assert sealed.open_test(source, key="a", model="m", facts={}).images.name == "mine"


def sources() -> dict[str, str]:
    """The package's modules, by path, as text."""
    package = Path(thirtytwo.__file__).parent
    return {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))
    }


def test_only_the_sealed_module_reads_a_test_split() -> None:
    """Beside the import contract on `sealed`: what reads either split of a source has a name that nobody else says."""
    assert {path for path, text in sources().items() if "_sealed_read" in text} == {"data/sealed.py", "data/source.py"}


def test_only_the_data_package_reads_files_of_images() -> None:
    readers = r"\bdata\.(cifar|folder|shapes)\b|from thirtytwo\.data import [^\n]*\b(cifar|folder|shapes)\b"
    found = {path for path, text in sources().items() if re.search(readers, text)}
    assert {path for path in found if not path.startswith("data/")} == set()
    assert found  # the pattern matches what it is meant to
