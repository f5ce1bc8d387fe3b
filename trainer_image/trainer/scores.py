"""How good answers are, and how sure that is: pure arithmetic on rows, without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_image.trainer.errors import DataError
from trainer_image.trainer.spec import Metric


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One scored prompt, as it stands in output/evaluation/*.jsonl."""

    prompt: str
    expected: str
    answer: str
    correct: bool

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's result on the test rows. Shares are of all rows, 0 to 1."""

    metric: Metric
    rows: int
    correct: int
    score: float
    """Share of right answers."""
    standard_error: float
    """Of `score`: sqrt(p (1 - p) / n), the binomial formula."""
    valid_json: float | None = None
    """Share of answers that parse as JSON; metric `json` only."""
    fields: float | None = None
    """Mean share of the expected object's top-level fields that the answer has right; `json` only."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, rows: Sequence[ScoredRow], metric: Metric) -> Scores:
        """Scores of rows that are already judged. No rows: DataError."""
        if not rows:
            raise DataError("no rows to score", fix="give the test split at least one row")
        n = len(rows)
        correct = sum(row.correct for row in rows)
        share = correct / n
        as_json = metric == "json"
        return cls(
            metric=metric,
            rows=n,
            correct=correct,
            score=share,
            standard_error=math.sqrt(share * (1 - share) / n),
            valid_json=sum(parsed(row.answer) is not NOT_JSON for row in rows) / n if as_json else None,
            fields=sum(right_fields(row.answer, row.expected) for row in rows) / n if as_json else None,
        )

    @classmethod
    def from_file(cls, path: Path, metric: Metric) -> Scores:
        """Scores of a JSONL file that an earlier run wrote whole; see `read_rows` for errors."""
        return cls.of(read_rows(path), metric)


@dataclass(frozen=True, slots=True)
class Gain:
    """What training changed, on the same prompts."""

    value: float
    """Tuned score minus base score, -1 to 1."""
    standard_error: float
    rows: int

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_rows(path: Path) -> list[ScoredRow]:
    """The rows of an evaluation file. A missing file or malformed line raises DataError naming it."""
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(ScoredRow(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(
                "is not a scored row",
                where=f"{path}:{number}",
                fix="delete the file; the next run scores again",
            ) from error
    return rows


def gain(base: Sequence[ScoredRow], tuned: Sequence[ScoredRow]) -> Gain:
    """Tuned score minus base score on the same prompts, and its standard error.

    The rows are paired, so the error is that of the mean difference d_i = tuned_i - base_i in {-1, 0, 1}:
    s / sqrt(n) with the sample variance s^2 = sum (d_i - mean)^2 / (n - 1). Where all d_i are equal, s is 0
    by accident of the sample; then the binomial error of "a row differs thus" with one success and one
    failure added stands in: sqrt(q (1 - q) / n), q = (n + 1) / (n + 2) (Laplace's rule of succession).
    Rows that are not of the same prompts, or none, raise DataError.
    """
    if not base or [row.prompt for row in base] != [row.prompt for row in tuned]:
        raise DataError(
            "base and tuned rows are not of the same prompts", fix="score both models on the same test split"
        )
    n = len(base)
    differences = [
        int(after.correct) - int(before.correct) for before, after in zip(base, tuned, strict=True)
    ]
    mean = sum(differences) / n
    if len(set(differences)) == 1:
        q = (n + 1) / (n + 2)
        return Gain(mean, math.sqrt(q * (1 - q) / n), n)
    variance = sum((d - mean) ** 2 for d in differences) / (n - 1)
    return Gain(mean, math.sqrt(variance / n), n)


def is_correct(answer: str, expected: str, metric: Metric) -> bool:
    """Whether the answer is right: equal text but for outer white space, or equal parsed JSON."""
    if metric == "json":
        got = parsed(answer)
        return got is not NOT_JSON and same(got, parsed(expected))
    return answer.strip() == expected.strip()


def right_fields(answer: str, expected: str) -> float:
    """Share of the expected object's top-level fields that the answer has with the same value.

    Where the expected value is no object, or an empty one, it counts as one field.
    """
    got, wanted = parsed(answer), parsed(expected)
    if got is NOT_JSON or not isinstance(wanted, dict) or not wanted:
        return float(got is not NOT_JSON and same(got, wanted))
    if not isinstance(got, dict):
        return 0.0
    return sum(key in got and same(got[key], value) for key, value in wanted.items()) / len(wanted)


NOT_JSON: Any = object()
"""What `parsed` returns for text that is not JSON; None would be JSON's null."""


def parsed(text: str) -> Any:
    """The value of strict JSON (no NaN, no Infinity), or NOT_JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOT_JSON


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: key order aside, 1 equals 1.0, but true is not 1 as it is in Python."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
