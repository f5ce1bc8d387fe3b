"""Data files as the user has them: JSON Lines, or one JSON list; each row with the line it stands on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trainer_image.trainer.errors import DataError

LINE_FIX: Final = "each line must be one JSON object, or the whole file one JSON list of objects"
WHITE: Final = " \t\r\n"


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and the object of every row of `path`, in order.

    Lines are streamed; a file that begins with `[` is read as one list, its text whole in memory.
    Raises DataError, with `file:line`, for what is not UTF-8, not JSON or not an object.
    """
    try:
        with path.open("rb") as stream:
            is_list = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
            stream.seek(0)
            yield from _list(stream.read(), path) if is_list else _lines(stream, path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _lines(stream: Iterator[bytes], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, raw in enumerate(stream, start=1):
        where = f"{path}:{number}"
        line = _text(raw, where, first=number == 1).strip()
        if not line:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", where=where, fix=LINE_FIX) from error
        yield where, _object(value, where)


def _list(raw: bytes, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one JSON list, decoded one by one so that each has a line number."""
    text = _text(raw, str(path), first=True)
    decoder = json.JSONDecoder()
    position, line = text.index("[") + 1, 1
    counted = 0  # characters whose line ends are in `line`
    while True:
        position = _skip(text, position, WHITE)
        line += text.count("\n", counted, position)
        counted = position
        where = f"{path}:{line}"
        if text[position : position + 1] == "]":
            break
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", where=where, fix=LINE_FIX) from error
        yield where, _object(value, where)
        position = _after_row(text, position, path)
    if _skip(text, position + 1, WHITE) < len(text):
        raise DataError("something follows the end of the list", where=where, fix=LINE_FIX)


def _after_row(text: str, position: int, path: Path) -> int:
    """The position behind a row's comma, or at the list's closing bracket."""
    position = _skip(text, position, WHITE)
    match text[position : position + 1]:
        case ",":
            return position + 1
        case "]":
            return position
    line = text.count("\n", 0, position) + 1
    raise DataError("a comma or the end of the list is missing", where=f"{path}:{line}", fix=LINE_FIX)


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError("the row is not a JSON object", where=where, fix=LINE_FIX)
    return value


def _text(raw: bytes, where: str, *, first: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 (byte {error.start + 1})", where=where, fix="save it as UTF-8") from error
