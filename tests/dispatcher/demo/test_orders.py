"""The demo's data: what is tested was never seen, and the same seed gives the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.demo.orders import NUMBER_WORDS, SYSTEM_LINE, Orders, Rows, plural, write
from dispatcher.demo.words import HELD_OUT, TRAINING


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(e-mail, expected object) of every row."""
    chats = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    for chat in chats:
        assert [message["role"] for message in chat] == ["system", "user", "assistant"]
        assert chat[0]["content"] == SYSTEM_LINE
    return [(chat[1]["content"], json.loads(chat[2]["content"])) for chat in chats]


def skeleton(email: str, order: dict[str, Any]) -> str:
    """The e-mail without what was put into its template."""
    for value in (plural(order["item"]), order["item"], order["name"], order["city"]):
        email = email.replace(value, "_")
    numbers = "|".join([r"\d+", *NUMBER_WORDS])
    return re.sub(rf"\b({numbers})\b", "#", email)


@pytest.fixture(scope="module", params=[0, 1, 42])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Orders:
    return write(tmp_path_factory.mktemp("orders"), request.param)


def test_no_name_city_or_item_of_a_test_row_occurs_in_what_is_learned_or_validated(files: Orders) -> None:
    learned = (files.train.read_text(encoding="utf-8") + files.validation.read_text(encoding="utf-8")).lower()
    for _, order in read(files.test):
        first_name, surname = order["name"].split(" ")
        for value in (first_name, surname, order["city"], order["item"], *order["item"].split(" ")):
            assert value.lower() not in learned
            assert plural(value).lower() not in learned


def test_no_template_of_a_test_row_occurs_in_what_is_learned_or_validated(files: Orders) -> None:
    learned = {skeleton(*row) for path in (files.train, files.validation) for row in read(path)}
    tested = {skeleton(*row) for row in read(files.test)}
    assert len(learned) == len(TRAINING.templates)
    assert len(tested) == len(HELD_OUT.templates)
    assert not learned & tested


def test_no_held_out_word_is_part_of_any_training_word_or_sentence() -> None:
    lists = (TRAINING.first_names, TRAINING.surnames, TRAINING.cities, TRAINING.items, TRAINING.templates)
    learned = "\n".join(value for values in lists for value in values).lower()
    for values in (HELD_OUT.first_names, HELD_OUT.surnames, HELD_OUT.cities, HELD_OUT.items):
        for word in " ".join(values).lower().split():
            assert word not in learned


def test_no_row_is_there_twice(files: Orders) -> None:
    emails = [email for path in (files.train, files.validation, files.test) for email, _ in read(path)]
    assert len(emails) == len(set(emails))


def test_every_email_holds_all_that_is_asked_for(files: Orders) -> None:
    for path in (files.train, files.validation, files.test):
        for email, order in read(path):
            assert list(order) == ["name", "city", "item", "quantity"]
            quantity = order["quantity"]
            said = {str(quantity), *NUMBER_WORDS[quantity - 1 : quantity]}
            assert said & set(re.findall(r"\w+", email))
            things = order["item"] if quantity == 1 else plural(order["item"])
            assert all(value in email for value in (order["name"], order["city"], things))


def test_values_are_spread_evenly(files: Orders) -> None:
    items = [order["item"] for _, order in read(files.train)]
    assert set(items) == set(TRAINING.items)
    assert len({order["city"] for _, order in read(files.test)}) == len(HELD_OUT.cities)


def test_the_lists_are_large_and_hold_nothing_twice() -> None:
    for values in (TRAINING.first_names, TRAINING.surnames, TRAINING.cities, TRAINING.items):
        assert 60 <= len(values) == len(set(values))
    assert len(set(TRAINING.templates)) >= 12
    assert len(set(HELD_OUT.templates)) >= 6


@given(
    seed=st.integers(0, 2**32),
    train=st.integers(1, 40),
    validation=st.integers(1, 10),
    test=st.integers(1, 20),
)
def test_equal_seeds_give_equal_bytes_and_the_rows_asked_for(
    tmp_path_factory: pytest.TempPathFactory, seed: int, train: int, validation: int, test: int
) -> None:
    rows = Rows(train, validation, test)
    first = write(tmp_path_factory.mktemp("a"), seed, rows)
    second = write(tmp_path_factory.mktemp("b"), seed, rows)
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        written = getattr(first, name).read_bytes()
        assert written == getattr(second, name).read_bytes()
        assert len(written.splitlines()) == count


def test_other_seeds_give_other_rows(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    assert not {email for email, _ in read(a.train)} & {email for email, _ in read(b.train)}
    assert [email for email, _ in read(a.test)] != [email for email, _ in read(b.test)]


@pytest.mark.parametrize(
    ("one", "many"), [("oak bench", "oak benches"), ("teapot", "teapots"), ("soap dish", "soap dishes")]
)
def test_plurals_are_english(one: str, many: str) -> None:
    assert plural(one) == many
