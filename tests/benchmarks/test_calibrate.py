"""What a recipe without validation images carries is fitted on images that its twin has not seen."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import calibrate
from measured import Refused
from thirtytwo import recipe as recipes

SPEC = "shapes:training=200,test=20"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    words = ["epochs=2", "batch_size=50", "model.stages=[[4]]", "model.hidden_units=8", "validation=0"]
    path = tmp_path / "small.toml"
    path.write_text(recipes.load("classic", [*words, "early_stopping.patience=0", "name=small"]).to_toml())
    return str(path)


def test_the_section_is_what_the_twin_found_on_a_tenth_of_the_images(recipe: str, tmp_path: Path) -> None:
    training = calibrate.twin(recipe, SPEC, 7, tmp_path / "twin")
    section = tomllib.loads(calibrate.section(training, recipe))["calibration"]
    assert training.data["validation_images"] == 20
    assert section["temperature"] == pytest.approx(training.classifier.temperature, abs=1e-3)
    assert section["unknown_below"] == pytest.approx(training.classifier.unknown_below, abs=1e-3)
    carried = recipes.load(recipe, [f"calibration.{key}={json.dumps(value)}" for key, value in section.items()])
    assert carried.calibration.temperature == section["temperature"]
    resolved = carried.for_device("cpu").for_images(200)
    assert resolved.is_calibrated_for("shapes")
    assert not resolved.is_calibrated_for("cifar10")
    assert not resolved.replace("loss.label_smoothing=0.05").is_calibrated_for("shapes")
    assert resolved.replace("calibration.temperature=2").is_calibrated_for("shapes")  # which trains nothing else


def test_a_twin_that_was_stopped_goes_on_and_another_one_is_refused(recipe: str, tmp_path: Path) -> None:
    begun = calibrate.twin(recipe, SPEC, 7, tmp_path / "twin")
    for _ in begun:
        begun.interrupt()
    again = calibrate.twin(recipe, SPEC, 7, tmp_path / "twin")
    whole = calibrate.twin(recipe, SPEC, 7, tmp_path / "whole")
    assert calibrate.section(again, recipe) == calibrate.section(whole, recipe)
    with pytest.raises(Refused, match="holds another training"):
        calibrate.twin(recipe, SPEC, 8, tmp_path / "twin")


def test_a_recipe_that_calibrates_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds out 10% of its images"):
        calibrate.twin("classic", SPEC, 0, tmp_path / "twin")
