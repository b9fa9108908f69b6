"""Compiled kernels: what a network with them computes, where they are kept, and what is said where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from thirtytwo import environment, models, resume, train
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.data import standardiser
from thirtytwo.data.loader import seeded
from thirtytwo.errors import RunError
from thirtytwo.models import pointwise, winograd
from thirtytwo.settings import ClassicModel, SpeedModel

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(
    winograd.KERNELS.problem() is not None, reason=f"no kernels here: {winograd.KERNELS.problem()}"
)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux and gcc")
def test_there_are_kernels_where_there_is_a_compiler() -> None:
    assert winograd.KERNELS.problem() is None
    if torch.cpu._is_avx512_bf16_supported():
        assert winograd.HALF_KERNELS.problem() is None
    assert pointwise.KERNELS.problem() is None


def forget() -> None:
    winograd.KERNELS.forget()
    winograd.HALF_KERNELS.forget()
    pointwise.KERNELS.forget()


@pytest.fixture
def anew() -> Iterator[None]:
    """Look for a compiler again, and once more afterwards."""
    forget()
    yield
    forget()


@pytest.mark.parametrize("size", [(32, 32), (20, 24)])
def test_operations_are_counted_as_torchs(size: tuple[int, int]) -> None:
    counted = [
        models.flops_per_image(models.build(SpeedModel(widths=(8, 16), kernels=kind), 10), size)
        for kind in ("torch", "compiled")
    ]
    assert counted[0] == counted[1] > 0


def test_the_record_says_which() -> None:
    asked = SpeedModel(kernels="compiled")
    assert models.kernels(ClassicModel(), CPU, "float32") == "torch"
    assert models.kernels(SpeedModel(), CPU, "float32") == "torch"
    classic = ClassicModel(kernels="compiled")
    assert models.kernels(classic, CPU, "float32") == models.kernels(asked, CPU, "float32")
    assert models.kernels(classic, torch.device("cuda"), "float32").startswith("torch (")
    assert "multiples of 8" in models.kernels(ClassicModel(stages=((4,),), kernels="compiled"), CPU, "float32")
    assert "bfloat16 on cpu" in models.kernels(asked, CPU, "bfloat16")
    on_gpu = models.kernels(asked, torch.device("cuda"), "bfloat16")  # torch.compile's
    assert on_gpu == "compiled" or "triton" in on_gpu


@compiled
@pytest.mark.usefixtures("anew")
def test_without_a_compiler_training_is_torchs_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load("fast94", ["precision=float32", "epochs=2", "model.widths=[8, 8]", "views.mirror=false"])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CC", raising=False)
        forget()
        training = train(recipe, "shapes:training=40,test=20", out=tmp_path / "run")
        next(iter(training))
        training.interrupt()
        training.finish()
    assert training.interrupted
    assert training.kernels == "torch (no compiled ones: no C compiler found)"
    # Resumed where there is a compiler, it stays what it was.
    forget()
    resumed = resume(tmp_path / "run")
    assert not models.use_torch(resumed.network)
    assert train(recipe, "shapes:training=40,test=20", out=tmp_path / "other").kernels == "compiled"


@compiled
@pytest.mark.usefixtures("anew")
def test_half_precision_is_for_want_of_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_bfloat16", lambda device: True)
    recipe = recipes.load("fast94", ["epochs=1", "model.widths=[8, 8]", "views.mirror=false"])
    assert recipe.precision == "half"
    with monkeypatch.context() as patch:
        patch.setattr(winograd.HALF_KERNELS, "_lacks", lambda: "a processor without")
        forget()
        training = train(recipe, "shapes:training=40,test=20", out=tmp_path / "compiled")
        assert (training.kernels, training.precision) == ("compiled", "float32")
    monkeypatch.setenv("CC", "false")
    forget()
    training = train(recipe, "shapes:training=40,test=20", out=tmp_path / "torch")
    assert (training.kernels.partition(" ")[0], training.precision) == ("torch", "bfloat16")


@pytest.mark.skipif(
    winograd.problem(half=True) is not None, reason=f"no products of bfloat16 here: {winograd.problem(half=True)}"
)
@pytest.mark.usefixtures("anew")
def test_products_are_half_precision_where_the_processor_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["epochs=2", "model.widths=[8, 8]", "views.mirror=false"]
    kinds = {"half": "bfloat16 products", "float32": "float32"}
    trainings = {}
    for precision, said in kinds.items():
        recipe = recipes.load("fast94", [*words, f"precision={precision}"])
        training = train(recipe, "shapes:training=40,test=20", out=tmp_path / precision)
        assert (training.kernels, training.precision) == ("compiled", said)
        assert training.run.environment["precision"] == said
        layers = [layer for layer in training.network.modules() if isinstance(layer, winograd.Convolution)]
        assert {layer.half_products for layer in layers} == {precision == "half"}
        trainings[precision] = training
    for training in trainings.values():
        training.finish()
    half, single = (
        torch.cat([weight.flatten() for weight in training.network.parameters()]) for training in trainings.values()
    )
    assert 0 < (half - single).norm() < 0.2 * single.norm()
    # It goes on as it began, or not at all.
    begun = train(recipes.load("fast94", words), "shapes:training=40,test=20", out=tmp_path / "begun")
    again = resume(begun.run)
    assert again.precision == "bfloat16 products"
    again.finish()
    assert all(map(torch.equal, again.network.parameters(), trainings["half"].network.parameters()))
    monkeypatch.setattr(winograd.HALF_KERNELS, "_lacks", lambda: "a processor without")
    forget()
    with pytest.raises(RunError, match=r"in bfloat16 products.*a processor without"):
        resume(begun.run)


@compiled
@pytest.mark.usefixtures("anew")
def test_begun_with_a_compiler_it_does_not_go_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load("fast94", ["epochs=2", "model.widths=[8, 8]", "views.mirror=false"])
    train(recipe, "shapes:training=40,test=20", out=tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    forget()
    with pytest.raises(RunError, match=r"no C compiler found.*install a C compiler"):
        resume(tmp_path / "run")


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_compiler_that_fails_is_named(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert compiler in (winograd.KERNELS.problem() or "")
    images, layer = torch.randn(2, 8, 4, 4), winograd.Convolution(8, 8, compiled=True)
    assert torch.equal(layer(images), conv2d(images, layer.weight, padding=1))


@compiled
def test_compiled_once_and_anew_where_the_file_is_damaged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from thirtytwo.models import pointwise; print(pointwise.KERNELS.problem())"]
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    written: list[Path] = []
    for damaged in (False, False, True, False):
        if damaged:
            written[0].write_bytes(b"")
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr
        written += (tmp_path / "thirtytwo").iterdir()
    assert len(set(written)) == 1
    assert written[0].stat().st_size > 0


@compiled
@pytest.mark.usefixtures("anew")
def test_whatever_torchs_defaults_are() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        assert winograd.KERNELS.problem() is None
        assert winograd.HALF_KERNELS.problem() in (None, "this processor lacks AVX512_BF16")
        assert pointwise.KERNELS.problem() is None
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


LEARNERS = [
    SpeedModel(widths=(16, 24), depth=2),
    SpeedModel(widths=(16, 24), depth=3),
    ClassicModel(stages=((8, 16), (16, 12), (16,)), hidden_units=16),  # two of the five convolutions suit them
]


@compiled
@pytest.mark.parametrize("size", [(32, 32), (21, 20)])
@pytest.mark.parametrize("settings", LEARNERS, ids=["speed of 2", "speed of 3", "classic"])
def test_a_network_learns_the_same(
    settings: SpeedModel | ClassicModel, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert winograd.problem() is None  # which is found out by convolving
    pooled: list[bool] = []
    ours = winograd.convolve

    def convolve(images: torch.Tensor, weights: torch.Tensor, *, pool: bool = False, half: bool) -> torch.Tensor:
        pooled.append(pool)
        return ours(images, weights, pool=pool, half=half)

    monkeypatch.setattr(winograd, "convolve", convolve)
    images, labels = torch.randn(16, 3, *size, generator=seeded(2)), torch.arange(16) % 10
    networks, gradients = [], []
    for kind in ("torch", "compiled"):
        torch.manual_seed(0)
        network = models.build(settings.model_copy(update={"kernels": kind}), 10, size)
        torch.manual_seed(1)  # dropout
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        networks.append(network)
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    convolutions = 2 if isinstance(settings, ClassicModel) else 2 * settings.depth
    groups = 1 if isinstance(settings, ClassicModel) else 2
    assert sorted(pooled) == [False] * (convolutions - groups) + [True] * groups
    for torchs, other in zip(*gradients, strict=True):
        # Rounded otherwise, pooling takes another pixel where two are nearly equal.
        assert (torchs - other).norm() <= 2e-2 * torchs.norm() + 1e-6
    networks[1].load_state_dict(networks[0].state_dict())
    one, other = (network.eval()(images) for network in networks)
    assert torch.equal(one, other)  # both answer with torch's operations


@compiled
def test_a_teacher_is_asked_with_the_kernels_of_the_training(tmp_path: Path) -> None:
    spec = "shapes:training=80,test=20"
    recipe = recipes.load("fast94", ["precision=float32", "epochs=2", "model.widths=[8, 16]", "batch_size=20"])
    train(recipe, spec, out=tmp_path / "teacher").finish()
    taught = recipe.replace(f"teacher.model={tmp_path / 'teacher'}")
    images, prepared = torch.rand((16, 3, 32, 32)), standardiser(recipe.pixels)

    def said(model: Classifier | None) -> torch.Tensor:
        assert model is not None
        with torch.no_grad():
            return model.calibrated_scores(images, prepared)

    answers = said(Classifier.load(tmp_path / "teacher"))
    whole = train(taught, spec, out=tmp_path / "whole")
    assert not torch.equal(said(whole._teacher), answers)
    assert torch.allclose(said(whole._teacher), answers, atol=1e-3)
    assert torch.equal(
        said(train(taught.replace("model.kernels=torch"), spec, out=tmp_path / "torch")._teacher), answers
    )
    whole.finish()
    assert torch.equal(said(Classifier.load(tmp_path / "teacher")), answers)
    stopped = train(taught, spec, out=tmp_path / "stopped")
    next(iter(stopped))
    stopped.interrupt()
    stopped.finish()
    resumed = resume(tmp_path / "stopped")
    resumed.finish()
    one, other = (training.network.state_dict() for training in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
