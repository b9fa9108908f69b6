from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.data.official import CIFAR10_CLASSES
from thirtytwo.data.unpickle import Array, Damaged, Refused, take_apart

PLENTY = 100_000

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(value=values, protocol=st.integers(2, 5))
def test_plain_values_survive_every_protocol(value: object, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    # Left out, since in no CIFAR file: numbers of 256 bytes and more (LONG4), and empty bytes as in protocol 2.
    if b"\x8b" not in content and b"__builtin__" not in content:
        assert take_apart(content, PLENTY) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_survive_every_protocol(protocol: int, dtype: str, order: str) -> None:
    array = np.asarray(np.arange(300 * 400).reshape(300, 400), dtype=dtype, order=order)  # type: ignore[call-overload]
    read = take_apart(pickle.dumps({"data": array}, protocol), PLENTY)
    assert isinstance(read, dict)
    assert isinstance(read["data"], Array)
    np.testing.assert_array_equal(read["data"].values(), array)


def test_python_two_writer_makes_the_official_file(python_two: Callable[[object], bytes]) -> None:
    # So the made files of these tests have the form of the official ones. The MD5 is torchvision's for batches.meta.
    content = python_two({"num_cases_per_batch": 10_000, "label_names": list(CIFAR10_CLASSES), "num_vis": 3072})
    assert hashlib.md5(content).hexdigest() == "5ff9c542aee3614f3951f8cda6e48888"


def test_array_of_python_two_is_read(python_two: Callable[[object], bytes]) -> None:
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    read = take_apart(python_two({"data": array, "labels": [1, 300, -1]}), PLENTY)
    assert isinstance(read, dict)
    np.testing.assert_array_equal(read["data"].values(), array)
    assert read["labels"] == [1, 300, -1]


class Attack:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("attack", [os.mkdir, io.open, eval, np.load, Path, np.memmap, getattr])
def test_every_other_name_is_refused_and_not_run(attack: Callable[..., object], protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"data": Attack(attack, str(tmp_path / "trace"), "w")}, protocol)
    with pytest.raises(Refused, match=attack.__name__):
        take_apart(content, PLENTY)
    assert list(tmp_path.iterdir()) == []


CONTENT = pickle.dumps({"labels": [1, 2, 300], b"x": "y", "data": np.arange(12, dtype=np.uint8).reshape(3, 4)}, 2)


@given(
    edits=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.integers(0, len(CONTENT)),
)
def test_changed_bytes_are_damage_or_another_value(edits: list[tuple[int, int]], end: int) -> None:
    content = bytearray(CONTENT)
    for place, byte in edits:
        content[place] = byte
    try:
        read = take_apart(bytes(content[:end]), PLENTY)
        if isinstance(read, dict) and isinstance(read.get("data"), Array):
            read["data"].values()
    except Damaged:
        pass


@given(content=st.binary(max_size=200))
def test_any_bytes_are_damage_or_a_value(content: bytes) -> None:
    with contextlib.suppress(Damaged):
        take_apart(b"\x80\x02" + content, PLENTY)


def test_tuples_nested_without_end_are_no_danger() -> None:
    deep = b"\x80\x02}N" + b"\x85" * 90_000
    with pytest.raises(Damaged, match="tuple in place of text"):  # as a key; hashing it would overflow the stack
        take_apart(deep + b"Ns.", PLENTY)
    with pytest.raises(Damaged):
        take_apart(b"\x80\x02c_codecs\nencode\n(" + deep[2:] + b"U\x06latin1tR.", PLENTY)


@pytest.mark.parametrize(
    "claim",
    [
        b"\x80\x02T\xff\xff\xff\x7f",  # text of 2 GiB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # bytes of 8 EiB
        b"\x80\x02" + b"}" * 1_000_000,  # dictionaries without end
        b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 50_000,  # a list that holds itself twice, twice, twice, …
    ],
)
def test_memory_does_not_follow_what_a_file_claims(claim: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(Damaged):
        take_apart(claim, most_parts=10_000)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 150 * 10_000


def test_text_that_is_encoded_again_and_again_is_damage() -> None:
    text = b"X" + (4000).to_bytes(4, "little") + 4000 * b"a" + b"q\x00"
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    once = b"\x80\x02]" + b"(" + text + again + b"e."
    assert take_apart(once, PLENTY) == ["a" * 4000, b"a" * 4000]
    with pytest.raises(Damaged, match="more text than the file holds"):
        take_apart(b"\x80\x02](" + text + 50 * again + b"e.", PLENTY)


def test_old_protocols_are_refused() -> None:
    with pytest.raises(Damaged):
        take_apart(pickle.dumps({"labels": [1]}, 0), PLENTY)
