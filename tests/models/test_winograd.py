"""Winograd's convolution is the convolution, and says why where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from thirtytwo import models, resume, train
from thirtytwo import recipe as recipes
from thirtytwo.errors import RunError
from thirtytwo.models import winograd
from thirtytwo.models.winograd import SIDES, Convolution, best_side, convolve, matrices
from thirtytwo.settings import ClassicModel, SpeedModel

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(winograd.problem() is not None, reason=f"no Winograd here: {winograd.problem()}")


@pytest.fixture
def anew() -> Iterator[None]:
    """Look for a compiler again, and once more afterwards."""
    winograd.problem.cache_clear()
    yield
    winograd.problem.cache_clear()


@pytest.mark.parametrize("side", SIDES)
@given(st.data())
@settings(max_examples=20)
def test_transforms_are_exact(side: int, data: st.DataObject) -> None:
    numbers = st.integers(-9, 9)
    d = data.draw(st.lists(numbers, min_size=side + 2, max_size=side + 2))
    g = data.draw(st.lists(numbers, min_size=3, max_size=3))
    a, of_weights, b = matrices(side)
    points = range(side + 2)
    seen = [sum(b[i][k] * d[i] for i in points) for k in points]
    weighed = [sum((w * x for w, x in zip(of_weights[k], g, strict=True)), Fraction(0)) for k in points]
    found = [sum(a[k][j] * seen[k] * weighed[k] for k in points) for j in range(side)]
    assert found == [sum(d[j + i] * g[i] for i in range(3)) for j in range(side)]


def results(images: Tensor, weights: Tensor, gradient: Tensor, side: int | None) -> list[Tensor]:
    """The convolution and both of its gradients; torch's own for a side of 0."""
    images, weights = images.detach().requires_grad_(), weights.detach().requires_grad_()
    found = conv2d(images, weights, padding=1) if side == 0 else convolve(images, weights, side)
    return [found.detach(), *torch.autograd.grad(found, (images, weights), gradient.to(found.dtype))]


@compiled
@pytest.mark.parametrize("side", [*SIDES, None])
@given(
    batch=st.integers(1, 4),
    inputs=st.sampled_from([8, 24]),
    outputs=st.sampled_from([8, 16]),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    channels_last=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_it_is_the_convolution(
    side: int | None, batch: int, inputs: int, outputs: int, height: int, width: int, channels_last: bool
) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    images = torch.randn((batch, inputs, height, width), generator=generator)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    weights = torch.randn((outputs, inputs, 3, 3), generator=generator)
    if channels_last:
        weights = weights.contiguous(memory_format=torch.channels_last)
    gradient = torch.randn((batch, outputs, height, width), generator=generator)
    exact = results(images.double(), weights.double(), gradient, 0)
    for found, expected in zip(results(images, weights, gradient, side), exact, strict=True):
        assert found.shape == expected.shape
        assert (found.double() - expected).norm() < (2e-5 if (side or 8) < 7 else 2e-4) * expected.norm()


@compiled
def test_same_bits_every_time() -> None:
    images, weights, gradient = torch.randn(64, 16, 15, 15), torch.randn(32, 16, 3, 3), torch.randn(64, 32, 15, 15)
    first = results(images, weights, gradient, None)
    for _ in range(3):
        assert all(map(torch.equal, first, results(images, weights, gradient, None)))


@compiled
def test_gradients_only_where_they_are_wanted() -> None:
    images, weights = torch.randn(2, 8, 6, 6), torch.randn(8, 8, 3, 3, requires_grad=True)
    convolve(images, weights).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    images.requires_grad_()
    convolve(images, weights.detach()).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None


@given(height=st.integers(1, 64), width=st.integers(1, 64))
def test_tiles_save_multiplications(height: int, width: int) -> None:
    side = best_side(height, width)
    needed = (side + 2) ** 2 * -(-height // side) * -(-width // side)
    if min(height, width) > 1:
        assert needed < 9 * height * width
    assert all(needed <= (m + 2) ** 2 * -(-height // m) * -(-width // m) for m in SIDES)


@compiled
def test_a_layer_uses_it_in_training_only() -> None:
    layer = Convolution(8, 8, direct=False)
    images = torch.randn(2, 8, 9, 9)
    own = conv2d(images, layer.weight, padding=1)
    assert torch.equal(layer(images), convolve(images, layer.weight))
    assert not torch.equal(layer(images), own)
    layer.eval()
    assert torch.equal(layer(images), own)


@pytest.mark.parametrize(
    ("inputs", "outputs", "dtype"),
    [(3, 8, torch.float32), (8, 10, torch.float32), (8, 8, torch.float64), (4104, 8, torch.float32)],
)
def test_a_layer_that_it_is_not_made_for_is_torchs(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    layer = Convolution(inputs, outputs, direct=False).to(dtype)
    images = torch.randn((2, inputs, 4, 4), dtype=dtype)
    assert torch.equal(layer(images), conv2d(images, layer.weight, padding=1))


def test_not_under_autocast() -> None:
    layer, images = Convolution(8, 8, direct=False), torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(32, 32), (20, 24)])
def test_operations_are_counted_as_direct_ones(size: tuple[int, int]) -> None:
    counted = [
        models.flops_per_image(models.build(SpeedModel(widths=(8, 16), convolution=kind), 10), size)
        for kind in ("direct", "winograd")
    ]
    assert counted[0] == counted[1] > 0


def test_the_record_says_which() -> None:
    asked = SpeedModel(convolution="winograd")
    assert models.convolution(ClassicModel(), CPU, "float32") == "direct"
    assert models.convolution(SpeedModel(), CPU, "float32") == "direct"
    assert "bfloat16 on cpu" in models.convolution(asked, CPU, "bfloat16")
    assert "float32 on cuda" in models.convolution(asked, torch.device("cuda"), "float32")


@compiled
@pytest.mark.usefixtures("anew")
def test_without_a_compiler_training_is_direct_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load("fast94", ["epochs=2", "model.widths=[8, 8]", "views.mirror=false"])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CC", raising=False)
        winograd.problem.cache_clear()
        training = train(recipe, "shapes:training=40,test=20", out=tmp_path / "run")
        next(iter(training))
        training.interrupt()
        training.finish()
    assert training.interrupted
    assert training.convolution == "direct (no winograd: no C compiler found)"
    # Resumed where there is a compiler, it stays what it was.
    winograd.problem.cache_clear()
    resumed = resume(tmp_path / "run")
    assert not any(convolves_indirectly(part) for part in resumed.network.modules())
    assert train(recipe, "shapes:training=40,test=20", out=tmp_path / "other").convolution == "winograd"


def convolves_indirectly(part: nn.Module) -> bool:
    return isinstance(part, Convolution) and not part.direct


@compiled
@pytest.mark.usefixtures("anew")
def test_begun_with_a_compiler_it_does_not_go_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load("fast94", ["epochs=2", "model.widths=[8, 8]", "views.mirror=false"])
    train(recipe, "shapes:training=40,test=20", out=tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    winograd.problem.cache_clear()
    with pytest.raises(RunError, match=r"no C compiler found.*install a C compiler"):
        resume(tmp_path / "run")


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_compiler_that_fails_is_named(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert compiler in (winograd.problem() or "")
    images, layer = torch.randn(2, 8, 4, 4), Convolution(8, 8, direct=False)
    assert torch.equal(layer(images), conv2d(images, layer.weight, padding=1))


@compiled
def test_compiled_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from thirtytwo.models import winograd; print(winograd.problem())"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    written = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "None"
        written.append([(path.name, path.stat().st_mtime_ns) for path in (tmp_path / "thirtytwo").iterdir()])
    assert len(written[0]) == 1
    assert written[0] == written[1]


@compiled
@pytest.mark.parametrize(("depth", "size"), [*product([2, 3], [(32, 32), (21, 20)])])
def test_a_network_learns_the_same(depth: int, size: tuple[int, int]) -> None:
    images, labels = torch.randn(16, 3, *size), torch.arange(16) % 10
    gradients = []
    for kind in ("direct", "winograd"):
        torch.manual_seed(0)
        network = models.build(SpeedModel(widths=(16, 24), depth=depth, convolution=kind), 10)
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    for direct, other in zip(*gradients, strict=True):
        # Rounded otherwise, pooling takes another pixel where two are nearly equal.
        assert (direct - other).norm() <= 2e-2 * direct.norm()
