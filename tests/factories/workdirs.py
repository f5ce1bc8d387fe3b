"""Work directories of the trainer on a tiny model: a spec that is complete, rows that can be learned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer_image.trainer.spec import (
    DataSpec,
    EvaluateSpec,
    LoopSpec,
    LoraSpec,
    ModelSpec,
    OptimSpec,
    TrainSpec,
)


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def order_rows(count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Instruction rows of uneven length with an answer that can be learned."""
    words = ["lamp", "chair", "bottle", "case", "grinder", "jacket", "mat", "pump", "kettle", "clock"]
    return [
        {
            "instruction": f"order {i} " + "please " * (1 + i * i % 7),
            "output": f"{words[i % len(words)]} {i % 10}",
        }
        for i in range(start, start + count)
    ]


def make_spec(model: Path, **overrides: Any) -> TrainSpec:
    """LoRA on `model`; keyword `section__field` overrides a field, `field` one at the top."""
    spec = TrainSpec(
        method="lora",
        model=ModelSpec(str(model), None, "fp32", "sdpa", "tiny"),
        data=DataSpec("train.jsonl", None, None, "instruction", 128, "drop", True, "answer", True, True),
        optim=OptimSpec("adamw", 1e-2, 0.1, "cosine", 0.01, 1.0),
        loop=LoopSpec(2.0, None, 4, 2, False, 1, "epoch", "epoch", 2, 0, 7),
        evaluate=EvaluateSpec("none", 8, 8),
        lora=LoraSpec(4, 8, 0.1, "none", ("all-linear",)),
    )
    return replaced(spec, **overrides)


def replaced(spec: TrainSpec, **overrides: Any) -> TrainSpec:
    """`spec` with fields changed: `loop__seed=3`, `method="full"`."""
    for name, value in overrides.items():
        section, _, field = name.rpartition("__")
        change = {section: replace(getattr(spec, section), **{field: value})} if section else {field: value}
        spec = replace(spec, **change)
    return spec


def make_workdir(
    folder: Path, model: Path, *, rows: int = 22, validation: int = 0, test: int = 0, **overrides: Any
) -> Path:
    """`folder` with spec.json and that many rows of each split."""
    write_jsonl(folder / "data" / "train.jsonl", order_rows(rows))
    if validation:
        write_jsonl(folder / "data" / "validation.jsonl", order_rows(validation, start=100))
        overrides.setdefault("data__validation", "validation.jsonl")
    if test:
        write_jsonl(folder / "data" / "test.jsonl", order_rows(test, start=200))
        overrides.setdefault("data__test", "test.jsonl")
        overrides.setdefault("evaluate__metric", "exact")
    (folder / "spec.json").write_text(make_spec(model, **overrides).to_json(), encoding="utf-8")
    return folder
