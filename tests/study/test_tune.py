"""Searches: the recipe's own values come first, nothing is lost when they are stopped, a recipe comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from thirtytwo import recipe as recipes
from thirtytwo.data import Source, find
from thirtytwo.errors import RecipeError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.study import Interrupted, Local, Trials, Watcher, tune
from thirtytwo.study.task import Task

SEARCH = (
    'search={"optimizer.learning_rate" = {low = 1e-4, high = 3e-2, log = true}, '
    '"model.hidden_units" = {low = 4, high = 16}, "augmentation.policy" = {choices = ["none", "trivial"]}}'
)


def recipe(*words: str) -> Recipe:
    small = ["epochs=2", "batch_size=40", "model.stages=[[4],[8]]", "validation=0.25", "model.hidden_units=8"]
    return recipes.load("classic", [*small, "optimizer.learning_rate=0.001", *words, SEARCH])


@pytest.fixture(scope="module")
def source() -> Source:
    return find("shapes:training=160,test=20").in_memory()


def test_the_best_values_become_a_recipe_and_the_own_ones_come_first(source: Source) -> None:
    found = tune(recipe(), source, Path("out"), trials=6)
    assert found.own is not None
    assert found.own.values == {
        "optimizer.learning_rate": 0.001, "model.hidden_units": 8, "augmentation.policy": "none"
    }  # fmt: skip
    assert len(found.trials) == 6
    assert found.best.accuracy is not None
    assert found.own.accuracy is not None
    assert found.best.accuracy >= found.own.accuracy
    for trial in found.trials:
        assert 1e-4 <= trial.values["optimizer.learning_rate"] <= 3e-2
        assert trial.values["model.hidden_units"] in range(4, 17)
    tuned = recipes.load(found.path)
    assert tuned == found.recipe
    assert tuned.search == {}
    assert tuned.optimizer.learning_rate == found.best.values["optimizer.learning_rate"]
    assert set(found.importances) <= set(recipe().search)
    # What was measured is what a training of that recipe gives.
    assert Trials.of(tuned, source, Path("again")).trial(0).accuracy == found.best.accuracy


def test_a_search_stopped_in_the_middle_of_a_trial_goes_on_with_it(source: Source) -> None:
    class Stop(Watcher):
        def happens(self, task: Task, event: Step | Epoch) -> None:
            if task.number == 1 and isinstance(event, Epoch):
                pool.interrupt()

    pool = Local(Stop())
    whole = tune(recipe(), source, Path("whole"), trials=3, sampler="random", pruner="none")
    with pytest.raises(Interrupted):
        tune(recipe(), source, Path("part"), trials=3, sampler="random", pruner="none", pool=pool)
    part = tune(recipe(), source, Path("part"), trials=3, sampler="random", pruner="none")
    assert [trial.number for trial in part.trials] == [0, 1, 2]
    assert part.trials[:2] == whole.trials[:2]
    ended: list[int] = []
    more = tune(
        recipe(), source, Path("part"), trials=4, sampler="random", pruner="none",
        done=lambda trial: ended.append(trial.number),
    )  # fmt: skip
    assert ended == [3]
    assert more.trials[:3] == part.trials


def test_trials_that_lag_behind_are_ended_early(source: Source) -> None:
    slow = ["optimizer.learning_rate=0.01", "epochs=6", "batch_size=10"]
    found = tune(recipe(*slow), source, Path("out"), trials=12, sampler="random", pruner="median")
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.accuracy is not None and trial.accuracy <= (found.best.accuracy or 0) for trial in pruned)
    assert found.best.state == "complete"


def test_own_values_outside_of_the_space_are_refused(source: Source) -> None:
    with pytest.raises(RecipeError, match=r"the recipe has 0\.5, which lies outside"):
        tune(recipe("optimizer.learning_rate=0.5"), source, Path("out"), trials=1)


def test_what_somebody_sets_is_not_searched() -> None:
    assert "optimizer.learning_rate" not in recipe().replace("optimizer.learning_rate=0.5").search
    assert recipe().digest == recipe().replace("search={}").digest  # it trains nothing


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ('{"modell.dropout" = {low = 0, high = 1}}', "search: modell.dropout: no such key"),
        ('{"optimizer.momentum" = {low = 0.0, high = 0.9}}', "expected a key of this recipe"),
        ('{"model.dropout" = {low = 0.0, top = 0.9}}', "search.model.dropout"),
        ('{"model.dropout" = {low = 0.5, high = 0.1}}', "expected a low below the high"),
        ('{"model.dropout" = {low = 0.0, high = 0.1, log = true}}', "expected more than 0"),
    ],
)
def test_a_search_space_that_makes_no_sense_is_a_clear_error(search: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipes.load("classic", [f"search={search}"])


def test_a_recipe_without_a_search_space_is_refused(source: Source) -> None:
    with pytest.raises(RecipeError, match=r"has no \[search\] section"):
        tune(recipes.load("fast94"), source, Path("out"), trials=2)
