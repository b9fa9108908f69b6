"""What somebody may have meant: words that stand for something lead to it, others lead nowhere."""

from __future__ import annotations

import pytest

from thirtytwo import mistakes
from thirtytwo.recipe import keys

KEYS = keys()
OTHERS = [(word, key) for key, words in mistakes.OTHER_NAMES.items() for word in words]


@pytest.mark.parametrize(("word", "key"), OTHERS, ids=[word for word, _ in OTHERS])
def test_another_name_of_a_setting_leads_to_it(word: str, key: str) -> None:
    assert key in KEYS
    section = key.rpartition(".")[0]
    for given in {word, word.upper(), word.replace("_", "-"), f"{section}.{word}" if section else word} - set(KEYS):
        assert key in mistakes.meant(given, KEYS)


def test_another_name_stands_for_one_setting() -> None:
    assert len({word for word, _ in OTHERS}) == len(OTHERS)


@pytest.mark.parametrize("key", [key for key in KEYS if "." in key])
def test_a_key_without_its_section_is_among_those_that_it_may_stand_for(key: str) -> None:
    last = key.rpartition(".")[2]
    assert last in KEYS or key in mistakes.named(last, KEYS)
    assert mistakes.meant(f"nowhere.{last}", KEYS)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("optimiser.weight_decay", "optimizer.weight_decay"),
        ("optimizer.wd", "optimizer.weight_decay"),  # and not optimizer.decay, which has more letters in common
        ("modell.hidden_unit", "model.hidden_units"),
        ("model.hiden", "model.hidden_units"),  # and not model.widening
        ("batch_sise", "batch_size"),
        ("model.lr", "optimizer.learning_rate"),
        ("schedule", "schedule.name"),
    ],
)
def test_a_slip_of_the_pen_leads_to_the_key(word: str, key: str) -> None:
    assert mistakes.meant(word, KEYS) == [key]


@pytest.mark.parametrize("word", ["qwertz", "loss.qwertz", "x"])
def test_what_resembles_nothing_leads_nowhere(word: str) -> None:
    assert mistakes.meant(word, KEYS) == []
    assert mistakes.near(word, ["test", "validation", "training"]) == ""


@pytest.mark.parametrize(
    ("word", "choice"),
    [("val", "validation"), ("Train", "training"), ("tests", "test"), ("validatoin", "validation"), ("", "")],
)
def test_a_choice_is_known_by_its_beginning_or_with_a_slip(word: str, choice: str) -> None:
    assert mistakes.near(word, ["test", "validation", "training"]) == choice


def test_choices_are_listed_as_people_do() -> None:
    assert [mistakes.either(list("abc")[:number]) for number in range(1, 4)] == ["a", "a or b", "a, b or c"]
