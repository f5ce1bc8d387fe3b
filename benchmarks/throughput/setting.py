"""What all contestants share: the model, its precision, the recipe, and how a result is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from trainer_image.trainer import model
from trainer_image.trainer.batches import Example
from trainer_image.trainer.hardware import Hardware
from trainer_image.trainer.spec import (
    DataSpec,
    EvaluateSpec,
    LoopSpec,
    LoraSpec,
    ModelSpec,
    OptimSpec,
    Precision,
    TrainSpec,
)

AMPERE = (8, 0)
BATCH = 8
"""Rows of an optimizer step, in one micro-batch: the default of transformers' TrainingArguments, so that the
peers run as installed, and of a size that leaves steps enough for losses to be compared."""
DATA_FILE = "train.jsonl"


@dataclass(frozen=True, slots=True)
class Setting:
    """One comparison. Rows are visited once."""

    folder: Path
    """Of the base model."""
    precision: Precision
    seed: int
    workspace: Path
    """An empty folder for what a trainer writes."""

    def spec(self) -> TrainSpec:
        """The guide's LoRA recipe for one epoch.

        Cosine without warm-up: transformers' first warm-up step has rate 0 and ours has not, and nothing but
        speed is to differ.
        """
        return TrainSpec(
            method="lora",
            model=ModelSpec(str(self.folder), None, self.precision, "sdpa", self.folder.name),
            data=DataSpec(DATA_FILE, None, None, "completion", 4096, "refuse", True, "answer", True, True),
            optim=OptimSpec("adamw", 2e-4, 0.0, "cosine", 0.01, 1.0),
            loop=LoopSpec(1.0, None, BATCH, 1, False, 10, "never", "never", 1, 0, self.seed),
            evaluate=EvaluateSpec("none", 0, 1),
            lora=LoraSpec(16, 32, 0.05, "none", ("all-linear",)),
        )

    def load(self) -> Any:
        """The base model as every contestant gets it: this precision, sdpa attention, the fastest device."""
        return model.load_base(self.spec())


@dataclass(frozen=True, slots=True)
class Outcome:
    """One epoch of one contestant."""

    seconds: float
    """From the first step to the last; loading and the preparation of the data are before the clock."""
    tokens: int
    steps: int
    model: Any
    """As it was left, to be judged by `held_out_loss`."""


class Contestant(Protocol):
    """A trainer with its settings; equal ones are measured once."""

    @property
    def name(self) -> str: ...

    def train(self, setting: Setting, rows: Sequence[Example]) -> Outcome:
        """Load the model, prepare the rows, then train on them once by the clock."""


def choose_precision(hardware: Hardware) -> Precision:
    """As a recipe with `precision: auto` has it: bf16 where the machine multiplies it fast, else fp32."""
    if hardware.gpus:
        return "bf16" if hardware.gpus[0].capability >= AMPERE else "fp32"
    return "bf16" if hardware.fast_bf16 else "fp32"


def held_out_loss(trained: Any, rows: Sequence[Example]) -> float:
    """Mean loss over the learned tokens [nats/token]: row by row, by transformers' plain forward pass."""
    trained.eval()
    total = 0.0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row.ids)], device=trained.device)
            learned = [i for i, target in enumerate(row.target) if target]
            logits = trained(input_ids=ids, use_cache=False).logits[0, [i - 1 for i in learned]]
            total += float(functional.cross_entropy(logits.float(), ids[0, learned], reduction="sum"))
    loss = total / sum(row.loss_tokens for row in rows)
    return loss if math.isfinite(loss) else math.inf
