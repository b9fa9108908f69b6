"""Charts drawn as SVG inside the page.

Colours come from the page's style sheet by class name, so that one drawing serves light, dark and print. Text is text:
it can be searched, and is read out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo.metrics import wilson
from thirtytwo.report.stored import Stored
from thirtytwo.report.wording import count, percent, plural

MOST_POINTS = 600
"""Points of a line; more than a screen can show only make the file larger."""
FEW_IMAGES = 10
"""Images below which a bar of the reliability diagram is pale: so few hardly tell how often a network is right."""
NARROWEST_CELL = 12
"""Pixels of a square in a confusion matrix: room for the text of a label, which is 10 pixels high."""


@dataclass(frozen=True)
class Line:
    """A value an epoch."""

    name: str
    style: str
    """Class name in the style sheet."""
    values: Sequence[float | None]


@dataclass(frozen=True)
class _Plot:
    """A rectangle of the drawing and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        return self.left + (value - self.low_x) / (self.high_x - self.low_x) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.low_y) / (self.high_y - self.low_y) * (self.bottom - self.top)


def learning_curves(stored: Stored) -> list[Markup]:
    """Loss, accuracy and learning rate over the epochs; the kept epoch is marked in the first two."""

    def column(key: str) -> list[float | None]:
        return [getattr(epoch, key) for epoch in stored.history]

    kept = (stored.kept_epoch, stored.mark) if stored.mark else None
    accuracies = [
        value for key in ("train_accuracy", "validation_accuracy") for value in column(key) if value is not None
    ]
    floor = math.floor(10 * min(accuracies)) / 10
    panels = [
        ("Loss, in nats", stored.loss_note, "loss", 0.0, None),
        ("Accuracy", "", "accuracy", min(floor, 0.9), 1.0),
    ]
    charts = []
    for title, note, key, low, high in panels:
        lines = [Line("training", "training", column(f"train_{key}"))]
        if stored.has_validation:
            lines.append(Line("validation", "validation", column(f"validation_{key}")))
        charts.append(_curve(title, lines, note=note, low=low, high=high, kept=kept, share=key == "accuracy"))
    charts.append(_curve("Learning rate", [Line("learning rate", "rate", column("learning_rate"))], low=0.0))
    return charts


def _curve(
    title: str,
    lines: Sequence[Line],
    *,
    low: float,
    note: str = "",
    high: float | None = None,
    kept: tuple[int, str] | None = None,
    share: bool = False,
) -> Markup:
    epochs = len(lines[0].values)
    values = [v for line in lines for v in line.values if v is not None and math.isfinite(v)]
    ticks = _ticks(low, high if high is not None else max([*values, 1e-12]), 5)
    plot = _Plot(46, 310, 46, 206, 1 if epochs > 1 else 0, max(epochs, 2), min(low, ticks[0]), ticks[-1])
    decimals = max(len(f"{tick:.6g}".partition(".")[2]) for tick in ticks)
    parts = [_grid(plot, ticks, [percent(t, 0) if share else f"{t:.{decimals}f}" for t in ticks])]
    numbered = [tick for tick in _ticks(1, epochs, 6) if tick == round(tick) and 1 <= tick <= epochs]
    if epochs > 1 and (not numbered or numbered[0] - 1 > 0.1 * epochs):
        numbered.insert(0, 1.0)
    for tick in numbered if epochs > 1 else [1.0]:
        parts.append(_text(plot.x(tick), plot.bottom + 16, count(tick), "tick", anchor="middle"))
    parts.append(_text((plot.left + plot.right) / 2, plot.bottom + 33, "epoch", "tick", anchor="middle"))
    parts.append(_text(0, 12, title, "title"))
    if note:
        parts.append(_text(0, 26, note, "tick"))
    if kept is not None:
        x = plot.x(kept[0])
        edge = (x - plot.left) / (plot.right - plot.left)
        anchor = "start" if edge < 0.2 else "end" if edge > 0.8 else "middle"
        parts.append(
            Markup('<line class="kept" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x, plot.top, plot.bottom)
        )
        parts.append(_text(x, plot.top - 7, kept[1], "tick", anchor=anchor))
    for line in lines:
        parts.append(_line(plot, line))
    if kept is not None and (value := lines[-1].values[kept[0] - 1]) is not None and math.isfinite(value):
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
                lines[-1].style, plot.x(kept[0]), plot.y(value)
            )
        )
    if len(lines) > 1:
        parts.append(_legend(lines))
    return _svg(320, 244, _described(f"{title}, {note}," if note else title, lines, share), parts)


def _described(title: str, lines: Sequence[Line], share: bool) -> str:
    """The chart in words, for those who do not see it."""

    def value(number: float | None) -> str:
        return "unknown" if number is None else percent(number) if share else f"{number:.4g}"

    def ends(line: Line) -> str:
        known = [number for number in line.values if number is not None]
        first, last = (known[0], known[-1]) if known else (None, None)
        return f"{line.name} from {value(first)} to {value(last)}"

    return f"{title} over {plural(len(lines[0].values), 'epoch')}: {'; '.join(map(ends, lines))}."


def _line(plot: _Plot, line: Line) -> Markup:
    points = [
        (plot.x(epoch), plot.y(value))
        for epoch, value in enumerate(line.values, start=1)
        if value is not None and math.isfinite(value)
    ]
    if len(points) > MOST_POINTS:
        points = [points[place] for place in np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]
    if len(points) == 1:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(line.style, *points[0])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline class="line {}" points="{}"/>').format(line.style, path)


def _legend(lines: Sequence[Line], right: float = 310.0) -> Markup:
    parts = []
    for line in reversed(lines):
        width = 6.2 * len(line.name)
        parts.append(_text(right, 12, line.name, "tick", anchor="end"))
        parts.append(
            Markup('<polyline class="line {}" points="{:.1f},8 {:.1f},8"/>').format(
                line.style, right - width - 24, right - width - 4
            )
        )
        right -= width + 34
    return Markup().join(parts)


def reliability(number: Tensor, confidence: Tensor, right: Tensor) -> Markup:
    """How often the network is right, by how sure it is, above the number of images in each bin.

    Bars of fewer than `FEW_IMAGES` are pale; each tells its 95% Wilson interval to whoever points at it.

    Args:
        number: int64 (bins,).
        confidence: float64 (bins,), mean per bin.
        right: float64 (bins,), share per bin.
    """
    bins = len(number)
    plot = _Plot(46, 310, 24, 288, 0, 1, 0, 1)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [_text(0, 12, "Share that is correct", "title"), _grid(plot, ticks, [percent(t, 0) for t in ticks])]
    histogram = _Plot(46, 310, 322, 366, 0, 1, 0, max(float(number.max()), 1))
    width = (plot.right - plot.left) / bins
    for index in range(bins):
        images = int(number[index])
        if not images:
            continue
        sure, share = float(confidence[index]), float(right[index])
        low, high = wilson(share * images, images)
        words = (
            f"{plural(images, 'image')}: mean confidence {percent(sure)}, {percent(share)} correct "
            f"(95% Wilson interval {percent(low)} to {percent(high)})"
        )
        style = "bar few" if images < FEW_IMAGES else "bar"
        x = plot.left + index * width + 1
        parts.append(
            Markup("<g><title>{}</title>{}{}{}</g>").format(
                words,
                _rectangle(style, x, plot.y(share), width - 2, plot.bottom - plot.y(share)),
                _rectangle("bar", x, histogram.y(images), width - 2, histogram.bottom - histogram.y(images)),
                Markup('<line class="sure" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                    x, x + width - 2, y=plot.y(sure)
                ),
            )
        )
    parts.append(
        Markup('<line class="diagonal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            plot.left, plot.bottom, plot.right, plot.top
        )
    )
    parts.append(_text(0, 312, "Images", "title"))
    parts.append(_text(40, histogram.top + 4, count(int(number.max())), "tick", anchor="end"))
    parts.append(Markup('<line class="axis" x1="46" x2="310" y1="{0}" y2="{0}"/>').format(histogram.bottom))
    for tick in ticks:
        parts.append(_text(histogram.x(tick), 382, percent(tick, 0), "tick", anchor="middle"))
    parts.append(_text(178, 399, "confidence: probability of the predicted class", "tick", anchor="middle"))
    return _svg(320, 404, "Reliability diagram: share of correct answers by confidence; the text sums it up.", parts)


def corruption(kind: str, whole: float, accuracies: Sequence[float]) -> Markup:
    """Accuracy over the strength of what was done to the images; at 0 they are as they are.

    Args:
        kind: what was done.
        whole: accuracy on the images as they are.
        accuracies: at strengths 1, 2, …
    """
    values = [whole, *accuracies]
    plot = _Plot(46, 264, 26, 146, 0, len(accuracies), 0, 1)  # as large as a learning curve, and so is its text
    parts = [_text(0, 12, kind, "title"), _grid(plot, [0.0, 0.5, 1.0], ["0%", "50%", "100%"])]
    for strength in range(len(values)):
        parts.append(_text(plot.x(strength), plot.bottom + 16, str(strength), "tick", anchor="middle"))
    parts.append(_text((plot.left + plot.right) / 2, plot.bottom + 33, "strength", "tick", anchor="middle"))
    points = [(plot.x(strength), plot.y(value)) for strength, value in enumerate(values)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(Markup('<polyline class="line validation" points="{}"/>').format(path))
    for (x, y), value in zip(points, values, strict=True):
        parts.append(
            Markup('<circle class="validation" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                x, y, percent(value)
            )
        )
    # Beside the last point: above or below it, a curve that falls steeply would run through it.
    parts.append(_text(plot.right + 8, points[-1][1] + 4, percent(values[-1]), "tick"))
    words = f"{kind}: accuracy by strength: {', '.join(percent(value) for value in values)}."
    return _svg(320, 184, words, parts)


def trials(accuracies: Sequence[float | None], states: Sequence[str]) -> Markup:
    """Accuracy of one trial after another, and the best so far as a line.

    Args:
        accuracies: of each trial; None for one that has none.
        states: ``complete``, or why it did not come to its end: such a one is drawn as an empty circle.
    """
    ticks = _shares([value for value in accuracies if value is not None])
    plot = _Plot(52, 620, 26, 226, 0, max(len(accuracies) - 1, 1), ticks[0], ticks[-1])
    parts = [
        _text(0, 12, "Validation accuracy, trial by trial", "title"),
        _grid(plot, ticks, _percents(ticks)),
    ]
    for tick in [tick for tick in _ticks(0, max(len(accuracies) - 1, 1), 8) if tick == round(tick)]:
        if tick < len(accuracies):
            parts.append(_text(plot.x(tick), plot.bottom + 16, count(int(tick)), "tick", anchor="middle"))
    best = -math.inf
    steps: list[tuple[float, float]] = []
    for number, (value, state) in enumerate(zip(accuracies, states, strict=True)):
        if value is None:
            continue
        whole = state == "complete"
        if whole and value > best:
            steps += [(plot.x(number), plot.y(best))] if steps else []
            best = value
            steps.append((plot.x(number), plot.y(best)))
        style = "validation" if whole else "cut"
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(
                style, plot.x(number), plot.y(value), f"trial {number}: {percent(value)}{'' if whole else ', ' + state}"
            )
        )
    if steps:
        steps.append((plot.right, plot.y(best)))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
        parts.insert(2, Markup('<polyline class="line validation" points="{}"/>').format(path))
    words = f"Validation accuracy of {plural(len(accuracies), 'trial')}; the best reached {percent(best)}."
    return _svg(640, 250, words, parts)


def rounds(names: Sequence[str], chosen: Sequence[float], others: Sequence[float] | None) -> Markup:
    """Accuracy of an ensemble over the rounds in which models were added to it.

    Args:
        names: of the model that each round added.
        chosen: accuracy after each round, on the images by which it was chosen.
        others: the same on other images; None if there are none.
    """
    # Dashes over the line, so that both are seen where they are the same.
    lines = [] if others is None else [Line("other images", "validation", others)]
    lines.append(Line("images it was chosen on", "training", chosen))
    ticks = _shares([value for line in lines for value in line.values if value is not None])
    plot = _Plot(52, 430, 46, 206, 1, max(len(names), 2), ticks[0], ticks[-1])
    parts = [_text(0, 12, "Accuracy", "title"), _grid(plot, ticks, _percents(ticks))]
    for tick in [tick for tick in _ticks(1, max(len(names), 2), 8) if tick == round(tick) and 1 <= tick <= len(names)]:
        parts.append(_text(plot.x(tick), plot.bottom + 16, count(tick), "tick", anchor="middle"))
    parts.append(_text((plot.left + plot.right) / 2, plot.bottom + 33, "models added", "tick", anchor="middle"))
    for line in lines:
        parts.append(_line(plot, line))
        for number, (name, value) in enumerate(zip(names, line.values, strict=True), start=1):
            assert value is not None
            words = f"{number}, {name} added: {percent(value, 2)}, {line.name}"
            parts.append(
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(
                    line.style, plot.x(number), plot.y(value), words
                )
            )
    parts.append(_legend(lines, plot.right))
    told = "; ".join(f"{line.name}: {percent(line.values[-1] or 0.0, 2)}" for line in lines)
    return _svg(440, 244, f"Accuracy after adding {plural(len(names), 'model')}; {told}.", parts)


def matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """A confusion matrix of many classes: squares whose darkness is a rate, each with a tooltip.

    It is as large as its labels need to be readable, and scrolls where a screen is smaller.

    Args:
        counts: (classes, classes), row = true class, column = predicted class.
        classes: their names.
    """
    size = len(classes)
    cell = max(NARROWEST_CELL, 640 // size)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    errors = rates * (1 - np.eye(size))
    top = max(float(errors.max()), 1e-12)
    names = [name if len(name) <= 18 else name[:17] + "…" for name in classes]
    left = 12 + 6 * max(map(len, names))
    parts = [_rectangle("frame", left, left, size * cell, size * cell)]
    for true, said in zip(*np.nonzero(counts), strict=True):
        shade = rates[true, said] if true == said else math.sqrt(errors[true, said] / top)
        parts.append(
            Markup(
                '<path class="{}" data-true="{}" data-said="{}" d="M{} {}h{cell}v{cell}h-{cell}z" '
                'fill-opacity="{:.2f}"><title>{}</title></path>'
            ).format(
                "hit" if true == said else "miss",
                true,
                said,
                left + int(said) * cell,
                left + int(true) * cell,
                max(shade, 0.08),
                f"{classes[true]} → {classes[said]}: {counts[true, said]:,} of {counts[true].sum():,}",
                cell=cell,
            )
        )
    for index, short in enumerate(names):
        # Text stands on its foot: so far below the middle of a row, its own middle is there.
        place = left + (index + 0.5) * cell + 3.5
        parts.append(_text(left - 4, place, short, "small", anchor="end"))
        parts.append(
            Markup('<g transform="translate({:.1f} {}) rotate(-90)">{}</g>').format(
                place, left - 4, _text(0, 0, short, "small")
            )
        )
    words = f"Confusion matrix of {size} classes; the confusions are listed below."
    return _svg(left + size * cell + 4, left + size * cell + 4, words, parts, fixed=True)


def _grid(plot: _Plot, ticks: Sequence[float], labels: Sequence[str]) -> Markup:
    lines = [
        Markup('<line class="{}" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>{}').format(
            "axis" if index == 0 else "grid",
            plot.left,
            plot.right,
            _text(plot.left - 6, plot.y(tick) + 4, label, "tick", anchor="end"),
            y=plot.y(tick),
        )
        for index, (tick, label) in enumerate(zip(ticks, labels, strict=True))
    ]
    return Markup().join(lines)


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Round values that enclose low and high."""
    if high <= low:
        high = low + 1
    return [float(tick) for tick in MaxNLocator(number, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _shares(values: Sequence[float]) -> list[float]:
    """Round numbers around some shares of a whole: two at least, from 0 to 1."""
    low, high = min(values), max(values)
    room = max(0.01 - (high - low), 0.0) / 2  # all but equal ones lie in the middle
    ticks = _ticks(max(low - room, 0.0), min(high + room, 1.0), 5)
    return [tick for tick in ticks if -1e-9 <= tick <= 1 + 1e-9]


def _percents(ticks: Sequence[float]) -> list[str]:
    """Shares as labels of an axis, with as many decimals as one of them needs."""
    decimals = max(len(f"{100 * tick:.6g}".partition(".")[2]) for tick in ticks)
    return [percent(tick, decimals) for tick in ticks]


def _text(x: float, y: float, words: str, style: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, words
    )


def _rectangle(style: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        style, x, y, width, height
    )


def _svg(width: int, height: int, words: str, parts: Sequence[Markup], *, fixed: bool = False) -> Markup:
    """A drawing that fills the place it is given, or has a fixed size in pixels."""
    style = Markup(' style="width: {}px"').format(width) if fixed else ""
    return Markup(
        '<svg viewBox="0 0 {0} {1}" width="{0}" height="{1}"{2} role="img" aria-label="{3}">{4}</svg>'
    ).format(width, height, style, words, Markup().join(parts))
