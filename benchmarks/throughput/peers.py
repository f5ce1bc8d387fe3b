"""transformers' Trainer and TRL's SFTTrainer, each in the two ways that suit rows of skewed lengths.

All contestants are given the same model, precision, LoRA, rows of a step, learning rate, epoch and seed, and
log and save nothing. What is left has the library's default, but where a field of `Peer` says otherwise.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer, pack_dataset

from benchmarks.throughput.rows import tokens_of
from benchmarks.throughput.setting import BATCH, Outcome, Setting
from trainer_image.trainer import model
from trainer_image.trainer.batches import Example, order
from trainer_image.trainer.spec import Precision

Way = Literal["padded", "grouped", "bfd", "padding-free"]
IGNORED = -100
"""The label of a token that carries no loss, to torch and both peers."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer in one way: Trainer `padded` or `grouped` by length, SFTTrainer `bfd` or `padding-free`."""

    name: str
    way: Way
    adapters_as_base: bool
    """Adapters in the base's dtype, as ours, and no autocast. False is the default of peft and of both
    trainers: fp32 adapters, on a 16-bit base under autocast."""
    checkpointing: bool
    """Activations computed again in the backward pass: by default off in Trainer, on in SFTTrainer."""
    our_steps: bool = False
    """Packs sized so that there are as many optimizer steps as with rows of BATCH."""

    def train(self, setting: Setting, rows: Sequence[Example]) -> Outcome:
        dataset = _dataset(setting, rows)
        trained = _with_adapters(setting, as_base=self.adapters_as_base)
        with tempfile.TemporaryDirectory(dir=setting.workspace) as folder:
            arguments = _arguments(setting) | self._own_arguments(dataset, rows) | {"output_dir": folder}
            trainer = self._trainer(setting, trained, dataset, arguments)
            clock = Clock()
            trainer.add_callback(clock)
            trainer.remove_callback(PrinterCallback)
            tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
            if tokens != tokens_of(rows):
                raise RuntimeError(f"{tokens} tokens are left of {tokens_of(rows)}")
            trainer.train()
        return Outcome(clock.seconds, tokens, trainer.state.global_step, trained)

    def _trainer(self, setting: Setting, trained: Any, dataset: Dataset, arguments: dict[str, Any]) -> Any:
        tokenizer = model.load_tokenizer(setting.spec().model)
        if self.way in ("padded", "grouped"):
            collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
            settings = TrainingArguments(**arguments)
            return Trainer(model=trained, args=settings, train_dataset=dataset, data_collator=collator)
        settings = SFTConfig(**arguments)
        return SFTTrainer(model=trained, args=settings, train_dataset=dataset, processing_class=tokenizer)

    def _own_arguments(self, dataset: Dataset, rows: Sequence[Example]) -> dict[str, Any]:
        chosen: dict[str, Any] = {"gradient_checkpointing": self.checkpointing}
        if self.adapters_as_base:
            chosen["bf16"] = False
        match self.way:
            case "padded":
                return chosen | {"train_sampling_strategy": "sequential"}
            case "grouped":
                return chosen | {"train_sampling_strategy": "group_by_length"}
            case "padding-free":
                # Refused with a max_length, as it would not enforce it. The rows fit the model.
                own = {"padding_free": True, "max_length": None}
                return chosen | own | {"train_sampling_strategy": "sequential"}
            case "bfd":
                return chosen | _packing(dataset, rows, our_steps=self.our_steps)


def installed(precision: Precision) -> dict[Way, Peer]:
    """The peers with their defaults. In fp32 adapters have the base's dtype in any case."""
    as_base = precision == "fp32"
    return {
        "padded": Peer("Trainer, padded", "padded", as_base, checkpointing=False),
        "grouped": Peer("Trainer, grouped by length", "grouped", as_base, checkpointing=False),
        "bfd": Peer("TRL, bfd", "bfd", as_base, checkpointing=True),
        "padding-free": Peer("TRL, padding-free", "padding-free", as_base, checkpointing=True),
    }


def level() -> dict[Way, Peer]:
    """The peers with what we have: adapter dtype, optimizer steps, no checkpointing."""
    return {
        way: dataclasses.replace(peer, adapters_as_base=True, checkpointing=False, our_steps=way == "bfd")
        for way, peer in installed("fp32").items()
    }


class Clock(TrainerCallback):  # type: ignore[misc]
    """Times the loop alone: model, data and optimizer are made before it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._began


def _arguments(setting: Setting) -> dict[str, Any]:
    """What TrainingArguments and SFTConfig are given alike."""
    spec = setting.spec()
    on_cpu = model.default_device().type == "cpu"
    return {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": spec.loop.epochs,
        "learning_rate": spec.optim.learning_rate,
        "lr_scheduler_type": spec.optim.scheduler,
        "weight_decay": spec.optim.weight_decay,
        "max_grad_norm": spec.optim.max_grad_norm,
        "seed": setting.seed,
        "bf16": setting.precision == "bf16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _with_adapters(setting: Setting, *, as_base: bool) -> Any:
    """The base with LoRA adapters by peft alone; they start from the numbers that ours start from."""
    lora = setting.spec().lora
    assert lora is not None
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=lora.target_modules[0],
        task_type="CAUSAL_LM",
    )
    base = setting.load()
    torch.manual_seed(setting.seed)
    return get_peft_model(base, config, autocast_adapter_dtype=not as_base)


def _dataset(setting: Setting, rows: Sequence[Example]) -> Dataset:
    """Token ids and labels, in the shuffled order in which our trainer visits the rows."""
    visited = [rows[i] for i in order(setting.seed, 0, len(rows))]
    labels = [
        [token if target else IGNORED for token, target in zip(row.ids, row.target, strict=True)]
        for row in visited
    ]
    return Dataset.from_dict({"input_ids": [list(row.ids) for row in visited], "labels": labels})


def _packing(dataset: Dataset, rows: Sequence[Example], *, our_steps: bool) -> dict[str, Any]:
    """Packs as long as the longest row, and as many a step as hold the tokens of BATCH rows on average.

    With `our_steps` one pack a step, of the length that gives as many steps as the other contestants have.
    """
    longest = max(len(row.ids) for row in rows)
    tokens, steps = tokens_of(rows), -(-len(rows) // BATCH)
    chosen: dict[str, Any] = {"packing": True, "packing_strategy": "bfd"}
    if not our_steps:
        batch = max(1, round(tokens / steps / longest))
        return chosen | {"max_length": longest, "per_device_train_batch_size": batch}
    length = max(longest, -(-tokens // steps))
    while len(pack_dataset(dataset, length, "bfd")) > steps:
        length += 1
    return chosen | {"max_length": length, "per_device_train_batch_size": 1}
