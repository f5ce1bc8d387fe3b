"""Both models are scored on the same rows, and what was scored can be read again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from trainer_image.trainer.errors import UsageError
from trainer_image.trainer.evaluate import score
from trainer_image.trainer.generate import greedy_answers
from trainer_image.trainer.progress import Reporter, parse
from trainer_image.trainer.render import encode_prompt
from trainer_image.trainer.scores import Scores, read_rows
from trainer_image.trainer.spec import EvaluateSpec

pytestmark = pytest.mark.torch

PROMPTS = [
    f"order {word} " + "please " * (7 - count) for count, word in enumerate(["lamps", "a", "cats", "two"])
]


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


@pytest.fixture
def pairs(model: Any, tokenizer: Any) -> list[tuple[str, str]]:
    """Prompts of falling length with the model's own answers expected, the second one's aside."""
    ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    answers = dict(
        pair for batch in greedy_answers(model, tokenizer, ids, max_new_tokens=6) for pair in batch
    )
    return [(prompt, answers[i] if i != 1 else "other") for i, prompt in enumerate(PROMPTS)]


def test_rows_are_written_in_their_order_and_scored_by_the_metric(
    model: Any, tokenizer: Any, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    out, said = tmp_path / "evaluation" / "tuned.jsonl", io.StringIO()
    spec = EvaluateSpec("exact", 100, 6)
    scores = score(model, tokenizer, pairs, spec, out=out, reporter=Reporter(said), name="tuned")
    rows = read_rows(out)
    assert [(row.prompt, row.expected) for row in rows] == pairs
    assert [row.correct for row in rows] == [True, False, True, True]
    assert scores == Scores.from_file(out, "exact")
    assert (scores.rows, scores.correct) == (4, 3)
    last = parse(said.getvalue().splitlines()[-1])
    assert last is not None
    assert {k: last.values[k] for k in ("model", "done", "rows", "correct")} == {
        "model": "tuned", "done": 4, "rows": 4, "correct": 3,
    }  # fmt: skip


def test_only_the_first_rows_are_scored(
    model: Any, tokenizer: Any, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    out, spec = tmp_path / "base.jsonl", EvaluateSpec("exact", 2, 6)
    score(model, tokenizer, pairs, spec, out=out, reporter=Reporter(io.StringIO()), name="base")
    assert [row.prompt for row in read_rows(out)] == PROMPTS[:2]


def test_a_killed_scoring_leaves_no_file_that_looks_whole(
    model: Any, tokenizer: Any, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            raise Killed

    out, spec = tmp_path / "base.jsonl", EvaluateSpec("exact", 4, 6)
    with pytest.raises(Killed):
        score(model, tokenizer, pairs, spec, out=out, reporter=Reporter(Stream()), name="base")
    assert not out.exists()


def test_scoring_without_a_metric_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    spec = EvaluateSpec("none", 4, 6)
    with pytest.raises(UsageError, match="nothing to score with"):
        score(
            model,
            tokenizer,
            [("a", "b")],
            spec,
            out=tmp_path / "x",
            reporter=Reporter(io.StringIO()),
            name="base",
        )
