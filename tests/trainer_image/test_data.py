"""Reading rows: every defect is named with its line and field, and torch is not needed for it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.trainer.data import check_file, detect_format, parse_row, read_rows
from trainer_image.trainer.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
ROWS = {
    "completion": {"text": "once upon a time"},
    "instruction": {"instruction": "add", "input": "1 2", "output": "3"},
    "chat": CHAT,
    "prompt-completion": {"prompt": "2 + 2 =", "completion": " 4"},
}


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_known_by_its_keys(name: str) -> None:
    assert detect_format(ROWS[name] | {"id": 7}) == name


def test_unknown_keys_are_named_with_the_formats_that_exist() -> None:
    with pytest.raises(DataError, match=r"'answer', 'question'") as caught:
        detect_format({"question": "?", "answer": "!"})
    assert "'messages'" in caught.value.fix


@pytest.mark.parametrize("name", ROWS)
def test_a_file_is_counted_and_fingerprinted(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS[name], "", ROWS[name])
    report = check_file(path)
    assert (report.format, report.rows) == (name, 2)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_instruction_row_becomes_a_user_and_an_assistant_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS["instruction"])
    (row,) = read_rows(path, "instruction")
    assert [(turn.role, turn.content, turn.input) for turn in row.turns] == [
        ("user", "add", "1 2"),
        ("assistant", "3", ""),
    ]
    assert row.where == "rows.jsonl:1"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}')
    assert check_file(path).rows == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', r"rows.jsonl:2: not JSON"),
        ("[1]", r"rows.jsonl:2: a JSON list, not an object"),
        ("7", r"rows.jsonl:2: a JSON number, not an object"),
        ("[" * 100_000, r"rows.jsonl:2: not JSON"),
        ('{"body": "a"}', r"rows.jsonl:2: field 'text' is missing \(found: body\)"),
        ('{"text": 5}', r"rows.jsonl:2: field 'text' is a JSON number, not a string"),
        ('{"text": null}', r"rows.jsonl:2: field 'text' is a JSON null, not a string"),
        ('{"text": " \\n"}', r"rows.jsonl:2: field 'text' is empty"),
        ('{"text": "\\ud83d"}', r"rows.jsonl:2: field 'text' holds a broken character"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_field(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        check_file(write(tmp_path / "rows.jsonl", {"text": "fine"}, line))


def test_bytes_that_are_no_utf8_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: not UTF-8"):
        check_file(path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="no rows"):
        check_file(path)
    with pytest.raises(DataError, match="no rows"):
        list(read_rows(path, "completion"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        check_file(tmp_path / "none.jsonl")


def _messages(*roles: str) -> dict[str, object]:
    return {"messages": [{"role": role, "content": "words"} for role in roles]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "hi"}, "field 'messages' is a JSON string, not a list"),
        ({"messages": ["hi"]}, r"field 'messages\[0\]' is a JSON string, not an object"),
        ({"messages": [{"role": "user"}]}, r"field 'messages\[0\].content' is missing"),
        ({"messages": []}, "no answer to learn"),
        (_messages("user"), "no answer to learn"),
        (
            _messages("robot", "assistant"),
            r"messages\[0\].role is 'robot', not one of system, user, assistant",
        ),
        (_messages("user", "system", "assistant"), "system message is not the first"),
        (_messages("user", "user", "assistant"), "do not alternate"),
        (_messages("assistant"), "do not alternate"),
        (_messages("system", "assistant"), None),
    ],
)
def test_a_conversation_must_be_one(row: dict[str, object], message: str | None) -> None:
    if message is None:  # a system message may take the place of a user's
        assert len(parse_row(row, "chat", "f:1").turns) == 2
        return
    with pytest.raises(DataError, match=message):
        parse_row(row, "chat", "f:1")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_value_of_a_field_is_taken_or_refused_with_its_place(value: object) -> None:
    for name, key in (("completion", "text"), ("chat", "messages")):
        try:
            row = parse_row({key: value}, name, "f:3")  # type: ignore[arg-type]
        except DataError as error:
            assert error.where == "f:3"
        else:
            assert row.text == value


def test_reading_data_needs_no_torch() -> None:
    code = (
        "import sys, trainer_image.trainer.data, trainer_image.trainer.batches, trainer_image.trainer.run\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
