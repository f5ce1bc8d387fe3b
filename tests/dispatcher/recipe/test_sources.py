"""Rows from JSON Lines and from JSON lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.sources import rows
from trainer_image.trainer.errors import DataError

OBJECTS = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))


@given(OBJECTS, st.sampled_from([None, 0, 2]))
def test_a_list_and_lines_hold_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]], indent: int | None
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "list.json").write_text(
        json.dumps(objects, indent=indent, ensure_ascii=False), encoding="utf-8"
    )
    (folder / "lines.jsonl").write_text(
        "".join(json.dumps(row) + "\n\n" for row in objects), encoding="utf-8"
    )
    assert [row for _, row in rows(folder / "list.json")] == objects
    assert [row for _, row in rows(folder / "lines.jsonl")] == objects


def test_each_row_knows_its_line(tmp_path: Path) -> None:
    lines, listed = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text('{"n": 1}\n\n{"n": 2}\n')
    listed.write_text('[\n {"n": 1},\n {\n  "n": 2},\n\n {"n": 3}\n]\n')
    assert [where for where, _ in rows(lines)] == [f"{lines}:1", f"{lines}:3"]
    assert [where for where, _ in rows(listed)] == [f"{listed}:2", f"{listed}:3", f"{listed}:6"]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n')
    assert [row for _, row in rows(path)] == [{"n": 1}]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b'{"a": 1}\n{"a": \n', 2, "not JSON"),
        (b'{"a": 1}\n[1]\n', 2, "not a JSON object"),
        (b'{"a": 1}\nnull\n', 2, "not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', 2, "not UTF-8"),
        (b"\n" + b"[" * 100_000, 2, "not JSON"),
        (b'[{"a": 1},\n{"a": ]', 2, "not JSON"),
        (b'[{"a": 1}\n,2]', 2, "not a JSON object"),
        (b'[{"a": 1}\n{"a": 2}]', 2, "a comma or the end of the list is missing"),
        (b'[{"a": 1}', 1, "a comma or the end of the list is missing"),
        (b"[\n", 2, "not JSON"),
        (b'[{"a": 1}]\n{"a": 2}', 1, "something follows the end of the list"),
    ],
)
def test_a_malformed_row_is_refused_by_its_line(tmp_path: Path, content: bytes, line: int, what: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(rows(path))
    assert raised.value.where == f"{path}:{line}"
    assert what in raised.value.what
