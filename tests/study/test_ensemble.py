"""Ensembles: never worse than their best member where they are chosen, and one model to everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo import evaluate, metrics
from thirtytwo import recipe as recipes
from thirtytwo.classifier import Classifier, Ensemble
from thirtytwo.data import Exclusion, Source, find
from thirtytwo.errors import ModelError, RunError
from thirtytwo.run import write_atomic
from thirtytwo.study import Chosen, ensemble
from thirtytwo.study.ensemble import _on_other_images, order
from thirtytwo.train import train

WORDS = ["batch_size=32", "model.stages=[[4],[8]]", "model.hidden_units=16", "validation=0.25"]


@pytest.fixture(scope="module")
def source() -> Source:
    return find("shapes:training=200,test=40").in_memory()


@pytest.fixture(scope="module")
def members(source: Source, tmp_path_factory: pytest.TempPathFactory) -> list[Classifier]:
    folder = tmp_path_factory.mktemp("members")
    recipe = recipes.load("classic", ["epochs=3", *WORDS])
    return [train(recipe, source, seed=seed, out=folder / str(seed)).finish() for seed in range(3)]


def answers_of(labels: torch.Tensor, models: int, seed: int) -> torch.Tensor:
    noise = torch.randn((models, len(labels), 4), generator=torch.Generator().manual_seed(seed))
    return (noise + 1.5 * torch.nn.functional.one_hot(labels, 4)).softmax(2)


@given(models=st.integers(1, 6), seed=st.integers(0, 1000))
def test_what_is_selected_is_no_worse_than_the_best_alone(models: int, seed: int) -> None:
    labels = torch.arange(60) % 4
    answers = answers_of(labels, models, seed)
    together = metrics.cross_entropy(answers[order(answers, labels)].mean(0), labels)
    assert together <= min(metrics.cross_entropy(answer, labels) for answer in answers) + 1e-6


def test_models_that_know_nothing_are_not_selected() -> None:
    labels = torch.arange(400) % 4
    answers = answers_of(labels, 3, 0)
    answers[1] = 0.25
    assert set(order(answers, labels)) == {0, 2}


def test_an_ensemble_says_the_weighted_mean_of_what_its_members_say(members: list[Classifier], source: Source) -> None:
    pixels = source.read_training().pixels[:20]
    both = Ensemble.of(members[:2], [3, 1])
    expected = 0.75 * members[0](pixels) + 0.25 * members[1](pixels)
    assert np.allclose(both(pixels), expected, atol=1e-6)
    alone = Ensemble.of(members[:1])
    assert np.allclose(alone(pixels), members[0](pixels), atol=1e-6)
    assert alone.fingerprint != both.fingerprint != Ensemble.of(members[:2]).fingerprint


def test_it_is_stored_in_one_file_and_scored_like_any_model(
    members: list[Classifier], source: Source, tmp_path: Path
) -> None:
    chosen = ensemble(members, ["a", "b", "c"], source)
    chosen.ensemble.save(tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):  # the folder says the same
        again = Classifier.load(place)
        assert again.fingerprint == chosen.ensemble.fingerprint
    scored = evaluate(again, source, split="validation")
    assert scored.summary()["accuracy"] == chosen.accuracy
    assert scored.summary()["loss"] == pytest.approx(chosen.loss, abs=1e-5)
    assert chosen.loss <= chosen.best.loss + 1e-6
    assert 0 <= chosen.disagreement <= 1
    assert chosen.additions[-1].loss == min(addition.loss for addition in chosen.additions)
    assert {addition.name for addition in chosen.additions} == {one.name for one in chosen.members if one.weight}
    assert all(chosen.apart[one][other] == chosen.apart[other][one] for one in range(3) for other in range(3))
    assert [chosen.apart[number][number] for number in range(3)] == [0, 0, 0]
    assert again.unknown_below == chosen.ensemble.unknown_below > 0


def test_a_gain_is_told_by_images_that_have_chosen_nothing() -> None:
    """Of many models that all guess, the best on some images is as bad as any on others, and so is any ensemble."""
    labels = torch.arange(200) % 4
    answers = (2 * torch.randn((200, 200, 4), generator=torch.Generator().manual_seed(0))).softmax(2)
    halves = [np.arange(0, 200, 2), np.arange(1, 200, 2)]
    added = order(answers, labels)
    flattered = metrics.accuracy(answers[added].mean(0), labels)
    gain, accuracies = _on_other_images(answers, labels, halves, len(added))
    assert flattered > 0.35
    assert abs(gain.accuracy - 0.25) < 0.09  # three standard deviations
    assert abs(gain.best_accuracy - 0.25) < 0.09
    assert max(accuracies) < flattered
    assert len(accuracies) == len(added)


def test_a_gain_is_that_of_each_half_by_itself() -> None:
    labels = torch.arange(300) % 4
    answers = answers_of(labels, 4, 1)
    halves = [np.arange(150), np.arange(150, 300)]
    gain, _ = _on_other_images(answers, labels, halves, 1)
    right = rival = 0
    for here, there in (halves, halves[::-1]):
        added = order(answers[:, here], labels[here])
        best = max(range(4), key=lambda number: metrics.accuracy(answers[number, here], labels[here]))
        right += int((answers[added][:, there].mean(0).argmax(1) == labels[there]).sum())
        rival += int((answers[best, there].argmax(1) == labels[there]).sum())
    assert (gain.accuracy, gain.best_accuracy) == (right / 300, rival / 300)
    assert gain.won - gain.lost == right - rival
    low, high = gain.interval
    assert low < gain.difference < high


def test_an_ensemble_of_ensembles_is_refused(members: list[Classifier], source: Source) -> None:
    both = Ensemble.of(members[:2], facts={**members[0].facts, "members": ["a", "b"]})
    with pytest.raises(ModelError, match="name those that it is made of: a b"):
        ensemble([both, members[2]], ["both", "c"], source)


def test_models_that_left_out_the_same_images_answer_together(
    source: Source, members: list[Classifier], tmp_path: Path
) -> None:
    recipe = recipes.load("classic", ["epochs=1", *WORDS])
    for name, rows in (("some", "3\ntraining,8"), ("others", "3\ntraining,9"), ("none", "")):
        (tmp_path / f"{name}.csv").write_text(f"split,index\n{f'training,{rows}' if rows else ''}\n")

    def without(name: str, seed: int) -> Classifier:
        return train(
            recipe, source, seed=seed, out=tmp_path / f"{name}-{seed}", exclude=tmp_path / f"{name}.csv"
        ).finish()

    some = [without("some", seed) for seed in range(2)]
    chosen = ensemble(some, ["a", "b"], source)
    assert chosen.ensemble.exclusion.indices == (3, 8)
    assert chosen.images == sum(
        max(round(0.25 * number), 1) for number in source.without(some[0].exclusion).read_training().per_class
    )
    chosen.ensemble.save(tmp_path / "model.safetensors")
    scored = evaluate(Classifier.load(tmp_path / "model.safetensors"), source, split="validation")
    assert scored.summary()["accuracy"] == chosen.accuracy
    with pytest.raises(
        ModelError, match=r"b: .*without 2 of them \(others\.csv\), and a on them, without 2 .*\(some\.csv\)"
    ):
        ensemble([some[0], without("others", 0)], ["a", "b"], source)
    with pytest.raises(
        ModelError, match=r"b: .*on its data, without 2 of them \(some\.csv\), and a on them as they are"
    ):
        ensemble([members[0], some[0]], ["a", "b"], source)
    short = train(recipe, source, out=tmp_path / "short").finish()
    assert ensemble([without("none", 1), short], ["a", "b"], source).ensemble.exclusion == Exclusion(
        (str(tmp_path / "none.csv"),), named=(0,)
    )  # a table that names nobody leaves nobody out


def told(members: list[Classifier], source: Source, folder: Path) -> tuple[Chosen, dict[str, Any]]:
    """An ensemble in a folder of its own, and what result.json says there."""
    chosen = ensemble(members, ["a", "b", "c"], source)
    folder.mkdir()
    chosen.ensemble.save(folder / "model.safetensors")
    write_atomic(folder / "result.json", json.dumps(chosen.to_json()).encode())
    return chosen, chosen.to_json()


def test_a_folder_tells_all_that_was_known_when_an_ensemble_was_chosen(
    members: list[Classifier], source: Source, tmp_path: Path
) -> None:
    chosen, _ = told(members, source, tmp_path / "three")
    again = Chosen.recalled(tmp_path / "three")
    assert again.ensemble.fingerprint == chosen.ensemble.fingerprint
    assert {**vars(again), "ensemble": None} == {**vars(chosen), "ensemble": None}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"members": "all"}, r"damaged, or of another version \(members\)"),
        ({"environment": {"command": "x"}}, r"damaged.*environment\."),
        ({"apart": [[0.0]]}, "contradicts itself"),
        ({"additions": [{"name": "x", "accuracy": 1.0, "loss": 0.0, "other_accuracy": None}]}, "contradicts itself"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_that_tells_nonsense_is_refused(
    members: list[Classifier], source: Source, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    _, said = told(members, source, tmp_path / "three")
    path = tmp_path / "three" / "result.json"
    write_atomic(path, json.dumps({**said, **change}).encode())
    with pytest.raises(RunError, match=rf"result\.json: .*{problem}.*expected what `thirtytwo ensemble` writes"):
        Chosen.recalled(tmp_path / "three")
    path.unlink()
    with pytest.raises(RunError, match=r"result\.json: missing"):
        Chosen.recalled(tmp_path / "three")


def test_models_that_held_out_nothing_are_refused_with_what_would_do(source: Source, tmp_path: Path) -> None:
    words = ["epochs=1", *WORDS[:-1], "validation=0", "early_stopping.patience=0"]
    all_seen = [train(recipes.load("classic", words), source, seed=s, out=tmp_path / str(s)).finish() for s in range(2)]
    with pytest.raises(ModelError, match="held out: a 0%, b 0%; expected") as refused:
        ensemble(all_seen, ["a", "b"], source)
    assert "`thirtytwo train classic --set validation=0.1`" in str(refused.value)
    assert "`thirtytwo ensemble --train 2 --recipe classic`" in str(refused.value)


def test_members_that_do_not_fit_are_refused(members: list[Classifier], source: Source, tmp_path: Path) -> None:
    short = recipes.load("classic", ["epochs=1", *WORDS])
    other = train(short, "shapes:training=100,test=20", out=tmp_path / "a").finish()
    with pytest.raises(ModelError, match="other images than these"):
        ensemble([members[0], other], ["a", "b"], source)
    half = ["validation=0.5", "epochs=1", *WORDS[:-1]]
    other = train(recipes.load("classic", half), source, out=tmp_path / "b").finish()
    with pytest.raises(ModelError, match="held out: a 25%, b 50%; expected"):
        ensemble([members[0], other], ["a", "b"], source)
    with pytest.raises(ModelError, match=r"^a: named twice; expected different models"):
        ensemble([members[0], members[1], members[0]], ["a", "b", "a"], source)
    with pytest.raises(ModelError, match=r"^c: has the same weights as a; expected different models"):
        ensemble([members[0], members[1], members[0]], ["a", "b", "c"], source)
    with pytest.raises(ModelError, match="members differ: found 10 classes"):
        Ensemble.of([members[0], Classifier(members[0].network, members[0].model, members[0].classes, (16, 16))])
    with pytest.raises(ModelError, match="expected a number above 0"):
        Ensemble.of(members[:2], [1, 0])
