"""Writes everything in the documentation that a program knows better: run it after a change, `--check` in tests.

    python -m docs.generate [--check]

- docs/commands.md from the program's own ``--help``,
- docs/settings.md from the docstrings of the settings classes,
- docs/models.md from the recipes and what their networks have to compute,
- docs/results.md, the tables between markers in README.md and other documents, and the first lines of each recipe,
  from measured.json (see measurements.py).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_origin

import typer
from docs import measurements
from docs.measurements import DEVICES
from pydantic import BaseModel

from thirtytwo import planner
from thirtytwo import recipe as recipes
from thirtytwo.cli import app

ROOT = Path(__file__).parent.parent


def commands() -> str:
    """docs/commands.md."""
    lines = [
        "# Commands",
        "",
        "Written from `--help` by `docs/generate.py`.",
        "",
        "Exit codes: 0 on success; 2 if the command cannot be carried out as given (the message says what would work);",
        "1 if something else went wrong: no host delivered a download, the disk is full, memory ran out, the loss",
        "became NaN or infinite, or one of several processes died; 130 and 143 after Ctrl-C or SIGTERM, when nothing",
        "is lost: the same command, or `train --resume`, goes on.",
        "",
    ]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=f"thirtytwo {name}")
        pieces = " ".join(command.collect_usage_pieces(context))
        lines += [f"## `thirtytwo {name}`", "", command.help or "", "", f"    thirtytwo {name} {pieces}", ""]
        lines += ["| | |", "|---|---|"]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                value = f" {parameter.metavar}" if parameter.metavar else ""
                shown = ", ".join(f"`{word}{value}`" for word in parameter.opts)
            else:
                shown = f"`{parameter.metavar or parameter.name.upper()}`"
            lines.append(f"| {shown} | {' '.join(explained(parameter))} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def explained(parameter: Any) -> Iterator[str]:
    """What a parameter of a command is for, its values where they are a few, and its default."""
    words = getattr(parameter, "help", "") or ""
    yield words
    default = parameter.default
    if isinstance(default, Enum):
        yield f"One of {', '.join(f'`{kind.value}`' for kind in type(default))}."
        default = default.value
    if default is not None and default is not False and default not in ("", []) and "efault" not in words:
        yield f"Default: {default}."


def settings() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings of a recipe",
        "",
        "Written from the source by `docs/generate.py`. Each key can be set in a recipe file or with "
        "`--set section.key=value`.",
        "",
        *section("Recipe", "", recipes.Recipe),
    ]
    for key, field in recipes.Recipe.model_fields.items():
        for kind in recipes.sections(field.annotation):
            tag = kind.model_fields.get("name")
            title = f"`[{key}]`" + (f' with `name = "{tag.default}"`' if tag and get_origin(tag.annotation) else "")
            lines += section(title, f"{key}.", kind)
    return "\n".join(lines).rstrip() + "\n"


SOURCE = re.compile(r" \(([^()]*\d{4}, arXiv \d{4}\.\d{4,5})\)")

VARIANTS = {
    "ResNet-50 (He et al. 2016, arXiv 1512.03385)": (
        "resnet18",
        ["model.widths=[256, 512, 1024, 2048]", "model.blocks=[3, 4, 6, 3]", "model.bottleneck=0.25"],
    ),
    "ResNeXt-29, 8 × 64d (Xie et al. 2017, arXiv 1611.05431)": (
        "resnet18",
        ["model.widths=[256, 512, 1024]", "model.blocks=[3, 3, 3]", "model.bottleneck=2.0", "model.cardinality=8"],
    ),
    "Wide residual network 40-4 (Zagoruyko & Komodakis 2016, arXiv 1605.07146)": (
        "wideresnet",
        ["model.widths=[64, 128, 256]", "model.blocks=[6, 6, 6]"],
    ),
    "PyramidNet-110, a = 48 (Han, Kim & Kim 2017, arXiv 1610.02915)": ("pyramidnet", ["model.widening=48"]),
}
"""Published networks that a recipe's settings make: its name, and what to set."""


def models_page() -> str:
    """docs/models.md."""
    lines = [
        "# Networks",
        "",
        "Written by `docs/generate.py` from the recipes. FLOPs are for training on one image of 32 × 32 pixels, "
        "forward and backward, as counted by torch. Parameters are for ten classes. The table in the "
        "[README](../README.md#recipes) says what a recipe reaches, where that was measured, and how much its whole "
        "training has to compute.",
        "",
        "| recipe | network | source | parameters | FLOPs per image | what for |",
        "|---|---|---|---|---|---|",
    ]
    for name in recipes.names():
        kinds = {device: recipes.load(name).for_device(device) for device in DEVICES}
        if kinds["cpu"].model == kinds["cuda"].model:
            del kinds["cuda"]
        for device, recipe in kinds.items():
            work = planner.work(recipe)
            about = " ".join((type(recipe.model).__doc__ or "").split())
            found = SOURCE.search(recipe.description) or SOURCE.search(about)
            title = f"`{name}`" + (f" on a {DEVICES[device]}" if len(kinds) > 1 else "")
            lines.append(
                f"| {title} | `{recipe.model.name}` | {found[1] if found else ''} | {work.parameters:,} "
                f"| {work.flops_per_image / 1e9:,.2f} × 10⁹ | {SOURCE.sub('', recipe.description)} |"
            )
    lines += [
        "",
        "Each network has settings of its own, listed in [settings.md](settings.md). These settings make some "
        "published networks:",
        "",
        "| network | parameters | FLOPs per image | `thirtytwo train` |",
        "|---|---|---|---|",
    ]
    for title, (name, overrides) in VARIANTS.items():
        work = planner.work(recipes.load(name, overrides))
        words = " ".join(f"--set '{override.replace(', ', ',')}'" for override in overrides)
        lines.append(f"| {title} | {work.parameters:,} | {work.flops_per_image / 1e9:,.2f} × 10⁹ | `{name} {words}` |")
    lines += [
        "",
        "Any other network can be trained, too: one of PyTorch Image Models, by its name (`--set model.name=timm --set "
        "model.model=resnet26d`, with the extra `timm`), or a module of your own in Python (see the "
        "[guide](guide.md)).",
    ]
    return "\n".join(lines) + "\n"


def section(title: str, prefix: str, kind: type[BaseModel]) -> list[str]:
    """One settings class as a table."""
    lines = [
        f"## {title}",
        "",
        " ".join((kind.__doc__ or "").split()),
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for key, field in kind.model_fields.items():
        if recipes.sections(field.annotation):
            continue
        default = "" if field.is_required() else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        lines.append(f"| `{prefix}{key}` | {default} | {' '.join((field.description or '').split())} |")
    return [*lines, ""]


def between(text: str, name: str, content: str) -> str:
    """Replace what stands between two markers."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert pattern.search(text), f"no marker {name}"
    return pattern.sub(lambda match: match[1] + content + "\n" + match[2], text)


def results_page() -> str:
    """docs/results.md."""
    return f"""# Results

Written by `docs/generate.py` from `src/thirtytwo/measured.json`: what the tables in the [README](../README.md#recipes)
sum up, one row for each commit and machine. Results from before a recipe was changed are left out. The calibration
error is the mean gap between how sure a network is and how often it is right. Memory is the most that was in use, on a
GPU that of the GPU. What was tried and did not work stands in [LOG.md](../LOG.md).

## Trainings

{measurements.trainings_table()}

## Learning curves

Validation accuracy after one epoch and after parts of all epochs, and the time until then from the first use of
training data, validation included: of the first seed in the newest series of each recipe that holds out images for
validation.

{measurements.curves_table()}

## Races against `airbench94`

Pairs of trainings with the same seed, in turn on the same machine. The clock runs from the first use of training data
to the last update of the weights; where several views of the test images are averaged, scoring them counts, too.

{measurements.races_table()}
"""


DOCUMENTS = {
    "README.md": {
        "recipes": measurements.recipe_table,
        "race": measurements.race_sentence,
        "speed": measurements.speed_table,
    },
    "docs/guide.md": {"pretrained": measurements.pretrained_sentence},
    "docs/honesty.md": {
        "audit": measurements.audit_table,
        "compare": measurements.simulation_table,
        "difference": measurements.difference_sentence,
    },
    "docs/scaling.md": {"one_gpu": measurements.one_gpu_table},
    "docs/speed.md": {"ruler": measurements.ruler_sentence, "inference": measurements.inference_table},
    "docs/improving.md": {
        "improving": measurements.improving_table,
        "distillation": measurements.distillation_sentence,
        "tuning": measurements.tuning_table,
    },
}
"""What stands between the markers of documents."""


def outputs() -> dict[Path, str]:
    """Every generated file with its content."""
    files = {
        ROOT / "docs" / "commands.md": commands(),
        ROOT / "docs" / "settings.md": settings(),
        ROOT / "docs" / "models.md": models_page(),
        ROOT / "docs" / "results.md": results_page(),
    }
    for name, parts in DOCUMENTS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for marker, content in parts.items():
            text = between(text, marker, content())
        files[ROOT / name] = text
    for name in recipes.names():
        path = ROOT / "src" / "thirtytwo" / "recipes" / f"{name}.toml"
        body = re.sub(r"\A(#[^\n]*\n)*", "", path.read_text(encoding="utf-8"))
        files[path] = measurements.recipe_header(name) + body
    return files


def main() -> None:
    """Write, or say what would change."""
    stale = [
        path for path, content in outputs().items() if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    if "--check" in sys.argv:
        sys.exit(f"out of date, run `make docs`: {', '.join(path.name for path in stale)}" if stale else 0)
    for path in stale:
        path.write_text(outputs()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
