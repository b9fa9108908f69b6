"""What each strategy gains, on the way from a plain network to several that answer as one.

    python benchmarks/improving.py [--data SPEC] [--runs N] [--first-seed S] [--steps NAME,…] [--set KEY=VALUE]

The ladder is that of docs/improving.md. A step is a recipe, docs/improving/NAME.toml, that differs from the one before
by one strategy, and all of them are trained with the same seeds. Two steps stand on the last recipe: `ensemble`, in
which several networks of it answer as one, and `taught`, in which one network of it imitates them.

The gain of a step is the mean of differences, seed by seed, in validation accuracy, with its 95% interval (Student's
t). How many seeds there are is decided beforehand. They are differences to the step before; those of an ensemble are to
the best of its members, where either half of the validation images chooses both and the other half judges them; those
of a network that was taught are to the same recipe untaught. No validation image chooses anything else: recipes keep
their last weights. The test set is not opened.

Half of the images are held out, far more than a training for its own sake would, so that a difference of a point is 25
images; and few are left to learn from, as in a folder of one's own, so that a training takes a minute and strategies
against learning by heart have something to do.

What is run is a clone of the commit; see series.py. Trainings are those of `thirtytwo repeat` and `thirtytwo ensemble`,
each in a process of its own, kept in benchmarks/.work as soon as it ends. The same command goes on where it was
stopped. Results go to measured.json as an entry of kind `improvement`, after each training anew. With --set, for a
trial of the benchmark itself, all recipes are changed alike; it is another series, which no page quotes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured
import runs
import series
from measured import Refused
from runs import Runs
from thirtytwo import Run, find, open_training
from thirtytwo import recipe as recipes

DATA = "cifar10:training=5000"
RUNS = 5
MEMBERS = 3
"""Networks that an ensemble is chosen from."""
APART = 1000
"""Between the seeds of an ensemble's members; the first one is the seed's own network."""
PLACE = Path("docs") / "improving"
"""Folder of the recipes in a checkout."""


@dataclass(frozen=True)
class Step:
    """A recipe of the ladder."""

    name: str
    """Of the recipe, of its file, and of its section in docs/improving.md."""
    changes: tuple[str, ...] = ()
    """Keys in which it differs from the step before; the name of a section's kind stands for the whole section."""


LADDER = (
    Step("plain"),
    Step("schedule", ("schedule.name", "optimizer.learning_rate")),
    Step("augmentation", ("augmentation.horizontal_flip", "augmentation.translate_pixels")),
    Step("regularisation", ("model.dropout", "optimizer.weight_decay", "loss.label_smoothing")),
    Step("network", ("model.name",)),
    Step("optimiser", ("optimizer.name", "loss.reduction")),
    Step("longer", ("epochs",)),
    Step("richer", ("augmentation.cutout_pixels",)),
    Step("averaging", ("averaging.epochs",)),
    Step("views", ("views.mirror",)),
)
RECIPES = tuple(step.name for step in LADDER)
LAST = RECIPES[-1]
ENSEMBLE, TAUGHT = "ensemble", "taught"
STEPS = (*RECIPES, ENSEMBLE, TAUGHT)
"""Names of all steps, in their order."""
OTHERS = "members"
"""Folder of an ensemble's other members."""


# What there is -------------------------------------------------------------------------------------------------------


def trained(root: Path) -> tuple[dict[int, Run], list[int]]:
    """The runs in a folder of trials: those that ended, by seed, and the seeds of those that began and did not."""
    folders = runs.by_seed(path.parent for path in root.glob("*/*/environment.json"))
    begun = {seed: Run(path) for seed, path in folders.items()}
    ended = {seed: run for seed, run in begun.items() if "validation" in run.result}
    return ended, sorted(begun.keys() - ended.keys())


def answered(folder: Path) -> dict[int, dict[str, Any]]:
    """What `thirtytwo ensemble` has told of each seed's ensemble."""
    folders = runs.by_seed(path.parent for path in (folder / ENSEMBLE).glob("*/result.json"))
    return {seed: series.read(path / "result.json") for seed, path in folders.items()}


def members(folder: Path, seed: int) -> list[Run]:
    """The networks of a seed's ensemble; all of them have been trained."""
    others = trained(folder / OTHERS)[0]
    return [trained(folder / LAST)[0][seed], *(others[other] for other in seeds_of_others(seed))]


def seeds_of_others(seed: int) -> list[int]:
    """Of those members of a seed's ensemble that are trained for it."""
    return [seed + APART * number for number in range(1, MEMBERS)]


def taught(folder: Path) -> tuple[dict[int, Run], list[int]]:
    """The runs of networks that an ensemble taught; see `trained`."""
    ended: dict[int, Run] = {}
    unfinished: list[int] = []
    for place in (folder / ENSEMBLE).glob("*/distilled"):
        some, others = trained(place)
        ended |= some
        unfinished += others
    return dict(sorted(ended.items())), sorted(unfinished)


# What it comes to ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What there is of a step, by seed."""

    name: str
    recipe: str
    """Whose networks these are."""
    against: str | None
    """What it is compared with; None is nothing."""
    accuracies: Mapping[int, float]
    """On the validation images."""
    rivals: Mapping[int, float]
    """Those of what it is compared with; a seed that only one of them has makes no pair."""
    seconds: Mapping[int, float]
    """Of training."""
    settings: str | None
    """Digest of the recipe, as it was trained untaught; None while nothing was."""
    unfinished: Sequence[int] = ()
    """Seeds that began and did not end."""

    def to_json(self) -> dict[str, Any]:
        """As the entry has it."""
        pairs = [seed for seed in self.accuracies if seed in self.rivals]
        gains = [self.accuracies[seed] - self.rivals[seed] for seed in pairs]
        return {
            "name": self.name,
            "recipe": self.recipe,
            "settings": self.settings,
            "against": self.against,
            "accuracy": measured.spread(list(self.accuracies.values())) if self.accuracies else None,
            "gain": measured.spread(gains) if gains else None,
            "train_seconds": measured.spread(list(self.seconds.values())) if self.seconds else None,
            "seeds": list(self.accuracies),
            "pairs": pairs,
            "unfinished_seeds": list(self.unfinished),
        }


def accuracies(ended: Mapping[int, Run]) -> dict[int, float]:
    """Validation accuracies, by seed."""
    return {seed: float(run.result["validation"]["accuracy"]) for seed, run in ended.items()}


def seconds(ended: Mapping[int, Run]) -> dict[int, float]:
    """Seconds of training, by seed."""
    return {seed: float(run.result["train_seconds"]) for seed, run in ended.items()}


def entry(folder: Path) -> dict[str, Any] | None:
    """The entry of kind ``improvement``; None while there is nothing.

    Raises:
        Refused: the runs were made under different conditions, or others than the series's.
    """
    steps: list[Found] = []
    everything: list[Run] = []
    before: dict[int, Run] = {}
    for name in RECIPES:
        ended, unfinished = trained(folder / name)
        settings = next(iter(ended.values())).recipe.digest if ended else None
        rival = steps[-1].name if steps else None
        values, others = accuracies(ended), accuracies(before)
        steps.append(Found(name, name, rival, values, others, seconds(ended), settings, unfinished))
        if ended:
            measured.alike(list(ended.values()))
            everything += ended.values()
        before = ended
    if not everything:
        return None
    gains = {seed: said["gain"] for seed, said in answered(folder).items() if said.get("gain")}
    values, rivals = ({seed: gain[key] for seed, gain in gains.items()} for key in ("accuracy", "best_accuracy"))
    work = {seed: sum(float(run.result["train_seconds"]) for run in members(folder, seed)) for seed in gains}
    steps.append(Found(ENSEMBLE, LAST, "the best member", values, rivals, work, steps[-1].settings))
    ended, unfinished = taught(folder)
    values, rivals = accuracies(ended), accuracies(before)
    steps.append(Found(TAUGHT, LAST, LAST, values, rivals, seconds(ended), steps[-1].settings, unfinished))
    everything += [*trained(folder / OTHERS)[0].values(), *ended.values()]
    measured.alike(everything, but=("recipe",))
    facts, result = series.read(folder / "series.json"), everything[0].result
    shared = Runs(RECIPES[0], {0: everything[0]}, []).shared(facts)
    held_out = result["validation"]["images"]
    return {
        "kind": "improvement",
        **{key: value for key, value in shared.items() if key != "settings"},
        "date": max(str(run.environment["date"]) for run in everything)[:10],
        "n": max(len(step.accuracies) for step in steps),
        "training_images": result["images"] - held_out,
        "validation_images": held_out,
        "members": MEMBERS,
        "set": facts["set"],
        "steps": [step.to_json() for step in steps],
    }


def record(folder: Path, path: Path = measured.PATH) -> dict[str, Any] | None:
    """Put what has been shown so far into measured.json; returns the entry."""
    if found := entry(folder):
        measured.add(found, path)
    return found


def told(step: Mapping[str, Any]) -> str:
    """One line about a step."""
    if step["accuracy"] is None:
        return f"{step['name']}: nothing yet"
    text = f"{step['name']}: validation accuracy {step['accuracy']['mean']:.2%}, n = {step['accuracy']['n']}"
    if (gain := step["gain"]) is None:
        return text
    text += f"; {100 * gain['mean']:+.2f} points against {step['against']}"
    if gain["interval"] is None:
        return f"{text}, n = {gain['n']}"
    low, high = gain["interval"]
    return f"{text} (95% interval {100 * low:+.2f} to {100 * high:+.2f}, n = {gain['n']})"


# What is done --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where and with what a series is trained."""

    folder: Path
    """Of the series."""
    sources: Path
    """The checkout whose thirtytwo trains."""
    spec: str
    """Of the data."""
    device: str
    overrides: tuple[str, ...]
    """Of all recipes."""
    lock: int
    """See `series.alone`."""

    def step(self, name: str, seed: int) -> None:
        """Do a step with a seed, if it has not been done."""
        if name in RECIPES:
            self._train(name, self.folder / name, seed)
        elif name == ENSEMBLE:
            for other in seeds_of_others(seed):
                self._train(LAST, self.folder / OTHERS, other)
            self._ask(seed)
        elif seed not in taught(self.folder)[0]:
            words = shlex.join([str(self._recipe(LAST)), *self.overrides])
            self._ensemble(seed, "--distil", words, "--seed", str(seed))

    def _train(self, name: str, root: Path, seed: int) -> None:
        if seed in trained(root)[0]:
            return
        changes = [word for override in self.overrides for word in ("--set", override)]
        words = [str(self._recipe(name)), *changes, "--runs", "1", "--first-seed", str(seed), "--data", self.spec]
        self._call("repeat", *words, "--out", str(root))

    def _ask(self, seed: int) -> None:
        """Let a seed's networks answer together, and have them judged."""
        place = self.folder / ENSEMBLE / str(seed)
        if not (place / "result.json").exists():
            shutil.rmtree(place, ignore_errors=True)  # killed before it had told anything
            self._ensemble(seed)
        if series.read(place / "result.json").get("gain") is None:
            raise Refused(
                f"{place / 'result.json'}: does not say what the ensemble gains on images by which it was not chosen; "
                "expected a `thirtytwo ensemble` that does, and two validation images of a class; leave the step out "
                "with --steps, or measure a commit that can"
            )

    def _ensemble(self, seed: int, *words: str) -> None:
        place = self.folder / ENSEMBLE / str(seed)
        place.parent.mkdir(exist_ok=True)
        networks = [str(run.path) for run in members(self.folder, seed)]
        self._call("ensemble", *networks, "--data", self.spec, "--out", str(place), *words)

    def _recipe(self, name: str) -> Path:
        return self.sources / PLACE / f"{name}.toml"

    def _call(self, *words: str) -> None:
        series.thirtytwo([*words, "--device", self.device], self.sources, self.lock)


def wanted(steps: Sequence[str]) -> list[str]:
    """These steps and those that they stand on, in their order.

    Raises:
        Refused: there is no such step.
    """
    if missing := [name for name in steps if name not in STEPS]:
        raise Refused(f"--steps: no step {', '.join(missing)}; expected some of {','.join(STEPS)}")
    chosen = set(steps)
    chosen |= {ENSEMBLE} if TAUGHT in chosen else set()
    chosen |= {LAST} if ENSEMBLE in chosen else set()
    return [name for name in STEPS if name in chosen]


def begin(sources: Path, arguments: argparse.Namespace, spec: str, commit: str, lock: int) -> Path:
    """The folder of the series."""
    ladder = [recipes.load(sources / PLACE / f"{name}.toml", arguments.overrides) for name in RECIPES]
    images, device = open_training(spec), arguments.device
    which = series.identify(commit, sources, settings=ladder, images=images, device=device, rival="", lock=lock)
    folder = series.begin(which, series.WORK)
    series.write(folder / "series.json", {**series.read(folder / "series.json"), "set": arguments.overrides})
    return folder


def measure(arguments: argparse.Namespace, lock: int) -> int:
    """Do what is missing and record it; returns the exit status."""
    steps = wanted(arguments.steps.split(","))
    commit = series.commit_to_measure(False, arguments.commit)
    sources = series.clone(commit, lock)
    source = find(arguments.data)
    folder = begin(sources, arguments, source.spec, commit, lock)
    series.note(folder, runs.typed("improving.py", sys.argv[1:], arguments.data, source.spec, source.name))
    bench = Bench(folder, sources, source.spec, arguments.device, tuple(arguments.overrides), lock)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.runs):
        for name in steps:
            print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
            bench.step(name, seed)
            record(folder)
    found = record(folder)
    assert found is not None
    for step in found["steps"]:
        print(told(step), file=sys.stderr)
    print(json.dumps({key: found[key] for key in ("series", "data", "validation_images", "steps")}))
    return 0


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=DATA, metavar="SPEC", help=f"default: {DATA}")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S")
    parser.add_argument("--steps", default=",".join(STEPS), metavar="NAME,…", help="default: all")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="changes every recipe"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    series.add_commit(parser)
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.first_seed < 0:
        parser.error("expected at least one run, and seeds from 0 on")
    if arguments.first_seed + arguments.runs > APART:
        parser.error(f"expected seeds below {APART}, since those from there on are of ensembles' members")
    return series.command(lambda lock: measure(arguments, lock))


if __name__ == "__main__":
    sys.exit(main())
