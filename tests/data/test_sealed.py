from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.data import find, from_arrays, ledger, sealed
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.errors import DataError, InputError, StorageError

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
    (line,) = ledger.path_of(opened.images).read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("date").startswith("20")
    assert entry == {"recipe": "classic", "opening": 1, "key": "a", "model": "one", "data": "shapes"}
    assert sealed.open_test(source, key="a", model="one", facts=facts).number == 1


def test_each_test_set_has_a_ledger_of_its_own_known_by_its_contents(source: Source) -> None:
    other = find(f"{SPEC},seed=1")
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
    path = ledger.path_of(images)
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
        *("spec", "name", "location", "notice", "exclusion", "others"),
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


def test_what_a_check_finds_wrong_is_said_before_anything_is_counted(source: Source) -> None:
    def check(images: Images) -> None:
        raise InputError(f"{len(images)} images")

    with pytest.raises(InputError, match="20 images"):
        sealed.open_test(source, key="a", model="m", facts={}, check=check)
    assert sealed.open_test(source, key="b", model="m", facts={}).number == 1


def test_whether_test_images_can_be_read_is_asked_without_counting(source: Source) -> None:
    sealed.check_readable(source)
    training = source.read_training()
    with pytest.raises(DataError, match="holds no test images"):
        sealed.check_readable(from_arrays((training.pixels, training.labels), name="mine"))
    assert sealed.open_test(source, key="a", model="m", facts={}).number == 1


# The ledger of the same pictures --------------------------------------------------------------------------------------


def relabelled(source: Source, seed: int = 0, names: str = "") -> Source:
    """The same test pictures with other labels, and class names if these are given, in another order."""
    images = sealed.read_unscored(source)
    generator = np.random.default_rng(seed)
    other = images.take(generator.permutation(len(images)))
    other = replace(
        other,
        labels=generator.integers(0, 10, len(images)),
        classes=tuple(f"{names}{name}" for name in images.classes),
    )
    return Source(spec="made", name="other", location="memory", notice="", reader=lambda _: other)


def test_other_labels_names_or_order_make_no_new_test_set(source: Source) -> None:
    (x_train, y_train), (x_test, y_test) = thirtytwo.load_data(SPEC)
    arrays = from_arrays((x_train, y_train), (x_test, y_test), name="arrays")  # classes are called 0, 1, …
    opened = [source, arrays, relabelled(source), relabelled(source, 1, "fine "), source]
    numbers = [sealed.open_test(each, key=str(n), model="m", facts={}).number for n, each in enumerate(opened)]
    assert numbers == [1, 2, 3, 4, 5]


def test_other_pictures_are_another_test_set(source: Source) -> None:
    images = sealed.read_unscored(source)
    pixels = images.pixels.copy()
    pixels[3, 4, 5, 0] ^= 1
    assert replace(images, pixels=pixels).pictures != images.pictures
    assert images.take(range(19)).pictures != images.pictures
    # As many pixels, of another size.
    flat = images.pixels.reshape(len(images), 16, 64, 3)
    assert replace(images, pixels=flat).pictures != images.pictures


def old_ledger(source: Source, *keys: str) -> Path:
    """A ledger as they were once named, by labels and class names too."""
    images = sealed.read_unscored(source)
    path = ledger.path_of(images).with_name(f"{images.fingerprint}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"opening": number, "key": key, "model": "m"} for number, key in enumerate(keys, start=1)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_what_older_ledgers_say_is_not_forgotten(source: Source) -> None:
    other = relabelled(source, names="coarse ")
    before = [old_ledger(source, "a", "b").read_bytes(), old_ledger(other, "c").read_bytes()]
    assert sealed.open_test(source, key="b", model="m", facts={}).number == 2  # taken up again
    assert sealed.open_test(source, key="d", model="m", facts={}).number == 3
    assert sealed.open_test(other, key="e", model="m", facts={}).number == 5  # a, b, d, c
    assert sealed.open_test(other, key="f", model="m", facts={}).number == 6  # nothing is taken over twice
    assert sealed.open_test(source, key="g", model="m", facts={}).number == 7
    old = old_ledger(source, "a", "b", "late")  # an older version of the program has gone on with its own
    assert sealed.open_test(source, key="h", model="m", facts={}).number == 9
    assert [old.read_bytes()[: len(before[0])], before[1]] == before


def test_a_line_of_an_older_ledger_that_was_cut_short_still_counts(source: Source) -> None:
    path = old_ledger(source, "a", "b")
    path.write_bytes(path.read_bytes()[:-9])
    assert sealed.open_test(source, key="c", model="m", facts={}).number == 3
    assert sealed.open_test(source, key="d", model="m", facts={}).number == 4


# Who may say what -----------------------------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """The package's modules, by path, as text."""
    package = Path(thirtytwo.__file__).parent
    return {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))
    }


MAY_SAY = {
    "_sealed_read": {"data/sealed.py", "data/source.py"},
    "_sealed_reader": {"data/source.py"},
    "sealed": {"data/__init__.py", "evaluate.py"},
    "open_test": {"data/sealed.py", "evaluate.py"},
    "read_unscored": {"data/sealed.py", "data/__init__.py"},
    "check_readable": {"data/sealed.py", "evaluate.py"},
    "load_data": {"data/__init__.py", "__init__.py"},
    "open_for_audit": {"evaluate.py", "study/audit.py"},
    "check_test": {"cli/commands.py", "evaluate.py", "study/audit.py"},
}
"""Everything on the way to test images, and the modules whose code names it: to define it, to use it, to hand it on."""


def said(text: str) -> set[str]:
    """Every name in some code: variables, attributes, definitions, imports, and texts that are names (getattr)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name):
                names |= set(name.split("."))
            case ast.ImportFrom(module=str(name)):
                names |= set(name.split("."))
            case ast.Constant(value=str(name)) if re.fullmatch(r"[\w.]+", name):
                names |= set(name.split("."))
    return names


def test_only_those_who_may_name_a_way_to_test_images() -> None:
    """Beside the import contract, which sees imports of `data.sealed` and nothing else."""
    found = {path: said(text) for path, text in sources().items()}
    assert {word: {path for path, names in found.items() if word in names} for word in MAY_SAY} == MAY_SAY


@pytest.mark.parametrize(
    "attempt",
    [
        "from thirtytwo import data\ndata.sealed.read_unscored(source)",
        "from thirtytwo import data\ndata.load_data('cifar10')",
        "import thirtytwo\nthirtytwo.load_data()",
        "from thirtytwo.data import load_data as harmless",
        "import thirtytwo.data.sealed as harmless",
        "from thirtytwo.data.sealed import *",
        "from .sealed import known",
        "from thirtytwo.evaluate import open_for_audit",
        "from thirtytwo import evaluate\nevaluate.open_for_audit(source, key='', model='', facts={})",
        "getattr(source, '_sealed_read')('test')",
        "source._sealed_reader('test')",
        "import importlib\nimportlib.import_module('thirtytwo.data.sealed')",
    ],
)
def test_an_attempt_to_get_round_the_seal_is_seen(attempt: str) -> None:
    assert said(attempt) & MAY_SAY.keys()


def test_words_in_prose_are_no_attempt() -> None:
    assert not said('"""What `load_data` and open_test say."""\nprint("The test images stay sealed.")') & MAY_SAY.keys()


@pytest.mark.parametrize(
    ("contract", "others"),
    [("The test set has one door", {"data", "evaluate"}), ("Typer and Rich live in the command line", {"cli"})],
)
def test_a_contract_holds_for_every_module_but_those_named_here(contract: str, others: set[str]) -> None:
    package = Path(thirtytwo.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    project = tomllib.loads((package.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (found,) = (each for each in project["tool"]["importlinter"]["contracts"] if each["name"] == contract)
    listed = {module.removeprefix("thirtytwo.") for module in found["source_modules"]}
    # What runs the command line, and the package's own names, are held by the test above.
    assert modules - listed - {"__init__", "__main__"} == others
    assert listed <= modules


def test_only_the_data_package_reads_files_of_images() -> None:
    readers = r"\bdata\.(cifar|folder|shapes)\b|from thirtytwo\.data import [^\n]*\b(cifar|folder|shapes)\b"
    found = {path for path, text in sources().items() if re.search(readers, text)}
    assert {path for path in found if not path.startswith("data/")} == set()
    assert found  # the pattern matches what it is meant to
