from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thirtytwo import environment
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier
from thirtytwo.cli.show import Screen
from thirtytwo.data import Images, Source, find, from_arrays
from thirtytwo.data.images import Split
from thirtytwo.errors import Diverged, InputError, RunInUse
from thirtytwo.events import Epoch, Step
from thirtytwo.recipe import Recipe
from thirtytwo.run import Run
from thirtytwo.study import Interrupted, Local, Pair, Repeated, Spread, Trials, Unpaired, Watcher, compare, repeat, task
from thirtytwo.study.task import Task
from thirtytwo.train import resume, train

DATA = "shapes:training=400,test=100"


def small(*words: str) -> Recipe:
    return recipes.load(
        "classic",
        ["epochs=2", "batch_size=50", "model.stages=[[4],[8]]", "model.hidden_units=8", "validation=0.25", *words],
    )


def trials(*words: str) -> Trials:
    return Trials.of(small(*words), find(DATA), Path("study"))


def assert_same(one: Run, other: Run) -> None:
    """The same weights, as sure of themselves."""
    first, second = Classifier.load(one), Classifier.load(other)
    assert first.fingerprint == second.fingerprint
    assert first.unknown_below == second.unknown_below


def test_each_seed_is_trained_once_and_found_again() -> None:
    first = list(repeat(trials(), [0, 1]))
    assert [trial.new for trial in first] == [True, True]
    assert first[0].accuracy != first[1].accuracy or first[0].loss != first[1].loss
    again = list(repeat(trials(), [0, 1, 2]))
    assert [trial.new for trial in again] == [False, False, True]
    assert [trial.accuracy for trial in again[:2]] == [trial.accuracy for trial in first]


def test_one_that_another_process_begins_in_the_same_moment_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    study, begin = trials(), train

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(task, "train", begin)
        first = begin(*arguments, **options)  # by the other one, which is stopped after a step
        next(iter(first))
        first.interrupt()
        first.finish()
        return begin(*arguments, **options)

    monkeypatch.setattr(task, "train", late)
    (trial,) = repeat(study, [0])
    assert trial.new
    whole = Trials.of(small(), find(DATA), Path("whole"))
    assert_same(trial.run, next(iter(repeat(whole, [0]))).run)


def test_trainings_say_by_which_commits_they_were_made(capsys: pytest.CaptureFixture[str]) -> None:
    study = trials("epochs=1")
    list(repeat(study, [0]))
    study.run(0).environment = {**study.run(0).environment, "commit": "0123456789abcdef"}
    both = Repeated(tuple(repeat(study, [0, 1])))
    own = environment.commit()
    assert both.to_json()["commits"] == ["0123456789abcdef", *([own] if own else [])]
    for found, times in ((both, 1 if own else 0), (Repeated(both.trials[:1]), 0)):
        Screen().repeated(found, Path("plot.svg"))
        said = " ".join(capsys.readouterr().out.split())
        assert said.count("were made by 2 commits of this program (0123456789ab, ") == times


def test_many_trainings_read_their_data_once() -> None:
    drawn, reads = find(DATA), []

    def read(split: Split) -> Images:
        reads.append(split)
        return drawn.read_training()

    source = Source(spec=DATA, name="shapes", location="here", notice="", reader=read)
    list(repeat(Trials.of(small("epochs=1"), source, Path("study")), [0, 1, 2]))
    assert reads == ["training"]
    reads.clear()
    both = source.in_memory()
    one, other = (Trials.of(small("epochs=1", f"model.dropout={share}"), both, Path("study")) for share in (0.1, 0.2))
    list(compare(one, other, [0, 1], stop_early=False))
    assert reads == ["training"]


def test_a_trial_is_the_training_that_one_gets_by_itself() -> None:
    from thirtytwo import evaluate, train

    (trial,) = repeat(trials(), [3])
    alone = train(small(), find(DATA), seed=3, out="alone")
    accuracy = evaluate(alone.finish(), find(DATA), split="validation").summary()["accuracy"]
    assert trial.accuracy == accuracy
    assert_same(trial.run, alone.run)


def test_one_that_was_interrupted_goes_on() -> None:
    class Stop(Watcher):
        def happens(self, task: Task, event: Step | Epoch) -> None:
            pool.interrupt()

    pool = Local(Stop())
    study = trials()
    with pytest.raises(Interrupted):
        list(repeat(study, [0], pool))
    assert not study.is_finished(0)
    (trial,) = repeat(trials(), [0])
    (whole,) = repeat(Trials.of(small(), find(DATA), Path("other")), [0])
    assert trial.new
    assert_same(trial.run, whole.run)


class Beside(Watcher):
    """Does something once it is told that another process is training the same."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what = what
        self.told: list[str] = []

    def tells(self, words: str) -> None:
        self.told.append(words)
        self.what()


def test_a_training_that_another_process_is_at_is_waited_for() -> None:
    (whole,) = repeat(Trials.of(small(), find(DATA), Path("other")), [0])
    study = trials()
    study.path.joinpath("0").mkdir(parents=True)
    with contextlib.ExitStack() as other:
        other.enter_context(study.task(0).run.locked())
        watcher = Beside(other.close)
        (trial,) = repeat(study, [0], Local(watcher))
    assert watcher.told == ["seed 0: another process is training it; waiting for that one"]
    assert_same(trial.run, whole.run)


def test_who_waits_for_another_process_can_be_interrupted() -> None:
    study = trials()
    study.path.joinpath("0").mkdir(parents=True)
    watcher = Beside(lambda: pool.interrupt())
    pool: Local = Local(watcher)
    with study.task(0).run.locked(), pytest.raises(Interrupted):
        list(repeat(study, [0], pool))
    assert len(watcher.told) == 1


def test_what_does_not_wait_for_another_process_fails() -> None:
    study = trials()
    study.path.joinpath("0").mkdir(parents=True)
    with study.task(0).run.locked():
        ((_, ended),) = Local().run([replace(study.task(0), waits=False)])
    assert isinstance(ended.error, RunInUse)


def test_other_settings_and_other_data_are_other_trials() -> None:
    paths = {trials().path, trials("epochs=3").path, Trials.of(small(), find("shapes:training=300,test=100")).path}
    assert len(paths) == 3
    assert trials("name=other", "description=text").path.name.partition("-")[2] == trials().path.name.partition("-")[2]


def test_a_recipe_without_validation_images_gets_some() -> None:
    study = trials("validation=0", "early_stopping.patience=0")
    assert study.recipe.validation == 0.1


def test_the_test_set_stays_shut() -> None:
    list(repeat(trials(), [0]))
    assert not Path("state/openings").exists()


def test_a_recipe_is_no_better_than_itself() -> None:
    *_, found = compare(trials(), trials(), range(3), stop_early=False)
    assert found.differences == [0, 0, 0]
    assert found.is_same
    assert found.p_value == 1
    assert not found.is_settled
    assert found.interval == (-math.inf, math.inf)
    assert found.needed(0.01) is None


def test_a_recipe_beside_itself_is_trained_once_whatever_it_is_called() -> None:
    assert trials("name=other").is_same_as(trials())
    assert not trials("epochs=3").is_same_as(trials())
    (found,) = compare(trials(), trials(), range(5))
    assert (found.is_same, found.differences, found.p_value) == (True, [0], 1)
    assert [folder.name for folder in trials().path.iterdir() if folder.is_dir()] == ["0"]
    assert [trial.new for trial in (found.pairs[0].first, found.pairs[0].second)] == [True, False]
    (renamed,) = compare(trials(), trials("name=other"), range(5))
    assert (renamed.is_same, renamed.differences) == (True, [0])
    *_, different = compare(trials(), trials("model.dropout=0.4"), range(2))
    assert not different.is_same
    assert len(different.pairs) == 2


def test_the_baseline_is_the_share_of_the_most_frequent_class_among_the_validation_images(small_images: Images) -> None:
    few = small_images.take([*range(0, 200, 4), *range(1, 41, 4)])  # fifty of class a, ten of class b
    source = from_arrays((few.pixels, few.labels), classes=few.classes)
    found = Repeated(tuple(repeat(Trials.of(small("validation=0.2"), source, Path("study")), [0])))
    assert (found.images, found.majority_baseline) == (12, 10 / 12)


def test_a_plain_difference_is_settled_before_the_end(small_images: Images) -> None:
    bright = from_arrays((small_images.pixels, small_images.labels), classes=small_images.classes)
    words = ["epochs=8", "optimizer.learning_rate=0.01", "augmentation.rotation_degrees=0"]
    able = Trials.of(small(*words), bright, Path("study"))
    unable = Trials.of(small("optimizer.learning_rate=1e-9"), bright, Path("study"))
    *_, found = compare(unable, able, range(12))
    assert found.is_settled
    assert len(found.pairs) < 12
    low, high = found.interval
    assert 0 < low < Spread.of(found.differences).mean < high
    facts = found.to_json()
    assert facts["difference"] == facts["mean"] == pytest.approx(facts["second"]["mean"] - facts["first"]["mean"])
    assert facts["n"] == len(facts["values"]) == len(facts["seeds"])


def test_a_seed_that_diverges_costs_no_other_one() -> None:
    told: dict[int, Diverged] = {}
    wild = trials("optimizer.learning_rate=1e30")
    assert list(repeat(wild, [0, 1], diverged=told.__setitem__)) == []
    assert list(told) == [0, 1]
    with pytest.raises(Diverged):
        list(repeat(wild, [0]))


def test_a_seed_that_diverges_makes_no_pair_and_the_next_one_is_begun() -> None:
    calm, wild = trials(), trials("model.dropout=0.4")
    train(small("optimizer.learning_rate=1e30"), find(DATA), seed=1, out=wild.run(1).path)  # goes on, and diverges
    *_, found = compare(calm, wild, range(3))
    assert [type(outcome) for outcome in found.outcomes] == [Pair, Unpaired, Pair]
    assert found.diverged == ([], [1])
    assert calm.is_finished(1)  # whether A diverges, too, is found out
    *_, turned = compare(wild, calm, range(3))
    assert turned.diverged == ([1], [])
    assert turned.differences == [-one for one in found.differences]
    *_, nothing = compare(wild, wild, [1])
    assert (nothing.pairs, nothing.diverged) == ((), ([1], [1]))
    assert not nothing.is_settled
    *_, after = compare(wild, wild, [1, 2, 3])  # of itself, one pair is enough, and the first seed makes none
    assert [type(outcome) for outcome in after.outcomes] == [Unpaired, Pair]


def test_spread() -> None:
    one = Spread.of([0.5])
    assert (one.n, one.mean, one.standard_deviation, one.interval) == (1, 0.5, None, None)
    found = Spread.of([1.0, 2.0, 3.0])
    assert found.standard_deviation == 1
    assert found.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))  # t of 2, 97.5%
    assert found.to_json()["values"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("values", [(0.1, 0.1), (0.9,) * 5, (0.94 - 0.93, 0.95 - 0.94, 0.96 - 0.95)])
def test_values_that_are_all_alike_make_nothing_certain(values: tuple[float, ...]) -> None:
    found = Spread.of(values)
    assert found.standard_deviation == pytest.approx(0, abs=1e-15)
    assert found.interval is found.to_json()["interval"] is None


def test_both_are_judged_on_the_same_images() -> None:
    with pytest.raises(InputError, match="judged on the same images"):
        list(compare(trials(), trials("validation=0.5"), [0]))


def test_a_finished_trial_is_not_trained_anew() -> None:
    (trial,) = repeat(trials(), [0])
    training = resume(trial.run)
    assert list(training) == []
    assert training.classifier.fingerprint == Classifier.load(trial.run).fingerprint
    assert training.classifier.temperature == Classifier.load(trial.run).temperature
