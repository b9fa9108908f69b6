"""Runs airbench94_muon.py of cifar10-airbench (K. Jordan 2024) on a CPU, the rival of the fast recipes.

    python airbench_original.py airbench94_muon.py IMAGES.npz SEED [--compile] [--half]

The script itself is not part of this repository: clone github.com/KellerJordan/cifar10-airbench. It is run as it is,
its own loop, loader, clock and evaluation, but for what a CPU lacks: the name of the device, timers of a GPU,
torchvision (of which it uses one subtraction and one division), and float16, in whose place there is float32, or
bfloat16 with --half. What it compiles is compiled only with --compile.

IMAGES.npz holds x_train, y_train, x_test, y_test: uint8 (n, 32, 32, 3) and int64 (n,). Prints one JSON object:
`seconds` of training and `seconds_with_views`, as the script's own clock counts them, and `accuracy`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Event:
    """A timer with the interface of torch.cuda.Event."""

    def __init__(self, **_: Any) -> None:
        self.moment = 0.0

    def record(self) -> None:
        """Remember now."""
        self.moment = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        return 1e3 * (end.moment - self.moment)


class Normalize:
    """What the script uses of torchvision."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.mean, self.std = mean[:, None, None], std[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Standardise per channel, in the type of the images."""
        return (images - self.mean.to(images)) / self.std.to(images)


def adapted(text: str, half: bool) -> str:
    """The script's text with what a CPU has in place of what it lacks."""
    kind = "torch.bfloat16" if half else "torch.float32"
    for found, given in {
        'torch.device("cuda")': 'torch.device("cpu")',
        ".cuda()": ".cpu()",
        ".half()": f".to({kind})",
        ".bfloat16()": f".to({kind})",
        "torch.cuda.Event": "Event",
        "torch.cuda.synchronize()": "None",
    }.items():
        text = text.replace(found, given)
    return text


def store(folder: Path, images: np.lib.npyio.NpzFile) -> None:
    """Write the two files that the script reads."""
    for part in ("train", "test"):
        content = {
            "images": torch.from_numpy(images[f"x_{part}"]),
            "labels": torch.from_numpy(images[f"y_{part}"]),
            "classes": [str(label) for label in range(10)],
        }
        torch.save(content, folder / f"{part}.pt")


def main() -> None:
    """Train once and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--half", action="store_true")
    arguments = parser.parse_args()
    script = arguments.script.resolve()
    transforms = types.ModuleType("torchvision.transforms")
    transforms.Normalize = Normalize  # type: ignore[attr-defined]
    torchvision = types.ModuleType("torchvision")
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": transforms}
    if not arguments.compile:
        torch.compiler.set_stance("force_eager")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "cifar10").mkdir()
        store(Path(work) / "cifar10", np.load(arguments.images))
        os.chdir(work)
        sys.argv = [str(script)]  # the script reads itself
        names: dict[str, Any] = {"__name__": "rival", "Event": Event}
        exec(compile(adapted(script.read_text(encoding="utf-8"), arguments.half), str(script), "exec"), names)
        names["print_training_details"] = lambda variables, **_: rows.append(
            {key: variables[key] for key in ("epoch", "val_acc", "tta_val_acc", "time_seconds") if key in variables}
        )
        torch.manual_seed(arguments.seed)
        model = names["CifarNet"]().to(memory_format=torch.channels_last)
        if arguments.compile:
            model.compile(mode="max-autotune")
            names["main"]("warmup", model)
            rows.clear()
            torch.manual_seed(arguments.seed)
        accuracy = names["main"](0, model)
    result = {
        "seconds": rows[-2]["time_seconds"],
        "seconds_with_views": rows[-1]["time_seconds"],
        "accuracy": accuracy,
        "precision": "bfloat16" if arguments.half else "float32",
        "compiled": arguments.compile,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
