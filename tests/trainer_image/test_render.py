"""From rows to tokens: what is learned is the answer, and the prompt is the one that generation sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.factories.tiny_model import CHAT_TEMPLATE
from tests.factories.workdirs import order_rows, write_jsonl
from trainer_image.trainer.batches import Example
from trainer_image.trainer.data import Row, parse_row
from trainer_image.trainer.errors import DataError
from trainer_image.trainer.render import (
    encode,
    encode_file,
    encode_prompt,
    prompt_of,
    prompts_of_file,
    render,
)
from trainer_image.trainer.spec import DataSpec, RowFormat, TrainSpec

pytestmark = pytest.mark.torch

CONVERSATION = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three?"},
        {"role": "assistant", "content": "four"},
    ]
}
INSTRUCTION = {"instruction": "add", "input": "1 2", "output": "3"}


@pytest.fixture
def data(make_spec: Callable[..., TrainSpec]) -> DataSpec:
    return make_spec().data


def row(value: dict[str, Any], row_format: RowFormat = "chat") -> Row:
    return parse_row(value, row_format, "rows.jsonl:1")


def learned(tokenizer: Any, example: Example) -> list[str]:
    """The text of each run of learned tokens."""
    runs: list[list[int]] = []
    for i, token in enumerate(example.ids):
        if example.target[i]:
            if not example.target[i - 1]:
                runs.append([])
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


def test_every_answer_of_a_conversation_and_its_end_is_learned(tokenizer: Any, data: DataSpec) -> None:
    example = encode(tokenizer, render(tokenizer, row(CONVERSATION)), data)
    assert learned(tokenizer, example) == ["two<|im_end|>", "four<|im_end|>"]
    assert tokenizer.decode(example.ids).startswith(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user"
    )


def test_without_train_on_eos_the_end_of_a_turn_is_seen_but_not_learned(
    tokenizer: Any, data: DataSpec, make_spec: Callable[..., TrainSpec]
) -> None:
    quiet = make_spec(data__train_on_eos=False).data
    example = encode(tokenizer, render(tokenizer, row(CONVERSATION)), quiet)
    assert learned(tokenizer, example) == ["two", "four"]
    assert list(example.ids) == list(encode(tokenizer, render(tokenizer, row(CONVERSATION)), data).ids)


def test_a_template_that_ends_the_turn_gets_no_second_eos(tokenizer: Any, data: DataSpec) -> None:
    example = encode(tokenizer, render(tokenizer, row(CONVERSATION)), data)
    assert list(example.ids).count(tokenizer.eos_token_id) == 5


def test_without_a_template_the_headings_of_the_guide_are_used(plain_tokenizer: Any, data: DataSpec) -> None:
    rendered = render(plain_tokenizer, row(INSTRUCTION, "instruction"))
    assert rendered.text == "### Instruction\nadd\n\n### Input\n1 2\n\n### Response\n3"
    assert learned(plain_tokenizer, encode(plain_tokenizer, rendered, data)) == ["3<|endoftext|>"]


def test_earlier_answers_end_with_an_eos_without_a_template_too(plain_tokenizer: Any, data: DataSpec) -> None:
    example = encode(plain_tokenizer, render(plain_tokenizer, row(CONVERSATION)), data)
    assert learned(plain_tokenizer, example) == ["two<|endoftext|>", "four<|endoftext|>"]


@pytest.mark.parametrize(("append", "train_on", "end"), [(True, False, ""), (False, True, "")])
def test_the_eos_is_appended_and_learned_only_as_asked(
    append: bool, train_on: bool, end: str, plain_tokenizer: Any, make_spec: Callable[..., TrainSpec]
) -> None:
    spec = make_spec(data__append_eos=append, data__train_on_eos=train_on).data
    example = encode(plain_tokenizer, render(plain_tokenizer, row(INSTRUCTION, "instruction")), spec)
    assert learned(plain_tokenizer, example) == ["3" + end]
    assert (example.ids[-1] == plain_tokenizer.eos_token_id) == append


def test_a_text_is_learned_as_a_whole(tokenizer: Any, data: DataSpec) -> None:
    example = encode(tokenizer, render(tokenizer, row({"text": "the lazy dog"}, "completion")), data)
    assert bytes(example.target) == b"\0" + b"\1" * (len(example.ids) - 1)
    assert tokenizer.decode(example.ids) == "the lazy dog<|im_end|>"


def test_loss_on_all_learns_the_prompt_too(tokenizer: Any, make_spec: Callable[..., TrainSpec]) -> None:
    rendered = render(tokenizer, row(CONVERSATION))
    whole = encode(tokenizer, rendered, make_spec(data__loss_on="all").data)
    assert whole.loss_tokens == len(whole.ids) - 1
    quiet = encode(tokenizer, rendered, make_spec(data__loss_on="all", data__train_on_eos=False).data)
    assert quiet.loss_tokens == whole.loss_tokens - 5


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    str.strip
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(words, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0), st.booleans())
def test_the_prompt_in_training_is_token_for_token_the_prompt_in_generation(
    tokenizer: Any, plain_tokenizer: Any, data: DataSpec, turns: list[str], templated: bool
) -> None:
    chosen = tokenizer if templated else plain_tokenizer
    roles = ["user", "assistant"] * (len(turns) // 2)
    messages = [{"role": r, "content": text} for r, text in zip(roles, turns, strict=True)]
    one = row({"messages": messages})
    example = encode(chosen, render(chosen, one), data)
    prompt = encode_prompt(chosen, prompt_of(chosen, one)[0])
    assert list(example.ids[: len(prompt)]) == prompt
    answer = list(example.ids[len(prompt) :])
    assert all(example.target[len(prompt) :])
    assert chosen.decode(answer).startswith(turns[-1])
    assert answer[-1] == chosen.eos_token_id


def test_what_the_tokenizer_puts_before_a_text_is_put_before_prompt_and_text_alike(
    plain_tokenizer: Any, data: DataSpec
) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    llama_like = PreTrainedTokenizerFast.from_pretrained(plain_tokenizer.name_or_path)
    bos, eos = llama_like.bos_token, llama_like.eos_token
    llama_like.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        special_tokens=[(bos, llama_like.bos_token_id), (eos, llama_like.eos_token_id)],
    )
    one = row(INSTRUCTION, "instruction")
    example = encode(llama_like, render(llama_like, one), data)
    prompt = encode_prompt(llama_like, prompt_of(llama_like, one)[0])
    assert prompt[0] == llama_like.bos_token_id
    assert list(example.ids[: len(prompt)]) == prompt
    assert (
        list(example.ids).count(llama_like.bos_token_id)
        == list(example.ids).count(llama_like.eos_token_id)
        == 1
    )
    text = encode(llama_like, render(llama_like, row({"text": bos + "a b"}, "completion")), data)
    assert list(text.ids).count(llama_like.bos_token_id) == 1


def test_where_a_token_would_straddle_prompt_and_answer_both_are_tokenised_apart(
    plain_tokenizer: Any, data: DataSpec
) -> None:
    from transformers import PreTrainedTokenizerFast

    glued = PreTrainedTokenizerFast.from_pretrained(plain_tokenizer.name_or_path)
    glued.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %} th{% endif %}{% endfor %}"
    )
    one = row({"prompt": "over", "completion": "e lazy dog"}, "prompt-completion")
    assert "\u0120the" in glued.convert_ids_to_tokens(glued("over the lazy dog")["input_ids"])
    example = encode(glued, render(glued, one), data)
    prompt = encode_prompt(glued, prompt_of(glued, one)[0])
    assert list(example.ids[: len(prompt)]) == prompt
    assert learned(glued, example) == ["e lazy dog<|endoftext|>"]


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n</think>\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def with_template(tokenizer: Any) -> Callable[[str], Any]:
    from transformers import AutoTokenizer

    def make(template: str) -> Any:
        fresh = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
        fresh.chat_template = template
        return fresh

    return make


def test_a_template_that_rewrites_earlier_turns_leaves_the_last_answer_and_a_warning(
    with_template: Callable[[str], Any], data: DataSpec, tmp_path: Path
) -> None:
    thinking = with_template(THINKING)
    example = encode(thinking, render(thinking, row(CONVERSATION)), data)
    assert learned(thinking, example) == ["<think>\n</think>\nfour<|im_end|>"]
    path = write_jsonl(tmp_path / "rows.jsonl", [CONVERSATION])
    split = encode_file(path, thinking, replaced_format(data, "chat"))
    assert "1 of 1 training rows teach their last answer only" in split.warnings("training")[0]


def test_a_generation_prompt_that_is_not_in_the_text_is_refused(
    with_template: Callable[[str], Any], data: DataSpec
) -> None:
    odd = with_template(CHAT_TEMPLATE.replace("assistant\n'", "assistant\n<think>\n'"))
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template renders the prompt"):
        render(odd, row(CONVERSATION))


def test_what_a_template_refuses_is_said_with_its_row(with_template: Callable[[str], Any]) -> None:
    strict = with_template("{{ raise_exception('no system please') }}")
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* no system please"):
        render(strict, row(CONVERSATION))


def replaced_format(data: DataSpec, row_format: RowFormat, **changes: Any) -> DataSpec:
    from dataclasses import replace

    return replace(data, format=row_format, **changes)


def test_too_many_long_rows_are_refused_with_what_to_do(
    tokenizer: Any, data: DataSpec, tmp_path: Path
) -> None:
    rows = order_rows(10) + [{"instruction": "long " * 200, "output": "x"}] * 2
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="2 of 12 rows would be dropped") as caught:
        encode_file(path, tokenizer, data)
    assert "truncate" in caught.value.fix


def test_few_long_rows_are_dropped_and_counted(tokenizer: Any, data: DataSpec, tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "rows.jsonl", [*order_rows(19), {"instruction": "long " * 200, "output": "x"}]
    )
    split = encode_file(path, tokenizer, data)
    assert (split.rows, split.dropped, len(split.examples)) == (20, 1, 19)
    assert split.tokens_lost > 400
    assert "1 of 20 training rows are too long and were dropped" in split.warnings("training")[0]


def test_long_rows_are_cut_as_asked(tokenizer: Any, data: DataSpec, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "say it", "output": "lazy dog " * 100}])
    split = encode_file(path, tokenizer, replaced_format(data, "instruction", overlong="truncate"))
    assert (split.truncated, split.dropped, len(split.examples[0].ids)) == (1, 0, data.seq_len)


def test_a_long_row_is_refused_as_asked(tokenizer: Any, data: DataSpec, tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "rows.jsonl", [*order_rows(1), {"instruction": "long " * 200, "output": "x"}]
    )
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row has .* tokens, seq_len is 128"):
        encode_file(path, tokenizer, replaced_format(data, "instruction", overlong="refuse"))


def test_nothing_left_to_learn_is_refused(tokenizer: Any, data: DataSpec, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "long " * 200, "output": "x"}] * 3)
    with pytest.raises(DataError, match="nothing would be learned: none of 3 rows"):
        encode_file(path, tokenizer, replaced_format(data, "instruction", overlong="truncate"))


def test_prompts_of_a_file_come_with_the_last_answer(tokenizer: Any, data: DataSpec, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [CONVERSATION])
    ((prompt, expected),) = prompts_of_file(path, tokenizer, replaced_format(data, "chat"))
    assert expected == "four"
    assert prompt.endswith("three?<|im_end|>\n<|im_start|>assistant\n")


def test_a_text_has_no_prompt_to_score(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no prompt and no answer"):
        prompt_of(tokenizer, row({"text": "once"}, "completion"))
