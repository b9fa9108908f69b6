from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import thirtytwo
from thirtytwo.data import find, sealed
from thirtytwo.data.source import Source
from thirtytwo.errors import StorageError

SPEC = "shapes:training=20,test=20"


@pytest.fixture
def source() -> Source:
    return find(SPEC)


def test_openings_are_counted_from_one(source: Source) -> None:
    numbers = [sealed.open_test(source, key=f"key {index}", facts={}).number for index in range(3)]
    assert numbers == [1, 2, 3]


def test_a_scoring_taken_up_again_keeps_its_number(source: Source) -> None:
    assert sealed.open_test(source, key="a", facts={}).number == 1
    assert sealed.open_test(source, key="b", facts={}).number == 2
    assert sealed.open_test(source, key="a", facts={}).number == 1


def test_each_test_set_has_a_ledger_of_its_own_known_by_its_contents(source: Source) -> None:
    other = find("shapes:training=20,test=21")
    assert sealed.open_test(source, key="a", facts={}).number == 1
    assert sealed.open_test(other, key="b", facts={}).number == 1
    renamed = replace(source, spec="elsewhere", location="elsewhere", name="another name")
    assert sealed.open_test(renamed, key="c", facts={}).number == 2


def test_an_entry_that_a_crash_cut_short_still_counts(source: Source) -> None:
    images = sealed.open_test(source, key="a", facts={}).images
    path = sealed.ledger_path(images)
    path.write_bytes(path.read_bytes()[:-20])
    assert sealed.open_test(source, key="b", facts={}).number == 2
    assert sealed.open_test(source, key="c", facts={}).number == 3


def test_no_images_without_a_ledger(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_STATE", "/proc/nowhere")
    with pytest.raises(StorageError, match="THIRTYTWO_STATE"):
        sealed.open_test(source, key="a", facts={})


def test_openings_at_the_same_time_get_different_numbers() -> None:
    script = f"""
from thirtytwo.data import find, sealed
for index in range(5):
    print(sealed.open_test(find({SPEC!r}), key=f"{{__import__('os').getpid()}} {{index}}", facts={{}}).number)
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


def test_only_the_sealed_module_reads_a_test_split() -> None:
    """Beside the import contract: nobody but `sealed` may call `.read("test")` on a source."""
    package = Path(thirtytwo.__file__).parent
    readers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("read", "reader")
            ):
                arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if "test" in arguments:
                    readers.add(path.relative_to(package).as_posix())
    assert readers == {"data/sealed.py"}
