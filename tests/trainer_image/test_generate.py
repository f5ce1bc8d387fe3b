"""Answers are greedy, do not depend on the batch, and end where the model says so."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from trainer_image.trainer import generate
from trainer_image.trainer.errors import UsageError
from trainer_image.trainer.generate import greedy_answers, stop_tokens

pytestmark = pytest.mark.torch

PROMPTS = [
    "the quick brown",
    "order",
    "a model learns what it is shown again and again: numbers",
    "two lamps for",
]


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]


def answers(model: Any, tokenizer: Any, prompts: list[list[int]], **options: Any) -> list[str]:
    found = dict(pair for batch in greedy_answers(model, tokenizer, prompts, **options) for pair in batch)
    return [found[index] for index in range(len(prompts))]


def by_hand(model: Any, tokenizer: Any, prompt: list[int], count: int, stops: set[int]) -> str:
    """The likeliest token, one at a time, without cache, padding or `generate`."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            token = int(model.eval()(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token in stops:
                break
            ids.append(token)
    return str(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize("batch_rows", [1, 3, 50])
def test_answers_are_the_likeliest_tokens_whatever_the_batch(
    model: Any, tokenizer: Any, prompts: list[list[int]], batch_rows: int
) -> None:
    stops = {tokenizer.eos_token_id}
    expected = [by_hand(model, tokenizer, prompt, 12, stops) for prompt in prompts]
    assert answers(model, tokenizer, prompts, max_new_tokens=12, batch_rows=batch_rows) == expected


def test_an_answer_ends_before_a_stop_token_of_the_model(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    free = model.generate(torch.tensor([prompts[0]]), max_new_tokens=6, do_sample=False)[
        0, len(prompts[0]) :
    ].tolist()
    stop = free[3]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    expected = tokenizer.decode(free[: free.index(stop)], skip_special_tokens=True)
    assert answers(model, tokenizer, prompts[:1], max_new_tokens=6) == [expected]


def test_what_a_hub_model_says_about_sampling_is_ignored_without_a_warning(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    plain = answers(model, tokenizer, prompts, max_new_tokens=8)
    hub = GenerationConfig(
        do_sample=True,
        temperature=1.5,
        top_p=0.5,
        repetition_penalty=3.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.generation_config = hub
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert answers(model, tokenizer, prompts, max_new_tokens=8) == plain
    assert model.generation_config is hub


def test_a_model_that_was_training_goes_on_training(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    model.train()
    answers(model, tokenizer, prompts, max_new_tokens=2)
    assert model.training


def test_a_model_that_cannot_stop_is_refused(model: Any, tokenizer: Any) -> None:
    model.generation_config.eos_token_id = None

    class NoEos:
        eos_token_id = None

    with pytest.raises(UsageError, match="no end-of-sequence token"):
        stop_tokens(model, NoEos())


# --- the command -----------------------------------------------------------------------------------


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stdin: str, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    code = generate.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_answers_each_prompt_through_the_chat_template(
    model: Any,
    tokenizer: Any,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = '{"prompt": "order two lamps", "system": "be short"}\n\n{"prompt": "a cat"}\n'
    code, out, _ = command(monkeypatch, capsys, lines, str(tiny_model), "--max-new-tokens", "5")
    assert code == 0
    chats = [
        [{"role": "system", "content": "be short"}, {"role": "user", "content": "order two lamps"}],
        [{"role": "user", "content": "a cat"}],
    ]
    rendered = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
    expected = answers(model, tokenizer, ids, max_new_tokens=5)
    assert [json.loads(line)["answer"] for line in out.splitlines()] == expected


def test_a_raw_prompt_is_not_dressed(
    model: Any,
    tokenizer: Any,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = json.dumps({"prompt": PROMPTS[0]})
    _, out, _ = command(monkeypatch, capsys, line, str(tiny_model), "--raw", "--max-new-tokens", "5")
    expected = answers(model, tokenizer, [tokenizer(PROMPTS[0])["input_ids"]], max_new_tokens=5)
    assert [json.loads(out)["answer"]] == expected


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("", "no prompt on stdin"),
        ("{}\n", "stdin, line 1"),
        ('{"prompt": "a"}\nx\n', "stdin, line 2: is not JSON"),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stdin: str,
    message: str,
) -> None:
    code, out, err = command(monkeypatch, capsys, stdin, str(tiny_model))
    assert (code, out) == (2, "")
    assert message in err


def test_a_folder_without_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = command(monkeypatch, capsys, '{"prompt": "a"}\n', str(tmp_path))
    assert code == 2
    assert "no config.json" in err
