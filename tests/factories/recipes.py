"""Recipes, data files, splits, machines and model folders for tests; only what a test names differs."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dispatcher.recipe.base_model import Linear, ModelFacts
from dispatcher.recipe.load import build_recipe
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.splits import Split, Splits
from trainer_image.trainer.hardware import Gpu, Hardware

A100 = Gpu("NVIDIA A100-SXM4-80GB", 80.0, (8, 0))
T4 = Gpu("Tesla T4", 15.0, (7, 5))

ROW_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


def make_recipe(**values: Any) -> Recipe:
    return build_recipe({"model": "org/model", "data": "/data/orders.jsonl"} | values)


def machine(*gpus: Gpu, fast_bf16: bool = False, ram_gib: float = 64.0) -> Hardware:
    return Hardware(cpu="a CPU", cores=8, ram_gib=ram_gib, fast_bf16=fast_bf16, gpus=gpus)


def make_split(name: str = "train", rows: int = 1000, **facts: Any) -> Split:
    given = {
        "characters": 100 * rows,
        "longest": 200,
        "likely_overlong": 0,
        "json_answers": 0,
        "longest_answer": 300,
    }
    return Split(path=Path(f"/job/data/{name}.jsonl"), rows=rows, sha256="0" * 64, **(given | facts))


def make_splits(**parts: Any) -> Splits:
    """A thousand training rows, a hundred for validation and for test, in prompt-completion format."""
    given: dict[str, Any] = {
        "train": make_split(),
        "validation": make_split("validation", 100),
        "test": make_split("test", 100),
        "format": "prompt-completion",
        "duplicates": 0,
        "fingerprint": "f" * 64,
    }
    return Splits(**(given | parts))


def make_facts(**facts: Any) -> ModelFacts:
    """A Llama-shaped model of two layers."""
    layers = [f"model.layers.{i}.{part}" for i in range(2) for part in LLAMA_LINEARS]
    given: dict[str, Any] = {
        "folder": Path("/models/base"),
        "model_type": "llama",
        "parameters": 1_000_000,
        "biases": 0,
        "stored": "bf16",
        "linears": tuple(Linear(name, 200, 0) for name in layers),
        "experts": False,
        "quantized": "",
        "layers": 2,
        "hidden": 64,
        "intermediate": 256,
        "max_positions": 4096,
        "chat_template": True,
    }
    return ModelFacts(**(given | facts))


LLAMA_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def llama_tensors(
    *, layers: int, hidden: int, intermediate: int, vocabulary: int, kv: int | None = None
) -> dict[str, list[int]]:
    """Names and shapes of an untied Llama's weights, as its checkpoint has them."""
    sizes = {"q": hidden, "k": kv or hidden, "v": kv or hidden, "o": hidden}
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden]}
    for i in range(layers):
        layer = f"model.layers.{i}"
        for letter, size in sizes.items():
            shape = [hidden, size] if letter == "o" else [size, hidden]
            shapes[f"{layer}.self_attn.{letter}_proj.weight"] = shape
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = [
            intermediate,
            hidden,
        ]
        shapes[f"{layer}.mlp.down_proj.weight"] = [hidden, intermediate]
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = [
            hidden
        ]
    return shapes | {"model.norm.weight": [hidden]}


def write_safetensors(path: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "BF16") -> None:
    """A whole safetensors file whose data is one hole in the file system: gigabytes cost nothing."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = ROW_BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + offset)


def write_model(
    folder: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "BF16", **config: Any
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    write_safetensors(folder / "model.safetensors", shapes, dtype)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(count: int, start: int = 0) -> list[dict[str, str]]:
    """Distinct prompt-completion rows."""
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(start, start + count)]
