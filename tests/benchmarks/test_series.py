from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import measured
import series
from series import Series
from thirtytwo import environment
from thirtytwo import recipe as recipes

SERIES = Series(
    commit="1" * 40,
    sources="1" * 40,
    recipe=measured.digest(recipes.load("classic").to_toml()),
    data="f" * 64,
    machine="one",
    device="cpu",
    device_name="a processor",
    threads=2,
    versions={"python": "3.11.7", "torch": "2.11.0"},
    rival="keras==3",
)

OTHERS: dict[str, Any] = {
    "commit": "2" * 40,
    "sources": "1" * 40 + "-0123456789abcdef",
    "recipe": measured.digest(recipes.load("classic", ["optimizer.learning_rate=0.001"]).to_toml()),
    "data": "e" * 64,
    "machine": "another",
    "device": "cuda",
    "device_name": "another processor",
    "threads": 1,
    "versions": {"python": "3.11.7", "torch": "2.12.0"},
    "rival": "keras==4",
}


@pytest.mark.parametrize("field", [field.name for field in fields(Series)])
def test_folders_differ_when_anything_differs(field: str) -> None:
    assert replace(SERIES, **{field: OTHERS[field]}).key != SERIES.key


def test_the_same_conditions_lead_to_the_same_folder(tmp_path: Path) -> None:
    reordered = replace(SERIES, versions=dict(reversed(list(SERIES.versions.items()))))
    folder = series.begin(SERIES, tmp_path)
    series.note(folder, "python it.py")
    before = (folder / "series.json").read_bytes()
    assert series.begin(reordered, tmp_path) == folder
    assert (folder / "series.json").read_bytes() == before


def test_a_series_begun_anew_has_another_name_in_the_record(tmp_path: Path) -> None:
    first, second = (series.read(series.begin(SERIES, tmp_path / place) / "series.json") for place in ("a", "b"))
    assert first["id"] != second["id"]


def test_every_command_is_remembered_once(tmp_path: Path) -> None:
    folder = series.begin(SERIES, tmp_path)
    for command in ("one", "two", "one"):
        series.note(folder, command)
    assert series.read(folder / "series.json")["commands"] == ["one", "two"]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    folder = series.begin(SERIES, tmp_path)
    (folder / ".keras-0.json.999999999.part").touch()
    series.begin(SERIES, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["series.json"]


def test_two_benchmarks_never_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "WORK", tmp_path / "work")
    with series.alone(), pytest.raises(measured.Refused, match="wait for its end"), series.alone():
        pass
    with series.alone():  # and it is free afterwards
        pass


def test_a_program_gives_what_it_prints_or_says_that_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "WORK", tmp_path)
    with series.alone() as lock:
        assert series.call([sys.executable, "-I", "-c", "print('three')"], lock) == "three\n"
        with pytest.raises(series.ProgramFailed, match="status 3"):
            series.call([sys.executable, "-I", "-c", "raise SystemExit(3)"], lock)


def test_what_a_killed_benchmark_started_keeps_the_machine_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "WORK", tmp_path)
    with series.alone() as lock:
        holds = "import os, sys; os.fstat(int(sys.argv[1]))"  # fails if the descriptor was not handed on
        series.call([sys.executable, "-I", "-c", holds, str(lock)], lock)
        left_behind = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with left_behind, pytest.raises(measured.Refused, match="wait for its end"), series.alone():
        pass
    with series.alone():  # cat has ended with its input
        pass


def git(root: Path, *words: str) -> str:
    settings = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", root, *settings, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the same shape, with one commit; everything here takes it for the one that it lies in."""
    root = tmp_path / "checkout"
    package = root / "src" / "thirtytwo"
    package.mkdir(parents=True)
    (root / "benchmarks").mkdir()
    for path in (package / "a.py", package / "b.py", package / "measured.json", root / "benchmarks" / "c.py"):
        path.write_text("committed")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "all")
    monkeypatch.setattr(series, "REPOSITORY", root)
    monkeypatch.setattr(series, "WORK", tmp_path / "work")
    monkeypatch.setattr(measured, "PATH", package / "measured.json")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    return root


def test_a_changed_checkout_is_refused_unless_its_changes_are_wanted(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert series.commit_to_measure(dirty=False) == commit
    (checkout / "src" / "thirtytwo" / "a.py").write_text("changed")
    with pytest.raises(measured.Refused, match=r"a\.py"):
        series.commit_to_measure(dirty=False)
    assert series.commit_to_measure(dirty=True) == f"{commit}+"


def test_a_series_of_another_commit_goes_on_whatever_is_checked_out(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "src" / "thirtytwo" / "a.py").write_text("changed")
    assert series.commit_to_measure(False, commit[:9]) == commit
    with pytest.raises(measured.Refused, match="--commit none: is no commit of"):
        series.commit_to_measure(False, "none")


def test_what_a_benchmark_records_does_not_stop_it_from_going_on(checkout: Path) -> None:
    measured.PATH.write_text("recorded")
    assert series.commit_to_measure(dirty=False) == git(checkout, "rev-parse", "HEAD")


def test_without_a_commit_nothing_is_measured(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "git")
    with pytest.raises(measured.Refused, match="expected a git checkout"):
        series.commit_to_measure(dirty=True)


def test_a_clone_holds_the_commit_and_nothing_else(checkout: Path) -> None:
    (checkout / "src" / "thirtytwo" / "a.py").write_text("changed")
    (checkout / "src" / "thirtytwo" / "new.py").write_text("changed")
    with series.alone() as lock:
        place = series.clone(git(checkout, "rev-parse", "HEAD"), lock)
    assert (place / "src" / "thirtytwo" / "a.py").read_text() == "committed"
    assert not (place / "src" / "thirtytwo" / "new.py").exists()


def test_a_clone_of_changes_holds_them_and_is_another_after_more(checkout: Path) -> None:
    package = checkout / "src" / "thirtytwo"
    commit = f"{git(checkout, 'rev-parse', 'HEAD')}+"
    (package / "a.py").write_text("changed")
    (package / "new.py").write_text("changed")
    (package / "b.py").unlink()
    with series.alone() as lock:
        place = series.clone(commit, lock)
        assert {path.name for path in (place / "src" / "thirtytwo").iterdir()} == {"a.py", "new.py", "measured.json"}
        assert (place / "src" / "thirtytwo" / "a.py").read_text() == "changed"
        measured.PATH.write_text("recorded")
        assert series.clone(commit, lock) == place
        (checkout / "benchmarks" / "c.py").write_text("changed")
        assert series.clone(commit, lock) != place
