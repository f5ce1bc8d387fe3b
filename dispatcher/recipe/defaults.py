"""Which value a field takes when the recipe does not give it, where that depends on the method.

Each figure names the line of the guide that it comes from (`GUIDE`), or says why it is ours
(`docs/guide-differences.md` has the whole list). Fields that have one default for every method carry it
in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

METHODS: Final = ("full", "lora", "qlora")
PRESETS: Final = ("none", "guide-qlora")

SEVEN_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama-shaped block: attention's four and the MLP's three."""

ADAPTER_FIELDS: Final = ("rank", "alpha", "dropout", "bias", "target_modules")
"""Fields that mean something only where adapters are trained, so never with `full`."""

_ADAPTER: Final[Mapping[str, Any]] = {
    "rank": 16,
    "alpha": 32,
    "dropout": 0.05,
    "bias": "none",
    "target_modules": SEVEN_PROJECTIONS,
    "micro_batch": 8,
    "grad_accum": 4,
    "learning_rate": 2e-4,
}

BY_METHOD: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"micro_batch": 4, "grad_accum": 4, "learning_rate": 2e-5},
    "lora": _ADAPTER,
    "qlora": _ADAPTER,
}

BY_PRESET: Final[Mapping[str, Mapping[str, Any]]] = {
    "none": {},
    "guide-qlora": {"rank": 8, "alpha": 16, "target_modules": ("q_proj", "v_proj")},
}

PRESET_METHOD: Final[Mapping[str, str]] = {"guide-qlora": "qlora"}
"""The one method that a preset is for; also the method where the recipe names only the preset."""

GUIDE: Final[Mapping[str, str]] = {
    "method": "Key Takeaways: Start with LoRA/QLoRA",
    "rank": "2. LoRA: r=16; 3. QLoRA (guide-qlora): r=8",
    "alpha": "2. LoRA: lora_alpha=32; 3. QLoRA (guide-qlora): lora_alpha=16",
    "dropout": "2. LoRA: lora_dropout=0.05",
    "bias": '2. LoRA: bias="none"',
    "target_modules": "2. LoRA: all seven projections; 3. QLoRA (guide-qlora): q_proj, v_proj",
    "micro_batch": "Training Configuration: batch_size 8; 1. Full: per_device_train_batch_size=4",
    "grad_accum": "Training Configuration: gradient_accumulation 4; 1. Full: 4",
    "learning_rate": "Training Configuration: 2e-4; 1. Full: learning_rate=2e-5",
    "epochs": "Training Configuration: epochs 3",
    "warmup_ratio": "Training Configuration: warmup_ratio 0.1",
    "scheduler": "Training Configuration: lr_scheduler cosine",
    "weight_decay": "Training Configuration: weight_decay 0.01",
    "max_grad_norm": "Training Configuration: max_grad_norm 1.0",
    "append_eos": "Training Configuration: append_eos_token True",
    "grad_ckpt": "Training Configuration: gradient_checkpointing True",
    "attention": "Training Configuration: use_flash_attention True",
    "log_every": "1. Full: logging_steps=10",
    "eval_every": '1. Full: evaluation_strategy="epoch"',
    "save_every": '1. Full: save_strategy="epoch"',
    "validation_fraction": "Dataset Split: validation 5-10%",
}
"""Default of a field -> the heading and line of the guide that it was taken from."""


def default_method(preset: object) -> str:
    """The method of a recipe that does not name one: the preset's own, else LoRA."""
    return PRESET_METHOD.get(preset, "lora") if isinstance(preset, str) else "lora"


def defaults_for(method: object, preset: object) -> dict[str, Any]:
    """Defaults that depend on method and preset.

    A word that is no method gets LoRA's, so that the schema's refusal of that word stays the only error.
    """
    of_method = BY_METHOD.get(method, _ADAPTER) if isinstance(method, str) else _ADAPTER
    of_preset = BY_PRESET.get(preset, {}) if isinstance(preset, str) else {}
    return {**of_method, **of_preset}
