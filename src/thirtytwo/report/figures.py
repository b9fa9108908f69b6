"""Figures as files, for papers and slides: drawn by matplotlib on white, each complete by itself.

Figures are made as objects and saved by their own canvas: matplotlib's global state (pyplot) is left alone.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo.report.charts import FEW_IMAGES
from thirtytwo.report.stored import Answer, Judged, Pixels, Stored
from thirtytwo.report.wording import diverged, draw_of_images, percent, plural, signed

if TYPE_CHECKING:
    from thirtytwo.study import Comparison, Repeated, Spread

INK, MUTED, BLUE, RED = "#1b1b1a", "#5f5d58", "#1d5c9e", "#b23a12"  # blue and red also differ in lightness
MOST_NUMBERED = 20
"""Classes up to which a confusion matrix holds numbers."""
MISTAKES_DRAWN = 30
"""Most confident mistakes in their figure."""
_WIDTH, _LINE, _PAD = 6.4, 0.17, 0.13
"""Of the panels of a study, of a line of their titles, and beside these lines, in inches."""


def draw(stored: Stored, bins: tuple[Tensor, Tensor, Tensor] | None) -> dict[str, bytes]:
    """Every figure that there is something to draw for, by file name.

    Args:
        stored: what the run has.
        bins: what `metrics.reliability` says of the test set; None if it has not been scored.
    """
    curves = _curves(stored)
    files = {"curves.svg": save(curves, "svg"), "curves.png": save(curves, "png")}
    if stored.judged is not None and bins is not None:
        judged = stored.judged
        drawn = {
            "random_test_images": _answers(judged.random, "Random test images: true class, then predicted class"),
            "examples": _examples(judged),
            "confusion": _confusion(judged),
            "reliability": _reliability(*bins, ece=judged.summary.ece),
            "mistakes": _answers(
                judged.mistakes[:MISTAKES_DRAWN],
                "Most confident mistakes on the test set: true class, then predicted class",
            ),
        }
        files |= {f"{name}.png": save(figure, "png") for name, figure in drawn.items()}
    return files


def save(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content; the same figure gives the same bytes."""
    content = io.BytesIO()
    # By default an SVG holds the date, and its identifiers are random.
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "thirtytwo"}), warnings.catch_warnings():
        # Class names may be in any script; those that matplotlib's font lacks are boxes here, and right in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format=kind, dpi=150, metadata=metadata, facecolor="white")
    return content.getvalue()


def spread(words: str, found: Repeated) -> Figure:
    """Every accuracy of a recipe as a dot; of several, their mean with its 95% interval.

    Args:
        words: what was trained.
        found: what came of it.
    """
    title, accuracies = _lines(words), found.spread
    shown = [*accuracies.values, *(accuracies.interval or ())]
    meaning = "one dot per training; above them, their mean"
    if accuracies.n == 1:
        meaning = "of one training, which has no spread"
    elif accuracies.interval is not None:
        meaning += " with its 95% interval"
    else:
        meaning = "all alike, which tells nothing about how much seeds differ"
    below = [f"validation accuracy: {meaning}"]
    below += _lines(
        f"left out: {draw_of_images(found.images, found.margin_of_images, 'runs' if accuracies.n > 1 else '')}"
    )
    heights = _PAD + _LINE * len(title), 0.75, 0.3 + _LINE * len(below)  # of the title, the panel, what is below it
    figure = Figure(figsize=(7, sum(heights)))
    panel = figure.add_axes((0.05, heights[2] / sum(heights), _WIDTH / 7, heights[1] / sum(heights)))
    _accuracies(panel, 0, accuracies)
    _share_axis(panel, shown)
    panel.set_yticks([])
    panel.set_ylim(-0.4, 0.85)
    panel.set_xlabel("\n".join(below), fontsize=9, color=MUTED)
    _bare(panel, "\n".join(title))
    return figure


def comparison(found: Comparison, words: tuple[str, str]) -> Figure:
    """Both accuracies of every pair; below them every difference as a dot, and the interval of their mean.

    Args:
        found: a pair at least.
        words: what A and B are.
    """
    points = [100 * difference for difference in found.differences]
    low, high = (100 * end for end in found.interval)
    shown = [*points, 0.0, *(end for end in (low, high) if math.isfinite(end))]
    room = 1.16 * (max(shown) - min(shown)) or 0.1  # where all differences are 0 a tenth of a point is shown
    names = [line for letter, said in zip("AB", words, strict=True) for line in _lines(f"{letter}: {said}", " " * 4)]
    without = _lines(f"{lost}, not drawn") if (lost := diverged(found.diverged, len(found.outcomes))) else []
    dot = 0.1  # inches, as all that follows
    levels = _stacked(points, dot * room / _WIDTH)
    step = min(dot, 3 / (max(levels) + 1))  # a crowd is pressed together
    title, ticks, gap = _PAD + _LINE * (len(names) + 1), 0.45, 0.6 + _LINE * (len(without) + 1)
    heights = 1.75, 0.65 + step * max(levels)
    whole = title + sum(heights) + gap + ticks
    figure = Figure(figsize=(7, whole))
    upper = figure.add_axes((0.05, 1 - (title + heights[0]) / whole, _WIDTH / 7, heights[0] / whole))
    lower = figure.add_axes((0.05, ticks / whole, _WIDTH / 7, heights[1] / whole))

    # Means stand outside of both rows, where no line that joins a pair crosses their numbers.
    for place, side, one in ((1, 1, found.first), (0, -1, found.second)):
        _accuracies(upper, place, one, side)
    for pair in found.pairs:
        ends = [pair.first.accuracy, pair.second.accuracy]
        upper.plot(ends, [1, 0], color=MUTED, linewidth=0.6, alpha=0.5, zorder=0)
    _share_axis(upper, [*found.first.values, *found.second.values])
    upper.set_yticks([0, 1], ["B", "A"], fontsize=9)
    upper.set_ylim(-0.85, 1.85)
    meaning = "one dot per training, and the mean; a line joins a pair"
    _bare(upper, "\n".join([*names, f"validation accuracy: {meaning}"]))

    lower.axvline(0, color=RED, linewidth=1.2, linestyle="--", zorder=0)
    lower.plot(
        points, [0.45 + level * step for level in levels], "o", color=BLUE, alpha=0.55, markersize=7, markeredgewidth=0
    )
    mean = fmean(points)
    reach = "the same recipe" if found.is_same else "no interval yet"
    if math.isfinite(low):
        lower.plot([low, high], [0.2, 0.2], color=INK, linewidth=1.5, solid_capstyle="butt")
        reach = f"95% interval {signed(low)} to {signed(high)}, valid whenever you stop"
    if len(points) > 1:
        lower.plot([mean], [0.2], "|", color=INK, markersize=11, markeredgewidth=2)
    lower.set_yticks([])
    lower.set_ylim(0, heights[1])
    middle = (max(shown) + min(shown)) / 2
    lower.set_xlim(middle - room / 2, middle + room / 2)
    lower.set_xlabel("difference in percentage points; dashed line: no difference", fontsize=9, color=MUTED)
    said = f"B − A: {signed(mean)} points ({reach}); n = {plural(len(points), 'pair')}".replace("-", "−")
    _bare(lower, "\n".join([said, *without]))
    return figure


def _lines(words: str, indent: str = "") -> list[str]:
    """Words in lines that are no longer than a panel is wide; all but the first are indented."""
    return textwrap.wrap(words, 80, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _accuracies(panel: Axes, place: float, found: Spread, side: int = 1) -> None:
    """A row: a dot an accuracy; of several, beside them the mean, with its interval if there is one.

    Args:
        panel: where.
        place: of the row, on the axis without values.
        found: the accuracies.
        side: where the mean is: 1 above the dots, -1 below them.
    """
    panel.plot(found.values, [place] * found.n, "o", color=BLUE, alpha=0.55, markersize=7, markeredgewidth=0)
    if found.interval is not None:
        panel.plot(found.interval, [place + 0.28 * side] * 2, color=INK, linewidth=1.5, solid_capstyle="butt")
    beside = 0.14
    if found.n > 1:  # one accuracy is no mean
        panel.plot([found.mean], [place + 0.28 * side], "|", color=INK, markersize=11, markeredgewidth=2)
        beside = 0.45
    number, upright = percent(found.mean, 2), "bottom" if side > 0 else "top"
    panel.annotate(number, (found.mean, place + beside * side), ha="center", va=upright, fontsize=8, color=INK)


def _share_axis(panel: Axes, shares: Sequence[float]) -> None:
    """The axis along which shares lie: all of these, or a percentage point where they lie closer together."""
    low, high = min(shares), max(shares)
    reach = 0.58 * max(high - low, 0.01)
    middle = (low + high) / 2
    panel.set_xlim(max(middle - reach, -0.004), min(middle + reach, 1.004))  # a dot at either end is drawn as a whole
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def _bare(panel: Axes, title: str = "") -> None:
    """Only the axis along which values lie."""
    panel.set_title(title, loc="left", fontsize=9, color=INK, parse_math=False)
    panel.tick_params(labelsize=8, colors=MUTED, left=False)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.grid(axis="x", linewidth=0.5, alpha=0.5)


def _stacked(values: Sequence[float], width: float) -> list[int]:
    """The lowest level for each value at which no dot of this width covers another one."""
    levels = [0] * len(values)
    ends: list[float] = []  # of each level, where its last dot ends
    for place in sorted(range(len(values)), key=values.__getitem__):
        level = next((level for level, end in enumerate(ends) if values[place] >= end), len(ends))
        ends[level : level + 1] = [values[place] + width]
        levels[place] = level
    return levels


def _curves(stored: Stored) -> Figure:
    figure = Figure(figsize=(9, 3.2))
    # Margins set by hand, here as below: a layout engine draws everything twice.
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.16, top=0.9, wspace=0.26)
    epochs = [row.epoch for row in stored.history]
    axes: Sequence[Axes] = figure.subplots(1, 3)
    for panel, key, title in zip(axes[:2], ("loss", "accuracy"), ("Loss (nats)", "Accuracy"), strict=True):
        _plain(panel, title, epochs)
        _series(panel, epochs, stored, f"train_{key}", "training", color=MUTED, linestyle="--")
        if stored.has_validation:
            _series(panel, epochs, stored, f"validation_{key}", "validation", color=BLUE, linestyle="-")
        if stored.mark:
            panel.axvline(stored.kept_epoch, color=INK, linewidth=0.8, linestyle=":", label=stored.mark)
        note = stored.loss_note if key == "loss" else ""
        panel.legend(frameon=False, fontsize=8, title=note or None, title_fontsize=8, alignment="left")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _plain(axes[2], "Learning rate", epochs)
    _series(axes[2], epochs, stored, "learning_rate", "learning rate", color=INK, linestyle="-")
    for panel in (axes[0], axes[2]):
        panel.set_ylim(bottom=0)
    return figure


def _plain(panel: Axes, title: str, epochs: Sequence[int]) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("epoch", fontsize=9, color=MUTED)
    panel.tick_params(labelsize=8, colors=MUTED)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", linewidth=0.5, alpha=0.5)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(epochs) == 1:
        panel.set_xlim(0, 2)


def _series(panel: Axes, epochs: Sequence[int], stored: Stored, key: str, label: str, **style: Any) -> None:
    values = [getattr(row, key) for row in stored.history]
    known = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    panel.plot(*zip(*known, strict=True), label=label, linewidth=1.6, marker="o" if len(known) == 1 else "", **style)


def _answers(answers: Sequence[Answer], title: str) -> Figure:
    """Images with the true class above what the network says; errors have a cross, a frame and another colour."""
    if not answers:
        figure = Figure(figsize=(6, 1.2))
        figure.text(0.5, 0.5, "none: every test image was classified correctly", ha="center", va="center", color=MUTED)
        return figure
    columns = min(5, len(answers))
    rows = math.ceil(len(answers) / columns)
    height, width = answers[0].pixels.shape[:2]
    unit = 1 / max(height, width)  # the longer side of an image is 1 wide
    step = height * unit + 0.55
    figure, panel = _canvas(title, max(columns * 1.45, 4.5), rows * step, inches=1.05)
    for place, answer in enumerate(answers):
        left, top = place % columns * 1.45 + 0.225 + (1 - width * unit) / 2, place // columns * step
        _image(panel, answer.pixels, left, top, width * unit, height * unit)
        colour = INK if answer.right else RED
        if not answer.right:
            frame = Rectangle((left, top), width * unit, height * unit, fill=False, edgecolor=RED, linewidth=2.5)
            panel.add_patch(frame)
        mark = "✓" if answer.right else "✗"
        said = f"{mark} {_short(answer.predicted, 13)} {percent(answer.probability, 0)}"
        middle = left + width * unit / 2
        _write(panel, middle, top + height * unit + 0.13, _short(answer.true), weight="bold")
        _write(panel, middle, top + height * unit + 0.3, said, color=colour)
    return figure


def _examples(judged: Judged) -> Figure:
    """Random training images, a row a class; many classes stand in several columns."""
    examples = judged.shown_examples
    shown = max(*(len(images) for _, images in examples), 1)
    columns = math.ceil(len(examples) / 25)
    rows = math.ceil(len(examples) / columns)
    height, width = next((row[0].shape[:2] for row in judged.examples if row), (1, 1))
    unit, gap = 1 / max(height, width), max(round(width * 0.06), 1)
    names, tall = 2.4, height * unit
    step_x, step_y = names + shown * (width + gap) * unit + 0.6, tall + 0.1
    figure, panel = _canvas(
        "Random training images of each class", columns * step_x - 0.6, rows * step_y - 0.1, inches=0.5
    )
    for index, (name, images) in enumerate(examples):
        left, top = index // rows * step_x, index % rows * step_y
        _write(panel, left + names - 0.2, top + tall / 2, _short(name), ha="right")
        if images:
            strip = np.full((height, len(images) * (width + gap), 3), 255, dtype=np.uint8)
            for place, pixels in enumerate(images):
                strip[:, place * (width + gap) :][:, :width] = pixels
            _image(panel, strip, left + names, top, strip.shape[1] * unit, tall)
    return figure


def _canvas(title: str, width: float, height: float, *, inches: float) -> tuple[Figure, Axes]:
    """A figure to place images on: (0, 0) is the top left corner, and a unit is so many inches either way."""
    margin, header = 0.12, 0.35  # inches
    whole = width * inches + 2 * margin, height * inches + margin + header
    figure = Figure(figsize=whole)
    panel = figure.add_axes(
        (margin / whole[0], margin / whole[1], width * inches / whole[0], height * inches / whole[1])
    )
    panel.set_axis_off()
    panel.set_xlim(0, width)
    panel.set_ylim(height, 0)
    figure.text(margin / whole[0], 1 - margin / whole[1], title, va="top", fontsize=9, color=INK)
    return figure, panel


def _image(panel: Axes, pixels: Pixels, left: float, top: float, width: float, height: float) -> None:
    image = AxesImage(panel, interpolation="nearest", extent=(left, left + width, top + height, top))
    image.set_data(pixels)
    panel.add_artist(image)  # unlike imshow, this leaves limits and aspect as they are


def _write(panel: Axes, x: float, y: float, words: str, **style: Any) -> None:
    # A class name is a name, whatever dollar signs it has.
    settings: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": INK, "parse_math": False}
    panel.text(x, y, words, **settings | style)


def _confusion(judged: Judged) -> Figure:
    counts, size = judged.counts, len(judged.classes)
    rates: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(0.55 * size + 1.7, 4.5), 12)
    names = [_short(name) for name in judged.classes]
    small = 8 if size <= 40 else 6  # points; 6 are 12 pixels, and a hundred of them fit
    margin = 0.4 + 0.0088 * small * max(map(len, names))  # inches, for the longest name
    plot = side - margin - 0.15
    figure = Figure(figsize=(side, side + 0.2))
    panel = figure.add_axes((margin / side, margin / (side + 0.2), plot / side, plot / (side + 0.2)))
    # The root makes small rates visible beside large ones.
    panel.imshow(np.sqrt(rates), cmap="Blues", vmin=0, vmax=1.15, interpolation="nearest")
    title = "Confusion matrix of the test set" + (" (counts)" if size <= MOST_NUMBERED else "")
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("predicted class", fontsize=9)
    panel.set_ylabel("true class", fontsize=9)
    panel.set_xticks(range(size), names, rotation=90, fontsize=small, parse_math=False)
    panel.set_yticks(range(size), names, fontsize=small, parse_math=False)
    panel.tick_params(length=0)
    if size <= MOST_NUMBERED:
        for true, said in np.argwhere(counts):
            colour = "white" if rates[true, said] > 0.4 else INK
            _write(panel, said, true, f"{counts[true, said]:,}", color=colour, fontsize=7.5)
    return figure


def _reliability(number: Tensor, confidence: Tensor, right: Tensor, ece: float) -> Figure:
    figure = Figure(figsize=(4.4, 5.2))
    figure.subplots_adjust(left=0.17, right=0.95, bottom=0.1, top=0.94, hspace=0.08)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    bins = len(number)
    edges = torch.arange(bins, dtype=torch.float64) / bins
    filled, many = number > 0, number >= FEW_IMAGES
    for which, alpha, label in (
        (many, 0.55, "correct"),
        (filled & ~many, 0.15, f"correct, of fewer than {FEW_IMAGES} images"),
    ):
        if bool(which.any()):
            places, shares = edges[which].tolist(), right[which].tolist()
            upper.bar(places, shares, width=0.94 / bins, align="edge", color=BLUE, alpha=alpha, label=label)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect calibration")
    upper.plot(confidence[filled].tolist(), right[filled].tolist(), color=INK, marker=".", linewidth=0.8)
    upper.set_title(f"Reliability; expected calibration error {percent(ece)}", loc="left", fontsize=10)
    upper.set_ylabel("share that is correct", fontsize=9)
    upper.legend(frameon=False, fontsize=8)
    lower.bar(edges.tolist(), number.tolist(), width=0.94 / bins, align="edge", color=MUTED)
    lower.set_ylabel("images", fontsize=9)
    lower.set_xlabel("confidence: probability of the predicted class", fontsize=9)
    for panel in (upper, lower):
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(PercentFormatter(1))
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    upper.set_ylim(0, 1)
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
