"""TrainSpec: the contract between the laptop and the machine.

A recipe is what a user wrote; a TrainSpec is that recipe resolved for one machine: nothing is left
`auto`, every path is the machine's own. It is plain data, needs no torch, and is written as
`spec.json` into the work directory, which the trainer turns into this:

    WORKDIR/
      spec.json               this
      data/                   train.jsonl, validation.jsonl, test.jsonl (names as in `DataSpec`)
      log.txt                 everything the trainer printed; lines that begin with `{"ftcloud":` are progress
      state.json              the warden's word: phase, process group, exit code
      checkpoints/step-000020/  resumable, whole or absent
      output/
        adapter/              LoRA weights (absent for `full`)
        merged/               a model folder that transformers loads by itself
        evaluation/base.jsonl, tuned.jsonl   {"prompt", "expected", "answer", "correct"} a row
        result.json           see `progress.Result`
        manifest.json         path, bytes and SHA-256 of every file above; written last
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from trainer_image.trainer.errors import UsageError

SPEC_VERSION = 1

Method = Literal["full", "lora", "qlora"]
Precision = Literal["fp32", "bf16", "fp16"]
Attention = Literal["sdpa", "flash", "eager"]
RowFormat = Literal["completion", "instruction", "chat", "prompt-completion"]
Overlong = Literal["drop", "truncate", "refuse"]
LossOn = Literal["answer", "all"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]
Scheduler = Literal["cosine", "linear", "constant"]
Cadence = Literal["epoch", "never"] | int
"""How often: once an epoch, never, or every N optimizer steps."""
Metric = Literal["none", "exact", "json"]
"""How an answer is scored: not at all, equal text (outer white space aside), or equal parsed JSON."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The base model: a folder on the machine or a hub id, and how it is held in memory."""

    path: str
    revision: str | None
    precision: Precision
    """Dtype of the frozen or trained weights and of the computation."""
    attention: Attention
    name: str
    """What the user called it; for the model card and the registry, never to load from."""


@dataclass(frozen=True, slots=True)
class LoraSpec:
    rank: int
    alpha: int
    dropout: float
    bias: Literal["none", "all", "lora_only"]
    target_modules: tuple[str, ...]
    """Module names, or one of the words `attention`, `mlp`, `all-linear`."""


@dataclass(frozen=True, slots=True)
class DataSpec:
    """File names relative to the work directory's `data/`; None where the recipe has no such split."""

    train: str
    validation: str | None
    test: str | None
    format: RowFormat
    seq_len: int
    overlong: Overlong
    packing: bool
    """Lay the rows of a micro-batch end to end instead of padding them; documents stay isolated."""
    loss_on: LossOn
    append_eos: bool
    train_on_eos: bool


@dataclass(frozen=True, slots=True)
class OptimSpec:
    optimizer: Optimizer
    learning_rate: float
    warmup_ratio: float
    scheduler: Scheduler
    weight_decay: float
    max_grad_norm: float
    """0 turns clipping off."""


@dataclass(frozen=True, slots=True)
class LoopSpec:
    epochs: float
    max_steps: int | None
    """Optimizer steps; wins over `epochs` when set."""
    micro_batch: int
    grad_accum: int
    grad_ckpt: bool
    log_every: int
    eval_every: Cadence
    save_every: Cadence
    keep_checkpoints: int
    """Newest whole checkpoints kept beside the best one."""
    early_stopping: int
    """Validations without a better loss after which training ends; 0 never."""
    seed: int


@dataclass(frozen=True, slots=True)
class EvaluateSpec:
    """Scores of the base and of the tuned model on the same prompts of the test split."""

    metric: Metric
    rows: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """All that the trainer reads. Equal specs on equal data train the same model, bit for bit on CPU."""

    method: Method
    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    loop: LoopSpec
    evaluate: EvaluateSpec
    lora: LoraSpec | None = None
    merge: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    """Free text for the model card: job, recipe name, data fingerprint."""
    version: int = SPEC_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "spec.json") -> TrainSpec:
        """Parse strictly: an unknown, missing or wrong-typed field raises UsageError with its name."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"not JSON: {error}", where=where) from error
        if isinstance(raw, dict) and raw.get("version", SPEC_VERSION) != SPEC_VERSION:
            raise UsageError(
                f"spec version {raw['version']} is not {SPEC_VERSION}",
                where=where,
                fix="the trainer and the ftcloud that sent the job must be of the same version",
            )
        return _build(cls, raw, where)

    @classmethod
    def read(cls, path: Path) -> TrainSpec:
        return cls.from_json(path.read_text(encoding="utf-8"), where=str(path))


T = TypeVar("T")


def _build(cls: type[T], raw: Any, where: str) -> T:
    """Build dataclass `cls` from plain JSON data, checking every field against its annotation."""
    if not isinstance(raw, dict):
        raise UsageError(f"expected an object, got {type(raw).__name__}", where=where)
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(raw.keys() - fields.keys()):
        raise UsageError(f"unknown field {unknown[0]!r}", where=where)
    values: dict[str, Any] = {}
    for name, spec_field in fields.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], f"{where}: {name}")
        elif spec_field.default is dataclasses.MISSING and spec_field.default_factory is dataclasses.MISSING:
            raise UsageError(f"missing field {name!r}", where=where)
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: PLR0911 - one case a kind of annotation
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _convert(option, value, where)
            except UsageError as error:
                last = error
        raise last
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{value!r} is not one of {', '.join(map(repr, args))}", where=where)
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(args[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {_convert(args[0], k, where): _convert(args[1], v, where) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is hint:
        return value
    raise UsageError(f"{value!r} is not {getattr(hint, '__name__', hint)}", where=where)
