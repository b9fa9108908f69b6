from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ship
from measured import Refused
from thirtytwo import Classifier, Run, find, train
from thirtytwo import recipe as recipes
from thirtytwo.data import sealed


@pytest.fixture
def run() -> Run:
    words = [
        "epochs=1",
        "batch_size=50",
        "model.stages=[[4],[8]]",
        "model.hidden_units=8",
        "fewer_images.exponent=0",
        "views.mirror=true",
    ]
    training = train(recipes.load("classic", words), find("shapes:training=200,test=50"), out="run", seed=3)
    training.finish()
    return training.run


def test_what_is_shipped_is_half_as_large_and_scored_as_it_is_shipped(run: Run, tmp_path: Path) -> None:
    source = find("shapes:training=200,test=50")
    shipped = ship.ship(run, source, "shapes", tmp_path / "shipped.safetensors")
    again = Classifier.load(tmp_path / "shipped.safetensors")
    assert again.fingerprint == shipped.fingerprint
    test = sealed.read_unscored(source)
    answers = again(test.pixels)
    assert again.facts["test"]["accuracy"] == np.mean(answers.argmax(1) == test.labels)
    assert np.allclose(answers, Classifier.load(run)(test.pixels), atol=5e-3)
    assert (again.facts["recipe"], again.facts["seed"], again.facts["spec"]) == ("classic", 3, "shapes")
    assert again.facts["fingerprint"] == source.read_training().fingerprint
    assert (tmp_path / "shipped.safetensors").stat().st_size < 0.75 * run.model_path.stat().st_size
    (ledger,) = Path("state/openings").glob("*.jsonl")
    assert len(ledger.read_text().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shipped.safetensors"]


def test_a_run_on_other_images_is_refused_and_scores_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="was trained on images with fingerprint"):
        ship.ship(run, find("shapes:training=300,test=50"), "shapes", tmp_path / "shipped.safetensors")
    assert not (tmp_path / "shipped.safetensors").exists()
    assert not Path("state/openings").exists()
