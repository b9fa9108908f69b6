"""What README, documents and recipes say of measurements: sentences and tables, from measured.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from thirtytwo import planner
from thirtytwo import recipe as recipes
from thirtytwo.classifier import PRETRAINED, Classifier
from thirtytwo.planner import newest, where
from thirtytwo.study import Spread

Entry = dict[str, Any]
"""One result in measured.json."""


def percent(value: float) -> str:
    """A fraction with two decimals, as a percentage."""
    return f"{100 * value:.2f}%"


def spread(entry: Entry, form: Any) -> str:
    """Mean, and standard deviation where there is one."""
    text = str(form(entry["mean"]))
    return text if entry["standard_deviation"] is None else f"{text} ± {form(entry['standard_deviation'])}"


def commit(entry: Entry) -> str:
    """The commit that was measured, short; with ``+`` where there were changes that had not been committed."""
    found = str(entry["commit"])
    return found[:12] + ("+" if found.endswith("+") else "")


def pooled(series: Sequence[Entry], key: str) -> Entry:
    """Spread of all values of some series."""
    return Spread.of([value for entry in series for value in entry[key]["values"]]).to_json()


def provenance(entry: Entry) -> str:
    """Where an entry is from: its machine, its commit, and the command that makes it again."""
    return f"{where(entry)}; commit `{commit(entry)}`; `{entry['command']}`"


def in_seconds(value: float) -> str:
    """Seconds, with a decimal where it counts."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.1f} s"


def conditions(entry: Entry) -> str:
    """What decides how long a training takes: the machine, and what it computes in."""
    return where(entry) if entry["precision"] == "float32" else f"{where(entry)}, in {entry['precision']}"


DEVICES = {"cpu": "CPU", "cuda": "GPU"}
NOT_YET = "not yet measured"


def by_work() -> list[str]:
    """Names of all recipes, those that compute least on a CPU first."""
    return sorted(recipes.names(), key=lambda name: planner.work(recipes.load(name).for_device("cpu")).flops)


def recipe_table() -> str:
    """What was measured of each recipe on each kind of device, over all series, or what it will have to compute."""
    lines = [
        "| recipe | device | test accuracy (mean ± s.d.) | n | training time | parameters | FLOPs | timed on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in by_work():
        rows: dict[str, str] = {}
        for device, title in DEVICES.items():
            if series := [entry for entry in planner.every("training", name) if entry["device"] == device]:
                rows[device] = recipe_row(name, title, series)
        if name.startswith("fast") or recipes.load(name).on_gpu:  # each kind of device has its own
            lines += [rows.get(device) or unmeasured_row(name, device, title) for device, title in DEVICES.items()]
        else:
            lines += rows.values() or [unmeasured_row(name, "cpu", " or ".join(DEVICES.values()))]
    return "\n".join(lines)


def recipe_row(name: str, title: str, series: Sequence[Entry]) -> str:
    """A row of `recipe_table`: accuracies are the same everywhere, times are those of the most trainings alike."""
    accuracy = pooled(series, "accuracy")
    alike: dict[str, list[Entry]] = {}
    for entry in reversed(series):  # of equally many, the newest
        alike.setdefault(conditions(entry), []).append(entry)
    place, timed = max(alike.items(), key=lambda item: sum(entry["n"] for entry in item[1]))
    seconds = pooled(timed, "train_seconds")
    only = f" (n = {seconds['n']})" if seconds["n"] != accuracy["n"] else ""
    return (
        f"| `{name}` | {title} | {spread(accuracy, percent)} | {accuracy['n']} "
        f"| {spread(seconds, in_seconds)}{only} | {series[-1]['parameters']:,} | {petaflops(series[-1]['flops'])} "
        f"| {place} |"
    )


def unmeasured_row(name: str, device: str, title: str) -> str:
    """A row of `recipe_table` for a recipe that was not measured there: what is known without."""
    work = planner.work(recipes.load(name).for_device(device))
    return f"| `{name}` | {title} | {NOT_YET} | | | {work.parameters:,} | {petaflops(work.flops)} | |"


def petaflops(flops: float) -> str:
    """Operations of a whole training."""
    return f"{flops / 1e15:,.3g} × 10¹⁵" if flops < 1e18 else f"{flops / 1e15:,.0f} × 10¹⁵"


def trainings_table() -> str:
    """One row for each series of trainings of a recipe as it is now."""
    lines = [
        "| recipe | test accuracy (mean ± s.d.) | n | seeds | calibration error | training time | from start of the "
        "program to end of training | memory | computed by | date | commit | command | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in by_work():
        for entry in planner.every("training", name):
            cold = spread(entry["cold_seconds"], in_seconds) if "cold_seconds" in entry else ""
            memory = f"{entry['peak_memory_bytes'] / 2**30:.1f} GiB" if "peak_memory_bytes" in entry else ""
            remarks = [entry["remark"]] if "remark" in entry else []
            if unfinished := entry["unfinished_seeds"]:
                remarks.append(f"did not end: {numbers(unfinished)}")
            lines.append(
                f"| `{name}` | {spread(entry['accuracy'], percent)} | {entry['n']} | {numbers(entry['seeds'])} "
                f"| {format(entry['ece']['mean'], '.3f') if 'ece' in entry else ''} "
                f"| {spread(entry['train_seconds'], in_seconds)} | {cold} | {memory} | {conditions(entry)} "
                f"| {entry['date']} | `{commit(entry)}` | `{entry['command']}` | {'; '.join(remarks)} |"
            )
    return "\n".join(lines)


def curves_table() -> str:
    """Validation accuracy after parts of a training, of the newest series of each recipe that validates."""
    parts = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    lines = [
        f"| recipe | device | seed | after 1 epoch | {' | '.join(f'{part:.0%}' for part in parts[:-1])} | after all |",
        f"|---|---|---|---|{'---|' * len(parts)}",
    ]
    for name in by_work():
        for device, title in DEVICES.items():
            curve = (newest("training", name, device) or {}).get("curve", {})
            accuracies = curve.get("validation_accuracy", [])
            if not any(accuracies):
                continue
            at = [1, *(max(round(part * len(accuracies)), 1) for part in parts)]
            cells = [
                "–" if (accuracy := accuracies[epoch - 1]) is None else f"{percent(accuracy)} ({in_seconds(seconds)})"
                for epoch in at
                for seconds in [curve["seconds"][epoch - 1]]
            ]
            lines.append(f"| `{name}`, {len(accuracies)} epochs | {title} | {curve['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not yet measured."


def one_gpu_table() -> str:
    """What a step costs on one GPU, for the network that each recipe trains there."""
    lines = [
        "| recipe | parameters | gradients, float32 | step of 1,000 images (training time by steps) | training "
        "| start of the program to end of training |",
        "|---|---|---|---|---|---|",
    ]
    found = [entry for name in by_work() for entry in planner.every("training", name) if entry["device"] == "cuda"]
    if not found:
        return "Not yet measured."
    for entry in found:
        recipe = recipes.load(entry["recipe"]).for_device("cuda").for_images(planner.IMAGES)
        seconds, cold = entry["train_seconds"], entry["cold_seconds"]
        step = seconds["mean"] / (recipe.epochs * planner.IMAGES / 1000)
        lines.append(
            f"| `{entry['recipe']}` | {entry['parameters']:,} | {4 * entry['parameters'] / 1e6:.0f} MB "
            f"| {1000 * step:.1f} ms | {spread(seconds, in_seconds)} (n = {seconds['n']}) "
            f"| {spread(cold, in_seconds)} (n = {cold['n']}) |"
        )
    return "\n".join([*lines, "", f"({'; '.join(dict.fromkeys(map(provenance, found)))}.)"])


def numbers(values: Sequence[int]) -> str:
    """Some seeds."""
    return ", ".join(map(str, values))


def race_sentence() -> str:
    """What the race against the Keras notebook showed."""
    entry = newest("race", "classic")
    if entry is None:
        return "The race against the usual Keras notebook has not been measured yet."
    ratio = entry["ratio"]
    if ratio is None:
        return (
            f"`classic` has lost the race against the usual Keras notebook: in {len(entry['lost_seeds'])} of "
            f"n = {entry['n']} pairs, it never reached the validation accuracy at which the notebook stops "
            f"({provenance(entry)})."
        )
    low, high = min(ratio["values"]), max(ratio["values"])
    best = ", ".join(f"{pair['keras']['best_epoch']} of {pair['keras']['epochs']}" for pair in entry["pairs"])
    return (
        "To reach the validation accuracy at which [the usual Keras notebook](benchmarks/keras_notebook.py) (three "
        "convolutions, no augmentation, early stopping) stops, `classic` takes "
        f"**{ratio['mean']:.2f}** of the notebook's time (mean of n = {ratio['n']} pairs of trainings with the same "
        f"seed, from {low:.2f} to {high:.2f}; {provenance(entry)}). The notebook's clock includes the epochs "
        f"that it waits before it stops: its best were {best}."
    )


RACERS = [name for name in recipes.names() if name.startswith("fast")]
"""The recipes made for speed."""


def speed_table() -> str:
    """One row for each recipe made for speed and each kind of device: its time beside the rival's."""
    lines = [
        "| recipe | device | time relative to `airbench94` (mean, lowest to highest) | pairs | seconds of both "
        "| test accuracy of both | machines |",
        "|---|---|---|---|---|---|---|",
    ]
    missing = []
    for name in RACERS:
        for device, title in DEVICES.items():
            series = [entry for entry in planner.every("comparison", name) if entry["device"] == device]
            if not series:
                missing.append(f"`{name}` on a {title}")
            # A processor that computes in half precision makes one of them, or both, much quicker: another race. What
            # a recipe computed in before, on the same machine, is the past.
            now = {where(entry): precisions(entry) for entry in series}
            for kind in dict.fromkeys(now.values()):
                some = [entry for entry in series if precisions(entry) == kind == now[where(entry)]]
                lines.append(speed_row(name, f"{title}, in {kind[0]}, rival in {kind[1]}", some))
    return "\n".join([*lines, "", f"Not yet raced: {', '.join(missing)}."] if missing else lines)


def precisions(entry: Entry) -> tuple[str, str]:
    """What a recipe and its rival computed in."""
    return str(entry["precision"]), rival_precision(entry)


def rival_precision(entry: Entry) -> str:
    """What the rival of a comparison computed in."""
    return str(entry.get("rival_precision", entry["precision"]))


def speed_row(name: str, title: str, series: Sequence[Entry]) -> str:
    """A row of `speed_table`, over some series of pairs."""
    pairs = [pair for entry in series for pair in entry["pairs"]]
    ratios = [ratio for entry in series for ratio in entry["ratio"]["values"]]
    return (
        f"| `{name}` | {title} | **{fmean(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"| {len(pairs)} | {both(pairs, 'seconds', '{:,.0f}'.format)} | {both(pairs, 'test_accuracy', percent)} "
        f"| {'; '.join(dict.fromkeys(map(where, series)))} |"
    )


def both(pairs: Sequence[Entry], key: str, form: Any) -> str:
    """Means of what some pairs of trainings have, the rival's last."""
    columns = [[pair[prefix + key] for pair in pairs if prefix + key in pair] for prefix in ("", "rival_")]
    return ", ".join(form(fmean(column)) for column in columns if column)


def races_table() -> str:
    """One row for each series of pairs against the rival."""
    lines = [
        "| recipe | time relative to `airbench94` | seeds | seconds of both | test accuracy of both | from start of "
        "the program to end of training, both | machine, precision of both | date | commit | command | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in RACERS:
        for entry in planner.every("comparison", name):
            pairs = entry["pairs"]
            ratios = ", ".join(f"{ratio:.3f}" for ratio in entry["ratio"]["values"])
            lines.append(
                f"| `{name}` | {ratios} | {numbers([pair['seed'] for pair in pairs])} "
                f"| {both(pairs, 'seconds', '{:,.0f}'.format)} | {both(pairs, 'test_accuracy', percent)} "
                f"| {both(pairs, 'cold_seconds', '{:,.0f}'.format)} "
                f"| {where(entry)}; {entry['precision']}, {rival_precision(entry)} "
                f"| {entry['date']} | `{commit(entry)}` | `{entry['command']}` | {entry.get('remark', '')} |"
            )
    return "\n".join(lines if len(lines) > 2 else ["Not yet measured."])


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
        f"{deviation:.2f} points ({provenance(entry)}).",
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


def latest(kind: str) -> Entry | None:
    """What was measured last of a kind, if anything."""
    return next((entry for entry in reversed(planner.measured()) if entry["kind"] == kind), None)


def judged(entry: Entry, first: str, second: str) -> str:
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
        f"{judged(entry, 'A', 'B')} ({provenance(entry)})."
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
        f"of them compiled; validation accuracy {percent(ours)}, the original's {percent(original)}; "
        f"{provenance(entry)})."
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
        f"({provenance(entry)})."
    )
    return "\n".join(lines)


def pretrained_sentence() -> str:
    """Where the weights in the package come from, and what they are worth."""
    facts = Classifier.load(PRETRAINED, device="cpu").facts
    return (
        f"`{facts['recipe']}` with seed {facts['seed']}, {percent(facts['test']['accuracy'])} on the "
        f"{facts['test']['images']:,} test images (commit `{facts['commit'][:12]}`)."
    )


def tuning_table() -> str:
    """What a search for better values found, and whether it is better on other images."""
    entry = latest("tuning")
    if entry is None:
        return "What such a search gains: not yet measured."
    earlier = [other for other in planner.measured() if other["kind"] == "tuning" and other is not entry]
    others = [f"Of another search, {search_sentence(other)}" for other in earlier]
    if found_nothing(entry):
        return "\n\n".join([f"What such a search gains: {search_sentence(entry)}", *others])
    lines = [
        f"What such a search gains: {search_sentence(entry)}",
        "",
        "Which settings mattered "
        f"(PED-ANOVA, Watanabe et al. 2023), {entry['states'].get('complete', 0)} trials can only hint at:",
        "",
        "| setting | own | found | weight in telling the best trials from the others |",
        "|---|---|---|---|",
    ]
    own, found, shares = entry["own"]["values"], entry["best"]["values"], entry["importances"]
    for key in sorted(found, key=lambda key: -shares.get(key, 0)):
        share = f"{shares[key]:.0%}" if key in shares else ""
        lines.append(f"| `{key}` | {shown(own[key])} | {shown(found[key])} | {share} |")
    return "\n".join([*lines, *(line for other in others for line in ("", other))])


def found_nothing(entry: Entry) -> bool:
    """Whether none of a search's trials was better than the recipe's own settings."""
    return bool(entry["best"]["number"] == entry["own"]["number"])


def search_sentence(entry: Entry) -> str:
    """What one search found."""
    states = ", ".join(f"{number} {state}" for state, number in sorted(entry["states"].items()))
    trials = f"{entry['trials']} trials of `{entry['recipe']}` on `{entry['search_data']}` ({states})"
    if found_nothing(entry):
        varied = ", ".join(f"`{key}`" for key in entry["best"]["values"])
        return (
            f"{trials} found nothing better than the recipe's own settings, with a validation accuracy of "
            f"{percent(entry['own']['accuracy'])}; varied were {varied} ({provenance(entry)})."
        )
    return (
        f"{trials} found settings with a validation accuracy of {percent(entry['best']['accuracy'])}, where the "
        f"recipe's own have {percent(entry['own']['accuracy'])}. On other images, `{entry['data']}`, and with other "
        f"seeds: {judged(entry, 'own', 'found')} ({provenance(entry)})."
    )


def distillation_sentence() -> str:
    """Whether a network that an ensemble taught is better than the same one untaught."""
    entry = latest("distillation")
    if entry is None:
        return "Whether teaching helps larger networks, too, has not been measured yet."
    alone = entry["network_accuracies"]
    kind = "them" if entry["teacher"] == entry["recipe"] else f"`{entry['teacher']}`"
    return (
        f"`{entry['recipe']}`, taught by {entry['networks']} of {kind}, on `{entry['data']}`: alone, these have a "
        f"validation accuracy of {percent(min(alone))} to {percent(max(alone))}, together "
        f"{percent(entry['teacher_accuracy'])} (on the images that have chosen how much each of them counts); "
        f"{judged(entry, 'untaught', 'taught')} ({provenance(entry)})."
    )


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
        f"On CIFAR-10, the whole audit took {entry['seconds'] / 60:.0f} minutes (n = 1; "
        f"{provenance(entry)}). It named {issues.get('training', 0):,} training and "
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


LADDER = {path.stem: path for path in (Path(__file__).parent / "improving").glob("*.toml")}
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
            f"the other {entry['training_images']:,} ({provenance(entry)}). "
            f"An ensemble is chosen from {entry['members']} networks; its training time is that "
            "of all of them; that of `taught` is the student's alone, after them.",
        ]
    )


def current_steps(entry: Entry) -> set[str]:
    """Names of the steps that were measured with their recipes as they are now."""
    images = entry["training_images"] + entry["validation_images"]
    settings = {
        name: recipes.load(path).for_device(entry["device"]).for_images(images).digest for name, path in LADDER.items()
    }
    return {
        step["name"] for step in entry["steps"] if step["accuracy"] and step["settings"] == settings.get(step["recipe"])
    }


def points(gain: Entry) -> str:
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
