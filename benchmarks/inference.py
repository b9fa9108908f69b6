"""How fast a trained model classifies, and what our way of asking costs beside the bare network.

    python benchmarks/inference.py MODEL [--repeats 21] [--batch 500] [--device cpu]

MODEL is a run folder or a model file. Two questions, each with the model's own views and with one view only: images per
second in batches, and seconds for a single image. Beside each, the same network in plain PyTorch: pixels divided by 255
and standardised, one forward pass, a softmax, under inference_mode. The two take turns, so that what drifts in a
machine troubles both alike; quoted are medians, and `overhead`: the median of the ratios, pair by pair, less 1.

Images are random pixels: how fast a convolution is does not depend on what it sees; with views that look again at
doubtful images only, it does, and noise is doubtful throughout, so such a model is timed at its slowest.

Results go to measured.json as an entry of kind `inference`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import measured
import runs
import series
from thirtytwo import Classifier, environment
from thirtytwo.settings import Views

Ask = Callable[[NDArray[np.uint8]], object]


def plain(classifier: Classifier) -> Ask:
    """The network without us."""
    mean = torch.tensor(classifier.pixels.mean, device=classifier.device)[:, None, None]
    deviation = torch.tensor(classifier.pixels.standard_deviation, device=classifier.device)[:, None, None]
    network = classifier.network.eval()

    def ask(images: NDArray[np.uint8]) -> object:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(classifier.device).permute(0, 3, 1, 2)
            return network((pixels.float() / 255 - mean) / deviation).softmax(1).cpu()

    return ask


def race(ours: Ask, theirs: Ask, images: NDArray[np.uint8], repeats: int) -> dict[str, Any]:
    """Seconds of each for the same images, taking turns."""
    pairs = []
    for turn in range(repeats + 1):
        seconds = {}
        for side in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
            started = time.perf_counter()
            side(images)
            seconds[side] = time.perf_counter() - started
        pairs.append((seconds[ours], seconds[theirs]))
    pairs = pairs[1:]  # the first turn loads code and makes plans
    return {
        "images": len(images),
        "seconds": statistics.median(pair[0] for pair in pairs),
        "plain_seconds": statistics.median(pair[1] for pair in pairs),
        "overhead": statistics.median(first / second for first, second in pairs) - 1,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The entry of kind ``inference``."""
    device = environment.device(arguments.device)
    facts = environment.describe(device)
    classifier = Classifier.load(arguments.model, device=device)
    generator = np.random.default_rng(0)
    batch = generator.integers(0, 256, (arguments.batch, *classifier.size, 3), np.uint8)
    one_view = replace(classifier, views=Views())
    found: dict[str, Any] = {}
    for name, images in (("batch", batch), ("single", batch[:1])):
        found[name] = race(one_view, plain(classifier), images, arguments.repeats)
        if classifier.views.several:
            found[f"{name}_with_views"] = race(classifier, plain(classifier), images, arguments.repeats)
    recipe = str(classifier.facts.get("recipe", "unknown"))
    views = classifier.views
    return {
        "kind": "inference",
        "recipe": recipe,
        "views": (1 + views.mirror) * (3 if views.translate_pixels else 1),
        "series": f"inference-{recipe}-{facts['run_id'][:8]}",
        **{key: facts[key] for key in measured.CONDITIONS},
        "date": facts["date"][:10],
        "command": runs.typed("inference.py", ["MODEL", *sys.argv[2:]], None, "", ""),
        "n": arguments.repeats,
        "model": classifier.fingerprint,
        **found,
    }


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run folder or a model file")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.batch < 1:
        parser.error("expected at least one repeat and one image")

    def work(_: int) -> int:
        entry = measure(arguments)
        measured.add(entry)
        for name in ("batch", "batch_with_views", "single", "single_with_views"):
            if row := entry.get(name):
                each = row["seconds"] / row["images"]
                print(f"{name}: {1 / each:,.0f} images/s, {1e3 * row['seconds']:.2f} ms, {row['overhead']:+.1%}")
        return 0

    return series.command(work)


if __name__ == "__main__":
    sys.exit(main())
