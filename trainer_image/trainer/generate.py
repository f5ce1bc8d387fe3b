"""Greedy answers to prompts, in batches; and a command for a quick try of a model folder:

    python -m trainer_image.trainer.generate FOLDER [--max-new-tokens N] [--raw]

reads JSON lines {"prompt": …, "system": …?} from stdin and prints one JSON line {"answer": …} for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainer_image.trainer.data import Row, Turn
from trainer_image.trainer.errors import DataError, FtcloudError, UsageError
from trainer_image.trainer.hardware import detect
from trainer_image.trainer.model import bare
from trainer_image.trainer.render import encode_prompt, prompt_of

BATCH_ROWS = 50
"""Prompts answered together: enough for efficient matrix products, few enough for a small cache of keys and
values and for a progress line now and then."""


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[list[tuple[int, str]]]:
    """Answer tokenised prompts with the likeliest tokens; yields (index, answer) pairs batch by batch.

    Prompts are sorted by length, so that a batch pads little and ends soon. An answer ends before the
    first stop token (the tokenizer's EOS and the stop tokens of the model's generation config) or after
    `max_new_tokens`. What a hub model says about sampling is ignored. The model is in eval mode while
    this runs, and afterwards as before.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    model = bare(model)  # PEFT's layers stay in it
    stops = stop_tokens(model, tokenizer)
    with _ready_to_generate(model, stops, max_new_tokens):
        for start in range(0, len(order), batch_rows):
            batch = order[start : start + batch_rows]
            rows = _continue(model, [list(prompts[index]) for index in batch], pad=stops[0])
            yield [
                (index, tokenizer.decode(_before_stop(row, stops), skip_special_tokens=True))
                for index, row in zip(batch, rows, strict=True)
            ]


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer: the tokenizer's EOS first, then the model's own."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    stops = dict.fromkeys(token for token in [tokenizer.eos_token_id, *own] if token is not None)
    if not stops:
        raise UsageError(
            "the model has no end-of-sequence token",
            fix="set eos_token in the base model's tokenizer_config.json",
        )
    return list(stops)


@contextmanager
def _ready_to_generate(model: Any, stops: list[int], max_new_tokens: int) -> Iterator[None]:
    """Eval mode and a plain greedy generation config, both undone at the end.

    The config on the model itself is replaced, because `generate` fills whatever a config passed to it
    leaves open with the model's own defaults: a hub model's temperature then warns, its penalties act.
    """
    from transformers import GenerationConfig

    config, training = model.generation_config, model.training
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )
    model.eval()
    try:
        yield
    finally:
        model.generation_config = config
        model.train(training)


@torch.inference_mode()
def _continue(model: Any, rows: list[list[int]], pad: int) -> list[list[int]]:
    """New token ids of each row; rows are padded on the left, so that all end at the same column."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.generate(input_ids=ids, attention_mask=mask)
    new: list[list[int]] = out[:, width:].tolist()
    return new


def _before_stop(ids: list[int], stops: list[int]) -> list[int]:
    end = next((position for position, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer_image.trainer.generate")
    parser.add_argument("folder", type=Path, help="a model folder that transformers can load")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument(
        "--raw", action="store_true", help="give the prompt to the model without a chat template"
    )
    options = parser.parse_args(arguments)
    try:
        _answer_stdin(options.folder, options.max_new_tokens, raw=options.raw)
    except FtcloudError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return int(error.exit_code)
    return 0


def _answer_stdin(folder: Path, max_new_tokens: int, *, raw: bool) -> None:
    requests = [_request(line, number) for number, line in enumerate(sys.stdin, start=1) if line.strip()]
    if not requests:
        raise UsageError("no prompt on stdin", fix='write one JSON object a line: {"prompt": "…"}')
    model, tokenizer = _load(folder)
    prompts = [_tokens(request, tokenizer, raw=raw) for request in requests]
    answers = [""] * len(prompts)
    for batch in greedy_answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens):
        for index, answer in batch:
            answers[index] = answer
    for answer in answers:
        sys.stdout.write(json.dumps({"answer": answer}, ensure_ascii=False) + "\n")


def _load(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer from a folder alone: nothing is fetched, no code from the folder is run."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise UsageError("is not a model folder: no config.json in it", where=str(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be loaded: {error}", where=str(folder)) from error
    if torch.cuda.is_available():
        return model.to("cuda"), tokenizer
    # A CPU without bf16 instructions emulates them many times slower than it multiplies fp32.
    return (model if detect().fast_bf16 else model.float()), tokenizer


def _request(line: str, number: int) -> dict[str, str]:
    try:
        request = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg}", where=f"stdin, line {number}") from error
    texts = isinstance(request, dict) and all(
        isinstance(request.get(key, ""), str) for key in ("prompt", "system")
    )
    if not texts or "prompt" not in request:
        raise DataError('is not {"prompt": text, "system": text?}', where=f"stdin, line {number}")
    return dict(request)


def _tokens(request: dict[str, str], tokenizer: Any, *, raw: bool) -> list[int]:
    """The prompt as the model saw prompts in training, or with --raw as its tokenizer takes any text."""
    if raw:
        ids: list[int] = tokenizer(request["prompt"])["input_ids"]
        return ids
    system = (Turn("system", request["system"]),) if request.get("system") else ()
    row = Row((*system, Turn("user", request["prompt"]), Turn("assistant", "")), text="", where="stdin")
    return encode_prompt(tokenizer, prompt_of(tokenizer, row)[0])


if __name__ == "__main__":
    raise SystemExit(main())
