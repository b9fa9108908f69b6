"""Everything that the documentation says to type is typed here."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import nbformat
import numpy as np
import pytest
from docs import augmentations, measurements, notebooks
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from thirtytwo import planner
from thirtytwo import recipe as recipes
from thirtytwo.cli.study_commands import compare_command
from thirtytwo.run import Run
from thirtytwo.settings import Augmentation
from thirtytwo.study import Comparison, Pair, Trial

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(path), re.DOTALL | re.MULTILINE)


def python_blocks(*, name_cifar10: bool) -> list[Any]:
    found = [(path, code) for path in ("README.md", "docs/guide.md") for code in blocks(path, "python")]
    chosen = [(path, code) for path, code in found if ('"cifar10"' in code) is name_cifar10]
    return [pytest.param(code, id=f"{path}-{number}") for number, (path, code) in enumerate(chosen)]


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody who has just installed the package, and small data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_DATA", "shapes:training=200,test=50")
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    return tmp_path


# What is typed -------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_readme_work_in_their_order(newcomer: Path) -> None:
    lines = [line.partition("#")[0].strip() for block in blocks("README.md", "sh") for line in block.splitlines()]
    # The first one puts on the PATH what `make` has installed; Python finds the same program by its name.
    assert lines.pop(0) == ". .venv/bin/activate"
    assert "VENV := .venv\n" in text_of("Makefile")
    assert PROJECT["project"]["scripts"] == {"thirtytwo": "thirtytwo.cli:main"}
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "thirtytwo"
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", python_blocks(name_cifar10=False))
def test_the_python_of_the_documentation_runs_as_it_is_printed(newcomer: Path, code: str) -> None:
    run_python(code)


@pytest.mark.parametrize("code", python_blocks(name_cifar10=True))
def test_the_python_that_names_cifar10_runs_where_cifar10_is(
    cifar10: Path, newcomer: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("THIRTYTWO_DATA", str(cifar10))
    run_python(code)


# make ----------------------------------------------------------------------------------------------------------------


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, also where the tests themselves were started by make."""
    variables = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *words], cwd=ROOT, env=variables, capture_output=True, text=True)


def script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("path", "does"),
    [
        ("README.md", {"train": ["thirtytwo train"], "test": ["mypy", "-m pytest"]}),
        (
            "CONTRIBUTING.md",
            {
                "check": ["ruff check", "ruff format", "mypy", "lint-imports"],
                "test": ["ruff check", "ruff format", "mypy", "lint-imports", "-m pytest"],
                "docs": ["-m docs.generate"],
                "bench": ["benchmarks/classic_vs_keras.py"],
            },
        ),
    ],
)
def test_the_make_targets_of_the_documentation_do_what_it_says(path: str, does: dict[str, list[str]]) -> None:
    assert re.findall(r"^    make (\w+)", text_of(path), re.MULTILINE) == list(does)
    for target, commands in does.items():
        done = make("--dry-run", target)
        assert done.returncode == 0, done.stderr
        assert all(command in done.stdout for command in commands), done.stdout
        assert all((ROOT / file).is_file() for file in re.findall(r"\S+/\S+\.py\b", " ".join(commands)))


def test_too_old_a_python_is_told_before_anything_is_made(tmp_path: Path) -> None:
    old = script(tmp_path / "python", 'test "$1" = --version && echo Python 3.9.2')
    done = make("train", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert "found Python 3.9.2; expected Python 3.11 or newer; name one: make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("python", "works"),
    [
        ("echo pip 26.1", True),
        ('case "$*" in *pip*) exit 1;; esac', False),  # without pip
        ('case "$*" in *version_info*) exit 1;; *) echo pip 26.1;; esac', False),  # too old
    ],
)
def test_an_environment_is_made_anew_if_and_only_if_it_does_not_work(tmp_path: Path, python: str, works: bool) -> None:
    script(tmp_path / "bin" / "python", python)
    (tmp_path / "core").touch()  # everything was installed once
    done = make("--dry-run", "train", f"PYTHON={sys.executable}", f"VENV={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert ("-m venv --clear" in done.stdout) is not works
    assert ("-m pip install" in done.stdout) is not works


# What is written -----------------------------------------------------------------------------------------------------


def test_every_training_that_the_guide_names_is_a_recipe() -> None:
    lines = re.findall(r"^    thirtytwo train ([a-z].*?)(?: +#.*)?$", text_of("docs/guide.md"), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        name, *words = shlex.split(line)
        recipes.load(name, [value for option, value in pairwise(words) if option == "--set"])


def test_generated_documentation_is_up_to_date() -> None:
    words = [sys.executable, "-m", "docs.generate", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compare_trains_as_many_pairs_as_its_simulation_was_made_with_and_the_documentation_says() -> None:
    pairs = inspect.signature(compare_command).parameters["runs"].default
    assert f"at the latest after {pairs} pairs (`--runs`)" in text_of("docs/honesty.md")
    simulated = measurements.latest("simulation")
    assert simulated is not None
    assert simulated["pairs"] == pairs


def measured(kind: str, **more: Any) -> dict[str, Any]:
    """An entry of measured.json with made-up numbers."""
    return {
        "kind": kind,
        "recipe": "classic",
        "settings": recipes.load("classic").for_images(50_000).digest,
        "n": 3,
        "data": "cifar10",
        "device": "cpu",
        "device_name": "a processor",
        "machine": "a machine",
        "precision": "float32",
        "commit": "0123456789abcdef+",
        "command": "a command",
        "versions": {"torch": "2.13.0"},
        "date": "2026-11-23",
        **more,
    }


SPREAD = {"n": 3, "mean": 0.5, "standard_deviation": 0.1, "interval": [0.25, 0.75], "values": [0.4, 0.5, 0.6]}
TRAINED = {
    "accuracy": SPREAD,
    "train_seconds": SPREAD,
    "parameters": 5,
    "flops": 1e12,
    "seeds": [4, 5, 6],
    "unfinished_seeds": [],
}


@pytest.mark.parametrize(
    "race",
    [
        measured("race", ratio=SPREAD, pairs=[{"keras": {"epochs": 14, "best_epoch": 9}}]),
        measured("race", ratio=None, lost_seeds=[1]),
    ],
    ids=["won", "lost"],
)
def test_a_measured_number_comes_with_its_n_machine_and_commit(
    monkeypatch: pytest.MonkeyPatch, race: dict[str, Any]
) -> None:
    monkeypatch.setattr(planner, "measured", lambda: (measured("training", **TRAINED), race))
    assert re.search(r"\| 50\.00% ± 10\.00% \| 3 \|.* a machine \|$", measurements.recipe_table(), re.MULTILINE)
    row = r"\| 50\.00% ± 10\.00% \| 3 \| 4, 5, 6 \|.* a machine \| 2026-11-23 \| `0123456789ab\+` \| `a command` \|"
    assert re.search(row, measurements.trainings_table())
    for text in (measurements.race_sentence(), measurements.recipe_header("classic")):
        assert re.search(r"n = 3\b.*a machine.*commit `?0123456789ab\+", text, re.DOTALL)
    assert ("lost" in measurements.race_sentence()) is (race["ratio"] is None)
    assert ("its best were 9 of 14." in measurements.race_sentence()) is (race["ratio"] is not None)


def test_series_of_the_same_recipe_and_kind_of_device_are_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**SPREAD, "n": 1, "values": [0.9]}
    series = (
        measured("training", **TRAINED),
        measured("training", **{**TRAINED, "accuracy": more}, n=1, machine="another", commit="fedcba9876543210"),
        measured("training", **{**TRAINED, "accuracy": more}, device="cuda", device_name="a card"),
    )
    monkeypatch.setattr(planner, "measured", lambda: series)
    both, card = (row for row in measurements.recipe_table().splitlines() if row.startswith("| `classic` |"))
    assert both.startswith("| `classic` | CPU | 60.00% ± 21.60% | 4 | 0.5 s ± 0.1 s (n = 3) |")
    assert both.endswith("| a machine |")  # where most of them were timed
    assert card.startswith("| `classic` | GPU | 90.00% | 1 |")
    assert len([row for row in measurements.trainings_table().splitlines() if row.startswith("| `classic` |")]) == 3
    half = measured("training", **TRAINED, precision="bfloat16", ece=SPREAD)
    monkeypatch.setattr(planner, "measured", lambda: (*series[:1], half))
    (both,) = (row for row in measurements.recipe_table().splitlines() if row.startswith("| `classic` |"))
    # Times are not pooled, where they differ for a reason.
    assert "| 6 | 0.5 s ± 0.1 s (n = 3) |" in both
    assert both.endswith("| a machine, in bfloat16 |")  # of equally many, the newest
    assert "| 0.500 |" in measurements.trainings_table()


def test_a_learning_curve_is_that_of_what_validates(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = {"seed": 4, "seconds": [5.0, 10.0, 15.0, 20.0], "validation_accuracy": [0.1, 0.2, 0.3, 0.4]}
    entries = [
        measured("training", **TRAINED, curve=curve),
        measured("training", **TRAINED, curve=curve | {"validation_accuracy": [None] * 4}, device="cuda"),
    ]
    monkeypatch.setattr(planner, "measured", lambda: entries)
    (row,) = measurements.curves_table().splitlines()[2:]
    assert row == (
        "| `classic`, 4 epochs | CPU | 4 | 10.00% (5.0 s) | 10.00% (5.0 s) | 10.00% (5.0 s) | 20.00% (10.0 s) "
        "| 30.00% (15.0 s) | 40.00% (20.0 s) | 40.00% (20.0 s) |"
    )


def test_what_happened_beside_a_measurement_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"remark": "tests ran beside", "unfinished_seeds": [7, 8]}
    monkeypatch.setattr(planner, "measured", lambda: (measured("training", **TRAINED | more),))
    assert measurements.trainings_table().endswith("| tests ran beside; did not end: 7, 8 |")


def test_a_ratio_comes_with_its_pairs_device_machine_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("seconds", "rival_seconds", "test_accuracy", "rival_test_accuracy", "cold_seconds", "rival_cold_seconds")
    values = [(10 * n, 20 * n, 0.94, 0.93, 30 * n, 40 * n) for n in (1, 2, 3)]
    pairs = [{"seed": 7, **dict(zip(keys, value, strict=True))} for value in values]
    entry = measured("comparison", ratio=SPREAD, pairs=pairs, device="cuda", device_name="a card") | {
        "recipe": "fast94",
        "settings": recipes.load("fast94").for_device("cuda").for_images(50_000).digest,
    }
    monkeypatch.setattr(planner, "measured", lambda: (entry,))
    rows = measurements.speed_table().splitlines()
    assert rows[-1].startswith("Not yet raced: `fast94` on a CPU, `fast95` on a CPU, `fast95` on a GPU, ")
    assert rows[2].startswith(
        "| `fast94` | GPU, in float32, rival in float32 | **0.50** (0.40 to 0.60) | 3 | 20, 40 | 94.00%, 93.00% |"
    )
    assert rows[2].endswith("| a card, a machine |")
    row = measurements.races_table().splitlines()[2]
    assert row.startswith("| `fast94` | 0.400, 0.500, 0.600 | 7, 7, 7 | 20, 40 | 94.00%, 93.00% | 60, 80 |")
    assert "| a card, a machine; float32, float32 | 2026-11-23 | `0123456789ab+` | `a command` |" in row
    other = {**entry, "machine": "another", "pairs": pairs[:1], "ratio": {**SPREAD, "values": [0.9]}}
    monkeypatch.setattr(planner, "measured", lambda: (entry, other))
    row = measurements.speed_table().splitlines()[2]
    assert row.startswith("| `fast94` | GPU, in float32, rival in float32 | **0.60** (0.40 to 0.90) | 4 |")
    assert "a card, a machine; a card, another |" in row
    half = {**other, "rival_precision": "bfloat16"}
    monkeypatch.setattr(planner, "measured", lambda: (entry, half))
    row, short = (row for row in measurements.speed_table().splitlines() if "rival in" in row)
    assert row.startswith("| `fast94` | GPU, in float32, rival in float32 | **0.50** (0.40 to 0.60) | 3 |")
    assert short.startswith("| `fast94` | GPU, in float32, rival in bfloat16 | **0.90** (0.90 to 0.90) | 1 |")
    monkeypatch.setattr(planner, "measured", lambda: (entry, {**half, "machine": entry["machine"]}))
    (row,) = (row for row in measurements.speed_table().splitlines() if "rival in" in row)  # what it is now
    assert row.startswith("| `fast94` | GPU, in float32, rival in bfloat16 |")


def test_what_was_not_measured_says_what_there_is_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measured", lambda: ())
    rows = measurements.recipe_table().splitlines()[2:]
    assert {row.split("`")[1] for row in rows} == set(recipes.names())
    for row in rows:
        assert re.search(r"\| not yet measured \| \| \| [\d,]{6,} \| [\d.,]{2,} × 10¹⁵ \| \|$", row), row
    assert "| `classic` | CPU or GPU |" in "\n".join(rows)


def test_the_picture_of_augmentations_shows_each_of_them() -> None:
    shown = [kind for kind in augmentations.KINDS.values() if kind != Augmentation()]
    assert len(shown) == len(augmentations.KINDS) - 1  # and the picture as it is
    assert set().union(*(kind.model_fields_set for kind in shown)) == Augmentation.model_fields.keys()
    policies = set(get_args(Augmentation.model_fields["policy"].annotation))
    assert {kind.policy for kind in augmentations.KINDS.values()} == policies
    with Image.open(ROOT / "docs" / "augmentations.png") as picture:  # made again since the last one came
        assert picture.height == augmentations.GAP + len(augmentations.KINDS) * (augmentations.SIDE + augmentations.GAP)


def test_every_recipe_stands_among_the_networks_with_its_source() -> None:
    rows = [line for line in text_of("docs/models.md").splitlines() if line.startswith("| `")]
    assert list(dict.fromkeys(row.split("`")[1] for row in rows)) == recipes.names()
    assert all(re.search(r"\d{4}, arXiv \d{4}\.\d{4,5} \|", row) for row in rows)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_opens_with_its_measured_result(name: str) -> None:
    text = text_of(f"src/thirtytwo/recipes/{name}.toml")
    assert re.match(r"# (Not yet measured\.|\d+\.\d+%( ± \d\.\d+%)? on the test images of .+\(n = \d+)", text)


def test_links_between_documents_lead_somewhere() -> None:
    found = 0
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
            found += 1
    assert found >= 6


def test_the_house_is_drawn_as_it_is_checked() -> None:
    layers = next(
        contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"] if "layers" in contract
    )
    assert "\n\n" + "".join(f"    {layer}\n" for layer in layers) + "\n" in text_of("CONTRIBUTING.md")


def test_the_types_that_the_package_promises_are_shipped() -> None:
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]
    # Every file of the package goes into the wheel: nothing is said of files to leave out.
    assert PROJECT["tool"]["hatch"]["build"] == {"targets": {"wheel": {"packages": ["src/thirtytwo"]}}}
    templates = [f"report/{name}.html.jinja" for name in ("base", "page", "audit")]
    for name in ("__init__.py", "py.typed", *templates, "recipes/classic.toml"):
        assert (ROOT / "src" / "thirtytwo" / name).is_file(), name


# The notebook --------------------------------------------------------------------------------------------------------


def run_notebook(folder: Path, parameters: str, path: Path = NOTEBOOK) -> list[str]:
    """Execute a notebook with other parameters; returns the text that its cells printed."""
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    tagged[0].source = parameters
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]


TINY = '"epochs=1", "model.stages=[[4], [8]]", "model.hidden_units=8"'


def test_the_notebook_tells_its_story_on_shapes(tmp_path: Path) -> None:
    printed = "".join(run_notebook(tmp_path, f'data = "shapes:training=200,test=50"\noverrides = [{TINY}]'))
    page = (tmp_path / "runs" / "classic-1" / "report.html").read_text(encoding="utf-8")
    told = re.search(r"test accuracy (\S+), 95% Wilson interval (\S+) to (\S+), n = 50", printed)
    assert told
    assert f"95% Wilson interval {told[2]} to {told[3]}" in page  # the same numbers as in the report
    assert told[1] in page


@pytest.mark.slow
def test_the_notebook_tells_its_story_on_cifar10(cifar10: Path, tmp_path: Path) -> None:
    printed = run_notebook(tmp_path, f'data = "cifar10"\noverrides = [{TINY}, "batch_size=500"]')
    assert any("(50000, 32, 32, 3)" in text for text in printed)
    assert any("test accuracy" in text for text in printed)


def test_the_notebook_about_comparisons_tells_its_story(tmp_path: Path) -> None:
    parameters = f'data = "shapes:training=300,test=60"\ncommon = [{TINY}]\npairs = 2'
    printed = "".join(run_notebook(tmp_path, parameters, ROOT / "notebooks" / "honest_comparison.ipynb"))
    assert "opening 2 of this test set" in printed
    assert "the winner is" in printed
    assert "A: " in printed
    assert "differences [0.0, 0.0], p = 1" in printed
    assert "opening 3" not in printed
    assert printed.count("no interval yet") == 2
    assert re.search(r"by the draw of the \d+ validation images, .* off by \d+\.\d points more at most", printed)
    assert not re.search(r"\b(None|inf|nan)\b", printed)


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([0.01, 0.01], "how many pairs would settle it, 2 that differ alike do not tell"),
        ([0.02, -0.03, 0.01], r"0\.3 points would take about [\d,]+ pairs, which is a rough guess"),
        ([0.2, -0.3, 0.1], "0.3 points would take more than 10,000 pairs, which is a rough guess"),
        ([-0.011, -0.009, -0.010, -0.012, -0.010, -0.011], "A is better\n"),
    ],
)
def test_the_notebook_about_comparisons_has_words_for_whatever_is_found(
    capsys: pytest.CaptureFixture[str], differences: list[float], says: str
) -> None:
    (cell,) = (
        cell
        for cell in nbformat.read(ROOT / "notebooks" / "honest_comparison.ipynb", as_version=4).cells
        if "found.is_settled" in cell.source
    )
    ends = [[Trial(0, Run(Path()), 0.5 + one, 1.0, 1.0, True, 500, 0.1) for one in (0, more)] for more in differences]
    found = Comparison(tuple(Pair(*both) for both in ends))
    given = {"compare": lambda *_: [found], "Trials": SimpleNamespace(of=lambda *_: None), "np": np, "pairs": 9}
    exec(cell.source, {**given, "trials": None, "b": None, "source": None})
    printed = capsys.readouterr().out
    assert re.search(says, printed)
    assert not re.search(r"\b(None|inf|nan)\b", printed)


def test_the_notebook_is_short_unless_asked_and_says_so_first() -> None:
    first, parameters, *_ = nbformat.read(NOTEBOOK, as_version=4).cells
    assert first.cell_type == "markdown"
    assert re.search(r"\d+ MB", first.source)
    assert "minutes" in first.source
    assert "pip install" in first.source
    values: dict[str, Any] = {}
    exec(parameters.source, values)
    assert recipes.load("classic", values["overrides"]).epochs <= 3


def test_outputs_that_a_notebook_holds_are_those_of_its_cells_as_they_stand() -> None:
    for path in notebooks.FOLDER.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert not notebooks.is_stale(notebook), f"{path.name}: changed; run `python docs/notebooks.py`"
        assert path.name in notebooks.STORED or not notebooks.has_outputs(notebook)  # no image of a data set


def small_notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells, which has not been run."""
    made = new_notebook(
        cells=[new_markdown_cell("# A story"), *map(new_code_cell, cells)],
        metadata={"language_info": {"name": "python"}},
    )
    nbformat.write(made, path)
    return path


def test_outputs_are_stored_and_a_change_to_them_or_to_their_cells_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talking = "import sys\nprint('one'); print('two')\nprint('a warning', file=sys.stderr)"
    path = small_notebook(tmp_path / "small.ipynb", talking, "6 * 7")
    assert not notebooks.is_stale(nbformat.read(path, as_version=4))  # without outputs nothing can be
    notebooks.store(path)
    assert "a warning" in capsys.readouterr().err
    stored = nbformat.read(path, as_version=4)
    assert not notebooks.is_stale(stored)
    first, second = notebooks.code_cells(stored)
    assert [(output.name, output.text) for output in first.outputs] == [("stdout", "one\ntwo\n")]
    assert second.outputs[0].data["text/plain"] == "42"
    assert [cell.execution_count for cell in (first, second)] == [1, 2]
    assert stored.metadata.keys() == {"language_info", notebooks.KEY}
    assert stored.metadata.language_info == {"name": "python"}
    for change in (
        lambda cell: cell.update(source="6 * 8"),
        lambda cell: cell.outputs[0].data.update({"text/plain": "48"}),
        lambda cell: cell.update(execution_count=3),
    ):
        stored = nbformat.read(path, as_version=4)
        change(notebooks.code_cells(stored)[1])
        assert notebooks.is_stale(stored)


def test_a_notebook_that_fails_stays_as_it_was(tmp_path: Path) -> None:
    path = small_notebook(tmp_path / "small.ipynb", "print('one')", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.store(path)
    assert path.read_bytes() == before
