"""A tiny real model: two Llama layers with random weights and a byte-level BPE tokenizer trained here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

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

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    "the quick brown fox jumps over the lazy dog and the small cat sits on the warm mat",
    "order two lamps for Anna in Oslo please and send one chair to Bruno in Lima",
    "a model learns what it is shown again and again: numbers 0 1 2 3 4 5 6 7 8 9",
    "### Instruction ### Input ### Response system user assistant",
)


def _tokenizer(chat_template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>" if chat_template else "<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def _save_model(folder: Path, chat_template: str | None) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,  # far from 0, so that a wrong mask or position shows in the logits
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has a ChatML template."""
    return _save_model(tmp_path_factory.mktemp("models") / "tiny", CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has no chat template."""
    return _save_model(tmp_path_factory.mktemp("models") / "tiny-plain", None)


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
    words = "lamp chair bottle case grinder jacket mat pump kettle clock".split()
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
            data=DataSpec(
                "train.jsonl", None, None, "instruction", 128, "drop", True, "answer", True, True
            ),
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

    def make(name: str = "work", *, rows: int = 22, validation: int = 0, test: int = 0, **overrides: Any) -> Path:
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
