"""Computations in pieces: stopped anywhere they lose nothing, and end with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from thirtytwo.run import read_tensors
from thirtytwo.study import piecewise
from thirtytwo.study.piecewise import computed

BATCHES = [3, 1, 4, 1, 5, 9, 2, 6]


def drawn(batch: int) -> dict[str, Tensor]:
    """Of even batches under another name as well."""
    numbers = torch.randn((batch, 2), generator=torch.Generator().manual_seed(batch))
    return {"numbers": numbers, **({"even": numbers[:1]} if batch % 2 == 0 else {})}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("seconds", [0.0, 1000.0], ids=["kept after each batch", "kept at the end"])
@pytest.mark.parametrize("place", ["in a batch", "after a batch"])
def test_stopped_after_any_batch_it_ends_as_if_it_had_not_been(
    seconds: float, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piecewise, "KEEP_SECONDS", seconds)
    whole = computed(None, ["key"], BATCHES, drawn)
    assert len(whole.tensors["numbers"]) == sum(BATCHES)
    asked: list[int] = []
    shares: list[float] = []
    stops = 0
    while True:
        begun = len(asked)

        def compute(batch: int, begun: int = begun) -> dict[str, Tensor]:
            if place == "in a batch" and len(asked) - begun == 2:
                raise KeyboardInterrupt
            asked.append(batch)
            return drawn(batch)

        def progress(share: float, begun: int = begun) -> None:
            shares.append(share)
            if place == "after a batch" and len(asked) - begun == 2 and share < 1:
                raise KeyboardInterrupt

        try:
            found = computed(Path("kept.safetensors"), ["key"], BATCHES, compute, progress)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3
    assert asked == BATCHES  # each once
    assert shares == [number / 8 for number in range(1, 9)]
    assert same(found.tensors, whole.tensors)
    again = computed(Path("kept.safetensors"), ["key"], BATCHES, compute, progress)
    assert asked == BATCHES
    assert same(again.tensors, whole.tensors)
    assert again.seconds == found.seconds


def test_killed_at_once_it_goes_on_from_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "KEEP_SECONDS", 0.0)
    file, left = Path("kept.safetensors"), Path("left.safetensors")

    def progress(share: float) -> None:
        if share == 5 / 8:
            left.write_bytes(file.read_bytes())  # as a kill at this moment leaves it

    whole = computed(file, ["key"], BATCHES, drawn, progress)
    asked: list[int] = []

    def compute(batch: int) -> dict[str, Tensor]:
        asked.append(batch)
        return drawn(batch)

    assert same(computed(left, ["key"], BATCHES, compute).tensors, whole.tensors)
    assert asked == BATCHES[5:]


@pytest.mark.parametrize("changed", ["key", "number of batches", "damaged", "of another kind"])
def test_what_was_kept_of_something_else_is_not_used(changed: str) -> None:
    file = Path("kept.safetensors")
    computed(file, ["key", [1, 2]], BATCHES, drawn)
    if changed == "damaged":
        file.write_bytes(file.read_bytes()[:50])
    batches = BATCHES[:-1] if changed == "number of batches" else BATCHES
    key = ["key", [1, 3]] if changed == "key" else ["key", [1, 2]]
    if changed == "of another kind":
        from thirtytwo.run import write_tensors

        write_tensors(file, {"numbers": torch.zeros(3)}, {"seconds": 1.0})
    asked: list[int] = []

    def compute(batch: int) -> dict[str, Tensor]:
        asked.append(batch)
        return drawn(batch)

    computed(file, key, batches, compute)
    assert asked == batches
    assert read_tensors(file)[1]["done"] == len(batches)


def test_nothing_to_compute_is_nothing() -> None:
    assert computed(Path("kept.safetensors"), ["key"], [], drawn).tensors == {}
    assert not Path("kept.safetensors").exists()
