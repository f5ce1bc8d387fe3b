"""Work directories of a tiny real model, ready for the trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model
from trainer_image.trainer.spec import (
    DataSpec,
    EvaluateSpec,
    LoopSpec,
    LoraSpec,
    ModelSpec,
    OptimSpec,
    TrainSpec,
)

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has a ChatML template."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has no chat template."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-plain", None)


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def plain_tokenizer(tiny_plain_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_plain_model)


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


@pytest.fixture
def make_spec(tiny_model: Path) -> Callable[..., TrainSpec]:
    """A TrainSpec of the tiny model; keyword `section__field` overrides a field, `field` one at the top."""

    def make(**overrides: Any) -> TrainSpec:
        spec = TrainSpec(
            method="lora",
            model=ModelSpec(str(tiny_model), None, "fp32", "sdpa", "tiny"),
            data=DataSpec("train.jsonl", None, None, "instruction", 128, "drop", True, "answer", True, True),
            optim=OptimSpec("adamw", 1e-2, 0.1, "cosine", 0.01, 1.0),
            loop=LoopSpec(2.0, None, 4, 2, False, 1, "epoch", "epoch", 2, 0, 7),
            evaluate=EvaluateSpec("none", 8, 8),
            lora=LoraSpec(4, 8, 0.1, "none", ("all-linear",)),
        )
        return replaced(spec, **overrides)

    return make


def replaced(spec: TrainSpec, **overrides: Any) -> TrainSpec:
    """`spec` with fields changed: `loop__seed=3`, `method="full"`."""
    from dataclasses import replace

    for name, value in overrides.items():
        section, _, field = name.rpartition("__")
        change = {section: replace(getattr(spec, section), **{field: value})} if section else {field: value}
        spec = replace(spec, **change)
    return spec


@pytest.fixture
def make_workdir(tmp_path: Path, make_spec: Callable[..., TrainSpec]) -> Callable[..., Path]:
    """A work directory with spec.json and data: 22 training rows, optionally validation and test rows."""

    def make(
        name: str = "work", *, rows: int = 22, validation: int = 0, test: int = 0, **overrides: Any
    ) -> Path:
        workdir = tmp_path / name
        write_jsonl(workdir / "data" / "train.jsonl", order_rows(rows))
        if validation:
            write_jsonl(workdir / "data" / "validation.jsonl", order_rows(validation, start=100))
            overrides.setdefault("data__validation", "validation.jsonl")
        if test:
            write_jsonl(workdir / "data" / "test.jsonl", order_rows(test, start=200))
            overrides.setdefault("data__test", "test.jsonl")
            overrides.setdefault("evaluate__metric", "exact")
        (workdir / "spec.json").write_text(make_spec(**overrides).to_json(), encoding="utf-8")
        return workdir

    return make
