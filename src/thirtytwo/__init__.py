"""thirtytwo trains and judges classifiers of small images.

    import thirtytwo

    (x_train, y_train), (x_test, y_test) = thirtytwo.load_data("cifar10")
    classifier = thirtytwo.train("fast94", "cifar10").finish()
    probabilities = classifier(x_test[:5])

Names are loaded when they are first used: importing the package loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from thirtytwo.classifier import Classifier, Prediction
    from thirtytwo.data import Images, find, from_arrays, load_data, open_training
    from thirtytwo.errors import ThirtytwoError
    from thirtytwo.evaluate import Scored, evaluate, evaluate_run
    from thirtytwo.events import Epoch, Step
    from thirtytwo.recipe import Recipe
    from thirtytwo.recipe import load as load_recipe
    from thirtytwo.recipe import names as recipe_names
    from thirtytwo.report import write as write_report
    from thirtytwo.run import Run
    from thirtytwo.train import Training, resume, train

_HOMES = {
    "Classifier": ("classifier", "Classifier"),
    "Epoch": ("events", "Epoch"),
    "Images": ("data", "Images"),
    "Prediction": ("classifier", "Prediction"),
    "Recipe": ("recipe", "Recipe"),
    "Run": ("run", "Run"),
    "Scored": ("evaluate", "Scored"),
    "Step": ("events", "Step"),
    "ThirtytwoError": ("errors", "ThirtytwoError"),
    "Training": ("train", "Training"),
    "evaluate": ("evaluate", "evaluate"),
    "evaluate_run": ("evaluate", "evaluate_run"),
    "find": ("data", "find"),
    "from_arrays": ("data", "from_arrays"),
    "load_data": ("data", "load_data"),
    "load_recipe": ("recipe", "load"),
    "open_training": ("data", "open_training"),
    "recipe_names": ("recipe", "names"),
    "resume": ("train", "resume"),
    "train": ("train", "train"),
    "write_report": ("report", "write"),
}

__all__ = [
    "Classifier",
    "Epoch",
    "Images",
    "Prediction",
    "Recipe",
    "Run",
    "Scored",
    "Step",
    "ThirtytwoError",
    "Training",
    "evaluate",
    "evaluate_run",
    "find",
    "from_arrays",
    "load_data",
    "load_recipe",
    "open_training",
    "recipe_names",
    "resume",
    "train",
    "write_report",
]


class _Package(ModuleType):
    """Keeps ``thirtytwo.train`` the function, though the module that defines it has the same name.

    The import system binds a submodule to its package as soon as anything imports it; that binding is dropped for
    public names. ``from thirtytwo.train import Step`` works as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thirtytwo' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f"thirtytwo.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
