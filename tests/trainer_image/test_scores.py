"""Scores are counts and their errors; JSON is compared as values, not as text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.trainer.errors import DataError
from trainer_image.trainer.scores import (
    ScoredRow,
    Scores,
    gain,
    is_correct,
    parsed,
    read_rows,
    right_fields,
    same,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def rows(*correct: bool) -> list[ScoredRow]:
    return [ScoredRow(f"prompt {i}", "yes", "yes" if ok else "no", ok) for i, ok in enumerate(correct)]


@pytest.mark.parametrize(
    ("answer", "metric", "right"),
    [
        (' {"b": [1, 2], "a": 1}\n', "json", True),
        ('{"a": 1.0, "b": [1, 2]}', "json", True),
        ('{"a": true, "b": [1, 2]}', "json", False),
        ('{"a": 1, "b": [2, 1]}', "json", False),
        ('{"a": 1, "b": [1, 2], "c": null}', "json", False),
        ('```json\n{"a": 1, "b": [1, 2]}\n```', "json", False),
        ('{"a": NaN, "b": [1, 2]}', "json", False),
        ('  {"a": 1, "b": [1, 2]} \n', "exact", True),
        ('{"b": [1, 2], "a": 1}', "exact", False),
    ],
)
def test_an_answer_is_right_by_its_metric(answer: str, metric: str, right: bool) -> None:
    assert is_correct(answer, '{"a": 1, "b": [1, 2]}', metric) is right  # type: ignore[arg-type]


def test_text_that_is_not_json_is_wrong_even_where_the_expected_text_is_not_json_either() -> None:
    assert not is_correct("hello", "hello", "json")


@given(VALUES)
def test_a_value_equals_itself_after_a_round_trip_through_json(value: object) -> None:
    assert same(parsed(json.dumps(value)), value)


@given(VALUES, VALUES)
def test_equality_of_json_values_is_equality_of_canonical_json(a: object, b: object) -> None:
    assert same(a, b) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


def test_right_fields_are_counted_over_the_expected_ones() -> None:
    wanted = '{"name": "A", "city": "B", "item": "C", "quantity": 2}'
    assert right_fields('{"name": "A", "city": "b", "quantity": 2, "more": 1}', wanted) == 0.5
    assert right_fields("no json", wanted) == 0
    assert right_fields("[1]", wanted) == 0
    assert right_fields("[1]", "[1]") == 1


def test_scores_have_the_binomial_standard_error() -> None:
    scores = Scores.of(rows(True, True, True, False), "exact")
    assert (scores.rows, scores.correct, scores.score) == (4, 3, 0.75)
    assert scores.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert scores.valid_json is None


def test_json_scores_tell_wrong_values_from_invalid_json() -> None:
    answers = ['{"a": 1, "b": 2}', '{"a": 1, "b": 3}', "Sure! Here is"]
    judged = [ScoredRow("p", '{"a": 1, "b": 2}', answer, i == 0) for i, answer in enumerate(answers)]
    scores = Scores.of(judged, "json")
    assert scores.valid_json == pytest.approx(2 / 3)
    assert scores.fields == pytest.approx((1 + 0.5 + 0) / 3)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_gain_is_the_difference_of_the_scores_and_never_certain(pairs: list[tuple[bool, bool]]) -> None:
    base, tuned = rows(*(b for b, _ in pairs)), rows(*(t for _, t in pairs))
    found = gain(base, tuned)
    assert found.value == pytest.approx(Scores.of(tuned, "exact").score - Scores.of(base, "exact").score)
    assert 0 < found.standard_error <= 1
    assert found.rows == len(pairs)


def test_the_error_of_a_gain_is_that_of_the_mean_of_paired_differences() -> None:
    base, tuned = rows(False, False, True, False), rows(True, True, True, False)
    found = gain(base, tuned)
    assert (found.value, found.rows) == (0.5, 4)
    # differences 1, 1, 0, 0: each is 0.5 from their mean
    assert found.standard_error == pytest.approx(math.sqrt(4 * 0.25 / 3 / 4))


def test_a_gain_that_is_the_same_on_every_row_is_not_certain_either() -> None:
    found = gain(rows(*[False] * 8), rows(*[True] * 8))
    assert (found.value, found.standard_error) == (1.0, pytest.approx(math.sqrt(0.9 * 0.1 / 8)))


def test_a_gain_over_other_prompts_is_refused() -> None:
    with pytest.raises(DataError, match="not of the same prompts"):
        gain(rows(True, False), rows(True))


def test_scores_read_back_from_their_file_are_the_same(tmp_path: Path) -> None:
    judged = [
        ScoredRow("a\nb\u2028c", '{"a": 1}', answer, answer == '{"a": 1}') for answer in ('{"a": 1}', "é")
    ]
    path = tmp_path / "base.jsonl"
    path.write_text(
        "".join(json.dumps(r.as_dict(), ensure_ascii=False) + "\n" for r in judged), encoding="utf-8"
    )
    assert read_rows(path) == judged
    assert Scores.from_file(path, "json") == Scores.of(judged, "json")


@pytest.mark.parametrize("line", ["{", '{"prompt": "a"}', "[]"])
def test_a_damaged_file_of_scores_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text(json.dumps(rows(True)[0].as_dict()) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"base\.jsonl:2"):
        Scores.from_file(path, "exact")
