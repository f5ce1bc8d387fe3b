"""Warnings before anything is spent: what would run, and would probably disappoint.

Every warning says what is odd, and what to write instead. The limits come from the guide's pitfalls
where it has one, and are stated where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.recipe.base_model import ModelFacts
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.splits import Split, Splits
from trainer_image.trainer.hardware import Hardware

MAX_EPOCHS: Final = 10
MAX_ADAPTER_RATE: Final = 1e-3
MAX_FULL_RATE: Final = 1e-4
MIN_ROWS: Final = 100
"""The guide: "Minimum 100-500 examples for meaningful fine-tuning"."""
MIN_HELD_OUT: Final = 20
"""Rows under which a validation loss or a score is mostly noise: 20 rows give a score +-11 points."""
MIN_STEPS: Final = 20
MAX_DUPLICATE_SHARE: Final = 0.05
USUAL_SCALE: Final = (0.5, 4.0)
"""Range of alpha / rank in common use: 1 or 2, and half or double of it."""


CODES: Final[Mapping[str, str]] = {
    "learning-rate-high": f"learning_rate from {MAX_ADAPTER_RATE:g} (adapters), {MAX_FULL_RATE:g} (full)",
    "epochs-many": f"more than {MAX_EPOCHS} epochs",
    "rows-few": f"fewer than {MIN_ROWS} training rows",
    "validation-none": "no validation rows",
    "validation-unused": "validation rows, and eval_every is never",
    "validation-small": f"fewer than {MIN_HELD_OUT} validation rows",
    "test-small": f"fewer than {MIN_HELD_OUT} test rows",
    "eos-untrained": "append_eos or train_on_eos is off",
    "loss-on-prompt": "loss_on is all, with rows that have a prompt",
    "chat-model-on-completion": "the model has a chat template, and the rows are plain text",
    "no-chat-template": "the rows are conversations, and the model has no chat template",
    "duplicates": f"more than {MAX_DUPLICATE_SHARE:.0%} of the training rows repeat another one",
    "rows-overlong": "rows that are over seq_len by an estimate of 4 characters a token",
    "seq-len-beyond-model": "seq_len is more than the model's context",
    "steps-few": f"fewer than {MIN_STEPS} optimizer steps",
    "warmup-long": "warm-up takes half of the training or more",
    "save-never": "save_every is never",
    "save-late": "save_every is more than the steps of the job",
    "alpha-odd": f"alpha is below {USUAL_SCALE[0]:g} or above {USUAL_SCALE[1]:g} times the rank",
    "fp16": "precision is fp16",
    "bf16-slow": "precision is bf16 on a CPU that is slower with it",
    "qlora-on-cpu": "method is qlora on a machine without a GPU",
    "attention-eager": "attention is eager",
}
"""Every warning, and when it is given."""


@dataclass(frozen=True, slots=True)
class LintWarning:
    """One warning; `code` is one of CODES and stable, for scripts."""

    code: str
    message: str
    fix: str

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code


@dataclass(frozen=True, slots=True)
class _Case:
    recipe: Recipe
    splits: Splits
    facts: ModelFacts | None
    hardware: Hardware

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole job."""
        if self.recipe.max_steps is not None:
            return self.recipe.max_steps
        per_step = self.recipe.micro_batch * self.recipe.accumulation()
        return math.ceil(self.splits.train.rows / per_step * self.recipe.epochs)


def lint(recipe: Recipe, splits: Splits, facts: ModelFacts | None, hardware: Hardware) -> list[LintWarning]:
    """Every warning about this job, the dearest mistakes first. Nothing is read or changed."""
    case = _Case(recipe, splits, facts, hardware)
    return [warning for rule in RULES for warning in rule(case)]


def _rate(case: _Case) -> Iterator[LintWarning]:
    rate, full = case.recipe.learning_rate, case.recipe.method == "full"
    limit, usual = (MAX_FULL_RATE, 2e-5) if full else (MAX_ADAPTER_RATE, 2e-4)
    if rate >= limit:
        what = "full fine-tuning" if full else "adapters"
        yield LintWarning(
            "learning-rate-high",
            f"learning_rate {rate:g} is high for {what}: the model may forget, or the loss diverge",
            f"learning_rate: {usual:g} is usual",
        )


def _epochs(case: _Case) -> Iterator[LintWarning]:
    if case.recipe.max_steps is None and case.recipe.epochs > MAX_EPOCHS:
        yield LintWarning(
            "epochs-many",
            f"{case.recipe.epochs:g} epochs: the model will memorize its training rows",
            "epochs: 3, or early_stopping: 2 with validation rows",
        )


def _rows(case: _Case) -> Iterator[LintWarning]:
    rows = case.splits.train.rows
    if rows < MIN_ROWS:
        yield LintWarning(
            "rows-few",
            f"{rows} training rows; below {MIN_ROWS} a fine-tune seldom beats a prompt with examples",
            f"collect {MIN_ROWS} to 500 good rows, or try few-shot prompting first",
        )


def _held_out(case: _Case) -> Iterator[LintWarning]:
    validation, test = case.splits.validation, case.splits.test
    if validation is None:
        yield LintWarning(
            "validation-none",
            "no validation rows: nothing will show overfitting, and no best checkpoint can be chosen",
            "validation_fraction: 0.1, or give validation_data",
        )
    elif case.recipe.eval_every == "never":
        yield LintWarning(
            "validation-unused",
            f"{validation.rows} validation rows, but eval_every is never: nothing will show overfitting",
            "eval_every: epoch",
        )
    if validation is not None and validation.rows < MIN_HELD_OUT:
        yield _small("validation", validation, "its loss will be noise")
    if test is not None and test.rows < MIN_HELD_OUT:
        yield _small(
            "test", test, f"a score has a standard error of up to {50 / math.sqrt(test.rows):.0f} points"
        )


def _small(name: str, split: Split, consequence: str) -> LintWarning:
    rows = "1 row" if split.rows == 1 else f"{split.rows} rows"
    return LintWarning(
        f"{name}-small", f"{rows} of {name}: {consequence}", f"give {name} {MIN_HELD_OUT} rows or more"
    )


def _duplicates(case: _Case) -> Iterator[LintWarning]:
    count, rows = case.splits.duplicates, case.splits.train.rows
    if count > MAX_DUPLICATE_SHARE * rows:
        yield LintWarning(
            "duplicates",
            f"{count} of {rows} training rows repeat another one ({count / rows:.0%}), as if for more epochs",
            "remove the duplicates",
        )


def _overlong(case: _Case) -> Iterator[LintWarning]:
    count, length = case.splits.train.likely_overlong, case.recipe.seq_len
    if count:
        fate = {"drop": "will be dropped", "truncate": "will lose their end", "refuse": "will stop the job"}
        yield LintWarning(
            "rows-overlong",
            f"an estimated {count} of {case.splits.train.rows} training rows are over {length} tokens "
            f"(at 4 characters a token) and {fate[case.recipe.overlong]}",
            "raise seq_len, or shorten the rows",
        )
    positions = case.facts.max_positions if case.facts else None
    if positions is not None and length > positions:
        yield LintWarning(
            "seq-len-beyond-model",
            f"seq_len {length} is more than the model's context of {positions} tokens, which is used instead",
            f"seq_len: {positions}",
        )


def _steps(case: _Case) -> Iterator[LintWarning]:
    steps, warmup = case.steps, case.recipe.warmup_ratio
    if steps < MIN_STEPS:
        batch = case.recipe.micro_batch * case.recipe.accumulation()
        yield LintWarning(
            "steps-few",
            f"about {steps} optimizer steps of {batch} rows: little can be learned in so few",
            "lower grad_accum or micro_batch, or give more rows",
        )
    if warmup >= 0.5:
        yield LintWarning(
            "warmup-long",
            f"warm-up takes {warmup:.0%} of the training: the full learning rate is reached too late",
            "warmup_ratio: 0.1",
        )


def _cadence(case: _Case) -> Iterator[LintWarning]:
    every = case.recipe.save_every
    if every == "never":
        yield LintWarning(
            "save-never",
            "save_every is never: a job that is interrupted starts from the beginning",
            "save_every: epoch",
        )
    elif isinstance(every, int) and every > case.steps:
        yield LintWarning(
            "save-late",
            f"save_every {every} is more than the job's {case.steps} steps: no checkpoint before the end",
            "save_every: epoch",
        )


def _adapters(case: _Case) -> Iterator[LintWarning]:
    rank, alpha = case.recipe.rank, case.recipe.alpha
    if rank is None or alpha is None:
        return
    low, high = USUAL_SCALE
    if not low <= alpha / rank <= high:
        yield LintWarning(
            "alpha-odd",
            f"alpha {alpha} is {alpha / rank:g} times rank {rank}, and scales what the adapters add",
            f"alpha: {2 * rank}, twice the rank, is usual",
        )


def _loss(case: _Case) -> Iterator[LintWarning]:
    if case.splits.format != "completion" and case.recipe.loss_on == "all":
        yield LintWarning(
            "loss-on-prompt",
            f"loss_on is all: the model also learns to write the prompts of its {case.splits.format} rows",
            "loss_on: answer",
        )


def _eos(case: _Case) -> Iterator[LintWarning]:
    if not case.recipe.train_on_eos or not case.recipe.append_eos:
        field = "append_eos" if case.recipe.train_on_eos else "train_on_eos"
        yield LintWarning(
            "eos-untrained",
            f"{field} is off: a model that never learns the end-of-sequence token does not stop",
            f"{field}: true",
        )


def _format(case: _Case) -> Iterator[LintWarning]:
    if case.facts is None:
        return
    if case.facts.chat_template and case.splits.format == "completion":
        yield LintWarning(
            "chat-model-on-completion",
            "a chat model trained on plain text may forget how to hold a conversation",
            "use instruction or chat rows, or a base model",
        )
    if not case.facts.chat_template and case.splits.format == "chat":
        yield LintWarning(
            "no-chat-template",
            "the model has no chat template: conversations are written as ### Instruction / ### Response",
            "use the instruct variant of the model, or keep that format when you serve it",
        )


def _machine(case: _Case) -> Iterator[LintWarning]:
    recipe, hardware = case.recipe, case.hardware
    if recipe.precision == "fp16":
        yield LintWarning(
            "fp16",
            "fp16 needs loss scaling, and loses what its small range cannot hold",
            "precision: auto",
        )
    if not hardware.gpus and recipe.precision == "bf16" and not hardware.fast_bf16:
        yield LintWarning(
            "bf16-slow",
            "this CPU multiplies bf16 more slowly than fp32",
            "precision: auto, which takes fp32 here",
        )
    if not hardware.gpus and recipe.method == "qlora":
        yield LintWarning(
            "qlora-on-cpu",
            "on a CPU, 4-bit weights cost time at every step and save little memory",
            "method: lora, unless the model does not fit the RAM otherwise",
        )
    if recipe.attention == "eager":
        yield LintWarning(
            "attention-eager", "eager attention holds a score for every pair of tokens", "attention: auto"
        )


RULES: Final[tuple[Callable[[_Case], Iterator[LintWarning]], ...]] = (
    _rate,
    _epochs,
    _rows,
    _held_out,
    _eos,
    _loss,
    _format,
    _duplicates,
    _overlong,
    _steps,
    _cadence,
    _adapters,
    _machine,
)
