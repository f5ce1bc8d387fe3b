"""Rows of training data: read from JSONL, checked, brought into one shape. Needs no torch.

A file holds one JSON object a line, in one of four formats:

    completion         {"text"}
    instruction        {"instruction", "input" (optional), "output"}
    chat               {"messages": [{"role", "content"}, ...]}, roles system, user, assistant
    prompt-completion  {"prompt", "completion"}

The laptop checks files at launch with the same code that the trainer reads them with, so a row that
passes here never stops a rented machine. Other keys in a row are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from trainer_image.trainer.errors import DataError
from trainer_image.trainer.spec import RowFormat

Role = Literal["system", "user", "assistant"]
ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant")

# What a row must have to be of a format, in the order in which `detect_format` tries them.
REQUIRED: Final[dict[RowFormat, tuple[str, ...]]] = {
    "chat": ("messages",),
    "instruction": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "completion": ("text",),
}


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    content: str
    input: str = ""
    """The `input` field of an instruction row: material that the instruction speaks of."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a conversation that ends with an assistant turn, or (format completion) a text."""

    turns: tuple[Turn, ...]
    text: str
    where: str
    """`file:line`, for messages."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a whole, valid file holds. `sha256` is of its bytes: the fingerprint of the data."""

    path: Path
    format: RowFormat
    rows: int
    characters: int
    sha256: str


def detect_format(row: Mapping[str, object]) -> RowFormat:
    """The format that the keys of a file's first row show; DataError where they show none."""
    for row_format, keys in REQUIRED.items():
        if all(key in row for key in keys):
            return row_format
    raise DataError(
        f"the keys of the row ({', '.join(map(repr, sorted(row))) or 'none'}) fit no known format",
        fix="use one of: " + "; ".join(" + ".join(map(repr, keys)) for keys in REQUIRED.values()),
    )


def check_file(path: Path, row_format: RowFormat | None = None) -> FileReport:
    """Read all of `path` and check every row, in constant memory.

    The format is detected from the first row when None is given. Raises DataError, with `file:line`,
    at the first row that is malformed, and for a file without rows.
    """
    digest = hashlib.sha256()
    rows = characters = 0
    for where, value in _objects(path, digest.update):
        row_format = row_format or _detected(value, where)
        row = parse_row(value, row_format, where)
        rows += 1
        characters += len(row.text) + sum(len(turn.content) + len(turn.input) for turn in row.turns)
    if row_format is None or not rows:
        raise _empty(path)
    return FileReport(path, row_format, rows, characters, digest.hexdigest())


def read_rows(path: Path, row_format: RowFormat) -> Iterator[Row]:
    """The rows of `path` in order. Raises DataError as `check_file` does, and for a file without rows."""
    found = False
    for where, value in _objects(path):
        found = True
        yield parse_row(value, row_format, where)
    if not found:
        raise _empty(path)


def parse_row(value: Mapping[str, object], row_format: RowFormat, where: str) -> Row:
    """One JSON object as a Row; DataError names the field that is missing, of a wrong type or empty."""
    return Row(*_PARSERS[row_format](value, where), where)


def _completion(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    return (), _text(value, "text", where)


def _instruction(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    material = value.get("input")
    if material is not None and not isinstance(material, str):
        raise _wrong_type("input", material, where)
    question = Turn("user", _text(value, "instruction", where), material or "")
    return (question, Turn("assistant", _text(value, "output", where))), ""


def _prompt_completion(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    question = Turn("user", _text(value, "prompt", where))
    return (question, Turn("assistant", _text(value, "completion", where))), ""


def _chat(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    messages = value.get("messages")
    if messages is None:
        raise _missing("messages", value, where)
    if not isinstance(messages, list):
        raise _wrong_type("messages", messages, where, wanted="a list")
    turns = tuple(_message(message, f"messages[{i}]", where) for i, message in enumerate(messages))
    if not turns or turns[-1].role != "assistant":
        raise DataError(
            "the last message is not the assistant's: there is no answer to learn",
            where=where,
            fix="end every conversation with an assistant message, or remove the row",
        )
    if any(turn.role == "system" for turn in turns[1:]):
        raise DataError("a system message is not the first", where=where, fix="move it to the front")
    if turns[0].role == "assistant" or any(a.role == b.role for a, b in pairwise(turns)):
        raise DataError("user and assistant do not alternate", where=where, fix="join or remove messages")
    return turns, ""


def _message(message: object, name: str, where: str) -> Turn:
    if not isinstance(message, dict):
        raise _wrong_type(name, message, where, wanted="an object")
    role = _text(message, "role", where, prefix=f"{name}.")
    if role not in ROLES:
        raise DataError(f"{name}.role is {role!r}, not one of {', '.join(ROLES)}", where=where)
    return Turn(role, _text(message, "content", where, prefix=f"{name}."))


_Parser = Callable[[Mapping[str, object], str], tuple[tuple[Turn, ...], str]]
_PARSERS: Final[dict[RowFormat, _Parser]] = {
    "completion": _completion,
    "instruction": _instruction,
    "chat": _chat,
    "prompt-completion": _prompt_completion,
}


def _objects(
    path: Path, on_line: Callable[[bytes], None] | None = None
) -> Iterator[tuple[str, dict[str, object]]]:
    """`file:line` and the JSON object of every line that is not blank; `on_line` is given the raw lines."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if on_line is not None:
                on_line(raw)
            where = f"{path.name}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(f"not UTF-8 (byte {error.start + 1} of the line)", where=where) from error
            if line:
                yield where, _object(line, where)


def _object(line: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"not JSON: {error}", where=where, fix="each line of the file must be one JSON object"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"a JSON {_kind(value)}, not an object", where=where)
    return value


def _detected(value: Mapping[str, object], where: str) -> RowFormat:
    try:
        return detect_format(value)
    except DataError as error:
        raise DataError(error.what, where=where, fix=error.fix) from None


def _text(value: Mapping[str, object], key: str, where: str, *, prefix: str = "") -> str:
    if key not in value:
        raise _missing(prefix + key, value, where)
    text = value[key]
    if not isinstance(text, str):
        raise _wrong_type(prefix + key, text, where)
    if not text.strip():
        raise DataError(f"field {prefix + key!r} is empty", where=where, fix="fill it or remove the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can name half of a surrogate pair: "\ud83d"
        raise DataError(f"field {prefix + key!r} holds a broken character", where=where) from error
    return text


def _missing(key: str, value: Mapping[str, object], where: str) -> DataError:
    return DataError(f"field {key!r} is missing (found: {', '.join(sorted(value)) or 'none'})", where=where)


def _wrong_type(key: str, value: object, where: str, *, wanted: str = "a string") -> DataError:
    return DataError(f"field {key!r} is a JSON {_kind(value)}, not {wanted}", where=where)


def _kind(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return names.get(type(value), "null")


def _empty(path: Path) -> DataError:
    return DataError("the file has no rows", where=str(path), fix="one JSON object a line is expected")
