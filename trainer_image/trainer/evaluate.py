"""Score a model on the test split: the same prompts for the base and for the tuned model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from trainer_image.trainer.errors import UsageError
from trainer_image.trainer.generate import greedy_answers
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.render import encode_prompt
from trainer_image.trainer.scores import ScoredRow, Scores, is_correct
from trainer_image.trainer.spec import EvaluateSpec


def score(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    spec: EvaluateSpec,
    *,
    out: Path,
    reporter: Reporter,
    name: Literal["base", "tuned"],
) -> Scores:
    """Answer the first `spec.rows` prompts of `pairs` (rendered prompt, expected answer) and judge them.

    Writes one JSON line a row to `out`, in the order of `pairs`; the file is whole or absent. Says a `test`
    progress line after each batch. No pairs: DataError.
    """
    if spec.metric == "none":
        raise UsageError("nothing to score with", where="evaluate.metric", fix="choose exact or json")
    pairs = pairs[: spec.rows]
    rows: dict[int, ScoredRow] = {}
    prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in pairs]
    for batch in greedy_answers(model, tokenizer, prompts, max_new_tokens=spec.max_new_tokens):
        for index, answer in batch:
            prompt, expected = pairs[index]
            rows[index] = ScoredRow(prompt, expected, answer, is_correct(answer, expected, spec.metric))
        correct = sum(row.correct for row in rows.values())
        reporter.say("test", model=name, done=len(rows), rows=len(pairs), correct=correct)
    in_order = [rows[index] for index in range(len(pairs))]
    scores = Scores.of(in_order, spec.metric)
    _write_whole(out, in_order)
    return scores


def _write_whole(path: Path, rows: Sequence[ScoredRow]) -> None:
    """Write aside and rename: a resumed job takes a file that exists for complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row.as_dict(), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
