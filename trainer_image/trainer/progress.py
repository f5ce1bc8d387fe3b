"""What the trainer says while it runs: one JSON object a line on stdout, beside human lines.

A progress line begins with `{"ftcloud":`, whose value names the kind; every other line of the log is
for people. One stream carries both, because a managed run offers no second one. The kinds and their
fields are the tables below: a reader drops what it does not know.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from typing import Any, Final, TextIO

MARK: Final = '{"ftcloud":'

KINDS: Final[dict[str, str]] = {
    "phase": "phase: load | base | train | merge | test | save, in the order they happen",
    "start": "trainable, total [parameters], share, rows {train, validation, test}, dropped_rows, "
    "tokens [one epoch], loss_tokens [one epoch], steps, precision, device, packing, resumed_step",
    "train": "step, steps, epoch, loss, lr, grad_norm, tokens, tokens_per_s, eta_s, peak_gib",
    "eval": "step, epoch, eval_loss, best [bool]",
    "checkpoint": "step, path",
    "test": "model: base | tuned, done, rows, correct",
    "merge": "dtype, mean_kl, agree [share of equal top tokens], rows",
    "warning": "message",
    "done": "metrics, as in output/result.json",
    "error": "what, where, fix, code",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """A parsed progress line."""

    kind: str
    values: dict[str, Any]


class Reporter:
    """Writes progress lines; `peak_gib` and time-stamps are added by the caller that knows them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def say(self, kind: str, **values: Any) -> None:
        """Write one line. NaN and infinity become null: they are not JSON."""
        if kind not in KINDS:
            raise ValueError(f"unknown progress kind {kind!r}")
        line = {"ftcloud": kind, "time": round(time.time(), 3)} | {k: _plain(v) for k, v in values.items()}
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()


def parse(line: str) -> Progress | None:
    """The progress in a log line, or None where the line is for people or was cut."""
    if not line.startswith(MARK):
        return None
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    kind = values.pop("ftcloud")
    return Progress(kind, values) if isinstance(kind, str) and kind in KINDS else None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
