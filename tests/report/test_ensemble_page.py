"""The page of an ensemble: the gain that it tells first is that on images that have chosen nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.test_audit_page import ENVIRONMENT
from tests.report.test_report import UGLY, Page, check_it_stands_alone, table
from thirtytwo import recipe as recipes
from thirtytwo import report
from thirtytwo.classifier import Classifier, Ensemble
from thirtytwo.models import build
from thirtytwo.run import Run
from thirtytwo.settings import ClassicModel
from thirtytwo.study import Addition, Chosen, Gain, Member, Student, Trial

FACTS = {"validation_fraction": 0.1, "fingerprint": "f" * 64, "spec": "cifar10"}


def made(
    names: Sequence[str] = ("runs/a", "runs/b", "runs/c"), *, images: int = 5000, won: int = 60, lost: int = 30
) -> Chosen:
    """What a selection of some models might be: the last one is not chosen, and all are about as good."""
    settings = ClassicModel(stages=((4,),), hidden_units=4)
    single = Classifier(build(settings, 10), settings, tuple("abcdefghij"))
    chosen = len(names) - 1
    weights = [0.5, *[0.5 / max(chosen - 1, 1)] * (chosen - 1), 0.0]
    return Chosen(
        ensemble=Ensemble.of([single] * chosen, facts=FACTS),
        members=tuple(
            Member(name, weight, 0.93 + 0.001 * number, 0.25 - 0.001 * number, 0.012, 1_971_352)
            for number, (name, weight) in enumerate(zip(names, weights, strict=True))
        ),
        accuracy=0.9462,
        loss=0.1834,
        ece=0.0061,
        images=images,
        additions=tuple(
            Addition(names[number % chosen], 0.93 + 0.004 * number, 0.25 - 0.02 * number, 0.929 + 0.002 * number)
            for number in range(4)
        ),
        gain=Gain(images, 0.9411, 0.19, 0.9411 - (won - lost) / images, 0.23, won, lost),
        apart=tuple(
            tuple(0.0 if one == other else 0.05 + 0.001 * (one + other) for other in range(len(names)))
            for one in range(len(names))
        ),
        data="made",
        notice="",
        warnings=("a warning",),
        environment=ENVIRONMENT,
    )


def student() -> Student:
    trial = Trial(3, Run(Path("ensembles/1/distilled/fast94-0123456789/3")), 0.9444, 0.2, 800.0, True, 5000, 0.1)
    return Student(trial, recipes.load("fast94"), 0.008, 0.9631, 1_971_352, 0.3333)


def written(found: Chosen, students: Sequence[Student] = ()) -> Page:
    path = report.write_ensemble(Path(), found, students)
    assert path == Path("ensemble.html")
    return Page(path.read_text(encoding="utf-8"))


def test_the_gain_on_other_images_stands_first_and_the_flattering_one_is_called_so() -> None:
    page = written(made())
    hero = page.text.partition("Members")[0]
    assert "+0.60 points of accuracy against the best single model" in hero  # 30 of 5,000
    assert re.search(r"95% interval \+0\.\d\d to \+\d\.\d\d, n = 5,000", hero.replace("\u00a0", " "))
    assert "right on 94.62% of 5,000 validation images" in hero
    assert "so the +1.42 points in between are no fair measure" in hero  # 94.62% against 93.20%
    assert "Together they are better" in page.section("gain").text
    assert "On 60 images the ensemble is right and the best model wrong, on 30" in page.section("gain").text


@pytest.mark.parametrize(
    ("won", "lost", "verdict"),
    [(33, 30, "Whether they are better together is open"), (30, 90, "Together they are worse")],
)
def test_the_verdict_is_what_the_interval_says(won: int, lost: int, verdict: str) -> None:
    page = written(made(won=won, lost=lost))
    assert verdict in page.section("gain").text


def test_every_model_is_told_with_its_weight_and_the_idle_one_without() -> None:
    rows = table(written(made()), "Members")
    assert [re.sub("<.*?>", "", row[1]) for row in rows] == ["0.50", "0.50", "–", "1.00"]
    assert [row[0] for row in rows[:3]] == ["b", "a", "c"]  # without the folder that they share, the best first
    assert rows[0][2:4] == ["93.10%", "0.2490"]


def test_each_two_models_are_compared_once_either_way() -> None:
    rows = table(written(made()), "Where they differ")
    assert [row[1:] for row in rows] == [["–", "5.1%", "5.3%"], ["5.1%", "–", "5.2%"], ["5.3%", "5.2%", "–"]]
    many = written(made([f"runs/{number}" for number in range(15)]))
    assert len(table(many, "Where they differ")) == 12
    assert "3 models of the least weight are left out" in many.text


def test_each_round_is_drawn_for_both_kinds_of_images() -> None:
    page = written(made()).section("rounds")
    assert len(page.of("circle")) == 8
    assert len(page.of("polyline")) == 4  # two in the legend
    assert "2, b added: 93.40%, images it was chosen on" in page.html
    lone = written(replace(made(), additions=made().additions[:1])).section("rounds")
    assert not lone.of("circle")
    assert "There was one round only" in lone.text


def test_too_few_images_give_no_estimate_and_the_page_says_so() -> None:
    found = made(images=1)
    found = replace(found, gain=None, additions=tuple(replace(each, other_accuracy=None) for each in found.additions))
    page = written(found)
    assert "There are too few of them for a fair one" in page.text
    assert 'id="gain"' not in page.html
    assert len(page.section("rounds").of("circle")) == 4


def test_a_student_stands_beside_its_teacher() -> None:
    rows = table(written(made(), [student()]), "Students")
    assert rows[0][:5] == ["fast94, seed 3", "94.44%", "0.2000", "0.8%", "96.3%"]
    assert rows[0][6] == "33%"
    assert "thirtytwo train --resume ensembles/1/distilled/fast94-0123456789/3" in written(made(), [student()]).text
    assert "--distil fast94" in written(made()).text
    recipe = "ensembles/1/distilled/fast94-0123456789/3/recipe.toml"
    compare = f"thirtytwo compare '{recipe} teacher.model=' {recipe} --data cifar10 --first-seed 4"
    assert compare in written(made(), [student()]).text
    found = made()
    found.ensemble.facts = {**FACTS, "excluded": {"files": ["/a/issues.csv"], "indices": [3, 5]}}
    page = written(found, [student()])
    assert "thirtytwo compare" not in page.text  # which can leave out no images
    assert "2 training images, named in issues.csv" in page.text


def test_an_ensemble_of_one_is_not_said_to_answer_together() -> None:
    found = made(["runs/a", "runs/b"])
    page = written(found)
    assert len(found.ensemble.members) == 1
    assert "One of 2 models does best alone on made" in page.text
    assert "Of 2 models, a answers alone, because adding any other does not lower the loss" in page.text


def test_names_are_told_as_they_are_and_nothing_is_fetched() -> None:
    page = written(made([f"runs/{name}" for name in UGLY[:4]]))
    assert "<script>alert" not in page.html
    check_it_stands_alone(page)
