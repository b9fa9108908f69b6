"""The report as one HTML page that needs nothing but a browser."""

from __future__ import annotations

import base64
import io
import itertools
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from thirtytwo import metrics
from thirtytwo.data.corrupt import Corruption, corrupted
from thirtytwo.data.source import ARRAYS
from thirtytwo.report import charts, html, wording
from thirtytwo.report.figures import MOST_NUMBERED
from thirtytwo.report.looks import Looks
from thirtytwo.report.stored import Answer, Judged, Pixels, Stored
from thirtytwo.settings import CustomModel

MOST_ROWS = 300
"""Epochs up to which the page has a table of them, and confusions in the table that many classes get."""
PAIRS_SHOWN = 8
"""Most frequent confusions told in words."""

MISTAKES_SHOWN = 12
"""Most confident mistakes shown large; the gallery after them has these too, in the same order, and all others."""
MOST_GALLERY_BYTES = 3_500_000
"""Characters of the sheet with the images that can be browsed; CIFAR-10's take about 2,300 each, reduced ones 600."""
MOST_LOSSLESS = 1_400
"""Images of the gallery up to which they are shown to the bit; more of them lose what no eye sees."""
GALLERY_COLUMNS = 40
"""Images in a row of the sheet that holds them."""
GALLERY_SIDE = 48
"""Pixels: images in the gallery whose longer side is longer are reduced to this."""
CORRUPTIONS_SHOWN = (1, 3, 5)
"""Strengths at which an image is shown."""

Fact = tuple[str, str, str]
"""Name, value, and an explanation for those who are new to it (or nothing)."""


def render(stored: Stored, bins: tuple[Tensor, Tensor, Tensor] | None, looks: Looks | None) -> str:
    """The page.

    Args:
        stored: what the run has.
        bins: what `metrics.reliability` says of the test set; None if it has not been scored.
        looks: what the network shows of itself; None if it is not at hand.
    """
    facts = {
        "recipe": stored.recipe,
        "toml": stored.recipe.to_toml(),
        "data": stored.environment.data,
        "notice": stored.environment.data.notice,
        "warnings": (
            *stored.environment.data.warnings,
            *(stored.result.test_warnings if stored.result is not None else ()),
        ),
        "key_facts": list(_key_facts(stored)),
        "curves": charts.learning_curves(stored),
        "history": stored.history if len(stored.history) <= MOST_ROWS else [],
        "stored": stored,
        "provenance": list(_provenance(stored)),
        "again": _again(stored),
        "on_cpu": _on_cpu(stored),
        "go_on": _go_on(stored),
        "validation": stored.result.validation if stored.result is not None else None,
        "opening": _opening(stored),
        "judged": stored.judged,
        "looks": looks,
    }
    if stored.judged is not None and bins is not None:
        facts |= _verdict(stored.judged, bins) | _robustness(stored)
    return html.render("page.html.jinja", facts)


def _verdict(judged: Judged, bins: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
    """What the page says of the answers on the test set."""
    images, size = len(judged.labels), len(judged.classes)
    right = images - judged.wrong
    low, high = metrics.wilson(right, images)
    number, confidence, _ = bins
    per_class = sorted(judged.summary.per_class, key=lambda row: (not row.images, row.f1))
    smallest = min((row.images for row in per_class if row.images), default=1)
    counts = judged.counts
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    pairs = judged.most_confused(PAIRS_SHOWN)
    worst = max(float((rates * (1 - np.eye(size))).max()), 1e-12)
    examples = judged.shown_examples
    shown = [len(pictures) for _, pictures in examples]
    return {
        "images": images,
        "right": right,
        "accuracy": wording.precise_percent(judged.summary.accuracy, images),
        "interval": (wording.percent(low), wording.percent(high)),
        "commonest": wording.percent(counts.sum(1).max() / images),
        "pairs": pairs,
        "highest_pair_rate": max((pair.images / pair.of for pair in pairs), default=1.0),
        "kinds_of_confusion": int(np.count_nonzero(counts) - np.count_nonzero(counts.diagonal())),
        "per_class": per_class,
        "class_interval": [100 * edge for edge in metrics.wilson(round(0.8 * smallest), smallest)],
        "class_images": smallest,
        "even": len({row.images for row in per_class}) == 1,
        "matrix": _matrix(judged, rates, worst) if size <= MOST_NUMBERED else None,
        "large_matrix": charts.matrix(counts, judged.classes) if size > MOST_NUMBERED else None,
        "confusions": judged.most_confused(MOST_ROWS) if size > MOST_NUMBERED else [],
        "mistakes": judged.mistakes[:MISTAKES_SHOWN],
        "reliability": charts.reliability(*bins),
        "few_images": charts.FEW_IMAGES,
        **_sureness(judged, float((number * confidence).sum() / number.sum())),
        "ece": judged.summary.ece,
        "ece_by_chance": metrics.calibration_error_by_chance(judged.probabilities),
        **_calibration(judged),
        "gallery": _gallery(judged),
        "examples": examples,
        "classes": size,
        "most_examples": max(shown),
        "fewest_examples": min(shown),
    }


def _matrix(judged: Judged, rates: np.ndarray[Any, np.dtype[np.float64]], worst: float) -> list[dict[str, Any]]:
    """Rows of the confusion matrix; shades: recall on the diagonal, elsewhere root of the worst's share."""
    return [
        {
            "class": name,
            "cells": [
                {
                    "count": int(judged.counts[true, said]),
                    "words": f"{name} → {other}: {wording.percent(rates[true, said])} of {name}",
                    "hit": true == said,
                    "rate": wording.percent(rates[true, said]),
                    "true": true,
                    "said": said,
                    "shade": f"{rates[true, said] if true == said else math.sqrt(rates[true, said] / worst):.2f}",
                }
                for said, other in enumerate(judged.classes)
            ],
        }
        for true, name in enumerate(judged.classes)
    ]


def _sureness(judged: Judged, mean_confidence: float) -> dict[str, Any]:
    """How sure the network was on average, and whether that is wrong."""
    excess, margin = mean_confidence - judged.summary.accuracy, metrics.confidence_margin(judged.probabilities)
    if excess > margin:
        verdict = ": too sure of itself."
    elif excess < -margin:
        verdict = ": less sure than it could be."
    else:
        verdict = "; so many images cannot tell the two apart."
    return {"mean_confidence": mean_confidence, "sureness": verdict}


def _calibration(judged: Judged) -> dict[str, Any]:
    """What a temperature, and the answer "unknown", have changed."""
    facts: dict[str, Any] = {"before": None, "answered": None}
    if judged.temperature != 1:
        before = judged.uncalibrated
        facts["before"] = charts.reliability(*metrics.reliability(before, judged.labels))
        facts["ece_before"] = metrics.expected_calibration_error(before, judged.labels)
    answered = judged.probabilities.amax(1) >= judged.unknown_below
    if judged.unknown_below and bool(answered.any()):
        right = judged.probabilities[answered].argmax(1) == judged.labels[answered]
        facts["answered"] = float(answered.double().mean())
        facts["answered_right"] = float(right.double().mean())
    return facts


def _robustness(stored: Stored) -> dict[str, Any]:
    """A chart for each kind of corruption, and what it does to a picture: as far as they go, another one for each."""
    assert stored.result is not None
    assert stored.judged is not None
    scores = stored.result.corrupted
    if scores is None:
        return {"corruptions": []}
    ranked = sorted(stored.judged.random, key=lambda answer: -_suitability(answer.pixels))
    examples: list[Answer | None] = [*ranked] or [None]
    return {
        "corrupted": scores,
        "corruptions": [
            {
                "chart": charts.corruption(kind, scores.accuracy, values),
                "pictures": [] if example is None else _made_worse(example, kind),
            }
            for (kind, values), example in zip(scores.kinds.items(), itertools.cycle(examples), strict=False)
        ],
    }


def _suitability(pixels: Pixels) -> float:
    """How well an image shows what is done to it: from 0, where it is of one colour, to 0.25.

    It needs contrast, which can be lost, and a middle brightness, from which it can become brighter.
    """
    values = pixels.mean(2) / 255
    return float(values.std() * (0.5 - abs(values.mean() - 0.5)))


def _made_worse(answer: Answer, kind: Corruption) -> list[tuple[int, str, Pixels]]:
    """A test image at each strength that is shown: the strength, the image in words, its pixels."""
    return [
        (
            strength,
            f"Test image {answer.index}, {kind} of strength {strength}",
            corrupted(answer.pixels[None], kind, strength)[0],
        )
        for strength in CORRUPTIONS_SHOWN
    ]


def _gallery(judged: Judged) -> dict[str, Any] | None:
    """Misclassified images on one sheet, and what there is to say of each; None if there are none."""
    shown = judged.mistakes
    if not shown:
        return None
    number = {name: index for index, name in enumerate(judged.classes)}
    height, width = shown[0].pixels.shape[:2]
    factor = min(GALLERY_SIDE / max(height, width), 1.0)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    while len(sheet := _sheet(shown, size)) > MOST_GALLERY_BYTES:
        shown = shown[: int(0.95 * len(shown) * MOST_GALLERY_BYTES / len(sheet))]
    rows = [[one.index, number[one.true], number[one.predicted], round(100 * one.probability, 1)] for one in shown]
    facts = {"classes": judged.classes, "rows": rows, "columns": GALLERY_COLUMNS}
    return {
        "shown": len(shown),
        "sheet": sheet,
        "lines": math.ceil(len(shown) / GALLERY_COLUMNS),
        "columns": GALLERY_COLUMNS,
        "aspect": f"{width} / {height}",
        "pixelated": factor == 1,
        "facts": html.data(facts),
    }


def _sheet(answers: Sequence[Answer], size: tuple[int, int]) -> str:
    """Images of (width, height) side by side, as the data address of one file."""
    width, height = size
    sheet = Image.new("RGB", (GALLERY_COLUMNS * width, math.ceil(len(answers) / GALLERY_COLUMNS) * height))
    for place, answer in enumerate(answers):
        image = Image.fromarray(answer.pixels)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(image, (place % GALLERY_COLUMNS * width, place // GALLERY_COLUMNS * height))
    content = io.BytesIO()
    is_lossless = len(answers) <= MOST_LOSSLESS
    sheet.save(content, "WEBP", lossless=is_lossless, quality=70 if is_lossless else 90, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _key_facts(stored: Stored) -> Iterator[Fact]:
    result = stored.result
    if result is not None:
        for name, scores in (("Test loss", result.test), ("Validation loss", result.validation)):
            if scores is not None:
                images = wording.plural(scores.images, "image")
                yield name, f"{scores.loss:.3f}", f"mean of −log p(true class) on {images}, in nats"
    if stored.judged is not None:
        test = stored.judged.summary
        if len(stored.judged.classes) > 5:
            yield "Top-5", wording.precise_percent(test.top5, test.images), "true class among its five most probable"
        yield "Macro-F1", f"{test.macro_f1:.3f}", "mean of the F1 of all classes that occur"
        yield "Calibration error", wording.percent(test.ece), "gap between its confidence and its accuracy (ECE)"
    if result is not None:
        yield "Training time", wording.duration(result.train_seconds), "spent on training steps"
    else:
        seconds = stored.history[-1].seconds
        yield "Time so far", wording.duration(seconds), "validation and checkpoints included"
    epochs, most = len(stored.history), stored.recipe.epochs
    stopped = "; it stopped early" if result is not None and epochs < most else ""
    yield "Epochs", f"{epochs:,} of {most:,}", "passes over the training images" + stopped
    share = stored.recipe.validation
    held_out = f"{100 * share:.3g}% of them held out for validation" if share else "all of them trained on"
    excluded = stored.environment.data.excluded
    without = f"; {len(excluded.indices):,} others were left out" if excluded else ""
    yield "Training images", wording.count(stored.environment.data.images), held_out + without
    if result is not None:
        yield "Parameters", wording.count(result.parameters), "numbers that training adjusts"
        yield "Computation", wording.scaled(result.flops, "FLOP"), "floating-point operations, forward and backward"


def _opening(stored: Stored) -> str:
    """Which opening of the test set its scores come from, such as ``2nd``; empty where that is not known."""
    opening = stored.result.test_opening if stored.result is not None else None
    return wording.ordinal(opening) if opening else ""


def _provenance(stored: Stored) -> Iterator[tuple[str, str]]:
    """What the run ran on and with."""
    facts, data, result = stored.environment, stored.environment.data, stored.result
    height, width = data.size
    yield "Data", f"{data.name}, {wording.plural(len(data.classes), 'class', 'classes')}"
    yield "Training images", f"{data.images:,} of {height} × {width} pixels"
    if data.excluded:
        left_out = len(data.excluded.indices)
        all_of_them = wording.plural(data.images + left_out, "training image")
        yield "Left out", f"{left_out:,} of {all_of_them}, named in {', '.join(data.excluded.files)}"
    yield "Read from", data.location
    yield "Fingerprint", data.fingerprint
    yield "Seed", str(facts.seed)
    if (start := stored.recipe.start).model:
        yield "Begun with", f"the weights of {start.model} (fingerprint {start.fingerprint[:12]})"
    if (teacher := stored.recipe.teacher).model:
        how = f"{wording.percent(teacher.weight, 0)} of the loss, at temperature {teacher.temperature:g}"
        yield "Teacher", f"{teacher.model} (fingerprint {teacher.fingerprint[:12]}), {how}"
    yield "Machine", facts.machine
    yield "Device", f"{facts.device_name} ({facts.device}), {facts.precision}"
    if facts.ranks > 1 or facts.resumed_by_ranks:
        later = f", later {', '.join(map(str, facts.resumed_by_ranks))}" if facts.resumed_by_ranks else ""
        yield "Processes", f"{facts.ranks}{later}; each took a part of every batch"
    yield "Kernels", facts.kernels
    yield "Threads", str(facts.threads)
    if result is not None:
        if result.peak_memory_bytes:  # 0 where the system does not tell
            yield "Peak memory", f"{result.peak_memory_bytes / 2**20:,.0f} MiB"
        yield "Total time", wording.duration(result.cold_seconds) + " from program start until it was trained"
    yield "Versions", wording.versions(facts.versions)
    if facts.commit:
        yield "Commit", wording.commit(facts.commit)
    yield "Started", wording.moment(facts.date)
    yield "Run", facts.run_id


def _on_cpu(stored: Stored) -> bool:
    """Whether sums are rounded in an order that depends on the number of threads."""
    return stored.environment.device.partition(":")[0] == "cpu"


def _again(stored: Stored) -> str:
    """What makes the run again: a command, or Python with … where its owner alone has what belongs there."""
    facts, threads = stored.environment, stored.environment.threads
    if stored.needs_its_program:
        arguments = ['"recipe.toml"', _data(stored) or repr(facts.data.spec)]
        arguments += [f"seed={facts.seed}", f'device="{facts.device}"', *_network(stored)]
        if facts.data.excluded:
            arguments.append(f"exclude={list(facts.data.excluded.files)}")
        first = f"torch.set_num_threads({threads})\n" if _on_cpu(stored) else ""
        return f"{first}thirtytwo.train({', '.join(arguments)}).finish()"
    words = ["thirtytwo", "train", "recipe.toml", "--data", facts.data.spec]
    words += ["--seed", str(facts.seed), "--device", facts.device]
    for file in facts.data.excluded.files if facts.data.excluded else ():
        words += ["--exclude", file]
    return (f"OMP_NUM_THREADS={threads} " if _on_cpu(stored) else "") + shlex.join(words)


def _go_on(stored: Stored) -> str:
    """What ends the training, if that is still to be done, scores the test set and writes this report; as `_again`."""
    path = str(stored.run.path)
    if stored.needs_its_program:
        arguments = [repr(path), *filter(None, [_data(stored)]), *_network(stored)]
        return (
            f"training = thirtytwo.resume({', '.join(arguments)})\n"
            "classifier = training.finish()\n"
            "thirtytwo.evaluate_run(training.run, training.source, classifier)\n"
            "thirtytwo.write_report(training.run)"
        )
    return shlex.join(["thirtytwo", "train", "--resume", path])


def _data(stored: Stored) -> str:
    """The data as a Python argument, where they are not found by their SPEC."""
    return "thirtytwo.from_arrays(…)" if stored.environment.data.spec == ARRAYS else ""


def _network(stored: Stored) -> list[str]:
    """The network as a Python argument, where it is not built from the recipe."""
    return ["network=…"] if isinstance(stored.recipe.model, CustomModel) else []
