"""Convolution with a third of the multiplications, for training on a CPU (Winograd 1980; Lavin & Gray 2016).

A 3 × 3 convolution of a tile of m × m outputs reads (m + 2) × (m + 2) inputs. As polynomials, evaluated at m + 2 points
along each dimension (Toom & Cook), it is one multiplication for each of those (m + 2)² points and pair of channels, in
place of 9 m²: 36 for 144 with m = 4, 100 for 576 with m = 8. So a layer becomes (m + 2)² matrix products, between a
transform of the images and one of the results; its gradients are the same three steps backwards (arXiv 1509.09308).

In torch the transforms would cost what the products save. So both are C (`winograd.c`), which takes a few images
through all three steps while they are in the cache. For shapes that it is not made for, the convolution is torch's own.
They differ by rounding, 0.02e-5 to 4e-5 of the result: a hundredth of
what bfloat16 takes away. Gradients of weights are torch's products of what has been transformed.

Where the processor multiplies bfloat16 (AVX512_BF16), products can be of that: what is transformed is rounded to it and
takes half of the memory, while images, transforms and sums stay float32. Transforms blow such rounding up, the more
the larger the tiles, by 0.4% of the result to 5%; so tiles are smaller then, and have points of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, max_pool2d

from thirtytwo.models.native import LANES, Kernels, fits, gradients_of, room, suits

SIDES = (2, 3, 4, 5, 6, 7, 8)
"""Sides of tiles. Larger ones multiply less and round more."""
HALF_SIDES = (2, 3, 4, 5, 6)
"""The same where products are of bfloat16."""
Matrix = list[list[Fraction]]
Point = Fraction | int


def _points(side: int) -> Sequence[Point]:
    """Where polynomials are evaluated, besides at infinity.

    Small numbers round least; the last two were found by trying: the largest tiles err by 4e-5 of the result with them,
    by 25e-5 with 4 and −4 (64 channels; the smallest by 0.02e-5).
    """
    return (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2), Fraction(3, 4), Fraction(-3, 4))[: side + 1]


def _half_points(side: int) -> Sequence[Point]:
    """The same where products are of bfloat16, whose rounding does not depend on how large numbers are.

    With independent images and weights of mean 0, the square of the relative error of an output is, along a dimension,
    proportional to the sum over points of the squared norms of their rows of A, G and Bᵀ; for both gradients it is the
    same. Of fractions from 1/4 to 4 these are the best that were found: sides of 2 err by 0.4%, of 3 by 0.8% (1.4% with
    `_points`), of 4 by 1.1% (2.4%), of 6 by 4.7%; of 5 by 3.4% (3.8%), where 2.8% are possible, but not with points in
    pairs, which halve the transforms.
    """
    third = Fraction(2, 3)
    return {
        2: (0, 1, -1),
        3: (0, -1, Fraction(1, 2), 2),
        4: (0, third, -third, 1 / third, -1 / third),
        5: (0, 1, -1, 2, -2, Fraction(1, 3)),
        6: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)),
    }[side]


@dataclass(frozen=True)
class Products:
    """What products are of, and what follows from that.

    Attributes:
        dtype: of their factors; sums are float32.
        sides: of tiles.
        points: side -> where polynomials are evaluated, besides at infinity.
        panel: outputs whose weights lie together: what one step of a product takes.
        tiles: that a thread takes through all steps at once, about. Fewer use weights too seldom, more do not stay in
            the cache.
        kernels: that compute them.
    """

    dtype: torch.dtype
    sides: Sequence[int]
    points: Callable[[int], Sequence[Point]]
    panel: int
    tiles: int
    kernels: Kernels


class Convolution(nn.Conv2d):
    """A 3 × 3 convolution that keeps height and width, float (batch, inputs, h, w) -> (batch, outputs, h, w).

    Attributes:
        compiled: whether, in training, on a CPU and in float32, it is Winograd's where that is possible.
        answers_compiled: whether it is so as well when the network answers.
        half_products: whether the products of that are of bfloat16.
    """

    def __init__(self, inputs: int, outputs: int, *, compiled: bool) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.compiled, self.answers_compiled, self.half_products = compiled, False, False

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.is_winograd(images):
            return convolve(images, self.weight, half=self.half_products)
        return super().forward(images)

    def pooled(self, images: Tensor, pool: nn.MaxPool2d) -> Tensor:
        """The largest of each 2 × 2 outputs: found by `pool`, or in the same go."""
        if self.is_winograd(images):
            return convolve(images, self.weight, pool=True, half=self.half_products)
        largest: Tensor = pool(self(images))
        return largest

    def is_winograd(self, images: Tensor) -> bool:
        """Whether it is for these images."""
        # Trained models answer with torch's convolution, the same on every machine.
        return (
            self.compiled
            and (self.training or self.answers_compiled)
            and fits(images)
            and images.shape[1] == self.in_channels
            and suits(self.out_channels)
            and self.weight.dtype == torch.float32
            and self.weight.device.type == "cpu"
            and problem(half=self.half_products) is None
        )


def problem(*, half: bool = False) -> str | None:
    """Why there are no kernels here; None if there are. `half` asks for those with products of bfloat16."""
    return _products(half).kernels.problem()


def convolve(
    images: Tensor, weights: Tensor, side: int | None = None, *, pool: bool = False, half: bool = False
) -> Tensor:
    """Convolve float32 (batch, inputs, h, w), padded by one zero, with (outputs, inputs, 3, 3).

    Args:
        images: on a CPU; any memory format, channels-last is read as it lies.
        weights: channels in multiples of `LANES`.
        side: of the tiles, one of `SIDES` or `HALF_SIDES`; None takes what needs fewest multiplications.
        pool: the result is the largest of each 2 × 2 outputs, as max-pooling would make it; `side` is then even.
        half: products are of bfloat16.

    Returns:
        (batch, outputs, h, w), or half the height and width, channels-last.

    Raises:
        ValueError: there are no such tiles, or there is nothing to pool.
    """
    products = _products(half)
    if side is not None and (side not in products.sides or (pool and side % 2)):
        raise ValueError(f"side {side}: expected one of {products.sides}, and an even one for pooling")
    if pool and min(images.shape[2:]) < 2:
        raise ValueError(f"images of {tuple(images.shape[2:])} pixels: expected at least 2 × 2 for pooling")
    side = side or best_side(images.shape[2], images.shape[3], pool=pool, half=half)
    result: Tensor = _Convolve.apply(images, weights, side, pool, products)  # type: ignore[no-untyped-call]
    return result


def best_side(height: int, width: int, *, pool: bool = False, half: bool = False) -> int:
    """Of the tiles: what needs fewest multiplications for images of this size; the smaller one if in doubt."""
    sides = [side for side in _products(half).sides if not pool or side % 2 == 0]
    return min(sides, key=lambda side: (side + 2) ** 2 * tiles(height, width, side, pool=pool))


def tiles(height: int, width: int, side: int, *, pool: bool = False) -> int:
    """Of an image; pooling needs none for a last row or column without a neighbour."""
    if pool:
        height, width = height // 2 * 2, width // 2 * 2
    return -(-height // side) * -(-width // side)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weights: Tensor, side: int, pool: bool, products: Products) -> Tensor:
        batch, inputs, height, width = images.shape
        outputs, points = len(weights), (side + 2) ** 2
        images = images.contiguous(memory_format=torch.channels_last)
        transformed = _planes(points, batch * tiles(height, width, side, pool=pool), inputs, products.dtype)
        result = room(batch, outputs, *((height // 2, width // 2) if pool else (height, width)))
        which = torch.empty(result.numel(), dtype=torch.uint8, device="cpu") if pool else None
        ctx.side, ctx.products, ctx.shape = side, products, images.shape
        _run("forward", ctx, images, _panels(weights, side, products), transformed, result, which, outputs)
        ctx.save_for_backward(transformed, weights, which)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        transformed, weights, which = ctx.saved_tensors
        outputs, inputs = weights.shape[:2]
        for_images = for_weights = panels = None
        if ctx.needs_input_grad[0]:
            for_images, panels = room(*ctx.shape), _panels(weights.transpose(0, 1), ctx.side, ctx.products)
        products = _planes(len(transformed), transformed.shape[1], outputs, ctx.products.dtype)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        _run("backward", ctx, gradient, panels, products, for_images, which, outputs)
        if ctx.needs_input_grad[1]:
            if ctx.products is BFLOAT16:
                for_weights = _gradients(products, transformed, ctx.side)
            else:
                flat = torch.bmm(transformed.mT, products).view(len(transformed), -1)
                for_weights = _weight_transform(ctx.side).T @ flat
                for_weights = for_weights.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        return for_images, for_weights, None, None, None


def _panels(weights: Tensor, side: int, products: Products) -> Tensor:
    """Weights (outputs, inputs, 3, 3), transformed, in panels of outputs.

    Returns:
        (points, outputs / panel, inputs, panel), outputs filled up with zeros. In bfloat16 two inputs lie together:
        (points, outputs / panel, inputs / 2, panel, 2).
    """
    outputs, inputs = weights.shape[:2]
    if weights.stride(2) != 3 * weights.stride(3):  # the nine of a channel lie evenly in either memory format
        weights = weights.contiguous()
    of_output, of_input, _, of_place = weights.stride()
    shape = ((side + 2) ** 2, -(-outputs // products.panel), inputs, products.panel)
    panels = torch.empty(shape, dtype=products.dtype, device="cpu")
    products.kernels.run(f"weights_{side}", weights, panels, inputs, outputs, of_output, of_input, of_place)
    return panels


def _planes(points: int, tiles: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Room for what is transformed: (points, tiles, channels).

    A transform reads or writes all planes at one place. They lie an odd number of cache lines apart; at a power of two
    they would all compete for the same few places of the cache.
    """
    plane = _apart(tiles * channels, dtype)
    numbers = torch.empty(points * plane, dtype=dtype, device="cpu")
    return numbers.as_strided((points, tiles, channels), (plane, channels, 1))


def _apart(numbers: int, dtype: torch.dtype) -> int:
    line = 64 // dtype.itemsize
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
    group = _group(batch, each, ctx.products.tiles)
    plane = _apart(group * each * max(inputs, outputs), torch.float32)  # of what a thread multiplies
    threads = min(torch.get_num_threads(), -(-batch // group))
    rooms = torch.empty(threads * len(planes) * plane, dtype=torch.float32, device="cpu")
    ctx.products.kernels.run(
        f"{name}_{ctx.side}", source, panels, planes, target, which, rooms,
        batch, height, width, inputs, outputs, planes.stride(0), plane, group, threads,
    )  # fmt: skip


def _group(batch: int, each: int, most: int) -> int:
    """How many images a thread takes at once: as many groups for each thread, if there are enough images.

    Args:
        batch: images in all.
        each: tiles of an image.
        most: tiles that a thread takes at once, so that they stay in its cache.
    """
    images, threads = max(1, most // max(each, 1)), torch.get_num_threads()
    rounds = max(1, -(-batch // (images * threads)))
    return max(1, -(-batch // (rounds * threads)))


def _gradients(products: Tensor, transformed: Tensor, side: int) -> Tensor:
    """Of weights, from bfloat16: float32 (outputs, inputs, 3, 3), channels-last.

    Args:
        products: their gradients (points, tiles, outputs).
        transformed: images (points, tiles, inputs).
        side: of the tiles.
    """
    points, tiles, inputs = transformed.shape
    outputs, panels = products.shape[2], -(-inputs // BFLOAT16.panel)
    columns = panels * BFLOAT16.panel
    for_points = _planes(points, outputs, columns, torch.float32)
    threads = min(torch.get_num_threads(), points)
    chunk, block, line = 256, 8, 32  # CHUNK and BLOCK in winograd_bfloat16.c, and a line of the cache
    each = outputs // block * (chunk * block + line) + panels * (chunk * BFLOAT16.panel + line)
    rooms = torch.empty(threads * each, dtype=torch.bfloat16, device="cpu")
    plane = for_points.stride(0)
    BFLOAT16.kernels.run(
        "gradients", products, transformed, for_points, rooms,
        points, tiles, inputs, outputs, products.stride(0), transformed.stride(0), plane, each, threads,
    )  # fmt: skip
    result = room(outputs, inputs, 3, 3)
    BFLOAT16.kernels.run(f"weights_back_{side}", for_points, result, inputs, outputs, columns, plane)
    return result


def matrices(side: int, *, half: bool = False) -> tuple[Matrix, Matrix, Matrix]:
    """Exact transforms along one dimension, for `side` outputs; `half` are those for products of bfloat16.

    Returns:
        A (side + 2, side), G (side + 2, 3) and B (side + 2, side + 2), such that for an input d and weights g the
        output is Aᵀ ((G g) ⊙ (Bᵀ d)).
    """
    count, finite = side + 2, _products(half).points(side)
    # The product of two polynomials, of `side` and 3 coefficients, is known from its values at `count` points. Read
    # backwards (transposed), that product is the correlation wanted.
    interpolation = _inverse(_values(finite, count))
    b = interpolation  # B^T is its transpose
    g, a = _values(finite, 3), _values(finite, side)
    for point in range(count):
        # Whole numbers in B, so that the transform of images rounds least; G makes up for it. Products of bfloat16
        # round so much more that it begins with ones, which need no multiplication.
        scale = Fraction(1)
        if half:
            scale /= next(row[point] for row in reversed(b) if row[point])
        else:
            for row in b:
                scale *= (row[point] * scale).denominator
        for row in b:
            row[point] *= scale
        g[point] = [value / scale for value in g[point]]
    return a, g, b


def _values(points: Sequence[Point], coefficients: int) -> Matrix:
    """Values of a polynomial at points and at infinity, as a matrix (points and one, coefficients)."""
    finite = [[Fraction(point) ** power for power in range(coefficients)] for point in points]
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


def _is_right(half: bool) -> bool:
    """Forward and backward, with and without pooling, in more groups than threads take at once."""
    tolerance = 0.1 if half else 1e-3
    generator = torch.Generator("cpu").manual_seed(0)
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    images = torch.randn((120, LANES, 6, 6), generator=generator, **kind).requires_grad_()
    weights = torch.randn((3 * LANES, LANES, 3, 3), generator=generator, **kind).requires_grad_()
    with torch.enable_grad():
        expected = conv2d(images, weights, padding=1)
        factors = torch.randn(expected.shape, generator=generator, **kind)
        wanted = gradients_of(expected, factors, (images, weights))
        for side in _products(half).sides:
            found = convolve(images, weights, side, half=half)
            results = [found, *gradients_of(found, factors, (images, weights))]
            if side % 2 == 0:
                results.append(convolve(images, weights, side, pool=True, half=half))
            rights = [expected, *wanted, max_pool2d(expected, 2)]
            if not all(_close(*pair, tolerance) for pair in zip(results, rights, strict=False)):
                return False
    return True


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found - expected).norm() < tolerance * expected.norm())


def _source(half: bool) -> str:
    here = Path(__file__)
    body = here.with_suffix(".c").read_text(encoding="utf-8")
    products = here.with_name(f"winograd_{'bfloat16' if half else 'float32'}.c").read_text(encoding="utf-8")
    parts = ["static const float zeros[MOST_CHANNELS];", products]
    for side in _products(half).sides:
        a, g, b = matrices(side, half=half)
        parts += [
            "#undef M\n#undef SIDE\n#undef NAME",
            f"#define M {side}\n#define SIDE {side + 2}\n#define NAME(f) f##_{side}",
            _one_dimension(f"input_1d_{side}", _transposed(b)),
            _one_dimension(f"input_1d_out_{side}", _transposed(b), to_elements=True),
            _one_dimension(f"input_1d_back_{side}", b),
            _one_dimension(f"output_1d_{side}", _transposed(a)),
            _one_dimension(f"output_1d_back_{side}", a),
            _one_dimension(f"output_1d_back_out_{side}", a, to_elements=True),
            _one_dimension(f"weights_1d_{side}", g),
            _one_dimension(f"weights_1d_back_{side}", _transposed(g)),
            body,
        ]
    return "\n".join(parts)


def _one_dimension(name: str, matrix: Matrix, *, to_elements: bool = False) -> str:
    """A C function that multiplies by the matrix, written out; what it gives are vectors, or elements to be multiplied.

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
    write = "WRITE(out + {0} * t, r{0});" if to_elements else "out[{0} * t] = r{0};"
    lines += [write.format(i) for i in range(len(matrix))]
    kind = "element" if to_elements else "vector"
    head = f"static inline void {name}(const vector *restrict d, long s, {kind} *restrict out, long t) {{"
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


def _lacks_bfloat16() -> str | None:
    return None if torch.cpu._is_avx512_bf16_supported() else "this processor lacks AVX512_BF16"


def _products(half: bool) -> Products:
    return BFLOAT16 if half else FLOAT32


KERNELS = Kernels("winograd", functools.partial(_source, half=False), functools.partial(_is_right, half=False))
HALF_KERNELS = Kernels(
    "winograd-bfloat16",
    functools.partial(_source, half=True),
    functools.partial(_is_right, half=True),
    lacks=_lacks_bfloat16,
)
FLOAT32 = Products(torch.float32, SIDES, _points, 16, 96, KERNELS)
BFLOAT16 = Products(torch.bfloat16, HALF_SIDES, _half_points, 32, 36, HALF_KERNELS)
