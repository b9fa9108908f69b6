"""Writes everything in the documentation that a program knows better: run it after a change, `--check` in tests.

    python docs/generate.py [--check]

- docs/commands.md from the program's own ``--help``,
- docs/settings.md from the docstrings of the settings classes,
- docs/models.md from the recipes and what their networks have to compute,
- the tables between markers in README.md, docs/honesty.md and docs/improving.md, and the first lines of each recipe,
  from measured.json.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from statistics import fmean
from typing import Any, get_origin

import typer
from pydantic import BaseModel

from thirtytwo import planner
from thirtytwo import recipe as recipes
from thirtytwo.cli import app
from thirtytwo.planner import newest, where
from thirtytwo.study import Spread

ROOT = Path(__file__).parent.parent


def percent(value: float) -> str:
    """A fraction with two decimals, as a percentage."""
    return f"{100 * value:.2f}%"


def spread(entry: dict[str, Any], form: Any) -> str:
    """Mean, and standard deviation where there is one."""
    text = str(form(entry["mean"]))
    return text if entry["standard_deviation"] is None else f"{text} ± {form(entry['standard_deviation'])}"


def commit(entry: dict[str, Any]) -> str:
    """The commit that was measured, short; with ``+`` where there were changes that had not been committed."""
    found = str(entry["commit"])
    return found[:12] + ("+" if found.endswith("+") else "")


def pooled(series: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Spread of all values of some series."""
    return Spread.of([value for entry in series for value in entry[key]["values"]]).to_json()


def in_seconds(value: float) -> str:
    """Seconds, with a decimal where it counts."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.1f} s"


def conditions(entry: dict[str, Any]) -> str:
    """What decides how long a training takes: the machine, and what it computes in."""
    return where(entry) if entry["precision"] == "float32" else f"{where(entry)}, in {entry['precision']}"


def places(series: list[dict[str, Any]]) -> str:
    """Two columns: the machines of some series, and their commits."""
    machines = dict.fromkeys(map(conditions, series))
    commits = dict.fromkeys(f"`{commit(entry)}`" for entry in series)
    return f"{'; '.join(machines)} | {', '.join(commits)}"


DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def recipe_table() -> str:
    """What was measured of each recipe on each kind of device, over all series, or what it will have to compute."""
    lines = [
        "| recipe | device | test accuracy (mean ± s.d.) | n | calibration error | training time | parameters | FLOPs "
        "| machine | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in recipes.names():
        rows: dict[str, str] = {}
        for device, title in DEVICES.items():
            series = [entry for entry in planner.every("training", name) if entry["device"] == device]
            if not series:
                continue
            accuracy = pooled(series, "accuracy")
            # Accuracies are the same everywhere, times are not.
            alike: dict[str, list[dict[str, Any]]] = {}
            for entry in series:
                alike.setdefault(conditions(entry), []).append(entry)
            seconds = [times(some, accuracy["n"]) for some in alike.values()]
            rows[device] = (
                f"| `{name}` | {title} | {spread(accuracy, percent)} | {accuracy['n']} "
                f"| {calibration_error(series)} | {'; '.join(seconds)} "
                f"| {series[-1]['parameters']:,} | {series[-1]['flops'] / 1e12:,.0f} × 10¹² "
                f"| {places(series)} |"
            )
        if name.startswith("fast") or recipes.load(name).on_gpu:  # each kind of device has its own
            lines += [rows.get(device) or unmeasured_row(name, device, title) for device, title in DEVICES.items()]
        else:
            lines += rows.values() or [unmeasured_row(name, "cpu", " or ".join(DEVICES.values()))]
    return "\n".join([*lines, *remarks()])


def times(series: list[dict[str, Any]], runs: int) -> str:
    """How long trainings under the same conditions took, and how many they were if not so many as there are runs."""
    found = pooled(series, "train_seconds")
    return spread(found, in_seconds) + (f" (n = {found['n']})" if found["n"] != runs else "")


def remarks() -> list[str]:
    """What happened beside the trainings that the tables tell of, as lines; none if nothing did."""
    told: dict[str, None] = {}
    for name in recipes.names():
        for entry in planner.every("training", name):
            if "remark" in entry:
                told[f"`{name}` on a {DEVICES[entry['device']]}: {entry['remark']}"] = None
    return ["", f"Beside these numbers: {'; '.join(told)}."] if told else []


def calibration_error(series: list[dict[str, Any]]) -> str:
    """Mean expected calibration error of all runs of some series; nothing where it was not recorded."""
    recorded = [entry for entry in series if "ece" in entry]
    return f"{pooled(recorded, 'ece')['mean']:.3f}" if recorded else ""


def unmeasured_row(name: str, device: str, title: str) -> str:
    """A row of `recipe_table` for a recipe that was not measured there: what is known without."""
    work = planner.work(recipes.load(name).for_device(device))
    return (
        f"| `{name}` | {title} | not yet measured | | | | {work.parameters:,} | {work.flops / 1e12:,.0f} × 10¹² | | |"
    )


def race_sentence() -> str:
    """What the race against the Keras notebook showed."""
    entry = newest("race", "classic")
    if entry is None:
        return "The race against the usual Keras notebook has not been measured yet."
    where = f"{entry['machine']}; commit `{commit(entry)}`; `{entry['command']}`"
    ratio = entry["ratio"]
    if ratio is None:
        return (
            f"`classic` has lost the race against the usual Keras notebook: in {len(entry['lost_seeds'])} of "
            f"n = {entry['n']} pairs, it never reached the validation accuracy at which the notebook stops ({where})."
        )
    low, high = min(ratio["values"]), max(ratio["values"])
    best = ", ".join(f"{pair['keras']['best_epoch']} of {pair['keras']['epochs']}" for pair in entry["pairs"])
    return (
        "To reach the validation accuracy at which the usual Keras notebook stops, `classic` takes "
        f"**{ratio['mean']:.2f}** of the notebook's time (mean of n = {ratio['n']} pairs of trainings with the same "
        f"seed, from {low:.2f} to {high:.2f}; {where}). The notebook's clock includes the epochs that it waits "
        f"before it stops: its best were {best}."
    )


def speed_table() -> str:
    """One row for each recipe made for speed and each kind of device: its time beside the rival's."""
    lines = [
        "| recipe | device | time relative to `airbench94` (mean, lowest to highest) | pairs n | seconds "
        "| `airbench94`'s seconds | test accuracy of both | cold seconds of both | machine | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in recipes.names() if name.startswith("fast")):
        for device, title in DEVICES.items():
            series = [entry for entry in planner.every("comparison", name) if entry["device"] == device]
            if not series:
                lines.append(f"| `{name}` | {title} | not yet measured | | | | | | | |")
            # A processor that computes in half precision makes one of them, or both, much quicker: another race.
            for precisions in dict.fromkeys((entry["precision"], rival_precision(entry)) for entry in series):
                some = [entry for entry in series if (entry["precision"], rival_precision(entry)) == precisions]
                lines.append(speed_row(name, f"{title}, in {precisions[0]}, rival in {precisions[1]}", some))
    return "\n".join(lines)


def rival_precision(entry: dict[str, Any]) -> str:
    """What the rival of a comparison computed in."""
    return str(entry.get("rival_precision", entry["precision"]))


def speed_row(name: str, title: str, series: list[dict[str, Any]]) -> str:
    """A row of `speed_table`, over some series of pairs."""
    pairs = [pair for entry in series for pair in entry["pairs"]]
    ratios = [ratio for entry in series for ratio in entry["ratio"]["values"]]

    def both(key: str, form: Any) -> list[str]:
        columns = [[pair[prefix + key] for pair in pairs if prefix + key in pair] for prefix in ("", "rival_")]
        return [form(fmean(column)) if column else "" for column in columns]

    return (
        f"| `{name}` | {title} | **{fmean(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"| {len(pairs)} | {' | '.join(both('seconds', '{:,.0f}'.format))} "
        f"| {', '.join(both('test_accuracy', percent))} | {', '.join(both('cold_seconds', '{:,.0f}'.format))} "
        f"| {places(series)} |"
    )


def simulation_table() -> str:
    """What `compare` finds in studies that were drawn, of differences that are known."""
    entry = latest("simulation")
    if entry is None:
        return "Not yet simulated."
    deviation = 100 * entry["deviation_of_differences"]
    runs = f" (n = {entry['spread_n']})" if "spread_n" in entry else ""
    lines = [
        f"{entry['n']:,} studies of at most {entry['pairs']} pairs were simulated, with the spread that "
        f"`{entry['recipe']}` was measured to have{runs}: differences within pairs have a standard deviation of "
        f"{deviation:.2f} points ({where(entry)}; commit `{commit(entry)}`; `{entry['command']}`).",
        "",
        "| true difference | found by `compare` | pairs (mean) | found by a t test that looks after every pair |",
        "|---|---|---|---|",
    ]
    for row in entry["rows"]:
        lines.append(
            f"| {100 * row['difference']:.1f} points | {row['found']:.1%} | {row['pairs']:.1f} "
            f"| {row['found_by_an_ordinary_test']:.1%} |"
        )
    return "\n".join(lines)


def latest(kind: str) -> dict[str, Any] | None:
    """What was measured last of a kind, if anything."""
    return next((entry for entry in reversed(planner.measured()) if entry["kind"] == kind), None)


def judged(entry: dict[str, Any], first: str, second: str) -> str:
    """What `compare` says of two recipes."""
    verdict = {"A": f"{first} is better", "B": f"{second} is better", None: "neither is shown to be better"}
    reach = "no interval"
    if entry["interval"] is not None:
        reach = " to ".join(f"{100 * end:+.2f}" for end in entry["interval"])
    lost = zip((first, second), entry.get("diverged_seeds", {}).values(), strict=False)
    without = [f"; without seeds {', '.join(map(str, seeds))}, where {name} diverged" for name, seeds in lost if seeds]
    return (
        f"validation accuracy {first} {spread(entry['first'], percent)}, {second} {spread(entry['second'], percent)} "
        f"({entry['validation_images']:,} images, after training on {entry['training_images']:,}); "
        f"difference **{100 * entry['difference']:+.2f}** points ({reach}), "
        f"p = {entry['p_value']:.2g}, after n = {entry['n']} pairs: {verdict[entry['better']]}{''.join(without)}"
    )


def difference_sentence() -> str:
    """What `compare` found in real trainings."""
    entry = latest("difference")
    if entry is None:
        return "With real trainings: not yet measured."
    return (
        f"With real trainings of A, `{entry['a']}`, and B, `{entry['b']}`, on `{entry['data']}`: "
        f"{judged(entry, 'A', 'B')} ({where(entry)}; commit `{commit(entry)}`; `{entry['command']}`)."
    )


def ruler_sentence() -> str:
    """How long `airbench94` takes beside the script that it stands for."""
    entry = latest("ruler")
    if entry is None:
        return "Not yet measured."
    ratio, pairs = entry["ratio"], entry["pairs"]
    ours, original = (fmean(pair[side]["accuracy"] for pair in pairs) for side in ("ours", "original"))
    return (
        f"It takes **{ratio['mean']:.2f}** of the original's time (mean of n = {ratio['n']} pairs of trainings, from "
        f"{min(ratio['values']):.2f} to {max(ratio['values']):.2f}; {entry['data']}, in {entry['precision']}, neither "
        f"of them compiled; validation accuracy {percent(ours)}, the original's {percent(original)}; {where(entry)}; "
        f"commit `{commit(entry)}`; `{entry['command']}`)."
    )


def inference_table() -> str:
    """How fast a trained model answers on a processor, beside its bare network."""
    entries = [each for each in planner.measured() if (each["kind"], each["device"]) == ("inference", "cpu")]
    entry = entries[-1] if entries else None
    if entry is None:
        return "Not yet measured."
    lines = [
        "| images at once | views of each | `Classifier` | the network alone | overhead |",
        "|---|---|---|---|---|",
    ]
    for kind in ("batch", "single"):
        for views, several in (("", "one"), ("_with_views", f"{entry.get('views', 'several')}, as noise is doubtful")):
            if (row := entry.get(kind + views)) is None:
                continue
            images = row["images"]

            def form(seconds: float, images: int = images) -> str:
                return f"{1000 * seconds:.2f} ms" if images == 1 else f"{images / seconds:,.0f} images/s"

            alone = "" if views else f"{form(row['plain_seconds'])} | {row['overhead']:+.1%}"
            lines.append(f"| {images:,} | {several} | {form(row['seconds'])} | {alone or ' | '} |")
    lines.append("")
    lines.append(
        f"`{entry['recipe']}`, medians of n = {entry['n']} turns each, in {entry['precision']}; the overhead is the "
        "median of what it was turn by turn, not the ratio of the other two columns "
        f"({where(entry)}; commit `{commit(entry)}`; `{entry['command']}`)."
    )
    return "\n".join(lines)


def tuning_table() -> str:
    """What a search for better values found, and whether it is better on other images."""
    entry = latest("tuning")
    if entry is None:
        return "What such a search gains: not yet measured."
    states = ", ".join(f"{number} {state}" for state, number in sorted(entry["states"].items()))
    lines = [
        f"What such a search gains: {entry['trials']} trials of `{entry['recipe']}` on `{entry['search_data']}` "
        f"({states}) found settings with a validation accuracy of {percent(entry['best']['accuracy'])}, where the "
        f"recipe's own have {percent(entry['own']['accuracy'])}. On other images, `{entry['data']}`, and with other "
        f"seeds: "
        f"{judged(entry, 'own', 'found')} ({where(entry)}; commit `{commit(entry)}`; `{entry['command']}`).",
        "",
        "| setting | own | found | share of the differences in accuracy that it explains |",
        "|---|---|---|---|",
    ]
    own, found, shares = entry["own"]["values"], entry["best"]["values"], entry["importances"]
    for key in sorted(found, key=lambda key: -shares.get(key, 0)):
        share = f"{shares[key]:.0%}" if key in shares else ""
        lines.append(f"| `{key}` | {shown(own[key])} | {shown(found[key])} | {share} |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A setting, with three digits where they are many."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


JUDGED = {
    "compared": "pairs of a test and a training image that the audit compares",
    "nearest": "test images, each with its nearest training image",
    "within training": "pairs of training images that the audit compares at full size",
    "within test": "pairs of test images that the audit compares at full size",
}
"""How pairs were drawn that somebody has looked at."""


def audit_table() -> str:
    """What the audit of CIFAR-10 found, and how much of it is so."""
    entry = latest("audit")
    if entry is None:
        return "Not yet measured on CIFAR-10."
    named, issues = entry["named"], entry["named"]["label_issues"]
    lines = [
        f"On CIFAR-10, the whole audit took {entry['seconds'] / 60:.0f} minutes (n = 1; {where(entry)}; commit "
        f"`{commit(entry)}`; `{entry['command']}`). It named {issues.get('training', 0):,} training and "
        f"{issues.get('test', 0):,} test images for their labels, and {named['pairs']:,} pairs that seem to show the "
        f"same picture. By these pairs, {named['leaked_test_images']:,} test images seem to be in the training set, "
        "too.",
        "",
        "| judged by | judged on | precision (of what is named, how much is right) "
        "| recall (of what there is, how much is named) |",
        "|---|---|---|---|",
    ]
    for drawn, found in entry["judged"].items():
        lines.append(
            f"| our own eyes, pair by pair; these also chose the threshold | {found['pairs']} {JUDGED[drawn]}: "
            f"{found['named']} named, {found['same']} of all the same | {percent(found['precision'])} "
            f"| {percent(found['recall'])} |"
        )
    if found := entry.get("cifair"):
        who = "ciFAIR (Barz & Denzler 2020)"
        lines += [
            f"| {who} | {found['same_shot']} test images with a training image of the same shot | "
            f"| {percent(found['recall_of_same_shot'])} |",
            f"| {who} | {found['test_images']} test images, other shots of the same thing included "
            f"| {found['named_and_listed']} of the {found['named']} named are on its list; many of the others are "
            f"duplicates, too (see above) | {percent(found['recall'])} |",
        ]
    if found := entry.get("people"):
        lines.append(
            "| about fifty people per image (CIFAR-10H, Peterson et al. 2019): wrong if another class got most votes "
            f"| the first {found['first']} test images named for their labels "
            f"| {found['wrong']} of {found['first']} | {found['wrong']} of {found['there_are']} |"
        )
    if found := entry.get("workers"):
        lines.append(
            "| five people per image, shown what another search had named (Northcutt, Athalye & Mueller 2021): wrong "
            f"if fewer than three agree with the label | the {found['shown']} of the first {found['first']} that they "
            f"were shown | {found['wrong']} of {found['shown']} | {found['wrong']} of {found['there_are']} |"
        )
    if both := entry.get("either"):
        lines.append(
            f"| one or the other of these groups | the first {entry['people']['first']} test images named for their "
            f"labels | {both['wrong']} of {entry['people']['first']} | {both['wrong']} of {both['there_are']} |"
        )
    return "\n".join(lines)


LADDER = {path.stem: path for path in (ROOT / "docs" / "improving").glob("*.toml")}
"""The recipes of docs/improving.md, by step."""
LADDER_DATA = "cifar10-5000"


def improving_table() -> str:
    """What each step of the ladder gains; what was measured when its recipe had other settings is not told."""
    entries = [entry for entry in planner.measured() if entry["kind"] == "improvement"]
    # A trial of the benchmark, with other data or one setting for all recipes, says nothing here.
    entries = [entry for entry in entries if entry["data"] == LADDER_DATA and not entry["set"]]
    if not entries:
        return "Not yet measured."
    entry = max(reversed(entries), key=lambda entry: (len(current_steps(entry)), entry["n"]))
    current = current_steps(entry)
    lines = [
        "| step | validation accuracy (mean ± s.d.) | n | gain in points (95% interval) | against | training time |",
        "|---|---|---|---|---|---|",
    ]
    for step in entry["steps"]:
        name, rival, accuracy = step["name"], step["against"], step["accuracy"]
        if name not in current:
            lines.append(f"| [{name}](#{name}) | not yet measured | | | | |")
            continue
        is_compared = step["gain"] is not None and (rival in current or rival not in LADDER)
        lines.append(
            f"| [{name}](#{name}) | {spread(accuracy, percent)} | {accuracy['n']} "
            f"| {points(step['gain']) if is_compared else ''} | {rival if is_compared else ''} "
            f"| {step['train_seconds']['mean']:,.0f} s |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on the {entry['validation_images']:,} validation images of `{entry['data']}`, after training on "
            f"the other {entry['training_images']:,} ({where(entry)}; commit `{commit(entry)}`; "
            f"`{entry['command']}`). An ensemble is chosen from {entry['members']} networks; its training time is that "
            "of all of them.",
        ]
    )


def current_steps(entry: dict[str, Any]) -> set[str]:
    """Names of the steps that were measured with their recipes as they are now."""
    images = entry["training_images"] + entry["validation_images"]
    settings = {
        name: recipes.load(path).for_device(entry["device"]).for_images(images).digest for name, path in LADDER.items()
    }
    return {
        step["name"] for step in entry["steps"] if step["accuracy"] and step["settings"] == settings.get(step["recipe"])
    }


def points(gain: dict[str, Any]) -> str:
    """A mean difference of accuracies in points, with its interval if there is one."""
    text = f"**{100 * gain['mean']:+.2f}**"
    if gain["interval"] is None:
        return f"{text} ({'one pair' if gain['n'] == 1 else 'all pairs alike'})"
    low, high = gain["interval"]
    return f"{text} ({100 * low:+.2f} to {100 * high:+.2f})"


def recipe_header(name: str) -> str:
    """The first lines of a recipe file: its measured result."""
    entry = newest("training", name)
    if entry is None:
        return "# Not yet measured.\n"
    series = [each for each in planner.every("training", name) if each["device"] == entry["device"]]
    accuracy = pooled(series, "accuracy")
    seconds = pooled([each for each in series if conditions(each) == conditions(entry)], "train_seconds")
    return (
        f"# {spread(accuracy, percent)} on the test images of {entry['data']} (n = {accuracy['n']}),\n"
        f"# {spread(seconds, in_seconds)} of training on {conditions(entry)} (n = {seconds['n']}),\n"
        f"# torch {entry['versions']['torch']}, commit {', '.join(dict.fromkeys(map(commit, series)))}, until "
        f"{max(each['date'] for each in series)}; the latest by\n"
        f"# {entry['command']}\n"
    )


def commands() -> str:
    """docs/commands.md."""
    lines = [
        "# Commands",
        "",
        "Written from `--help` by `docs/generate.py`.",
        "",
        "Exit codes: 0 on success; 2 if the command cannot be carried out as given (the message says what would work);",
        "1 if something else went wrong: no host delivered a download, the disk is full, memory ran out, the loss",
        "became NaN or infinite, or one of several processes died; 130 and 143 after Ctrl-C or a polite kill, when",
        "nothing is lost.",
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
    if default not in (None, False, "") and default != [] and "efault" not in words:
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


def outputs() -> dict[Path, str]:
    """Every generated file with its content."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, content in (("recipes", recipe_table()), ("race", race_sentence()), ("speed", speed_table())):
        readme = between(readme, name, content)
    honesty = (ROOT / "docs" / "honesty.md").read_text(encoding="utf-8")
    tables = (("audit", audit_table()), ("compare", simulation_table()), ("difference", difference_sentence()))
    for name, content in tables:
        honesty = between(honesty, name, content)
    speed = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    for name, content in (("ruler", ruler_sentence()), ("inference", inference_table())):
        speed = between(speed, name, content)
    improving = (ROOT / "docs" / "improving.md").read_text(encoding="utf-8")
    for name, content in (("improving", improving_table()), ("tuning", tuning_table())):
        improving = between(improving, name, content)
    files = {
        ROOT / "docs" / "honesty.md": honesty,
        ROOT / "docs" / "speed.md": speed,
        ROOT / "docs" / "improving.md": improving,
        ROOT / "docs" / "commands.md": commands(),
        ROOT / "docs" / "settings.md": settings(),
        ROOT / "docs" / "models.md": models_page(),
        ROOT / "README.md": readme,
    }
    for name in recipes.names():
        path = ROOT / "src" / "thirtytwo" / "recipes" / f"{name}.toml"
        body = re.sub(r"\A(#[^\n]*\n)*", "", path.read_text(encoding="utf-8"))
        files[path] = recipe_header(name) + body
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
