"""Winograd's convolution is the convolution."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from thirtytwo.models.winograd import (
    HALF_SIDES,
    KERNELS,
    SIDES,
    Convolution,
    _group,
    best_side,
    convolve,
    matrices,
    problem,
    tiles,
)

compiled = pytest.mark.skipif(KERNELS.problem() is not None, reason=f"no kernels here: {KERNELS.problem()}")
able = pytest.mark.skipif(
    problem(half=True) is not None, reason=f"no kernels with products of bfloat16 here: {problem(half=True)}"
)
halves = pytest.mark.parametrize("half", [False, pytest.param(True, marks=able)])
HALF_ERRORS = {2: 0.01, 3: 0.02, 4: 0.025, 5: 0.07, 6: 0.09}
"""Of results with products of bfloat16, at most: side of the tiles -> share."""


@pytest.mark.parametrize(("side", "half"), [*product(SIDES, [False]), *product(HALF_SIDES, [True])])
@given(st.data())
@settings(max_examples=20)
def test_transforms_are_exact(side: int, half: bool, data: st.DataObject) -> None:
    numbers = st.integers(-9, 9)
    d = data.draw(st.lists(numbers, min_size=side + 2, max_size=side + 2))
    g = data.draw(st.lists(numbers, min_size=3, max_size=3))
    a, of_weights, b = matrices(side, half=half)
    points = range(side + 2)
    seen = [sum(b[i][k] * d[i] for i in points) for k in points]
    weighed = [sum((w * x for w, x in zip(of_weights[k], g, strict=True)), Fraction(0)) for k in points]
    found = [sum(a[k][j] * seen[k] * weighed[k] for k in points) for j in range(side)]
    assert found == [sum(d[j + i] * g[i] for i in range(3)) for j in range(side)]


def results(images: Tensor, weights: Tensor, gradient: Tensor, side: int | None, half: bool = False) -> list[Tensor]:
    """The convolution and both of its gradients; torch's own for a side of 0."""
    images, weights = images.detach().requires_grad_(), weights.detach().requires_grad_()
    found = conv2d(images, weights, padding=1) if side == 0 else convolve(images, weights, side, half=half)
    return [found.detach(), *torch.autograd.grad(found, (images, weights), gradient.to(found.dtype))]


@compiled
@pytest.mark.parametrize(
    ("side", "half"),
    [*product([*SIDES, None], [False]), *(pytest.param(side, True, marks=able) for side in [*HALF_SIDES, None])],
)
@given(
    batch=st.integers(1, 4),
    inputs=st.sampled_from([8, 24]),
    outputs=st.sampled_from([8, 16, 40]),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    channels_last=st.booleans(),
)
@settings(max_examples=15)
def test_it_is_the_convolution(
    side: int | None,
    half: bool,
    batch: int,
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    channels_last: bool,
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
    tolerance = 2e-5 if (side or 8) < 7 else 2e-4
    if half:
        # In images smaller than a tile few numbers are left, and those may be the ones that err more than others.
        tolerance = HALF_ERRORS[side or 6] * (1 if min(height, width) >= (side or 6) else 2)
    for found, expected in zip(results(images, weights, gradient, side, half), exact, strict=True):
        assert found.shape == expected.shape
        assert (found.double() - expected).norm() < tolerance * expected.norm()


@compiled
@halves
@pytest.mark.parametrize("side", [2, 4, 6, 8])
@given(batch=st.integers(1, 4), height=st.integers(2, 19), width=st.integers(2, 19), whole=st.booleans())
@settings(max_examples=15)
def test_pooled_it_is_max_pooling_of_itself(
    side: int, half: bool, batch: int, height: int, width: int, whole: bool
) -> None:
    if half and (side not in HALF_SIDES or whole):
        return  # equal ones are rounded, and so not equal any more
    generator = torch.Generator().manual_seed(height * 100 + width)
    images = torch.randn((batch, 8, height, width), generator=generator)
    weights = torch.randn((16, 8, 3, 3), generator=generator)
    if whole:  # of equal ones among four, both take the first
        images, weights = images.round(), torch.zeros_like(weights)
        weights[:, 0, 1, 1] = 1
    gradient = torch.randn((batch, 16, height // 2, width // 2), generator=generator)
    found = []
    for pooled in (
        lambda x, w: convolve(x, w, side, pool=True, half=half),
        lambda x, w: max_pool2d(convolve(x, w, side, half=half), 2),
    ):
        x, w = images.clone().requires_grad_(), weights.clone().requires_grad_()
        y = pooled(x, w)  # type: ignore[no-untyped-call]
        found.append([y.detach(), *torch.autograd.grad(y, (x, w), gradient)])
    # Points that are not powers of 2 leave it to the compiler which of two roundings it saves.
    assert (found[0][0] - found[1][0]).norm() <= 1e-6 * half * found[1][0].norm()
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 5e-5 * other.norm()  # sums of another order


@compiled
@halves
def test_what_is_not_a_number_stays(half: bool) -> None:
    images = torch.zeros(1, 8, 8, 8)
    images[0, 0, 3, 3] = torch.nan
    assert convolve(images, torch.ones(8, 8, 3, 3), 2, pool=True, half=half).isnan().any()


@compiled
@halves
def test_same_bits_every_time(half: bool) -> None:
    images, weights, gradient = torch.randn(64, 16, 15, 15), torch.randn(32, 16, 3, 3), torch.randn(64, 32, 15, 15)
    first = results(images, weights, gradient, None, half)
    for _ in range(3):
        assert all(map(torch.equal, first, results(images, weights, gradient, None, half)))


@given(batch=st.integers(1, 2000), each=st.integers(1, 200), most=st.sampled_from([36, 96]), threads=st.integers(1, 64))
def test_threads_have_equal_work_and_no_more_at_once_than_fits(batch: int, each: int, most: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        group = _group(batch, each, most)
    assert group == 1 or group * each <= most
    rounds = -(-batch // (group * threads))
    assert rounds * group < batch / threads + rounds  # of images, the busiest thread has less than this


@pytest.mark.parametrize(
    ("side", "half"), [*[pytest.param(side, True, marks=able) for side in HALF_SIDES], (4, False), (7, False)]
)
@compiled
def test_same_bits_for_any_number_of_threads(side: int, half: bool) -> None:
    images, weights, gradient = torch.randn(61, 16, 9, 9), torch.randn(40, 16, 3, 3), torch.randn(61, 40, 9, 9)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(results(images, weights, gradient, side, half=half))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        result, for_images, for_weights = map(torch.equal, found[0], other)
        assert result
        assert for_images
        assert for_weights or not half  # in float32, a product of torch's


@compiled
@halves
def test_gradients_only_where_they_are_wanted(half: bool) -> None:
    images, weights = torch.randn(2, 8, 6, 6), torch.randn(8, 8, 3, 3, requires_grad=True)
    convolve(images, weights, half=half).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    images.requires_grad_()
    convolve(images, weights.detach(), half=half).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None


@given(height=st.integers(1, 64), width=st.integers(1, 64), half=st.booleans())
def test_tiles_save_multiplications(height: int, width: int, half: bool) -> None:
    side = best_side(height, width, half=half)
    needed = (side + 2) ** 2 * tiles(height, width, side)
    if min(height, width) > 1:
        assert needed < 9 * height * width
    assert all(needed <= (m + 2) ** 2 * -(-height // m) * -(-width // m) for m in (HALF_SIDES if half else SIDES))


@compiled
@halves
def test_a_layer_uses_it_in_training_only(half: bool) -> None:
    layer = Convolution(8, 8, compiled=True)
    layer.half_products = half
    images = torch.randn(2, 8, 9, 9)
    own = conv2d(images, layer.weight, padding=1)
    assert torch.equal(layer(images), convolve(images, layer.weight, half=half))
    assert not torch.equal(layer(images), own)
    layer.eval()
    assert torch.equal(layer(images), own)


@pytest.mark.parametrize(
    ("inputs", "outputs", "dtype"),
    [
        (3, 8, torch.float32),
        (8, 10, torch.float32),
        (8, 8, torch.float64),
        (4104, 8, torch.float32),
        (8, 4104, torch.float32),
    ],
)
def test_a_layer_that_it_is_not_made_for_is_torchs(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    layer = Convolution(inputs, outputs, compiled=True).to(dtype)
    images = torch.randn((2, inputs, 9, 9), dtype=dtype)
    assert torch.equal(layer(images), conv2d(images, layer.weight, padding=1))


@compiled
def test_what_does_not_fit_together_is_refused() -> None:
    images, weights = torch.randn(2, 8, 8, 8), torch.randn(8, 8, 3, 3)
    with pytest.raises(ValueError, match=r"side 3.*even one"):
        convolve(images, weights, 3, pool=True)
    with pytest.raises(ValueError, match="side 9"):
        convolve(images, weights, 9)
    with pytest.raises(ValueError, match="side 7"):
        convolve(images, weights, 7, half=True)
    with pytest.raises(ValueError, match=r"2 × 2"):
        convolve(images[:, :, :1], weights, pool=True)
    with pytest.raises(RuntimeError, match="channels"):
        Convolution(8, 8, compiled=True)(torch.randn(1, 16, 4, 4))
    with pytest.raises(RuntimeError):
        Convolution(8, 8, compiled=True).double()(images)


def test_not_under_autocast() -> None:
    layer, images = Convolution(8, 8, compiled=True), torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cpu._is_avx512_bf16_supported(), reason="this processor multiplies bfloat16")
def test_a_processor_without_bfloat16_has_no_such_kernels() -> None:
    assert problem(half=True) == "this processor lacks AVX512_BF16"
