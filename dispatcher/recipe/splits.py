"""The data of a job: three files of checked rows in one folder, no row in two of them.

Rows are written in a canonical form (keys sorted, no white space between them), so that equal data has
an equal fingerprint, whatever wrote the file. A row of a single file goes to validation by a hash of
its content: equal rows fall on the same side, a row stays on its side when others are added, and the
split is the same on every machine (Python's own `hash` of text differs from process to process).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.sources import rows as source_rows
from trainer_image.trainer.data import Row, detect_format, parse_row
from trainer_image.trainer.errors import DataError
from trainer_image.trainer.spec import RowFormat

SPLITS: Final = ("train", "validation", "test")
MISNAMED: Final = {"val": "validation", "valid": "validation", "dev": "validation", "eval": "validation"}
CHARACTERS_PER_TOKEN: Final = 4
"""An estimate, good within a factor of two for English: no tokenizer is at hand before a launch."""
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Split:
    """One written file."""

    path: Path
    rows: int
    characters: int
    longest: int
    """Characters of its longest row."""
    likely_overlong: int
    """Rows of more than seq_len tokens, at CHARACTERS_PER_TOKEN."""
    json_answers: int
    """Rows whose answer is a JSON object or list."""
    longest_answer: int
    """Characters of its longest answer; 0 for completion rows, which have none."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Splits:
    """The data of a job, checked and in place."""

    train: Split
    validation: Split | None
    test: Split | None
    format: RowFormat
    duplicates: int
    """Rows of `train` that repeat an earlier one."""
    fingerprint: str
    """SHA-256 over the names and SHA-256s of the files: equal for equal rows in equal order."""


def prepare_splits(recipe: Recipe, into: Path) -> Splits:
    """Write train.jsonl and, where there are rows for them, validation.jsonl and test.jsonl into `into`.

    Raises DataError, with file and line, for a file that is missing, malformed or empty, and for rows
    that stand in two splits: a score on rows that were trained on says nothing.
    """
    sources = _sources(recipe)
    row_format = _format(recipe, sources["train"])
    into.mkdir(parents=True, exist_ok=True)
    seen: dict[str, set[bytes]] = {}
    written: dict[str, Split] = {}
    order = _write(sources["train"], row_format, into / "train.jsonl")
    seen["train"] = set(order)
    duplicates = len(order) - len(seen["train"])
    if "validation" not in sources and recipe.validation_fraction:
        duplicates = _set_aside(order, recipe.validation_fraction, into)
        written["validation"] = _measure(into / "validation.jsonl", row_format, recipe.seq_len)
    written["train"] = _measure(into / "train.jsonl", row_format, recipe.seq_len)
    for name in ("validation", "test"):
        if name in sources:
            order = _write(sources[name], row_format, into / f"{name}.jsonl")
            for earlier, digests in seen.items():
                _refuse_leak(order, digests, sources[name], sources[earlier])
            seen[name] = set(order)
            written[name] = _measure(into / f"{name}.jsonl", row_format, recipe.seq_len)
    return Splits(
        train=written["train"],
        validation=written.get("validation"),
        test=written.get("test"),
        format=row_format,
        duplicates=duplicates,
        fingerprint=_fingerprint(written),
    )


def _sources(recipe: Recipe) -> dict[str, Path]:
    """Split name -> the file that the user has for it."""
    found: dict[str, Path] = {}
    if recipe.data.is_dir():
        found = {name: path for name in SPLITS if (path := _in_folder(recipe.data, name)) is not None}
        if "train" not in found:
            raise DataError(
                "the folder has no train.jsonl",
                where=str(recipe.data),
                fix="name its files train, validation, test",
            )
        _refuse_misnamed(recipe.data)
    elif recipe.data.exists():
        found["train"] = recipe.data
    else:
        raise DataError(
            "no such file or folder", where=str(recipe.data), fix="set data: to the training rows"
        )
    for name, path in (("validation", recipe.validation_data), ("test", recipe.test_data)):
        if path is not None:
            if not path.is_file():
                raise DataError("no such file", where=str(path), fix=f"correct or remove {name}_data")
            found[name] = path
    return found


def _in_folder(folder: Path, name: str) -> Path | None:
    return next((path for end in ("jsonl", "json") if (path := folder / f"{name}.{end}").is_file()), None)


def _refuse_misnamed(folder: Path) -> None:
    """A `val.jsonl` that is silently not used would leave the job without the validation it seems to have."""
    for path in sorted(folder.glob("*.json*")):
        if path.stem in MISNAMED and _in_folder(folder, MISNAMED[path.stem]) is None:
            right = path.with_stem(MISNAMED[path.stem]).name
            raise DataError(f"{path.name} would not be used", where=str(folder), fix=f"rename it {right}")


def _format(recipe: Recipe, train: Path) -> RowFormat:
    if recipe.format != "auto":
        return recipe.format
    for where, value in source_rows(train):
        try:
            return detect_format(value)
        except DataError as error:
            raise DataError(error.what, where=where, fix=error.fix) from None
    raise _empty(train)


def _write(source: Path, row_format: RowFormat, target: Path) -> list[bytes]:
    """Check every row of `source`, write it to `target`; the digest of each row, in order."""
    digests: list[bytes] = []
    with target.open("wb") as stream:
        for where, value in source_rows(source):
            parse_row(value, row_format, where)
            line = _canonical(value, where)
            digests.append(_digest(line))
            stream.write(line)
    if not digests:
        raise _empty(source)
    return digests


def _set_aside(order: list[bytes], fraction: float, into: Path) -> int:
    """Move rows from train.jsonl to validation.jsonl by their digest; the duplicates left in train.

    A row is moved where its digest, as a fraction of the largest, is below `fraction`; of few rows, at
    least one distinct row is moved and one stays.
    """
    distinct = sorted(set(order))
    if len(distinct) < 2:
        raise DataError(
            "one distinct row cannot be split into training and validation",
            where=str(into / "train.jsonl"),
            fix="give more rows, or set validation_fraction: 0",
        )
    limit = int(fraction * (1 << 8 * DIGEST_BYTES)).to_bytes(DIGEST_BYTES, "big")
    limit = min(max(limit, distinct[1]), distinct[-1])
    whole = (into / "train.jsonl").rename(into / "all.jsonl")
    with (
        whole.open("rb") as stream,
        (into / "train.jsonl").open("wb") as train,
        (into / "validation.jsonl").open("wb") as validation,
    ):
        for digest, line in zip(order, stream, strict=True):
            (validation if digest < limit else train).write(line)
    whole.unlink()
    kept = [digest for digest in order if digest >= limit]
    return len(kept) - len(set(kept))


def _refuse_leak(order: list[bytes], earlier: set[bytes], source: Path, other: Path) -> None:
    leaked = [number for number, digest in enumerate(order, start=1) if digest in earlier]
    if leaked:
        raise DataError(
            f"{len(leaked)} of {len(order)} rows are in {other} too (the first is row {leaked[0]})",
            where=str(source),
            fix="remove them from one of the two files: a score on rows seen in training says nothing",
        )


def _measure(path: Path, row_format: RowFormat, seq_len: int) -> Split:
    digest = hashlib.sha256()
    count = characters = longest = overlong = json_answers = longest_answer = 0
    for line, row in _parsed(path, row_format):
        digest.update(line)
        length = len(row.text) + sum(len(turn.content) + len(turn.input) for turn in row.turns)
        answer = row.turns[-1].content if row.turns else ""
        count += 1
        characters += length
        longest = max(longest, length)
        overlong += length > seq_len * CHARACTERS_PER_TOKEN
        json_answers += _is_json(answer)
        longest_answer = max(longest_answer, len(answer))
    return Split(path, count, characters, longest, overlong, json_answers, longest_answer, digest.hexdigest())


def _parsed(path: Path, row_format: RowFormat) -> Iterator[tuple[bytes, Row]]:
    with path.open("rb") as stream:
        for line in stream:
            yield line, parse_row(json.loads(line), row_format, str(path))


def _is_json(answer: str) -> bool:
    """Whether `answer` is a JSON object or list (a bare number or word is no sign of structured output)."""
    if answer.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


def _canonical(value: dict[str, Any], where: str) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError as error:  # a broken character in a key that no format reads
        raise DataError("the row holds a broken character", where=where) from error


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()[:DIGEST_BYTES]


def _fingerprint(written: dict[str, Split]) -> str:
    parts = [f"{name} {written[name].sha256}\n" for name in SPLITS if name in written]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _empty(path: Path) -> DataError:
    return DataError("the file has no rows", where=str(path), fix="give at least one JSON object, one a line")
