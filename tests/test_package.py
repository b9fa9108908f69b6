from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import thirtytwo
from thirtytwo import errors

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        ("import thirtytwo", {"torch", "numpy", "pydantic", "PIL", "matplotlib"}),
        ("import thirtytwo.cli", {"torch", "numpy", "pydantic", "PIL", "matplotlib"}),
        ("import thirtytwo.recipe", {"torch", "numpy"}),
        ("import thirtytwo.data", {"torch", "matplotlib"}),
    ],
)
def test_imports_stay_light(words: str, forbidden: set[str]) -> None:
    script = f"{words}\nimport sys\nprint(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & forbidden


def loaded_by(*calls: str, env: dict[str, str] | None = None) -> tuple[str, set[str]]:
    """What the program prints when it is called with these words, and the modules that are loaded then."""
    script = (
        "import shlex, sys\nfrom thirtytwo.cli import main\n"
        f"for words in {calls!r}:\n    sys.argv = ['thirtytwo', *shlex.split(words)]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, words\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, done.stderr
    shown, _, loaded = done.stdout.partition("LOADED")
    return shown, set(loaded.split())


def test_help_loads_no_torch() -> None:
    shown, loaded = loaded_by("--help")
    assert "train" in shown
    assert not {"torch", "numpy", "ray"} & loaded


def test_training_and_answering_on_a_cpu_do_not_wait_for_torchs_compiler(tmp_path: Path) -> None:
    sets = {
        "fast94": "model.widths=[8,8]",
        "resnet18": "model.widths=[4,4,4,4]",
        "cct": "model.depth=1",
    }
    both = "--set validation=0.2 --epochs 1"
    trained = [f"train {name} --set {change} {both} --out {tmp_path}/{name}" for name, change in sets.items()]
    shown, loaded = loaded_by(
        *trained,
        f"evaluate {tmp_path}/fast94 --split validation",
        f"predict {tmp_path}/resnet18 {ROOT / 'docs' / 'augmentations.png'}",
        env={"THIRTYTWO_DATA": "shapes:training=50,test=10"},
    )
    assert "Report:" in shown
    assert not {"torch._dynamo", "sympy"} & loaded


def test_no_network_waits_for_torchs_compiler_to_be_sketched() -> None:
    script = (
        "import sys\nfrom thirtytwo import models, recipe\n"
        "for name in recipe.names():\n    for device in ('cpu', 'cuda'):\n"
        "        models.shapes(recipe.load(name).for_device(device).model, 10)\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert not {"torch._dynamo", "sympy"} & set(loaded)


def test_public_names_are_sorted_real_and_documented() -> None:
    assert list(thirtytwo.__all__) == sorted(thirtytwo.__all__)
    assert set(thirtytwo.__all__) <= set(dir(thirtytwo))
    for name in thirtytwo.__all__:
        value = getattr(thirtytwo, name)
        assert value.__doc__, name
        assert not isinstance(value, ModuleType), name


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_public_function_is_not_shadowed_by_the_module_of_its_name(name: str) -> None:
    importlib.import_module(f"thirtytwo.{name}")
    assert callable(getattr(thirtytwo, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = thirtytwo.nothing


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    assert errors.__doc__
    drawn = set(re.findall(r"[├└]── (\w+)|^(\w+Error) ", errors.__doc__, re.MULTILINE))
    names = {one or other for one, other in drawn}
    real = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names == real
    for name in real:
        code = getattr(errors, name).exit_code
        assert code == (2 if issubclass(getattr(errors, name), errors.InputError) else 1)


def test_no_image_of_a_data_set_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [
        name for name in listed.stdout.splitlines() if re.search(r"\.(png|jpe?g|bin|npz|npy|pkl|pt)$|data_batch", name)
    ]
    assert names == ["docs/augmentations.png"]  # of pictures that the package draws


def test_nothing_heavy_that_needs_torchvision_is_depended_upon() -> None:
    assert "torchvision" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "torchvision==" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")
