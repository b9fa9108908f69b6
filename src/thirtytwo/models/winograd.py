"""Convolution with a third of the multiplications, for training on a CPU (Winograd 1980; Lavin & Gray 2016).

A 3 × 3 convolution of a tile of m × m outputs reads (m + 2) × (m + 2) inputs. As polynomials, evaluated at m + 2 points
along each dimension (Toom & Cook), it is one multiplication for each of those (m + 2)² points and pair of channels, in
place of 9 m²: 36 for 144 with m = 4, 100 for 576 with m = 8. So a layer becomes (m + 2)² matrix products, between a
transform of the images and one of the results; its gradients are the same three steps backwards (arXiv 1509.09308).

In torch the transforms would cost what the products save. So both are C (`winograd.c`), which takes a few images
through all three steps while they are in the cache. For shapes that it is not made for, the convolution is torch's own.
They differ by rounding, 0.02e-5 to 4e-5 of the result: a hundredth of
what bfloat16 takes away. Gradients of weights are torch's products of what has been transformed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, max_pool2d

from thirtytwo.models.native import LANES, Kernels, fits, room, suits

SIDES = (2, 3, 4, 5, 6, 7, 8)
"""Sides of tiles. Larger ones multiply less and round more."""
PANEL = 2 * LANES
"""Outputs whose weights lie together: what one step of a product takes."""
TILES_AT_ONCE = 96
"""That a thread takes through all steps. Fewer use weights too seldom, more do not stay in the cache."""
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2), Fraction(3, 4), Fraction(-3, 4))
"""Where polynomials are evaluated, besides at infinity. Small numbers round least; the last two were found by trying:
the largest tiles err by 4e-5 of the result with them, by 25e-5 with 4 and −4 (64 channels; the smallest by 0.02e-5)."""

Matrix = list[list[Fraction]]


class Convolution(nn.Conv2d):
    """A 3 × 3 convolution that keeps height and width, float (batch, inputs, h, w) -> (batch, outputs, h, w).

    Attributes:
        compiled: whether, in training, on a CPU and in float32, it is Winograd's where that is possible.
    """

    def __init__(self, inputs: int, outputs: int, *, compiled: bool) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.compiled = compiled

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return convolve(images, self.weight) if self.is_winograd(images) else super().forward(images)

    def is_winograd(self, images: Tensor) -> bool:
        """Whether it is for these images."""
        # Trained models answer with torch's convolution, the same on every machine.
        return (
            self.compiled
            and self.training
            and fits(images)
            and images.shape[1] == self.in_channels
            and suits(self.out_channels)
            and self.weight.dtype == torch.float32
            and self.weight.device.type == "cpu"
            and KERNELS.problem() is None
        )


def convolve(images: Tensor, weights: Tensor, side: int | None = None, *, pool: bool = False) -> Tensor:
    """Convolve float32 (batch, inputs, h, w), padded by one zero, with (outputs, inputs, 3, 3).

    Args:
        images: on a CPU; any memory format, channels-last is read as it lies.
        weights: channels in multiples of `LANES`.
        side: of the tiles, one of `SIDES`; None takes what needs fewest multiplications.
        pool: the result is the largest of each 2 × 2 outputs, as max-pooling would make it; `side` is then even.

    Returns:
        (batch, outputs, h, w), or half the height and width, channels-last.

    Raises:
        ValueError: there are no such tiles, or there is nothing to pool.
    """
    if side is not None and (side not in SIDES or (pool and side % 2)):
        raise ValueError(f"side {side}: expected one of {SIDES}, and an even one for pooling")
    if pool and min(images.shape[2:]) < 2:
        raise ValueError(f"images of {tuple(images.shape[2:])} pixels: expected at least 2 × 2 for pooling")
    side = side or best_side(images.shape[2], images.shape[3], pool=pool)
    result: Tensor = _Convolve.apply(images, weights, side, pool)  # type: ignore[no-untyped-call]
    return result


def best_side(height: int, width: int, *, pool: bool = False) -> int:
    """Of the tiles: what needs fewest multiplications for images of this size; the smaller one if in doubt."""
    sides = [side for side in SIDES if not pool or side % 2 == 0]
    return min(sides, key=lambda side: (side + 2) ** 2 * tiles(height, width, side, pool=pool))


def tiles(height: int, width: int, side: int, *, pool: bool = False) -> int:
    """Of an image; pooling needs none for a last row or column without a neighbour."""
    if pool:
        height, width = height // 2 * 2, width // 2 * 2
    return -(-height // side) * -(-width // side)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weights: Tensor, side: int, pool: bool) -> Tensor:
        batch, inputs, height, width = images.shape
        outputs, points = len(weights), (side + 2) ** 2
        images = images.contiguous(memory_format=torch.channels_last)
        transformed = _planes(points, batch * tiles(height, width, side, pool=pool), inputs)
        result = room(batch, outputs, *((height // 2, width // 2) if pool else (height, width)))
        which = torch.empty(result.numel(), dtype=torch.uint8, device="cpu") if pool else None
        ctx.side, ctx.shape = side, images.shape
        _run("forward", ctx, images, _panels(weights, side), transformed, result, which, outputs)
        ctx.save_for_backward(transformed, weights, which)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        transformed, weights, which = ctx.saved_tensors
        outputs, inputs = weights.shape[:2]
        for_images = for_weights = panels = None
        if ctx.needs_input_grad[0]:
            for_images, panels = room(*ctx.shape), _panels(weights.transpose(0, 1), ctx.side)
        products = _planes(len(transformed), transformed.shape[1], outputs)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        _run("backward", ctx, gradient, panels, products, for_images, which, outputs)
        if ctx.needs_input_grad[1]:
            flat = torch.bmm(transformed.mT, products).view(len(transformed), -1)
            for_weights = _weight_transform(ctx.side).T @ flat
            for_weights = for_weights.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        return for_images, for_weights, None, None


def _panels(weights: Tensor, side: int) -> Tensor:
    """Weights (outputs, inputs, 3, 3), transformed, in panels of outputs.

    Returns:
        float32 (points, outputs / PANEL, inputs, PANEL), outputs filled up with zeros.
    """
    outputs, inputs = weights.shape[:2]
    if weights.stride(2) != 3 * weights.stride(3):  # the nine of a channel lie evenly in either memory format
        weights = weights.contiguous()
    of_output, of_input, _, of_place = weights.stride()
    panels = torch.empty(((side + 2) ** 2, -(-outputs // PANEL), inputs, PANEL), dtype=torch.float32, device="cpu")
    KERNELS.run(f"weights_{side}", weights, panels, inputs, outputs, of_output, of_input, of_place)
    return panels


def _planes(points: int, tiles: int, channels: int) -> Tensor:
    """Room for what is transformed: float32 (points, tiles, channels).

    A transform reads or writes all planes at one place. They lie an odd number of cache lines apart; at a power of two
    they would all compete for the same few places of the cache.
    """
    plane = _apart(tiles * channels)
    numbers = torch.empty(points * plane, dtype=torch.float32, device="cpu")
    return numbers.as_strided((points, tiles, channels), (plane, channels, 1))


def _apart(numbers: int) -> int:
    line = 16
    return (-(-numbers // line) | 1) * line


def _run(
    name: str,
    ctx: Any,
    source: Tensor,
    panels: Tensor | None,
    planes: Tensor,
    target: Tensor | None,
    which: Tensor | None,
    outputs: int,
) -> None:
    """Forward or backward: images -> planes and, unless `target` is None, on to images."""
    batch, inputs, height, width = ctx.shape
    each = planes.shape[1] // batch
    group = max(1, TILES_AT_ONCE // each) if each else 1
    plane = _apart(group * each * max(inputs, outputs))  # of what a thread multiplies
    threads = min(torch.get_num_threads(), -(-batch // group))
    rooms = torch.empty(threads * len(planes) * plane, dtype=torch.float32, device="cpu")
    KERNELS.run(
        f"{name}_{ctx.side}", source, panels, planes, target, which, rooms,
        batch, height, width, inputs, outputs, planes.stride(0), plane, group, threads,
    )  # fmt: skip


def matrices(side: int) -> tuple[Matrix, Matrix, Matrix]:
    """Exact transforms along one dimension, for `side` outputs.

    Returns:
        A (side + 2, side), G (side + 2, 3) and B (side + 2, side + 2), such that for an input d and weights g the
        output is Aᵀ ((G g) ⊙ (Bᵀ d)).
    """
    count = side + 2
    # The product of two polynomials, of `side` and 3 coefficients, is known from its values at `count` points. Read
    # backwards (transposed), that product is the correlation wanted.
    interpolation = _inverse(_values(count, count))
    b = interpolation  # B^T is its transpose
    g, a = _values(count, 3), _values(count, side)
    for point in range(count):
        # Whole numbers in B, so that the transform of images rounds least; G makes up for it.
        scale = Fraction(1)
        for row in b:
            scale *= (row[point] * scale).denominator
        for row in b:
            row[point] *= scale
        g[point] = [value / scale for value in g[point]]
    return a, g, b


def _values(count: int, coefficients: int) -> Matrix:
    """Values of a polynomial at the first points and at infinity, as a matrix (count, coefficients)."""
    finite = [[Fraction(point) ** power for power in range(coefficients)] for point in POINTS[: count - 1]]
    return [*finite, [Fraction(int(power == coefficients - 1)) for power in range(coefficients)]]


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss & Jordan, exactly."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(size):
            if k != i:
                rows[k] = [value - rows[k][i] * other for value, other in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


@functools.cache
def _weight_transform(side: int) -> Tensor:
    """G along both dimensions: float32 ((side + 2)², 9)."""
    g = torch.tensor([[float(value) for value in row] for row in matrices(side)[1]], dtype=torch.float64, device="cpu")
    return torch.kron(g, g).float()


def _is_right() -> bool:
    """Forward and backward, with and without pooling, in more groups than threads take at once."""
    generator = torch.Generator("cpu").manual_seed(0)
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    images = torch.randn((120, LANES, 6, 6), generator=generator, **kind).requires_grad_()
    weights = torch.randn((3 * LANES, LANES, 3, 3), generator=generator, **kind).requires_grad_()
    with torch.enable_grad():
        expected = conv2d(images, weights, padding=1)
        factors = torch.randn(expected.shape, generator=generator, **kind)
        gradients = torch.autograd.grad(expected, (images, weights), factors)
        for side in SIDES:
            found = convolve(images, weights, side)
            results = [found, *torch.autograd.grad(found, (images, weights), factors)]
            if not all(map(_close, results, [expected, *gradients])):
                return False
            if side % 2 == 0 and not _close(convolve(images, weights, side, pool=True), max_pool2d(expected, 2)):
                return False
    return True


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() < 1e-3 * expected.norm())


def _source() -> str:
    parts = ["static const float zeros[MOST_CHANNELS];"]
    body = Path(__file__).with_suffix(".c").read_text(encoding="utf-8")
    for side in SIDES:
        a, g, b = matrices(side)
        parts += [
            "#undef M\n#undef SIDE\n#undef NAME",
            f"#define M {side}\n#define SIDE {side + 2}\n#define NAME(f) f##_{side}",
            _one_dimension(f"input_1d_{side}", _transposed(b)),
            _one_dimension(f"input_1d_back_{side}", b),
            _one_dimension(f"output_1d_{side}", _transposed(a)),
            _one_dimension(f"output_1d_back_{side}", a),
            _one_dimension(f"weights_1d_{side}", g),
            body,
        ]
    return "\n".join(parts)


def _one_dimension(name: str, matrix: Matrix) -> str:
    """A C function that multiplies by the matrix, written out.

    Points that differ in sign only give rows, or columns, that do so: half of their multiplications are enough.
    """
    lines = []
    results = [""] * len(matrix)
    for i, k in _pairs(matrix):
        same = [value if value == other else Fraction(0) for value, other in zip(matrix[i], matrix[k], strict=True)]
        opposite = [value if value != other else Fraction(0) for value, other in zip(matrix[i], matrix[k], strict=True)]
        lines += [f"const vector e{i} = {_sum(same)};", f"const vector o{i} = {_sum(opposite)};"]
        results[i], results[k] = f"e{i} + o{i}", f"e{i} - o{i}"
    names = [f"d[{j} * s]" for j in range(len(matrix[0]))]
    if not any(results):
        for j, k in _pairs(_transposed(matrix)):
            lines += [f"const vector e{j} = {names[j]} + {names[k]};", f"const vector o{j} = {names[j]} - {names[k]};"]
            names[j], names[k] = f"e{j}", f"o{j}"
            # a x + b y with b = ±a is a (x ± y).
            matrix = [
                [
                    *row[:j], row[j] if row[j] == row[k] else Fraction(0),
                    *row[j + 1 : k], row[j] if row[j] != row[k] else Fraction(0), *row[k + 1 :],
                ]
                for row in matrix
            ]  # fmt: skip
    for i, row in enumerate(matrix):
        lines.append(f"const vector r{i} = {results[i] or _sum(row, names)};")
    lines += [f"out[{i} * t] = r{i};" for i in range(len(matrix))]
    head = f"static inline void {name}(const vector *restrict d, long s, vector *restrict out, long t) {{"
    return "\n  ".join([head, *lines]) + "\n}"


def _pairs(rows: Sequence[Sequence[Fraction]]) -> Iterator[tuple[int, int]]:
    """Of rows that differ in signs only, but not in all of them."""
    for i, row in enumerate(rows):
        for k in range(i + 1, len(rows)):
            alike = all(abs(value) == abs(other) for value, other in zip(row, rows[k], strict=True))
            signs = {(value > 0) == (other > 0) for value, other in zip(row, rows[k], strict=True) if value}
            if alike and len(signs) == 2:
                yield i, k


def _sum(factors: Sequence[Fraction], names: Sequence[str] = ()) -> str:
    names = names or [f"d[{j} * s]" for j in range(len(factors))]
    return " + ".join(f"{float(f)!r}f * {name}" for f, name in zip(factors, names, strict=True) if f)


def _transposed(matrix: Sequence[Sequence[Fraction]]) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


KERNELS = Kernels("winograd", _source, _is_right)
