"""The report as one HTML page that needs nothing but a browser."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Iterator
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from thirtytwo import __version__
from thirtytwo.report import charts, wording
from thirtytwo.report.figures import MISTAKES_SHOWN, MOST_NUMBERED
from thirtytwo.report.stored import Judged, Pixels, Stored
from thirtytwo.settings import CustomModel

LONGEST_SIDE = 96
"""Pixels: larger images are reduced to this, so that the page stays small."""
MOST_ROWS = 300
"""Epochs up to which the page has a table of them."""
PAIRS_SHOWN = 8
"""Most frequent confusions told in words."""

Fact = tuple[str, str, str]
"""Name, value, and an explanation for those who are new to it (or nothing)."""


def render(stored: Stored, bins: tuple[Tensor, Tensor, Tensor] | None) -> str:
    """The page.

    Args:
        stored: what the run has.
        bins: what `metrics.reliability` says of the test set; None if it has not been scored.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thirtytwo.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "count": wording.count,
        "plural": wording.plural,
        "picture": _picture,
    }
    facts = {
        "recipe": stored.recipe,
        "toml": stored.recipe.to_toml(),
        "data": stored.environment["data"],
        "key_facts": list(_key_facts(stored)),
        "curves": charts.learning_curves(stored),
        "history": stored.history if len(stored.history) <= MOST_ROWS else [],
        "stored": stored,
        "provenance": list(_provenance(stored)),
        "again": _again(stored),
        "resume": shlex.join(["thirtytwo", "train", "--resume", str(stored.run.path)]),
        "version": __version__,
        "validation": stored.result.get("validation"),
        "judged": stored.judged,
    }
    if stored.judged is not None and bins is not None:
        facts |= _verdict(stored.judged, bins)
    return environment.get_template("page.html.jinja").render(facts)


def _verdict(judged: Judged, bins: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
    """What the page says of the answers on the test set."""
    images, size = len(judged.labels), len(judged.classes)
    right = images - judged.wrong
    low, high = wording.wilson(right, images)
    number, confidence, _ = bins
    per_class = sorted(
        ({**row, "order": order} for order, row in enumerate(judged.summary["per_class"])), key=lambda row: row["f1"]
    )
    smallest = min((row["images"] for row in per_class if row["images"]), default=1)
    counts = judged.counts
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    pairs = judged.most_confused(PAIRS_SHOWN)
    worst = max(float((rates * (1 - np.eye(size))).max()), 1e-12)
    return {
        "images": images,
        "right": right,
        "accuracy": wording.precise_percent(judged.summary["accuracy"], images),
        "interval": (wording.percent(low), wording.percent(high)),
        "commonest": wording.percent(counts.sum(1).max() / images),
        "pairs": pairs,
        "highest_pair_rate": max((pair.images / pair.of for pair in pairs), default=1.0),
        "per_class": per_class,
        "class_interval": [100 * edge for edge in wording.wilson(round(0.8 * smallest), smallest)],
        "class_images": smallest,
        "even": len({row["images"] for row in per_class}) == 1,
        "matrix": _matrix(judged, rates, worst) if size <= MOST_NUMBERED else None,
        "large_matrix": charts.matrix(counts, judged.classes) if size > MOST_NUMBERED else None,
        "mistakes": judged.mistakes[:MISTAKES_SHOWN],
        "reliability": charts.reliability(*bins),
        "mean_confidence": float((number * confidence).sum() / number.sum()),
        "ece": float(judged.summary["ece"]),
        "examples": list(zip(judged.classes, judged.examples, strict=True)),
        "shown_per_class": max(map(len, judged.examples), default=0),
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
                    "shade": f"{rates[true, said] if true == said else math.sqrt(rates[true, said] / worst):.2f}",
                }
                for said, other in enumerate(judged.classes)
            ],
        }
        for true, name in enumerate(judged.classes)
    ]


def _key_facts(stored: Stored) -> Iterator[Fact]:
    result = stored.result
    if stored.judged is not None:
        test = stored.judged.summary
        yield "Loss", f"{test['loss']:.3f}", "mean of −log p(true class) on the test set, in nats"
        if len(stored.judged.classes) > 5:
            yield "Top-5", wording.precise_percent(test["top5"], test["images"]), "true class among its best five"
        yield "Macro-F1", f"{test['macro_f1']:.3f}", "F1 of each class, averaged over classes"
        yield "Calibration error", wording.percent(test["ece"]), "how far its confidence is from its accuracy (ECE)"
    if "train_seconds" in result:
        yield "Training time", wording.duration(result["train_seconds"]), "spent on training steps"
    else:
        seconds = stored.history[-1].get("seconds")
        if seconds is not None:
            yield "Time so far", wording.duration(seconds), "validation and checkpoints included"
    epochs, most = len(stored.history), stored.recipe.epochs
    stopped = "; it stopped early" if result and epochs < most else ""
    yield "Epochs", f"{epochs:,} of {most:,}", "passes over the training images" + stopped
    data = stored.environment["data"]
    held_out = "of which a part for validation" if stored.recipe.validation else "all of them trained on"
    yield "Training images", wording.count(data["images"]), held_out
    if "parameters" in result:
        yield "Parameters", wording.count(result["parameters"]), "numbers that training adjusts"
    if "flops" in result:
        yield "Computation", wording.scaled(result["flops"], "FLOP"), "floating-point operations, forward and backward"
    if result.get("test_opening"):
        ordinal = wording.ordinal(int(result["test_opening"]))
        yield "Test set opened", f"{ordinal} time", "that this test set was opened on this machine by this user"


def _provenance(stored: Stored) -> Iterator[tuple[str, str]]:
    """What the run ran on and with; what an older run did not record is left out."""
    facts, data, result = stored.environment, stored.environment["data"], stored.result
    height, width = data["size"]
    yield "Data", f"{data['name']}, {wording.plural(len(data['classes']), 'class', 'classes')}"
    yield "Training images", f"{data['images']:,} of {height} × {width} pixels"
    yield "Read from", str(data["location"])
    yield "Fingerprint", str(data["fingerprint"])
    yield "Seed", str(facts["seed"])
    yield "Machine", str(facts["machine"])
    yield "Device", f"{facts['device_name']} ({facts['device']}), {facts['precision']}"
    yield "Threads", str(facts["threads"])
    if "peak_memory_bytes" in result:
        yield "Peak memory", f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB"
    if "cold_seconds" in result:
        yield "From start to trained", wording.duration(result["cold_seconds"]) + ", start of the program included"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    if facts.get("commit"):
        changed = str(facts["commit"]).endswith("+")
        yield "Commit", str(facts["commit"]).rstrip("+") + (", with uncommitted changes" if changed else "")
    yield "Started", str(facts["date"]).replace("T", " ").replace("+00:00", " UTC")
    yield "Run", str(facts["run_id"])


def _again(stored: Stored) -> str:
    """What makes the run again: a command, or Python where the network is the user's own."""
    facts = stored.environment
    spec, seed, device = str(facts["data"]["spec"]), int(facts["seed"]), str(facts["device"])
    if isinstance(stored.recipe.model, CustomModel):
        return f'thirtytwo.train("recipe.toml", {spec!r}, seed={seed}, device="{device}", network=…).finish()'
    words = ["thirtytwo", "train", "recipe.toml", "--data", spec, "--seed", str(seed), "--device", device]
    return shlex.join(words)


def _picture(pixels: Pixels, alternative: str) -> Markup:
    """An ``<img>`` that holds its image, losslessly, and is as long as `LONGEST_SIDE` on its longer side."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    # Small images are shown as the squares they are; reduced ones are no longer made of the original's pixels.
    style = "" if longest > LONGEST_SIDE else "pixels"
    return Markup('<img class="{}" src="data:image/png;base64,{}" width="{}" height="{}" alt="{}">').format(
        style,
        base64.b64encode(content.getvalue()).decode(),
        max(round(LONGEST_SIDE * width / longest), 1),
        max(round(LONGEST_SIDE * height / longest), 1),
        alternative,
    )
