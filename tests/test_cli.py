"""The program as a person uses it: words in, text and exit codes out. Every command runs for real."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import thirtytwo
from thirtytwo import recipe
from thirtytwo.classifier import Classifier
from thirtytwo.cli import main
from thirtytwo.cli.show import Screen
from thirtytwo.data import find
from thirtytwo.run import Run
from thirtytwo.study import Local, Watcher
from thirtytwo.study.task import Ended, Task

SHAPES = "shapes:training=150,test=40"
SMALL = ("--set", "batch_size=32", "--set", "model.stages=[[4], [8]]", "--set", "model.hidden_units=8")

Program = Callable[..., "Answer"]


class Answer:
    """What a call of the program printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["thirtytwo", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from thirtytwo import evaluate_run, load_recipe, train, write_report

    words = [word for word in SMALL if word != "--set"]
    training = train(load_recipe("classic", [*words, "epochs=2"]), SHAPES, out=tmp_path_factory.mktemp("cli") / "run")
    training.finish()
    evaluate_run(training.run)
    write_report(training.run)
    return training.run.path


def test_train_prints_the_network_the_epochs_and_the_result(program: Program) -> None:
    answer = program("train", "classic", "--data", SHAPES, "--epochs", "2", *SMALL, "--seed", "3")
    assert answer.code == 0, answer.err
    assert "Conv2d 3 → 4, 3 × 3" in answer.out
    assert "total" in answer.out
    assert "    2/2  " in answer.out
    assert "test accuracy" in answer.out
    assert "opening 1 of this test set" in answer.out
    run = Run.open("runs/classic-1")
    assert f"Report: {run.path}/report.html" in answer.out
    assert run.environment["seed"] == 3
    assert "\x1b" not in answer.out  # plain lines where the output is no terminal
    held_out = run.result["validation"]
    assert (
        f"validation accuracy {held_out['accuracy']:.2%} on {held_out['images']} images, loss {held_out['loss']:.4f}\n"
        "test and validation loss are after temperature scaling, the losses of the epochs before it\n"
    ) in answer.out


def test_a_restart_by_torchrun_is_told_how_to_go_on(
    program: Program, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "classic", "--data", SHAPES, "--out", trained]
    assert f"`thirtytwo train --resume {trained}` goes on" in program(*words).err
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    answer = program(*words)
    assert answer.code == 2
    assert f"`torchrun … -m thirtytwo train --resume {trained}` goes on" in answer.err


def test_a_training_that_ends_while_the_rate_still_rises_is_told(program: Program) -> None:
    rises = ["--set", "schedule.name=cosine", "--set", "schedule.warmup_epochs=2"]
    said = "schedule.warmup_epochs is 2, of 2 epochs: the learning rate rises to the end and never falls"
    words = ["--data", SHAPES, *SMALL, *rises]
    answer = program("train", "classic", "--epochs", "2", "--corrupted", "0", "--json", *words)
    assert answer.code == 0, answer.err
    assert answer.err.count(said) == 1
    assert "--set schedule.warmup_epochs=0.4 would" in answer.err
    assert program("repeat", "classic", "--set", "epochs=2", "--runs", "1", *words).out.count(said) == 1
    assert said not in program("train", "classic", "--epochs", "3", "--corrupted", "0", *words).out


def test_without_a_recipe_the_default_is_trained(program: Program) -> None:
    answer = program("train", "--data", SHAPES, "--epochs", "1", "--set", "model.widths=[4, 8]")
    assert answer.code == 0, answer.err
    assert Run.open("runs/fast94-1").recipe.name == recipe.DEFAULT == "fast94"


def test_train_json_is_one_object_with_everything_promised(program: Program) -> None:
    answer = program("train", "classic", "--data", SHAPES, "--epochs", "1", *SMALL, "--json", "--out", "here")
    assert answer.code == 0, answer.err
    promised = (
        "recipe seed data images epochs train_seconds cold_seconds flops parameters peak_memory_bytes test_opening "
        "validation test"
    )
    assert set(promised.split()) <= answer.json.keys()
    assert answer.json == Run.open("here").result


def test_a_run_folder_holds_what_it_promises_and_no_pickle(trained: Path) -> None:
    promised = {
        "recipe.toml", "environment.json", "metrics.csv", "checkpoint", "model.safetensors", "predictions.safetensors",
        "result.json", "report.html",
    }  # fmt: skip
    assert promised <= {path.name for path in trained.iterdir()}
    for path in trained.rglob("*"):
        if path.is_file():
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK"), path


def test_evaluate_agrees_with_the_runs_own_result(program: Program, trained: Path) -> None:
    result = Run.open(trained).result
    answer = program("evaluate", trained, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["test"] == result["test"]
    promised = {"recipe", "seed", "data", "images", "epochs", "train_seconds", "cold_seconds", "flops", "parameters"}
    assert {key: answer.json[key] for key in promised} == {key: result[key] for key in promised}
    validation = program("evaluate", trained / "model.safetensors", "--split", "validation", "--json").json
    assert validation["validation"]["accuracy"] == result["validation"]["accuracy"]
    assert validation["test_opening"] is None
    (told,) = validation["warnings"]
    assert told.startswith("parts of the model were fitted to these images")
    assert "per_class" in answer.json["test"]
    training = program("evaluate", trained, "--split", "training")
    assert training.code == 0
    assert "warning the model was trained on these images" in training.out


def test_predict_answers_for_files_and_folders(program: Program, trained: Path, tmp_path: Path) -> None:
    test = find(SHAPES).read_training()
    folder = tmp_path / "mine"
    (folder / "deeper").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.jpg", "deeper/c.webp")):
        Image.fromarray(test.pixels[index]).resize((64, 48)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    answer = program("predict", trained, folder, folder / "a.png", "--json")
    assert answer.code == 0, answer.err
    assert [Path(row["path"]).name for row in answer.json] == ["a.png", "b.jpg", "c.webp", "a.png"]
    for row in answer.json:
        assert row.keys() == {"path", "class", "probability", "probabilities"}
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == row["probabilities"][row["class"]]
    shown = program("predict", trained, folder / "a.png")
    assert answer.json[0]["class"] in shown.out


def test_predict_answers_for_the_files_that_can_be_read_and_names_the_others(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    mine, empty = tmp_path / "mine", tmp_path / "empty"
    good, text, absent = mine / "good.png", mine / "text.png", mine / "absent.png"
    mine.mkdir()
    empty.mkdir()
    noise("RGB").save(good)
    text.write_text("no image")
    said = {
        good: None,
        text: "not an image of a known format; expected an image file",
        absent: "no such file or folder; expected an image file",
        empty: "no image files in this folder; expected some",
    }
    (alone,) = program("predict", trained, good, "--json").json
    calls = {(text, good, absent): (text, good, absent), (empty, mine, good): (empty, good, text, good)}
    for words, files in calls.items():
        answer = program("predict", trained, *words, "--json")
        assert answer.code == 2
        assert "error: 1 of 3 files was classified; the other 2 cannot be read as images\n" in answer.err
        assert [row["path"] for row in answer.json] == list(map(str, files))  # a script finds each where it gave it
        for row, file in zip(answer.json, files, strict=True):
            if (problem := said[file]) is None:
                assert row.keys() == alone.keys()
                assert row["class"] == alone["class"]
                continue
            assert row.keys() == {*alone, "error"}
            assert (row["class"], row["probability"], row["probabilities"]) == (None, None, {})
            assert row["error"].startswith(problem)
            assert f"{file}: {row['error']}" in answer.err
    shown = program("predict", trained, empty, good)
    assert (shown.code, str(good) in shown.out, str(empty) in shown.out) == (2, True, False)
    assert "1 of 2 files was classified; the other one cannot be read as an image" in shown.err
    none = program("predict", trained, text, absent)
    assert "error: 2 of 2 files cannot be read as images\n" in none.err


def test_names_from_another_alphabet_cost_no_answer(program: Program, trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "photos" / os.fsdecode(b"Gr\x94\xdfe.png")
    place.parent.mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.png").rename(place)
    (found,) = program("predict", trained, tmp_path / "photos", "--json").json
    assert found["path"] == str(place)
    assert r"Gr\udc94\udcdfe.png" in program("predict", trained, tmp_path / "photos").out


def test_a_test_image_that_cannot_be_read_is_found_before_the_training(program: Program, tmp_path: Path) -> None:
    for split, name in itertools.product(("train", "test"), ("cat", "dog")):
        (tmp_path / "pets" / split / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / split / name / f"{number}.png")
    (tmp_path / "pets" / "test" / "cat" / "3.png").write_bytes(b"half a picture")
    answer = program("train", "classic", "--data", tmp_path / "pets", "--epochs", "1", *SMALL)
    assert answer.code == 2
    assert "cat/3.png" in answer.err
    assert not (tmp_path / "runs").exists()


def test_predict_says_unknown_where_it_is_asked_to(program: Program, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise("RGB").save(path)
    (plain,) = program("predict", trained, path, "--json").json
    (never,) = program("predict", trained, path, "--json", "--unknown-below", "0.9999").json
    assert never == {**plain, "class": "unknown", "answered": False, "unknown_below": 0.9999}
    (auto,) = program("predict", trained, path, "--json", "--unknown-below", "auto").json
    suggested = Classifier.load(trained).unknown_below
    assert 0 < suggested < 1
    is_known = plain["probability"] >= suggested
    assert auto["class"] == (plain["class"] if is_known else "unknown")
    assert auto["answered"] is is_known
    assert auto["unknown_below"] == suggested
    shown = program("predict", trained, path, "--unknown-below", "auto").out
    said = f"unknown: no class reaches {suggested:.2%}, which auto stands for with this model"
    assert f"{said}; {int(not is_known)} of 1 image" in shown
    shown = program("predict", trained, path, "--unknown-below", "1").out
    assert "unknown: no class reaches 100.00%; 1 of 1 image" in shown
    assert f"{plain['class']} {plain['probability']:.1%}" in shown  # whose probability it is
    assert f"{plain['class']} {plain['probability']:.1%}" not in program("predict", trained, path).out
    assert "did you mean 0.8?" in program("predict", trained, path, "--unknown-below=80").err
    for wrong in ("2", "-0.1", "often", "nan"):
        answer = program("predict", trained, path, f"--unknown-below={wrong}")
        assert answer.code == 2
        assert "expected a probability from 0 to 1, or auto" in answer.err


def test_evaluate_scores_corrupted_images_on_request(program: Program, trained: Path) -> None:
    assert "corrupted" not in program("evaluate", trained, "--split", "validation", "--json").json
    scores = program("evaluate", trained, "--split", "training", "--corrupted", "30", "--json").json["corrupted"]
    assert scores["images"] == 30
    assert "jpeg" in program("evaluate", trained, "--split", "training", "--corrupted", "30").out


def test_repeat_tells_the_spread_and_trains_nothing_twice(program: Program) -> None:
    words = ["classic", "--data", SHAPES, *SMALL, "--set", "epochs=1", "--runs"]
    answer = program("repeat", *words, "2", "--json")
    assert answer.code == 0, answer.err
    assert {"values", "mean", "standard_deviation", "interval", "n", "margin_of_images"} <= answer.json.keys()
    assert answer.json["n"] == len(answer.json["values"]) == 2
    assert Path(answer.json["figure"]).read_text().startswith("<?xml")
    again = program("repeat", *words, "3")
    assert again.out.count("trained before") == 2
    assert "n = 3" in again.out
    assert f"of the {answer.json['images']} validation images that all runs share" in again.out
    assert "one training has no spread" in program("repeat", *words, "1").out


def test_compare_tells_whether_a_difference_is_real(program: Program) -> None:
    words = ["--data", SHAPES, *SMALL, "--set", "epochs=1", "--runs", "2"]
    answer = program("compare", "classic", "classic model.dropout=0.5", *words, "--json")
    assert answer.code == 0, answer.err
    promised = {"values", "mean", "standard_deviation", "interval", "n", "difference", "p_value"}
    assert promised <= answer.json.keys()
    assert answer.json["a"]["runs"] != answer.json["b"]["runs"]
    shared = [word for word in words if "=" in word and word != SHAPES]
    assert answer.json["a"]["changes"] == shared
    assert answer.json["b"]["changes"] == ["model.dropout=0.5", *shared]
    assert answer.json["same_recipe"] is False
    every = " ".join(shared)
    for said in (f"A: classic {every}: 1 epoch", f"B: classic model.dropout=0.5 {every}: 1 epoch"):
        assert said in answer.err
    assert "trained before" not in answer.err
    assert program("compare", "classic", "classic model.dropout=0.5", *words).out.count("points (trained before)") == 2
    same = program("compare", "classic", "classic", *words)
    assert "A and B are the same recipe, so one training is enough." in same.out
    assert "A and B are the same recipe: difference 0, p = 1, n = 1 pair" in same.out
    assert "seed 1" not in same.out
    Path("mine.toml").write_text(recipe.load("classic", ["name=mine"]).to_toml(), encoding="utf-8")
    renamed = program("compare", "classic", "mine.toml", *words, "--json").json
    assert (renamed["n"], renamed["difference"], renamed["p_value"], renamed["same_recipe"]) == (1, 0, 1, True)
    assert renamed["a"]["runs"] == renamed["b"]["runs"]
    assert "n = 2 pairs" in program("compare", "classic", "classic", *words, "--all").out
    assert program("compare", "classic", "clasic", *words).code == 2
    assert program("compare", "classic", "'classic", *words).code == 2


def test_compare_goes_on_after_a_seed_that_diverges_and_tells_whose_it_was(program: Program) -> None:
    small = ["--data", SHAPES, *SMALL, "--set", "epochs=1"]
    words = ["compare", "classic", "classic model.dropout=0.5", *small, "--runs"]
    begun = Path(program(*words, "1", "--json").json["b"]["runs"]) / "1"
    wild = ["--set", "optimizer.learning_rate=1e30", "--set", "validation=0.1", "--seed", "1"]
    assert program("train", "classic", *small, *wild, "--out", begun).code == 1
    answer = program(*words, "3", "--json", "--difference", "0.5")
    assert answer.code == 0, answer.err
    assert answer.json["pairs_needed"].keys() == {"0.005"}
    assert (answer.json["seeds"], answer.json["diverged_seeds"]) == ([0, 2], {"A": [], "B": [1]})
    assert "seed 1: no pair, B diverged:" in answer.err
    again = program(*words, "3")
    assert again.code == 0
    assert "where neither diverged: difference" in again.out
    assert "B diverged with 1 of 3 seeds (1)" in again.out
    never = program("compare", "classic", "classic optimizer.learning_rate=1e30", *small, "--runs", "2")
    assert never.code == 1
    assert "B diverged with 2 of 2 seeds (0, 1); expected a seed with which neither does" in never.err
    assert program(*words, "1", "--difference", "0").code == 2


def test_tune_writes_a_recipe_and_a_page(program: Program, tmp_path: Path) -> None:
    words = ["tune", "classic", "--data", SHAPES, *SMALL, "--set", "epochs=1", "--trials", "2", "--out", tmp_path / "t"]
    answer = program(*words, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["n"] == 2
    assert found["own"]["number"] == 0
    assert Path(found["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    again = program(*words)
    assert again.code == 0
    assert "trial 0" not in again.out  # nothing is trained twice
    told = [line for line in again.out.splitlines() if line.startswith("thirtytwo compare")]
    # So few steps teach nothing, so it is chance whether there is anything better to compare.
    is_better = found["best"]["accuracy"] > found["own"]["accuracy"]
    command = ["thirtytwo", "compare", found["own_recipe"], found["tuned"], "--data", SHAPES, "--first-seed", "1"]
    assert told == ([shlex.join(command)] if is_better else [])
    assert found["comparison"] == (command if is_better else [])
    assert program(*command[1:], "--runs", "1").code == 0  # as it stands
    assert program("train", found["tuned"], "--data", SHAPES, "--epochs", "1", "--out", tmp_path / "run").code == 0


def test_another_search_has_another_folder_and_the_same_one_goes_on(program: Program) -> None:
    words = ["tune", "classic", "--data", SHAPES, *SMALL, "--set", "epochs=1", "--trials", "1", "--json"]
    first = program(*words)
    assert first.code == 0, first.err
    others = [program(*words, *more).json["tuned"] for more in (["--seed", "1"], ["--set", "model.dropout=0.5"])]
    assert len({first.json["tuned"], *others}) == 3
    assert program(*words).json == first.json
    assert len(list(Path("runs/tune").glob("classic-*/tuning.html"))) == 3


def test_a_recipe_without_a_search_is_refused_before_anything_is_fetched(program: Program) -> None:
    answer = program("tune", "airbench94", "--data", "nowhere")
    assert answer.code == 2
    assert "take a recipe that has one: cct, classic" in answer.err


def test_without_optuna_tune_says_how_to_get_it(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = program("tune", "classic", "--data", SHAPES)
    assert answer.code == 2
    assert "pip install -c constraints.txt -e '.[tune]'" in answer.err


def test_an_ensemble_is_a_model_like_any_other(program: Program, trained: Path, tmp_path: Path) -> None:
    words = ["--data", SHAPES, "--epochs", "1", *SMALL, "--seed", "5", "--corrupted", "0"]
    assert program("train", "classic", *words, "--out", tmp_path / "other").code == 0
    answer = program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "both", "--json")
    assert answer.code == 0, answer.err
    assert sum(member["weight"] for member in answer.json["members"]) == pytest.approx(1)
    scored = program("evaluate", tmp_path / "both", "--split", "validation", "--json").json
    assert scored["validation"]["accuracy"] == answer.json["validation"]["accuracy"]
    assert scored["recipe"] == "ensemble"
    page = tmp_path / "both" / "ensemble.html"
    drawn = page.read_bytes()
    page.unlink()
    assert program("report", tmp_path / "both", "--json").json == {"report": str(page)}
    assert page.read_bytes() == drawn
    assert "together" in program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "again").out
    assert program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "both").code == 2  # is there already
    assert program("ensemble", trained).code == 2


def test_an_ensemble_teaches_a_network_and_the_same_command_goes_on(
    program: Program, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thirtytwo.events import Epoch
    from thirtytwo.train import Training

    words = ["--data", SHAPES, "--epochs", "1", *SMALL, "--seed", "5", "--corrupted", "0"]
    assert program("train", "classic", *words, "--out", tmp_path / "other").code == 0
    recipe = "classic epochs=3 batch_size=32 model.stages=[[4],[8]] model.hidden_units=8"
    words = ["ensemble", str(trained), str(tmp_path / "other"), "--distil", recipe, "--json"]

    iterate = Training.__iter__

    def until_somebody_stops_it(training: Training) -> Any:
        for event in iterate(training):
            yield event
            if isinstance(event, Epoch) and event.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "__iter__", until_somebody_stops_it)
        stopped = program(*words)
    assert stopped.code == 128 + signal.SIGINT
    assert "The same command continues" in stopped.err
    answer = program(*words)
    assert answer.code == 0, answer.err
    assert answer.json["out"] == "ensembles/1"  # where it was
    student = answer.json["distilled"]
    assert Run.open(student["run"]).recipe.teacher.model == str((tmp_path / "ensembles" / "1").resolve())
    assert 0 < student["agreement"] <= 1
    chosen = [member for member in answer.json["members"] if member["weight"]]
    assert student["work"] == pytest.approx(1 / len(chosen))  # of the same kind as each member
    assert "classic, seed 0" in Path(answer.json["page"]).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "ensembles" / "1" / "result.json").read_text(encoding="utf-8")) == answer.json
    again = program(*words[:-1])
    assert "done before" in again.out
    said = next(line for line in again.out.splitlines() if "thirtytwo compare" in line)
    compare = shlex.split(said[said.index("thirtytwo compare") :])
    found = program(*compare[1:], "--runs", "1", "--json").json
    trials = [Run.open(Path(found[side]["runs"]) / "1").recipe for side in "ab"]
    assert [bool(trial.teacher.model) for trial in trials] == [False, True]
    assert Path(found["b"]["runs"]).name == Path(student["run"]).parent.name  # the same training, to the digest
    assert found["b"]["validation"] == 0.1
    page = Path(answer.json["page"])
    drawn = page.read_text(encoding="utf-8")
    page.unlink()
    assert program("report", "ensembles/1").code == 0
    assert page.read_text(encoding="utf-8") == drawn  # with the student in it
    assert program("train", "--resume", student["run"], "--corrupted", "0", "--json").json["test_opening"]
    assert program(*words, "--out", trained).code == 2  # holds something else
    assert program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "ensembles" / "1").code == 2
    twice = program("ensemble", trained, tmp_path / "other", "--distil", "classic teacher.model=x")
    assert twice.code == 2
    assert "expected none, since the ensemble is to teach it" in twice.err


def test_an_ensemble_trains_its_members(program: Program, tmp_path: Path) -> None:
    words = ["ensemble", "--data", SHAPES, "--recipe", f"classic epochs=1 {SMALL[1]} {SMALL[5]}"]
    answer = program(*words, "--train", "3", "--first-seed", "4", "--out", tmp_path / "three", "--json")
    assert answer.code == 0, answer.err
    assert [Path(member["name"]).name for member in answer.json["members"]] == ["4", "5", "6"]
    more = program(*words, answer.json["members"][0]["name"], "--train", "1", "--out", tmp_path / "more")
    assert more.code == 0, more.err
    assert "trained before" not in more.out  # seed 0 is new
    assert program(*words, "--train", "1", "--out", tmp_path / "one").code == 2
    words += ["--train", "2", "--first-seed", "4", "--distil", words[-1], "--seed", "1", "--out", str(tmp_path / "all")]
    taught = program(*words, "--json")
    assert taught.code == 0, taught.err
    assert taught.json["distilled"]["seed"] == 1
    again = program(*words)
    assert again.code == 0, again.err
    assert again.out.count("trained before") == 2
    assert "done before" in again.out


def test_an_ensemble_whose_members_cannot_fit_is_refused_before_anything_is_trained(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    words = ["ensemble", trained, "--data", SHAPES, "--train", "2", "--recipe"]
    recipe = f"classic epochs=1 {SMALL[1]} {SMALL[5]}"
    for other, said in (
        ([f"{recipe} validation=0.4"], "expected the same share; add validation=0.1 to --recipe"),
        ([recipe, "--distil", f"{recipe} validation=0.4"], "its teachers held out 10%; expected the same images"),
        ([recipe, "--distil", f"{recipe} start.model=nowhere"], "start.model: nowhere: no such file or folder"),
    ):
        answer = program(*words, *other)
        assert answer.code == 2
        assert said in answer.err
    assert not (tmp_path / "runs" / "study").exists()


def test_an_ensemble_that_was_being_written_is_gone_on_with(program: Program, trained: Path, tmp_path: Path) -> None:
    words = ["--data", SHAPES, "--epochs", "1", *SMALL, "--seed", "5", "--corrupted", "0"]
    assert program("train", "classic", *words, "--out", tmp_path / "other").code == 0
    assert program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "both").code == 0
    (tmp_path / "both" / "result.json").unlink()
    assert program("ensemble", trained, tmp_path / "other", "--out", tmp_path / "both").code == 0
    assert (tmp_path / "both" / "result.json").exists()
    killed = tmp_path / "killed" / ".model.safetensors.4194305.part"  # no process has that number
    killed.parent.mkdir()
    killed.write_bytes(b"half of it")
    assert program("ensemble", trained, tmp_path / "other", "--out", killed.parent).code == 0
    assert not killed.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one"], "expected at least two models"),
        (["one", "two", "--recipe", "classic"], "expected --train N as well"),
        (["one", "two", "--first-seed", "1"], "expected --train N as well"),
        (["--train", "2", "--seed", "1"], "expected --distil RECIPE as well, or --first-seed"),
        (["one", "two", "--ray", "auto"], "expected --train N, or --distil RECIPE, as well"),
        (["--train", "2", "--distil", "classic teacher.model=x"], "the ensemble is to teach it"),
        (["--train", "2", "--out", "taken"], "exists already"),
        (["--train", "2", "--distil", "classic", "--out", "taken"], "exists already"),
    ],
)
def test_what_an_ensemble_cannot_be_told_is_said_before_anything_is_trained(
    program: Program, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    answer = program("ensemble", "--data", SHAPES, *words)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["repeat", "compare", "tune", "ensemble", "audit"])
def test_without_ray_a_study_says_how_to_get_it(
    program: Program, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    words = {"compare": ["classic", "classic"], "tune": ["classic"], "ensemble": ["--train", "2"]}.get(command, [])
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = program(command, *words, "--ray", "auto")
    assert answer.code == 2
    assert "pip install -c constraints.txt -e '.[cluster]'" in answer.err


class Elsewhere(Local):
    """A cluster whose machines have a device that is not here; it computes with what is."""

    room = 1

    def __init__(self, address: str, *, device: str, gpu_share: float, watcher: Watcher) -> None:
        super().__init__(watcher)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Iterable[Task], judge: Any = None) -> Generator[tuple[Task, Ended]]:
        yield from super().run((replace(task, device="cpu") for task in tasks), judge)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*("cpu" if argument == "cuda" else argument for argument in arguments))


def test_who_lets_a_cluster_train_on_gpus_need_not_have_one(
    program: Program, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("thirtytwo.study.OnRay", Elsewhere)
    monkeypatch.setattr("thirtytwo.study.pool.imported", lambda: None)
    cluster = ["--device", "cuda", "--ray", "auto", "--json"]
    small = f"epochs=1 {SMALL[1]} {SMALL[3].replace(' ', '')} {SMALL[5]}"
    words = ["--train", "1", "--recipe", f"classic {small}", "--data", SHAPES]
    answer = program("ensemble", trained, *words, *cluster)
    assert answer.code == 0, answer.err
    assert program("ensemble", trained, *words, *cluster[:2]).code == 2  # without a cluster, it is this machine's
    audit = ["audit", "shapes:training=120,test=40", "--networks", "2", "--recipe", f"classic {small}"]
    answer = program(*audit, *cluster)
    assert answer.code == 0, answer.err
    assert program("ensemble", trained, *words, "--ray", "auto", "--device", "tpu").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray", "nowhere"], "no such address"),
        (["--ray", "ray://127.0.0.1:10001"], "no such address"),
        (["--ray", "127.0.0.1:1"], "nobody answers"),
        (["--gpu-share", "0.5"], "expected --ray as well"),
        (["--ray", "auto", "--gpu-share", "0"], "--gpu-share"),
    ],
)
def test_a_cluster_that_is_not_there_is_a_clear_error(program: Program, words: list[str], said: str) -> None:
    answer = program("repeat", "classic", "--data", SHAPES, *words)
    assert answer.code == 2
    assert said in answer.err


def test_audit_tells_what_is_wrong_with_a_data_set(program: Program, tmp_path: Path) -> None:
    words = ["audit", "shapes:training=120,test=40,label_errors=0.1,duplicates=0.1", "--networks", "2"]
    words += ["--recipe", "classic epochs=1 batch_size=50 model.stages=[[4],[8]] model.hidden_units=8", "--json"]
    answer = program(*words, "--out", tmp_path / "audit")
    assert answer.code == 0, answer.err
    found = answer.json
    assert {"label_issues", "duplicates", "odd_images", "leaked_test_images", "test_opening"} <= found.keys()
    with (tmp_path / "audit" / "label_issues.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], int(row["index"])) for row in rows] == [
        (issue["split"], issue["index"]) for issue in found["label_issues"]
    ]
    assert Path(found["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "was changed" not in answer.err
    table = tmp_path / "audit" / "duplicates.csv"
    table.write_text("".join(table.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    edited = table.read_bytes()
    again = program(*words[:-1], "--out", tmp_path / "audit")
    assert "network 1 of 2" not in again.out  # nothing is trained twice
    assert table.read_bytes() == edited
    assert f"{table}: was changed since an audit wrote it" in again.out
    assert "delete it or move it" in again.out
    assert "duplicates.csv was changed since an audit wrote it" in Path(found["page"]).read_text(encoding="utf-8")
    assert "nobody has checked yet how many such pairs in these data are right" in again.out
    assert f"Opening {found['test_opening']} of this test set" in again.out
    assert program("audit", "shapes:training=120,test=40", "--networks", "1").code == 2


def stop_at(place: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come in the middle of something: when this is called for so many times."""
    from thirtytwo.data import source
    from thirtytwo.report import audit_page
    from thirtytwo.study import duplicates, findings, folds, label_errors

    owner, name, call = {
        "reading": (source.Source, "read_training", 1),
        "before training": (folds.Folds, "train", 1),
        "asking": (Classifier, "probabilities", 2),
        "labels": (label_errors, "find", 1),
        "neighbours": (duplicates, "_nearest", 2),
        "comparing": (duplicates._Pictures, "compared", 1),
        "tables": (findings, "write_tables", 1),
        "page": (audit_page, "render", 1),
    }[place]
    function, calls = getattr(owner, name), 0

    def stopped(*words: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
        return function(*words, **more)

    monkeypatch.setattr(owner, name, stopped)


AUDIT = ("shapes:training=120,test=40,duplicates=0.1", "classic epochs=1 batch_size=60 model.stages=[[4]]")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an audit finds that nobody stops."""
    from thirtytwo import load_recipe
    from thirtytwo.study import audit

    spec, words = AUDIT
    name, *changes = words.split()
    out = tmp_path_factory.mktemp("audit")
    found = audit(find(spec), load_recipe(name, changes), out, folds=2, recipe_words=words.split()).to_json()
    return {key: found[key] for key in ("recipe", "label_issues", "duplicates", "odd_images", "accuracy")}


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("reading", signal.SIGINT),
        ("before training", signal.SIGTERM),
        ("asking", signal.SIGINT),
        ("asking", signal.SIGTERM),
        ("labels", signal.SIGTERM),
        ("neighbours", signal.SIGINT),
        ("comparing", signal.SIGTERM),
        ("tables", signal.SIGINT),
        ("page", signal.SIGTERM),
    ],
)
def test_an_audit_that_is_stopped_anywhere_says_that_the_same_command_goes_on(
    program: Program, monkeypatch: pytest.MonkeyPatch, place: str, number: signal.Signals, audited: dict[str, Any]
) -> None:
    words = ("audit", AUDIT[0], "--recipe", AUDIT[1], "--networks", "2", "--json")
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        stop_at(place, number, patched)
        stopped = program(*words)
    assert stopped.code == 128 + number
    assert "Interrupted; nothing is lost. The same command continues from here." in stopped.err
    assert stopped.out == ""
    assert signal.getsignal(number) == before
    answer = program(*words)
    assert answer.code == 0, answer.err
    assert {key: answer.json[key] for key in audited} == audited
    assert (answer.json["test_opening"], answer.json["tables_left_alone"]) == (1, [])


def test_an_audit_names_broken_files_and_its_page_says_how_to_go_on(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, images in (("train", 24), ("test", 8)):
        for index in range(images):
            path = tmp_path / "pets" / split / ("cat", "dog")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise("RGB").save(path)
    broken = [tmp_path / "pets" / name for name in ("train/cat/0.png", "train/dog/5.png", "test/cat/2.png")]
    for path in broken:
        path.write_bytes(b"no picture")
    refused = program("train", "classic", "--data", "pets", *SMALL)
    assert (refused.code, refused.err.count("no picture") + refused.err.count("not an image")) == (2, 1)  # of the test
    recipe = "classic epochs=1 batch_size=32 model.stages=[[4]]"
    answer = program("audit", "pets", "--networks", "2", "--recipe", recipe)
    assert answer.code == 0, answer.err
    assert "left out: 2 training files that cannot be read as images" in answer.out
    assert "unreadable files" in answer.out
    place = tmp_path / "audits" / "pets"
    with (place / "broken_files.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(map(str, broken))
    page = (place / "audit.html").read_text(encoding="utf-8")
    assert all(str(path) in page for path in broken)
    assert "First remove the 3 files that cannot be read" in page
    for path in broken:
        path.unlink()
    monkeypatch.chdir(place)
    # All pictures are the same, so the networks cannot judge labels, and nobody is told to train by their doubts.
    assert "thirtytwo train" not in page
    (command,) = re.findall("<code>thirtytwo (audit .*?)</code>", page)
    typed = program(*shlex.split(html.unescape(command)))
    assert typed.code == 0, typed.err
    again = (place / "audit.html").read_text(encoding="utf-8")
    assert "classic batch_size=32 model.stages=[[4]] epochs=2: 2 epochs" in again
    assert "First remove" not in again


def test_what_an_audit_names_is_left_out(program: Program, tmp_path: Path) -> None:
    spec = "shapes:training=150,test=40,duplicates=0.2"
    (tmp_path / "issues.csv").write_text(
        "split,index,path,given,suggested,score\ntraining,3,,,ring,0.9\ntest,1,,,ring,0.9\n"
    )
    (tmp_path / "duplicates.csv").write_text(
        "split_a,index_a,split_b,index_b,distance,kind\n"
        "training,3,training,8,0.0,exact\ntraining,7,test,2,0.0,exact\ntest,4,test,5,0.0,exact\n"
    )
    tables = ["--exclude", "issues.csv", "--exclude", "duplicates.csv"]
    answer = program("train", "classic", "--data", spec, *SMALL, "--epochs", "1", *tables, "--out", "less")
    assert answer.code == 0, answer.err
    assert "left out: 3 of 150 training images, named in issues.csv (1), duplicates.csv (2)" in answer.out
    assert "left out are" not in answer.out
    assert Run.open("less").environment["data"]["excluded"]["indices"] == [3, 7, 8]
    page = Path("less/report.html").read_text(encoding="utf-8")
    assert "3 others were left out" in page
    assert f"--exclude {tmp_path}/issues.csv --exclude {tmp_path}/duplicates.csv</code>" in page
    plain = program("evaluate", "less", "--json").json
    said = program("evaluate", "less", "--exclude", "duplicates.csv", "--json").json
    assert said["test"] == plain["test"]
    assert said["excluded_images"] == 3
    rest = said["without_excluded"]
    assert (rest["files"], rest["excluded"], rest["images"]) == (["duplicates.csv"], 1, 39)
    answer = program("evaluate", "less", "--exclude", "duplicates.csv")
    assert f"without the 1 image named in duplicates.csv: {rest['accuracy']:.2%} on 39 images" in answer.out
    assert f"test accuracy {plain['test']['accuracy']:.2%}" in answer.out


def test_who_leaves_out_many_images_is_warned_on_the_screen_and_in_the_report(program: Program) -> None:
    Path("label_issues.csv").write_text("split,index\n" + "\n".join(f"training,{index}" for index in range(60)))
    words = ["--epochs", "1", "--corrupted", "0", "--exclude", "label_issues.csv", "--out", "less"]
    answer = program("train", "classic", "--data", SHAPES, *SMALL, *words)
    assert answer.code == 0, answer.err
    warning = "shapes: left out are 60 of 150 training images (40.0%)"
    assert f"warning {warning}" in answer.out
    assert answer.out.count(warning) == 1
    assert warning in Path("less/report.html").read_text(encoding="utf-8")
    assert f"warning {warning}" in program("evaluate", "less", "--split", "training").out


def test_an_accuracy_no_better_than_the_baseline_is_called_that(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"class": name, "precision": 0.5, "recall": 0.5, "f1": 0.5, "images": images}
        for name, images in (("cat", 12), ("dog", 28))
    ]
    for accuracy, is_told in ((0.8, True), (0.2, True), (0.9, False)):
        scores = {"images": 40, "accuracy": accuracy, "loss": 0.6, "top5": 1.0, "ece": 0.1, "per_class": rows}
        Screen().scores({"validation": scores}, "validation")
        said = "warning that is no better than always naming the most frequent class"
        assert (f"{said}, which would be right 70.0% of the time" in capsys.readouterr().out) is is_told


def test_what_joins_a_model_in_an_ensemble_does_without_the_same_images(program: Program, tmp_path: Path) -> None:
    (tmp_path / "issues.csv").write_text("split,index\ntraining,3\ntraining,8\n")
    words = ["--data", SHAPES, *SMALL, "--epochs", "1", "--corrupted", "0", "--exclude", "issues.csv", "--out", "less"]
    assert program("train", "classic", *words).code == 0
    recipe = f"classic epochs=1 {SMALL[1]} {SMALL[5]}"
    answer = program("ensemble", "less", "--train", "1", "--recipe", recipe, "--distil", recipe, "--json")
    assert answer.code == 0, answer.err
    trained, taught = Run.open(answer.json["members"][1]["name"]), Run.open(answer.json["distilled"]["run"])
    for run in (trained, taught):
        assert run.environment["data"]["excluded"]["indices"] == [3, 8]
        assert run.environment["data"]["fingerprint"] == Run.open("less").environment["data"]["fingerprint"]
    assert program("evaluate", answer.json["out"], "--split", "validation").code == 0


def test_a_table_of_other_data_is_refused(program: Program, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "issues.csv").write_text("split,index\ntraining,150\n")
    for words in (["train", "classic", "--data", SHAPES, *SMALL], ["evaluate", trained]):
        answer = program(*words, "--exclude", "issues.csv")
        assert answer.code == 2
        assert "issues.csv, line 2: training image 150 is named, but shapes holds 150" in answer.err
    assert not Path("runs").exists()
    answer = program("evaluate", trained, "--split", "training", "--exclude", "issues.csv")
    assert answer.code == 2
    assert "expected test" in answer.err


def test_a_table_of_the_other_split_leaves_out_nothing_and_that_is_said(program: Program, trained: Path) -> None:
    Path("issues.csv").write_text("split,index\ntest,3\n")
    words = ["--data", SHAPES, *SMALL, "--epochs", "1", "--corrupted", "0", "--exclude", "issues.csv", "--out", "all"]
    answer = program("train", "classic", *words)
    assert answer.code == 0, answer.err
    said = "issues.csv: names test images only; expected training images, so it leaves out none here"
    assert f"warning {said}; `thirtytwo evaluate --exclude`" in answer.out
    assert Run.open("all").environment["data"]["images"] == 150
    Path("issues.csv").write_text("split,index\ntraining,3\n")
    answer = program("evaluate", trained, "--exclude", "issues.csv")
    said = "issues.csv: names training images only; expected test images, so it leaves out none here"
    assert f"warning {said}; `thirtytwo train --exclude`" in answer.out
    assert "no test image is named in issues.csv, so leaving them out changes nothing" in answer.out
    found = program("evaluate", trained, "--exclude", "issues.csv", "--json").json
    assert (found["without_excluded"]["excluded"], len(found["warnings"])) == (0, 1)


def test_without_cleanlab_audit_says_how_to_get_it_before_anything_is_trained(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    answer = program("audit", "shapes:training=120,test=40")
    assert answer.code == 2
    assert "pip install -c constraints.txt -e '.[audit]'" in answer.err
    assert not Path("audits").exists()


def test_report_draws_again_without_opening_anything(program: Program, trained: Path) -> None:
    (trained / "report.html").unlink()
    answer = program("report", trained)
    assert answer.code == 0, answer.err
    assert (trained / "report.html").exists()


def test_data_shows_what_is_in_a_set(program: Program) -> None:
    answer = program("data", SHAPES)
    assert "150 training images of 32 × 32, 10 classes" in answer.out
    facts = program("data", SHAPES, "--json").json
    assert facts["images"] == sum(facts["classes"].values()) == 150


def test_data_shows_which_models_were_scored_on_the_test_images(program: Program, trained: Path) -> None:
    assert "40 test images, sealed: no model has been scored on them yet" in program("data", SHAPES).out
    assert program("data", SHAPES, "--json").json["openings"] == []
    for _ in range(12):
        assert program("evaluate", trained, "--json").code == 0
    facts = program("data", SHAPES, "--json").json
    assert facts["test_images"] == 40
    assert facts["opened"] == len(facts["openings"]) == 12
    assert {(entry["recipe"], entry["run"], entry["share"]) for entry in facts["openings"]} == {
        ("classic", str(trained), 1.0)
    }
    told = program("data", SHAPES).out
    assert "40 test images, opened 12 times:" in told
    assert told.count(str(trained)) == 10  # the newest ones
    assert "--json lists all 12" in told


def test_resume_of_a_finished_run_shows_its_result_and_trains_nothing(program: Program, trained: Path) -> None:
    before = (trained / "model.safetensors").read_bytes()
    answer = program("train", "--resume", trained, "--json")
    assert answer.code == 0, answer.err
    assert answer.json == Run.open(trained).result
    assert (trained / "model.safetensors").read_bytes() == before
    said = program("train", "--resume", trained)
    assert said.code == 0, said.err
    assert "is trained and scored: nothing is left to do" in said.out
    assert "scoring the test set" not in said.out
    assert program("data", SHAPES, "--json").json["openings"] == []  # in the ledger of this test
    refused = program("train", "--resume", trained, "--corrupted", "7")
    assert refused.code == 2
    assert f"`thirtytwo evaluate {trained} --corrupted 7`" in refused.err


def test_a_model_put_in_the_place_of_the_one_that_was_scored_is_noticed(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    other = Classifier.load(run)
    with torch.no_grad():
        next(other.network.parameters()).add_(1.0)
    other.save(run / "model.safetensors")
    for words in (["train", "--resume", run], ["report", run]):
        answer = program(*words)
        assert answer.code == 2
        assert "model.safetensors: was changed after the run was scored" in answer.err
    answer = program("evaluate", run, "--json")
    assert answer.code == 0
    assert "model.safetensors: was changed after the run was scored" in answer.err


def test_what_result_json_says_of_the_training_is_what_the_model_says(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path)
    run.result = {**run.result, "train_seconds": 1.0}
    answer = program("report", run.path)
    assert answer.code == 2
    assert "train_seconds is 1.0, but by the model file it is" in answer.err


def test_a_report_is_not_drawn_from_a_recipe_that_was_changed_since(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name, old, new in (("recipe.toml", "epochs = 2", "epochs = 3"), ("metrics.csv", "\n1,", "\n1,0")):
        content = (run / name).read_text()
        assert old in content
        (run / name).write_text(content.replace(old, new))
        answer = program("report", run)
        assert answer.code == 2
        assert f"{name}: was changed after the run was scored" in answer.err
        (run / name).write_text(content)
    assert program("report", run).code == 0


def test_predict_says_which_images_belong_to_a_test_set_that_was_opened(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    _, (pixels, _) = thirtytwo.load_data(SHAPES)
    for index in range(3):
        Image.fromarray(pixels[index]).save(tmp_path / f"{index}.png")
    Image.fromarray(255 - pixels[0]).save(tmp_path / "other.png")
    images = [*(tmp_path / f"{index}.png" for index in range(3)), tmp_path / "other.png"]
    assert "test set" not in program("predict", trained, *images).out
    assert program("evaluate", trained, "--json").code == 0
    assert (
        "3 of these 4 images belong to a test set that was opened (shapes)" in program("predict", trained, *images).out
    )
    answer = program("predict", trained, *images, "--json")
    assert len(answer.json) == 4
    assert "3 of these 4 images" in answer.err


def test_a_test_folder_that_holds_training_pictures_is_told(program: Program, tmp_path: Path) -> None:
    (pixels, labels), (others, their_labels) = thirtytwo.load_data("shapes:training=60,test=60")

    def write(folder: Path, split: str, images: Any, classes: Any) -> None:
        for index, (image, label) in enumerate(zip(images, classes[:, 0], strict=True)):
            path = folder / split / f"class {label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)

    for name, test in (("honest", (others, their_labels)), ("leaky", (pixels, labels))):
        write(tmp_path / name, "train", pixels, labels)
        write(tmp_path / name, "test", *test)
    assert program("train", "classic", "--data", tmp_path / "honest", "--epochs", "1", *SMALL, "--out", "run").code == 0
    assert Run.open("run").result["test_warnings"] == []
    answer = program("evaluate", "run", "--data", tmp_path / "leaky")
    assert answer.code == 0, answer.err
    assert "60 of these 60 images are pictures that this model was trained or selected with" in " ".join(
        answer.out.split()
    )
    assert program("evaluate", "run", "--json").json["warnings"] == []


MISTAKES = {
    "unknown recipe": (["train", "clasic"], "Did you mean classic"),
    "recipe file that is not there": (["train", "mine.toml"], "no such file"),
    "mistyped key": (["train", "--set", "optimizer.learning_rat=1"], "did you mean optimizer.learning_rate"),
    "value out of range": (["train", "classic", "--set", "model.dropout=1.5"], "found 1.5, expected less than 1"),
    "several problems": (["train", "classic", "--set", "model.dropout=1.5", "--epochs", "0"], "2 problems"),
    "no key": (["train", "--set", "epochs"], "expected key=value"),
    "unknown data": (["train", "--data", "cifar11"], "cifar10"),
    "unknown device": (["train", "--data", SHAPES, "--device", "abacus"], "expected auto, cpu or cuda"),
    "name of another library": (["train", "--set", "optimizer.lr=1"], "did you mean optimizer.learning_rate?"),
    "option in the recipe": (["train", "--set", "seed=1"], "give this one beside them, as --seed"),
    "setting as an option": (["train", "--lr", "0.1"], "did you mean --set optimizer.learning_rate=…?"),
    "option of another command": (["repeat", "--epochs", "1"], "did you mean --set epochs=…?"),
    "recipe and changes": (["train", "classic epochs=1"], "as in classic --set epochs=1"),
    "data in place of a recipe": (["train", "./"], "a folder; expected a recipe in TOML; data are named with --data"),
    "negative seed": (["train", "--seed", "-1"], "error: --seed -1: expected at least 0; `"),
    "seed in words": (["train", "--seed", "one"], "error: --seed one: expected a whole number; `"),
    "seed left out": (["train", "--seed"], "error: --seed: no value follows; expected one; give it"),
    "flag with a value": (["train", "--json=1"], "error: --json: a value follows; expected none"),
    "unknown option": (["train", "--sed", "1"], "error: --sed: no such option; expected one that `"),
    "near option": (["train", "--sed", "1"], "thirtytwo train --help` lists; did you mean --seed?"),
    "unknown command": (["tarin"], "error: no such command 'tarin'; expected data, train, evaluate, "),
    "near command": (["tarin"], "ensemble or audit; did you mean 'train'?"),
    "short for a split": (
        ["evaluate", "x", "--split", "val"],
        "error: --split val: expected test, validation or training; did you mean validation?",
    ),
    "no such pruner": (["tune", "classic", "--pruner", "x"], "expected median, halving or none; choose one of these"),
    "no image": (["predict", "x"], "error: IMAGE: missing; expected "),
    "a word too many": (["evaluate", "x", "y"], "(y); expected "),
    "seed too large": (["train", "--data", SHAPES, "--seed", str(2**64)], "from 0 to 2**63 - 1"),
    "batches of one": (["train", "--data", SHAPES, "--set", "batch_size=1"], "choose a larger batch_size"),
    "key of another kind": (["train", "classic", "--set", "optimizer.momentum=0.8"], "--set optimizer.name=sgd"),
    "resume what is not there": (["train", "--resume", "nowhere"], "no such folder"),
    "table that is not there": (["train", "--data", SHAPES, "--exclude", "nowhere.csv"], "cannot be read"),
    "resume with another table": (["train", "--resume", "x", "--exclude", "y.csv"], "found --exclude as well"),
    "resume with other settings": (["train", "classic", "--resume", "x", "--seed", "0"], "RECIPE, --seed"),
    "epochs said twice": (["train", "--epochs", "1", "--set", "epochs=2"], "expected one of them"),
    "model that is not there": (
        ["predict", "nowhere", "x.png"],
        "error: nowhere: no such file or folder; expected a run folder, an ensemble's folder, a model file, or ",
    ),
    "evaluate what is no run": (["evaluate", "."], "not a run folder"),
    "report of what is no run": (["report", "."], "not a run folder"),
    "too many stages": (
        ["train", "classic", "--data", SHAPES, "--set", "model.stages=[[4],[4],[4],[4],[4],[4]]"],
        "at most 5",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_what_was_found_and_what_to_do(
    program: Program, mistake: str, tmp_path: Path
) -> None:
    words, expected = MISTAKES[mistake]
    answer = program(*words)
    assert answer.code == 2
    assert expected in answer.err
    assert answer.out == ""
    assert not (tmp_path / "runs").exists()


def test_without_words_the_program_shows_its_help_and_nothing_else(program: Program) -> None:
    answer = program()
    assert (answer.code, answer.err) == (2, "")
    assert answer.out.strip() == program("--help").out.strip()


def test_a_file_in_the_way_of_the_run_folder_is_a_clear_error(program: Program, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("mine")
    answer = program("train", "classic", "--data", SHAPES, *SMALL, "--epochs", "1", "--out", tmp_path / "here")
    assert answer.code == 2
    assert "choose another --out" in answer.err
    assert (tmp_path / "here").read_text() == "mine"


def test_images_that_a_model_was_trained_on_are_not_scored_as_validation(program: Program) -> None:
    words = ["--set", "validation=0", "--set", "early_stopping.patience=0", "--epochs", "1", "--out", "all"]
    assert program("train", "classic", "--data", SHAPES, *SMALL, *words).code == 0
    answer = program("evaluate", "all", "--split", "validation")
    assert answer.code == 2
    assert "trained on all training images" in answer.err
    assert program("evaluate", "all", "--split", "training", "--json").json["training"]["images"] == 150
    moved = program("evaluate", "all", "--split", "training", "--data", "shapes:training=160,test=20")
    assert moved.code == 2
    assert "not the images that this model was trained on" in moved.err


def test_a_folder_that_holds_a_run_is_left_alone(program: Program, trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    answer = program("train", "classic", "--data", SHAPES, *SMALL, "--out", trained)
    assert answer.code == 2
    assert f"--resume {trained}" in answer.err
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


def noise(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    generator = np.random.default_rng(0)
    shape = (size[1], size[0])
    if mode == "I;16":
        return Image.fromarray(generator.integers(0, 65536, shape, dtype=np.uint16))
    if mode == "L":
        return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
    channels = {"RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    return Image.fromarray(
        generator.integers(0, 256, (*shape, channels), dtype=np.uint8), mode=None if channels == 3 else mode
    )


@pytest.mark.parametrize(
    ("mode", "ending", "size"),
    [("RGB", "png", (1, 1)), ("L", "png", (40, 30)), ("I;16", "png", (40, 30)), ("RGBA", "png", (40, 30)),
     ("CMYK", "jpg", (40, 30)), ("RGB", "bmp", (500, 20)), ("RGB", "gif", (33, 33))],
)  # fmt: skip
def test_predict_takes_images_of_every_kind(
    program: Program, trained: Path, tmp_path: Path, mode: str, ending: str, size: tuple[int, int]
) -> None:
    path = tmp_path / f"image.{ending}"
    noise(mode, size).save(path)
    assert program("predict", trained, path, "--json").code == 0


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A valid PNG of a gigapixel, a megabyte long."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 32768, 32768, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(4097 * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "bomb", "missing", "folder without images"])
def test_predict_refuses_what_is_no_image(program: Program, trained: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    match kind:
        case "empty":
            path.touch()
        case "text":
            path.write_text("this is no image")
        case "truncated":
            path.write_bytes(encoded(noise("RGB", (200, 200)))[:1000])
        case "bomb":
            path.write_bytes(bomb())
        case "folder without images":
            path.mkdir()
    answer = program("predict", trained, path)
    assert answer.code == 2
    assert "image.png" in answer.err
    assert "expected" in answer.err


def test_a_model_file_that_is_no_model_is_refused(program: Program, trained: Path, tmp_path: Path) -> None:
    import torch

    image = tmp_path / "x.png"
    noise("RGB").save(image)
    cut, pickled = tmp_path / "cut.safetensors", tmp_path / "model.pt"
    cut.write_bytes((trained / "model.safetensors").read_bytes()[:5000])
    torch.save({"weight": torch.zeros(3)}, pickled)
    for path, word in ((cut, "cut short"), (pickled, "pickle")):
        answer = program("predict", path, image)
        assert answer.code == 2
        assert word in answer.err
        assert "expected" in answer.err


def test_a_picture_in_the_place_of_the_model_is_answered_with_the_right_order(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    disc, ring = tmp_path / "a disc.jpg", tmp_path / "ring.png"
    for path in (disc, ring):
        noise("RGB").save(path)
    calls: dict[tuple[str | Path, ...], tuple[str | Path, ...]] = {
        ("predict", disc, trained): (trained, disc),
        ("predict", disc, ring, "pretrained"): ("pretrained", disc, ring),
        ("predict", disc, ring): ("MODEL", disc, ring),
        ("evaluate", disc): ("MODEL", disc),
    }
    for words, meant in calls.items():
        answer = program(*words)
        assert (answer.code, answer.out) == (2, "")
        assert f"error: {disc}: a picture; expected a model in first place, such as a run folder; `" in answer.err
        assert f"`{shlex.join(['thirtytwo', 'predict', *map(str, meant)])}` classifies" in answer.err
    assert program("predict", trained, disc).code == 0  # the order that is shown


def test_a_model_for_other_classes_is_refused_before_the_test_set_is_opened(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(10):
            noise("RGB").save(tmp_path / "pets" / name / f"{index}.png")
    answer = program("evaluate", trained, "--data", tmp_path / "pets")
    assert answer.code == 2
    assert "2 classes (cat, dog)" in answer.err
    assert "trained for 10" in answer.err


def test_version_is_the_packages(program: Program) -> None:
    from thirtytwo import __version__

    assert program("--version").out.strip() == f"thirtytwo {__version__}"


@pytest.mark.parametrize(
    "command",
    ["data", "train", "evaluate", "predict", "report", "repeat", "compare", "tune", "ensemble", "audit"],
)
def test_every_command_explains_itself(program: Program, command: str) -> None:
    answer = program(command, "--help")
    assert answer.code == 0
    assert f"thirtytwo {command} " in answer.out
    assert "--json" in answer.out
