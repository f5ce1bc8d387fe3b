"""The data of a job: three checked files, and no row in two of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.splits import prepare_splits
from tests.factories.recipes import make_recipe, questions, write_rows
from trainer_image.trainer.data import check_file
from trainer_image.trainer.errors import DataError


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train, validation and test files of 30, 5 and 4 rows."""
    write_rows(tmp_path / "data" / "train.jsonl", questions(30))
    write_rows(tmp_path / "data" / "validation.jsonl", questions(5, 100))
    (tmp_path / "data" / "test.json").write_text(json.dumps(questions(4, 200), indent=1))
    return tmp_path / "data"


def test_a_folder_gives_each_split_its_file(folder: Path, tmp_path: Path) -> None:
    splits = prepare_splits(make_recipe(data=str(folder)), tmp_path / "job")
    assert splits.validation is not None
    assert splits.test is not None
    assert (splits.train.rows, splits.validation.rows, splits.test.rows) == (30, 5, 4)
    assert read(tmp_path / "job" / "test.jsonl") == questions(4, 200)
    assert splits.format == "prompt-completion"
    assert splits.duplicates == 0


def test_the_trainer_accepts_the_files_as_they_are_written(folder: Path, tmp_path: Path) -> None:
    splits = prepare_splits(make_recipe(data=str(folder)), tmp_path / "job")
    report = check_file(splits.train.path, splits.format)
    assert (report.rows, report.sha256) == (splits.train.rows, splits.train.sha256)


def test_a_single_file_is_split_by_the_content_of_its_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "orders.jsonl", questions(1000))
    splits = prepare_splits(make_recipe(data=str(path)), tmp_path / "job")
    assert splits.validation is not None
    assert splits.train.rows + splits.validation.rows == 1000
    assert 70 <= splits.validation.rows <= 130  # 3.2 standard deviations of a binomial(1000, 0.1)
    assert splits.test is None


def test_a_row_keeps_its_side_when_others_are_added(tmp_path: Path) -> None:
    for name, count in (("few", 500), ("many", 1000)):
        path = write_rows(tmp_path / f"{name}.jsonl", questions(count))
        prepare_splits(make_recipe(data=str(path)), tmp_path / name)
    few, many = (read(tmp_path / name / "validation.jsonl") for name in ("few", "many"))
    assert few == many[: len(few)]


@given(
    numbers=st.lists(st.integers(0, 40), min_size=2).filter(lambda numbers: len(set(numbers)) > 1),
    fraction=st.floats(0.01, 0.99),
)
def test_equal_rows_fall_on_the_same_side_and_neither_side_is_empty(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], fraction: float
) -> None:
    folder = tmp_path_factory.mktemp("split")
    path = write_rows(folder / "rows.jsonl", [{"text": f"text {n}"} for n in numbers])
    splits = prepare_splits(make_recipe(data=str(path), validation_fraction=fraction), folder / "job")
    train, validation = (
        [row["text"] for row in read(folder / "job" / f"{side}.jsonl")] for side in ("train", "validation")
    )
    assert train
    assert validation
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(f"text {n}" for n in numbers)
    assert splits.duplicates == len(train) - len(set(train))


def test_the_split_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", questions(50))
    prints = {
        subprocess.run(
            [sys.executable, "-c", SPLIT_IN_A_PROCESS, str(path), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


SPLIT_IN_A_PROCESS = """
import sys
from pathlib import Path
from dispatcher.recipe.load import build_recipe
from dispatcher.recipe.splits import prepare_splits
print(prepare_splits(build_recipe({"model": "a/b", "data": sys.argv[1]}), Path(sys.argv[2])).fingerprint)
"""


def test_the_fingerprint_is_of_the_rows_and_not_of_how_they_are_written(tmp_path: Path) -> None:
    tight = tmp_path / "tight.json"
    tight.write_text(
        json.dumps([dict(reversed(row.items())) for row in questions(20)], separators=(",", ":"))
    )
    lines = write_rows(tmp_path / "lines.jsonl", questions(20))
    other = write_rows(tmp_path / "other.jsonl", questions(20, 1))
    prints = [
        prepare_splits(make_recipe(data=str(path)), tmp_path / path.stem).fingerprint
        for path in (tight, lines, other)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_duplicates_are_kept_and_counted(folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "train.jsonl", questions(30) + questions(3))
    splits = prepare_splits(make_recipe(data=str(folder)), tmp_path / "job")
    assert (splits.train.rows, splits.duplicates) == (33, 3)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_row_of_training_in_another_split_is_a_leak(folder: Path, tmp_path: Path, name: str) -> None:
    path = folder / f"{name}.jsonl"
    write_rows(path, [*questions(2, 300), *questions(2)])
    with pytest.raises(DataError, match=r"2 of 4 rows are in .*train.jsonl too.*row 3") as raised:
        prepare_splits(make_recipe(data=str(folder)), tmp_path / "job")
    assert raised.value.where == str(path)


def test_a_row_of_validation_in_the_test_is_a_leak(folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "test.jsonl", questions(1, 100))
    with pytest.raises(DataError, match=r"1 of 1 rows are in .*validation.jsonl too"):
        prepare_splits(make_recipe(data=str(folder)), tmp_path / "job")


def test_a_test_row_in_the_part_set_aside_for_validation_is_a_leak(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", questions(50))
    test = write_rows(tmp_path / "test.jsonl", questions(50))
    with pytest.raises(DataError, match="50 of 50 rows"):
        prepare_splits(make_recipe(data=str(path), test_data=str(test)), tmp_path / "job")


def test_files_named_in_the_recipe_win_over_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", questions(7, 500))
    splits = prepare_splits(make_recipe(data=str(folder), validation_data=str(other)), tmp_path / "job")
    assert splits.validation is not None
    assert splits.validation.rows == 7


def test_no_validation_is_set_aside_where_the_fraction_is_zero(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", questions(5))
    splits = prepare_splits(make_recipe(data=str(path), validation_fraction=0.0), tmp_path / "job")
    assert (splits.train.rows, splits.validation) == (5, None)


def test_answers_and_lengths_are_measured(tmp_path: Path) -> None:
    rows = [
        {"instruction": "i" * 10, "input": "x" * 10, "output": '{"a": 1}'},
        {"instruction": "i" * 100, "output": "no json"},
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    split = prepare_splits(
        make_recipe(data=str(path), validation_fraction=0.0, seq_len=20), tmp_path / "job"
    ).train
    assert (split.characters, split.longest, split.likely_overlong) == (28 + 107, 107, 1)
    assert (split.json_answers, split.longest_answer) == (1, 8)


@pytest.mark.parametrize(
    ("files", "where", "what"),
    [
        ({}, "data", "the folder has no train.jsonl"),
        ({"train.jsonl": ""}, "data/train.jsonl", "the file has no rows"),
        ({"train.jsonl": "\n\n"}, "data/train.jsonl", "the file has no rows"),
        (
            {"train.jsonl": '{"text": "a"}\n', "validation.jsonl": ""},
            "data/validation.jsonl",
            "the file has no rows",
        ),
        ({"train.jsonl": '{"text": "a"}\n{"text"'}, "data/train.jsonl:2", "not JSON"),
        ({"train.jsonl": '{"text": "a"}\n{"txt": "a"}\n'}, "data/train.jsonl:2", "'text' is missing"),
        ({"train.jsonl": '{"txt": "a"}\n'}, "data/train.jsonl:1", "fit no known format"),
        ({"train.jsonl": '{"text": "a", "\\ud83d": 1}\n'}, "data/train.jsonl:1", "broken character"),
        (
            {"train.jsonl": '{"text": "a"}\n{"text": "a"}\n'},
            "job/train.jsonl",
            "one distinct row cannot be split",
        ),
        ({"train.jsonl": '{"text": "a"}\n', "val.jsonl": ""}, "data", "val.jsonl would not be used"),
        (
            {"train.jsonl": '{"text": "a"}\n', "test.jsonl": '{"prompt": "a"}'},
            "data/test.jsonl:1",
            "'text' is missing",
        ),
    ],
)
def test_bad_data_is_refused_by_file_and_line(
    tmp_path: Path, files: dict[str, str], where: str, what: str
) -> None:
    (tmp_path / "data").mkdir()
    for name, text in files.items():
        (tmp_path / "data" / name).write_text(text)
    fraction = {} if "one distinct" in what else {"validation_fraction": 0.0}
    with pytest.raises(DataError) as raised:
        prepare_splits(make_recipe(data=str(tmp_path / "data"), **fraction), tmp_path / "job")
    assert raised.value.where == str(tmp_path / where)
    assert what in raised.value.what


@pytest.mark.parametrize("field", ["data", "validation_data", "test_data"])
def test_a_file_that_is_not_there_is_named(folder: Path, tmp_path: Path, field: str) -> None:
    with pytest.raises(DataError, match="no such file") as raised:
        prepare_splits(make_recipe(**({"data": str(folder)} | {field: "/nowhere.jsonl"})), tmp_path / "job")
    assert raised.value.where == "/nowhere.jsonl"
