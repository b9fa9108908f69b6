"""The benchmark of the audit: counts are what the definitions say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import audit
from audit import Judged
from measured import Refused


def pair(training: int, test: int) -> frozenset[tuple[str, int]]:
    return frozenset({("training", training), ("test", test)})


def test_a_pair_counts_as_many_times_as_it_stands_for_and_similar_ones_never() -> None:
    judged = [
        Judged(pair(0, 0), "compared", 2.0, "same"),
        Judged(pair(1, 1), "compared", 6.0, "same"),
        Judged(pair(2, 2), "compared", 1.0, "different"),
        Judged(pair(3, 3), "compared", 9.0, "different"),
        Judged(pair(4, 4), "compared", 5.0, "similar"),
        Judged(pair(0, 0), "nearest", 1.0, "same"),
    ]
    found = audit.by_own_eyes({pair(0, 0), pair(2, 2), pair(4, 4)}, judged)
    assert found["compared"] == {
        "pairs": 5, "same": 2, "named": 2, "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 8)
    }  # fmt: skip
    assert (found["nearest"]["precision"], found["nearest"]["recall"]) == (1.0, 1.0)


def test_the_shipped_list_names_each_pair_once_for_each_way_of_drawing() -> None:
    judged = audit.read_judged()
    assert len({(one.pair, one.drawn) for one in judged}) == len(judged) >= 200
    assert {one.verdict for one in judged} == {"same", "similar", "different"}
    assert all(one.weight >= 1 and len(one.pair) == 2 for one in judged)


def test_a_test_image_counts_whatever_training_image_it_is_named_with(tmp_path: Path) -> None:
    rows = [(0, 10, 1), (1, 11, 1), (2, 12, 2), (3, 13, 2)]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TestID", "TrainID", "Distance", "Judgment"])
        writer.writerows((test, training, 0.1, judgment) for test, training, judgment in rows)
    within = frozenset({("test", 1), ("test", 3)})  # no leak
    found = audit.by_cifair({pair(99, 0), pair(12, 2), pair(50, 7), within}, tmp_path / "list.csv")
    assert found["recall_of_same_shot"] == 0.5
    assert found["recall"] == 0.5
    assert (found["named"], found["named_and_listed"]) == (3, 2)


def test_labels_are_wrong_by_most_votes(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1])
    np.save(tmp_path / "votes.npy", np.array([[40, 10], [30, 20], [10, 40]]))
    issues = [{"split": split, "index": index} for split, index in (("training", 1), ("test", 1), ("test", 0))]
    found = audit.by_people(issues, tmp_path / "votes.npy", labels)
    assert found == {"first": 2, "wrong": 1, "there_are": 1}
    with pytest.raises(Refused, match="votes for each class"):
        audit.by_people(issues, tmp_path / "votes.npy", labels[:2])


def test_workers_judge_what_they_were_shown(tmp_path: Path) -> None:
    votes = [{"id": number, "mturk": {"given": given}} for number, given in ((0, 2), (1, 3), (5, 0))]
    (tmp_path / "votes.json").write_text(json.dumps(votes))
    issues = [{"split": "test", "index": index} for index in (0, 1, 2)]
    found = audit.by_workers(issues, tmp_path / "votes.json")
    assert found == {"first": 3, "shown": 2, "wrong": 1, "there_are": 2}


def test_people_are_told_apart_by_what_they_were_asked(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1])
    np.save(tmp_path / "people.npy", np.array([[9, 1], [8, 2], [7, 3], [0, 10]]))
    shown = [{"id": index, "mturk": {"given": votes}} for index, votes in ((0, 2), (1, 4))]
    (tmp_path / "workers.json").write_text(json.dumps(shown))
    assert audit.wrong_by_people(tmp_path / "people.npy", labels) == {1}
    assert audit.wrong_by_workers(tmp_path / "workers.json") == ({0, 1}, {0})
    issues = [{"split": "test", "index": index} for index in (0, 1, 3)] + [{"split": "training", "index": 2}]
    assert audit.by_people(issues, tmp_path / "people.npy", labels) == {"first": 3, "wrong": 1, "there_are": 1}
    found = audit.by_workers(issues, tmp_path / "workers.json")
    assert found == {"first": 3, "shown": 2, "wrong": 1, "there_are": 1}
