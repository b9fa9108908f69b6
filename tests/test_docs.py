"""Everything that the documentation says to type is typed here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from thirtytwo import recipe as recipes

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def blocks(path: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody who has just installed the package, and small data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_DATA", "shapes:training=200,test=50")
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    return tmp_path


def test_generated_documentation_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_work_in_their_order(newcomer: Path) -> None:
    lines = [line.partition("#")[0].strip() for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "thirtytwo"
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets == ["train", "test"]
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "number"),
    [(path, number) for path in ("README.md", "docs/guide.md") for number in range(len(blocks(path, "python")))],
)
def test_the_python_of_the_documentation_runs(newcomer: Path, path: str, number: int) -> None:
    # The guide loads CIFAR-10 by name, which may not be here; any data shows that the call works.
    code = blocks(path, "python")[number].replace('load_data("cifar10")', "load_data()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def run_notebook(folder: Path, parameters: str) -> list[str]:
    """Execute the notebook with other parameters; returns the text that its cells printed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    tagged[0].source = parameters
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]


TINY = '"epochs=1", "model.stages=[[4], [8]]", "model.hidden_units=8"'


def test_the_notebook_tells_its_story_on_shapes(tmp_path: Path) -> None:
    printed = run_notebook(tmp_path, f'data = "shapes:training=200,test=50"\noverrides = [{TINY}]')
    assert any("test accuracy" in text for text in printed)
    assert (tmp_path / "runs" / "classic-1" / "report.html").exists()


@pytest.mark.slow
def test_the_notebook_tells_its_story_on_cifar10(cifar10: Path, tmp_path: Path) -> None:
    printed = run_notebook(tmp_path, f'data = "cifar10"\noverrides = [{TINY}, "batch_size=500"]')
    assert any("(50000, 32, 32, 3)" in text for text in printed)
    assert any("test accuracy" in text for text in printed)


def test_notebooks_are_committed_without_outputs() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_opens_with_its_measured_result(name: str) -> None:
    text = (ROOT / "src" / "thirtytwo" / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert re.match(r"# (Not yet measured\.|\d+\.\d+% on the test images of .+\(n = \d+)", text)
