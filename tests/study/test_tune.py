"""Searches: the recipe's own values come first, nothing is lost when they are stopped, a recipe comes out."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thirtytwo import recipe as recipes
from thirtytwo.cli.show import Screen
from thirtytwo.data import Source, find, from_arrays
from thirtytwo.errors import InputError, RecipeError, RunError, StorageError
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.report import tuning_page
from thirtytwo.run import Run
from thirtytwo.study import Interrupted, Local, Trials, Tuned, TuningTrial, Watcher, space, tune
from thirtytwo.study.space import Space
from thirtytwo.study.task import Task
from thirtytwo.study.tune import Pruner, _pruner

SEARCH = (
    'search={"optimizer.learning_rate" = {low = 1e-4, high = 3e-2, log = true}, '
    '"model.hidden_units" = {low = 4, high = 16}, "augmentation.policy" = {choices = ["none", "trivial"]}}'
)


def recipe(*words: str) -> Recipe:
    small = ["epochs=2", "batch_size=40", "model.stages=[[4],[8]]", "validation=0.25", "model.hidden_units=8"]
    return recipes.load("classic", [*small, "optimizer.learning_rate=0.001", *words, SEARCH])


class OnGpu(Local):
    """Says of itself that it has a GPU, and trains on the CPU what a GPU would be given."""

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return "cuda" if function is space._kind_of_device else super().ask(function, *arguments)


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
    assert part.trials == whole.trials  # what is proposed depends on no process
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
        ('{"model.dropout" = {low = 0.0, top = 0.9}}', "search: model.dropout: high: missing"),
        ('{"model.dropout" = {low = 0.0, top = 0.9}}', "dropout: top: no such key; expected low, high or log"),
        ('{"model.dropout" = {low = 0.5, high = 0.1}}', "model.dropout: low is .* expected a low below the high"),
        ('{"model.dropout" = {low = 0.0, high = 0.1, log = true}}', "expected more than 0"),
        ('{"model.hidden_units" = {low = 4.5, high = 16}}', "expected whole numbers, as this key holds one"),
        ('{"augmentation.policy" = {low = 0, high = 1}}', r"a range, but the recipe has 'none'; expected \{ choices"),
        ('{"augmentation.horizontal_flip" = {low = 0, high = 1}}', "a range, but the recipe has True"),
        ('{"validation" = {low = 0.05, high = 0.3}}', "trials are judged by the same images"),
    ],
)
def test_a_search_space_that_makes_no_sense_is_a_clear_error(search: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipes.load("classic", [f"search={search}"])


def test_a_recipe_without_a_search_space_is_refused(source: Source) -> None:
    with pytest.raises(RecipeError, match=r"has no \[search\] section.*: cct, classic, .*fast94, .*resnet18"):
        tune(recipes.load("airbench94"), source, Path("out"), trials=2)


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.load(name).search])
@pytest.mark.parametrize("pool", [Local(), OnGpu()], ids=["cpu", "cuda"])
def test_shipped_recipes_have_their_own_values_among_those_that_they_search(
    name: str, pool: Local, source: Source
) -> None:
    Space.of(recipes.load(name), source, pool=pool)


def test_on_a_gpu_the_own_values_are_those_that_the_recipe_has_there(source: Source) -> None:
    searched = recipe('on_gpu=["optimizer.learning_rate=0.02", "batch_size=20"]')
    for pool, kind, rate in ((Local(), "cpu", 0.001), (OnGpu(), "cuda", 0.02)):
        found = tune(searched, source, Path(kind), trials=1, pool=pool)
        assert found.own is not None
        assert found.own.values["optimizer.learning_rate"] == rate
        assert recipes.load(found.own_path) == searched.for_device(kind)
        (folder,) = Path(kind, "trials").glob("*/0")
        trained, own = Run.open(folder).recipe, searched.for_device(kind).for_images(160)
        assert (trained.digest, trained.optimizer.learning_rate) == (own.digest, rate)


def test_what_only_a_cpu_has_is_not_searched_on_a_gpu(source: Source) -> None:
    searched = recipes.load("classic", ['on_gpu=["model.name=resnet"]', 'search={"model.dropout" = {low=0, high=0.5}}'])
    Space.of(searched, source)
    searched = recipes.load(
        "classic", ['on_gpu=["model.name=convmixer"]', 'search={"model.dropout" = {low=0, high=0.5}}']
    )
    with pytest.raises(RecipeError, match=r"(?s)as cuda trains it.*search: model.dropout: expected a key of this"):
        Space.of(searched, source, pool=OnGpu())


@pytest.mark.parametrize(("low", "high"), [("0", "1"), ("0.0", "1.0"), ("0", "1.0")])
def test_a_range_is_whole_where_the_recipe_is_however_its_ends_are_written(source: Source, low: str, high: str) -> None:
    ends = f"{{low = {low}, high = {high}}}"
    search = f'search={{"averaging.epochs" = {ends}, "augmentation.cutout_pixels" = {ends}}}'
    found = tune(recipe("averaging.epochs=0.05").replace(search), source, Path("out"), trials=4, sampler="random")
    shares = [trial.values["averaging.epochs"] for trial in found.trials]
    assert shares[0] == 0.05
    assert all(isinstance(share, float) and 0 < share < 1 for share in shares)
    assert len(set(shares)) == 4
    assert {type(trial.values["augmentation.cutout_pixels"]) for trial in found.trials} == {int}


def test_the_first_trial_is_the_recipes_own_also_where_few_images_change_its_length(source: Source) -> None:
    search = 'search={"epochs" = {low = 1, high = 9}, "batch_size" = {low = 4, high = 64}}'
    searched = recipe("fewer_images.exponent=0.1", "fewer_images.minimum_steps=10").replace(search)
    own = Trials.of(searched, source).recipe
    found = tune(searched, source, Path("out"), trials=1)
    assert found.own is not None
    assert found.own.values == {"epochs": own.epochs, "batch_size": own.batch_size} != {"epochs": 2, "batch_size": 40}
    assert Trials.of(recipes.load(found.own_path), source).recipe.digest == own.digest


def test_a_folder_holds_one_search(source: Source) -> None:
    tune(recipe(), source, Path("out"), trials=1)
    before = Path("out/classic-own.toml").read_bytes()
    with pytest.raises(RunError, match=r"out: holds another search, of other settings; .* choose another --out"):
        tune(recipe("epochs=1"), source, Path("out"), trials=1)
    with pytest.raises(RunError, match="of other seed;"):
        tune(recipe(), source, Path("out"), trials=1, seed=1)
    with pytest.raises(RunError, match="of other data;"):
        tune(recipe(), find("shapes:training=170,test=20"), Path("out"), trials=1)
    with pytest.raises(RunError, match="of other search space;"):
        tune(recipe().replace("model.hidden_units=8"), source, Path("out"), trials=1)
    assert Path("out/classic-own.toml").read_bytes() == before


def test_a_folder_holds_the_search_of_one_database(source: Source) -> None:
    tune(recipe(), source, Path("out"), trials=1, storage="sqlite:///one.db")
    assert len(tune(recipe(), source, Path("out"), trials=1, storage="sqlite:///one.db").trials) == 1
    for storage in (None, "sqlite:///other.db"):
        with pytest.raises(RunError, match=r"in another database; .* give the same --storage as before"):
            tune(recipe(), source, Path("out"), trials=1, storage=storage)
    Path("one.db").rename("moved.db")  # or reached by another name
    assert len(tune(recipe(), source, Path("out"), trials=1, storage="sqlite:///moved.db").trials) == 1


def test_a_search_in_a_shared_database_goes_on_in_its_own_folder_only(source: Source) -> None:
    tune(recipe("epochs=1"), source, Path("out"), trials=1, storage="sqlite:///one.db")
    with pytest.raises(RunError, match=r"elsewhere: the database has trials .* made in another folder; .* --out as"):
        tune(recipe("epochs=1"), source, Path("elsewhere"), trials=2, storage="sqlite:///one.db")
    Path("out").rename("moved")
    assert len(tune(recipe("epochs=1"), source, Path("moved"), trials=2, storage="sqlite:///one.db").trials) == 2


def test_what_a_search_says_tells_what_it_was_of(source: Source) -> None:
    found = tune(recipe("epochs=1"), source, Path("out"), trials=1, sampler="random", pruner="none", seed=3).to_json()
    said = {key: found[key] for key in ("data", "spec", "seed", "sampler", "pruner")}
    assert said == {"data": source.name, "spec": source.spec, "seed": 3, "sampler": "random", "pruner": "none"}
    assert recipes.load(found["own_recipe"]).search == {}
    assert found["comparison"] == []  # of the recipe's own values with themselves
    (run,) = Path("out/trials").glob("*/*/result.json")
    assert found["commits"] == [commit for commit in (Run(run.parent).environment["commit"],) if commit]


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_no_trial_ends_in_the_first_third_of_its_epochs(pruner: Pruner) -> None:
    import optuna

    def ends(epochs: int | None) -> int | None:
        """After how many epochs a trial ends that is worse than any other."""
        study = optuna.create_study(direction="maximize", pruner=_pruner(optuna, pruner, epochs))
        for accuracy in [*[0.9] * 8, 0.1]:
            trial = study.ask()
            for step in range(12):
                trial.report(accuracy, step)
                if trial.should_prune() and accuracy == 0.1:
                    return step + 1
            study.tell(trial, accuracy)
        return None

    assert ends(None) is None  # lengths differ
    ended = ends(12)
    assert ended is not None
    assert 4 < ended <= 6


def test_trials_are_judged_by_as_many_images_as_are_told(source: Source) -> None:
    for held_out, images in ((0.25, 40), (0, 20)):  # of each class as many
        words = [f"validation={held_out}", *([] if held_out else ["early_stopping.patience=0"])]
        found = tune(recipe(*words), source, Path(f"out-{images}"), trials=1)
        (run,) = Path(f"out-{images}").glob("trials/*/*/result.json")
        assert found.images == Run(run.parent).result["validation"]["images"] == images


@pytest.mark.parametrize("storage", ["results.db", "nothing+like://it", "sqlite:////no/such/folder/study.db"])
def test_a_database_that_cannot_be_used_is_a_clear_error(source: Source, storage: str) -> None:
    with pytest.raises(InputError, match=r"--storage .*: cannot be used \(.+\); expected the URL of a database"):
        tune(recipe(), source, Path("out"), trials=1, storage=storage)
    assert len(tune(recipe(), source, Path("out"), trials=1, storage="sqlite:///one.db").trials) == 1


def test_a_file_that_is_no_database_is_a_clear_error(source: Source) -> None:
    Path("out").mkdir()
    Path("out/study.db").write_bytes(b"something else" * 1000)
    with pytest.raises(StorageError, match="the database of the search: "):
        tune(recipe(), source, Path("out"), trials=1)


def test_what_was_found_is_compared_on_images_that_the_search_has_not_seen_if_there_are_any() -> None:
    trials = tuple(TuningTrial(number, {"model.dropout": 0.5}, "complete", 0.4 + number / 10) for number in range(2))
    found = Tuned(
        recipe(), Path("a b/x-tuned.toml"), Path("a b/x-own.toml"), "x", trials, {}, "cifar10", "", 4, "auto", 500,
        "cifar10", "tpe", "median",
    )  # fmt: skip
    words = ["thirtytwo", "compare", "a b/x-own.toml", "a b/x-tuned.toml", "--data", "cifar10", "--first-seed", "5"]
    assert found.comparison == words
    page = tuning_page.render(found)
    assert "validation accuracy on 500 images of cifar10" in page
    assert "thirtytwo compare &#39;a b/x-own.toml&#39; &#39;a b/x-tuned.toml&#39; --data cifar10 --first-seed 5" in page
    assert "did not see" not in page
    found = replace(found, spec="cifar10:training=9", others="cifar10:training=9,skip=9", device="cpu")
    words[5] = "cifar10:training=9,skip=9"
    assert found.comparison == [*words, "--device", "cpu"]
    assert "on images that the search did not see" in tuning_page.render(found)


def test_where_nothing_better_was_found_there_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    trials = tuple(TuningTrial(number, {"model.dropout": number / 10}, "complete", 0.5) for number in range(3))
    found = Tuned(
        recipe(), Path("x-tuned.toml"), Path("x-own.toml"), "x", trials, {}, "cifar10", "", 4, "auto", 500, "cifar10",
        "tpe", "median",
    )  # fmt: skip
    assert found.comparison == []
    page = tuning_page.render(found)
    assert "No better values found for x" in page
    assert "None did better than the recipe's own values" in html.unescape(page)
    assert "thirtytwo compare" not in page
    Screen().tuned(found, Path("tuning.html"))
    said = capsys.readouterr().out
    assert "nothing better was found than the recipe's own values: 50.00%" in said
    assert "thirtytwo compare" not in said
    assert "150%" not in page  # the axis of three equal trials


def test_arrays_are_compared_by_no_command() -> None:
    images = find("shapes:training=160,test=20").read_training()
    source = from_arrays((images.pixels, images.labels), name="mine")
    found = tune(recipe("epochs=1"), source, Path("out"), trials=1)
    assert found.comparison == []
    assert "thirtytwo compare" not in tuning_page.render(found)
