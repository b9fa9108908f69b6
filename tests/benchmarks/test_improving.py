"""The ladder: each step is one strategy more, and what is recorded is what its runs say; the page tells the same."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from docs import measurements

import improving
import series
from improving import ENSEMBLE, LADDER, LAST, OTHERS, PLACE, RECIPES, STEPS, TAUGHT, Bench, Step
from measured import REPOSITORY, Refused
from series import Series
from tests.benchmarks.facts import FACTS
from thirtytwo import Run, environment, planner, train
from thirtytwo import recipe as recipes
from thirtytwo.cli import main as program
from thirtytwo.recipe import Recipe

PAGE = (REPOSITORY / "docs" / "improving.md").read_text(encoding="utf-8")


def recipe_of(name: str) -> Recipe:
    return recipes.load(REPOSITORY / PLACE / f"{name}.toml")


# The steps -----------------------------------------------------------------------------------------------------------


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def changes(before: Recipe, after: Recipe) -> set[str]:
    """Keys in which recipes differ; where a section is of another kind, that stands for all of its keys.

    What may be searched is no difference: it trains nothing.
    """
    one, other = (flat(json.loads(each.model_dump_json(exclude={"search"}))) for each in (before, after))
    found = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} - {"name", "description"}
    kinds = {key.removesuffix("name") for key in found if key.endswith(".name")}
    return {key for key in found if key.endswith(".name") or not key.startswith(tuple(kinds))}


@pytest.mark.parametrize(("before", "after"), list(pairwise(LADDER)), ids=RECIPES[1:])
def test_a_step_differs_from_the_one_before_in_what_it_says_and_nothing_else(before: Step, after: Step) -> None:
    found = changes(recipe_of(before.name), recipe_of(after.name))
    assert found == set(after.changes)
    assert found


def test_every_recipe_of_the_ladder_is_a_step_of_that_name() -> None:
    assert sorted(path.stem for path in (REPOSITORY / PLACE).iterdir()) == sorted(RECIPES)
    assert [recipe_of(name).name for name in RECIPES] == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_validation_images_judge_a_step_and_choose_nothing_in_it(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.validation == 0.5
    assert recipe.early_stopping.patience == 0  # the last weights are kept
    assert recipe.schedule.name != "plateau"
    # As it is measured, so it stands there.
    assert recipe.replace("search={}") == recipe.for_images(5000).replace("search={}") == recipe.for_device("cuda")


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_trains(name: str) -> None:
    recipe = recipe_of(name).replace("epochs=1")
    if recipe.model.name == "speed":
        recipe = recipe.replace("model.kernels=torch")  # nothing to compile
    training = train(recipe, "shapes:training=60,test=20")
    training.finish()
    assert len(training.history) == 1


def test_steps_stand_on_others() -> None:
    assert improving.wanted(["schedule", "plain"]) == ["plain", "schedule"]
    assert improving.wanted([TAUGHT]) == [LAST, ENSEMBLE, TAUGHT]
    assert improving.wanted(STEPS) == list(STEPS)
    with pytest.raises(Refused, match="no step magic"):
        improving.wanted(["plain", "magic"])


# What is recorded ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a series in which nothing has run yet."""
    facts = {key: FACTS[key] for key in ("commit", "machine", "device", "device_name", "threads", "versions")}
    made = series.begin(
        Series(**facts, sources=FACTS["commit"], recipe="0" * 16, data=FACTS["data"]["fingerprint"], rival=""), tmp_path
    )
    series.write(made / "series.json", {**series.read(made / "series.json"), "set": []})
    series.note(made, "python benchmarks/improving.py")
    return made


def ended(root: Path, recipe: str, seed: int, accuracy: float, **more: Any) -> Run:
    run = Run.create(root / f"{recipe}-0123456789" / str(seed), recipe_of(recipe), {**FACTS, "seed": seed, **more})
    run.result = {
        "data": "cifar10-5000",
        "images": 5000,
        "train_seconds": 40.0,
        "validation": {"images": 2500, "accuracy": accuracy},
    }
    return run


def begun(root: Path, recipe: str, seed: int) -> None:
    Run.create(root / f"{recipe}-0123456789" / str(seed), recipe_of(recipe), {**FACTS, "seed": seed})


def answer(folder: Path, seed: int, accuracy: float, best: float) -> Path:
    place = folder / ENSEMBLE / str(seed)
    place.mkdir(parents=True)
    series.write(place / "result.json", {"gain": {"accuracy": accuracy, "best_accuracy": best}})
    return place


def steps_of(folder: Path) -> dict[str, dict[str, Any]]:
    entry = improving.entry(folder)
    assert entry is not None
    assert [step["name"] for step in entry["steps"]] == list(STEPS)
    return {step["name"]: step for step in entry["steps"]}


def test_a_gain_is_the_mean_of_differences_seed_by_seed_with_the_interval_of_student(folder: Path) -> None:
    assert improving.entry(folder) is None
    for seed, (plain, schedule) in enumerate([(0.50, 0.53), (0.52, 0.56), (0.48, 0.50)]):
        ended(folder / "plain", "plain", seed, plain)
        ended(folder / "schedule", "schedule", seed, schedule)
    ended(folder / "plain", "plain", 3, 0.9)  # without a partner
    begun(folder / "schedule", "schedule", 4)
    found = steps_of(folder)
    assert found["plain"]["gain"] is None
    assert found["plain"]["accuracy"]["mean"] == pytest.approx(0.6)
    step = found["schedule"]
    assert (step["against"], step["pairs"], step["unfinished_seeds"]) == ("plain", [0, 1, 2], [4])
    assert step["gain"]["values"] == pytest.approx([0.03, 0.04, 0.02])
    # t with two degrees of freedom is 4.302653 at 97.5%; the standard deviation is 0.01.
    half = 4.302653 * 0.01 / 3**0.5
    assert step["gain"]["interval"] == pytest.approx([0.03 - half, 0.03 + half])
    assert "+3.00 points against plain (95% interval +0.52 to +5.48, n = 3)" in improving.told(step)
    alike = step | {"gain": step["gain"] | {"interval": None}}
    assert improving.told(alike).endswith("+3.00 points against plain, n = 3")
    assert measurements.points(alike["gain"]) == "**+3.00** (all pairs alike)"
    assert all(found[name]["accuracy"] is None for name in STEPS[2:])
    assert improving.told(found[LAST]) == f"{LAST}: nothing yet"


def test_an_ensemble_is_compared_with_its_best_member_and_a_pupil_with_one_untaught(folder: Path) -> None:
    for seed in (0, 1):
        ended(folder / LAST, LAST, seed, 0.70 + 0.01 * seed)
        for other in improving.seeds_of_others(seed):
            ended(folder / OTHERS, LAST, other, 0.5)
        place = answer(folder, seed, 0.74 + 0.02 * seed, 0.72)
        ended(place / "distilled", LAST, seed, 0.71 + 0.03 * seed)
    found = steps_of(folder)
    assert found[LAST]["accuracy"]["n"] == 2  # the other members are of the ensemble only
    assert found[ENSEMBLE]["gain"]["values"] == pytest.approx([0.02, 0.04])
    assert found[ENSEMBLE]["accuracy"]["values"] == [0.74, 0.76]
    assert found[ENSEMBLE]["train_seconds"]["mean"] == 40.0 * improving.MEMBERS
    assert found[TAUGHT]["against"] == LAST
    assert found[TAUGHT]["gain"]["values"] == pytest.approx([0.01, 0.03])
    assert found[LAST]["settings"] == found[ENSEMBLE]["settings"] == found[TAUGHT]["settings"] == recipe_of(LAST).digest


def test_seeds_of_members_never_meet() -> None:
    seeds = [seed for first in range(50) for seed in (first, *improving.seeds_of_others(first))]
    assert len(set(seeds)) == len(seeds) == 50 * improving.MEMBERS


def test_what_is_recorded_takes_the_place_of_what_was_recorded_before(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    assert improving.record(folder, path) is None
    for seed in (0, 1):
        ended(folder / "plain", "plain", seed, 0.5)
        improving.record(folder, path)
    (entry,) = json.loads(path.read_text(encoding="utf-8"))
    assert (entry["kind"], entry["n"], entry["data"], entry["set"]) == ("improvement", 2, "cifar10-5000", [])
    assert (entry["training_images"], entry["validation_images"]) == (2500, 2500)
    assert entry["command"] == "python benchmarks/improving.py"


@pytest.mark.parametrize("name", ["plain", "schedule"])
def test_runs_of_other_conditions_are_not_mixed(folder: Path, name: str) -> None:
    ended(folder / "plain", "plain", 0, 0.5)
    ended(folder / name, name, 1, 0.5, threads=4)
    with pytest.raises(Refused, match="threads"):
        improving.entry(folder)


@pytest.mark.slow
def test_what_has_been_done_is_found_again_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real trainings, from this checkout as it is."""
    monkeypatch.setattr(series, "WORK", tmp_path / "work")
    spec, commit = "shapes:training=40,test=20", environment.commit()
    assert commit is not None

    def begin(*overrides: str) -> Path:
        arguments = argparse.Namespace(overrides=list(overrides), device="cpu")
        return improving.begin(REPOSITORY, arguments, spec, commit, lock)

    with series.alone() as lock:
        folder = begin("epochs=1")
        assert begin("epochs=1") == folder != begin("epochs=2")
        bench = Bench(folder, REPOSITORY, spec, "cpu", ("epochs=1",), lock)
        for name in ("plain", "schedule"):
            bench.step(name, 3)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert improving.trained(folder / "schedule")[0].keys() == {3}
        bench.step("schedule", 3)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    found = improving.record(folder, tmp_path / "measured.json")
    assert found is not None
    assert found["set"] == ["epochs=1"]
    assert [step["seeds"] for step in found["steps"][:3]] == [[3], [3], []]


# The page ------------------------------------------------------------------------------------------------------------


def section(name: str) -> str:
    found = re.search(rf"^## {name.capitalize()}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, name
    return found[1]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^    (thirtytwo .*)$", text, re.MULTILINE)]


def test_the_page_has_a_section_for_each_step_in_their_order() -> None:
    titles = [title.lower() for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)]
    assert titles[: len(STEPS)] == list(STEPS)


@pytest.mark.parametrize(("before", "after"), list(pairwise(LADDER)), ids=RECIPES[1:])
def test_a_section_shows_what_changes_and_how_to_try_it(before: Step, after: Step) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", section(after.name), re.DOTALL | re.MULTILINE)
    shown, recipe = flat(tomllib.loads(block)), flat(json.loads(recipe_of(after.name).model_dump_json()))
    assert shown == {key: recipe[key] for key in shown}
    # Whoever puts these lines into the recipe before gets this one.
    words = [f"{key}={json.dumps(value)}" for key, value in shown.items()]
    assert not changes(recipe_of(before.name).replace(*words), recipe_of(after.name))
    paths = [str(PLACE / f"{name}.toml") for name in (before.name, after.name)]
    options = ["--data", improving.DATA, "--runs", str(improving.RUNS), "--all"]
    assert commands(section(after.name)) == [["thirtytwo", "compare", *paths, *options]]


def test_the_commands_of_the_page_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first two of them, on less, from a checkout."""
    Path("docs").symlink_to(REPOSITORY / "docs")
    for name in ("plain", "schedule"):
        (words,) = commands(section(name))
        words[words.index(improving.DATA)] = "shapes:training=40,test=20"
        words[words.index("--runs") + 1] = "1"
        monkeypatch.setattr("sys.argv", [*words, "--set", "epochs=1", "--json"])
        try:
            program()
        except SystemExit as leaving:
            assert not leaving.code
        assert json.loads(capsys.readouterr().out)["n"] == 1
    assert len(list(Path("runs/study").glob("*/0/result.json"))) == 2  # the second one has found the first one's


def test_the_ensemble_of_the_page_finds_the_networks_of_the_step_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On less, from a checkout, with a recipe that trains as long as it takes to load it."""
    Path("docs").symlink_to(REPOSITORY / "docs")
    recipe = f"{PLACE / LAST}.toml"
    small = "epochs=1 model.kernels=torch model.widths=[16,16,16]"

    def call(*words: str) -> Any:
        less = [word.replace(improving.DATA, "shapes:training=60,test=20") for word in words]
        less = [f"{word} {small}" if word.startswith(recipe) else word for word in less]
        monkeypatch.setattr("sys.argv", [*less, "--json"])
        try:
            program()
        except SystemExit as leaving:
            assert not leaving.code
        return json.loads(capsys.readouterr().out)

    study = call("thirtytwo", "repeat", recipe, "--data", improving.DATA, "--runs", str(improving.MEMBERS))
    (words,) = commands(section(ENSEMBLE))
    found = call(*words)
    assert [member["name"] for member in found["members"]] == [f"{study['runs']}/{seed}" for seed in study["seeds"]]
    assert len(list(Path("runs/study").iterdir())) == 1
    taught, compared = commands(section(TAUGHT))
    assert taught == [*words, "--distil", recipe]
    assert call(*taught)["distilled"]["recipe"] == LAST
    compared[compared.index("--runs") + 1] = "1"
    judged = call(*compared)
    assert judged["seeds"] == [improving.MEMBERS]  # none that the ensemble's networks have
    assert Run.open(Path(judged["b"]["runs"]) / str(improving.MEMBERS)).recipe.teacher.model.endswith("runs/three")


def test_a_gain_comes_with_its_interval_machine_and_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measured", lambda: ())
    assert measurements.improving_table() == "Not yet measured."
    for seed, accuracy in enumerate((0.50, 0.52, 0.48)):
        ended(folder / "plain", "plain", seed, accuracy)
        ended(folder / "schedule", "schedule", seed, accuracy + 0.01 * (1 + seed))
    entry = improving.entry(folder)
    assert entry is not None
    monkeypatch.setattr(planner, "measured", lambda: (entry,))
    rows = measurements.improving_table().splitlines()
    assert rows[2] == "| [plain](#plain) | 50.00% ± 2.00% | 3 |  |  | 40 s |"
    assert rows[3] == "| [schedule](#schedule) | 52.00% ± 1.73% | 3 | **+2.00** (-0.48 to +4.48) | plain | 40 s |"
    assert rows[4] == "| [augmentation](#augmentation) | not yet measured | | | | |"
    assert f"one; commit `{'1' * 12}`; `python benchmarks/improving.py`" in rows[-1]
    assert len(rows) == 2 + len(STEPS) + 2


def test_a_step_that_was_measured_with_other_settings_or_on_other_data_is_not_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plain", "schedule", "augmentation"):
        ended(folder / name, name, 0, 0.5)
    entry = improving.entry(folder)
    assert entry is not None
    other = json.loads(json.dumps(entry))
    other["steps"][1]["settings"] = "0" * 16
    monkeypatch.setattr(planner, "measured", lambda: (other,))
    rows = measurements.improving_table().splitlines()
    assert "not yet measured" in rows[3]
    assert rows[4].startswith("| [augmentation](#augmentation) | 50.00% | 1 |  |  |")  # nothing to compare it with
    monkeypatch.setattr(planner, "measured", lambda: (entry, other))
    assert "+0.00** (one pair) | plain |" in measurements.improving_table()  # the more complete one
    for wrong in ({"data": "shapes"}, {"set": ["epochs=1"]}):
        entries = ({**entry, **wrong},)
        monkeypatch.setattr(planner, "measured", lambda entries=entries: entries)
        assert measurements.improving_table() == "Not yet measured."


def test_the_page_says_how_many_images_and_seeds_there_are() -> None:
    assert f"--data {improving.DATA}" in PAGE
    assert "250 of each class" in PAGE
    assert "the same five seeds" in PAGE
    assert improving.RUNS == 5
    assert "Three networks" in section(ENSEMBLE)
    assert improving.MEMBERS == 3
