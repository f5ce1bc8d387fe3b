"""Facts about a base model's folder, read without torch: config.json and the headers of its safetensors.

A header names every tensor with its dtype and shape, so parameters, the share that LoRA trains and the
stored dtype are exact without reading a single weight. Of a hub id nothing is known here.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer_image.trainer.errors import RecipeError

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_HEADER_BYTES: Final = 100_000_000
"""The bound of the format's own reader; it keeps a corrupt length from being allocated."""

DTYPES: Final = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
EMBEDDINGS: Final = frozenset(
    {"embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "embed_positions", "position_embeddings"}
)
HEADS: Final = frozenset({"lm_head", "embed_out"})
EXPERT_KEYS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
FIX_SAFETENSORS: Final = "save the model again with save_pretrained, which writes model.safetensors"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: module name, and the sum of its two sizes (their order differs by model)."""

    name: str
    in_plus_out: int
    bias: int
    """Parameters of its bias; 0 without one."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    folder: Path
    model_type: str
    parameters: int
    """Trainable weights; tied embeddings once, buffers not at all."""
    biases: int
    """Parameters in biases of any kind, normalization included."""
    stored: str
    """bf16, fp16 or fp32: the dtype that most of the weights are stored in; else as the header says."""
    linears: tuple[Linear, ...]
    """Every linear layer but the output head."""
    experts: bool
    """Mixture of experts: how its expert weights are laid out depends on the library's version."""
    quantized: str
    """Method of a checkpoint that is stored quantized; empty for an ordinary one."""
    layers: int
    hidden: int
    intermediate: int
    max_positions: int | None
    chat_template: bool


def read_facts(folder: Path) -> ModelFacts:
    """Read `folder`. RecipeError where it is missing or is no model that transformers could load."""
    config = _config(folder)
    text: Mapping[str, Any] = config.get("text_config") or config
    tensors = _tensors(folder)
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    weights = {name: tensor for name, tensor in tensors.items() if not _is_extra(name, tensor, tensors, tied)}
    hidden = _first(text, "hidden_size", "n_embd", "d_model")
    return ModelFacts(
        folder=folder,
        model_type=str(config.get("model_type", "")),
        parameters=sum(math.prod(tensor.shape) for tensor in weights.values()),
        biases=sum(math.prod(tensor.shape) for name, tensor in weights.items() if name.endswith(".bias")),
        stored=_stored(weights.values()),
        linears=tuple(_linears(weights)),
        experts=any((text.get(key) or 0) > 1 for key in EXPERT_KEYS),
        quantized=str((config.get("quantization_config") or {}).get("quant_method", "")),
        layers=_first(text, "num_hidden_layers", "n_layer", "num_layers"),
        hidden=hidden,
        intermediate=_first(text, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        max_positions=_first(text, "max_position_embeddings", "n_positions") or None,
        chat_template=_has_chat_template(folder),
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]


def _config(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise RecipeError(
            "no such model folder", where=str(folder), fix="correct model:, or use a hub id (org/name)"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise RecipeError(
            "the folder has no config.json, so it is no model",
            where=str(folder),
            fix="point model: at the model",
        )
    return _json_object(path)


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise RecipeError("is not a JSON object", where=str(path))
    return value


def _tensors(folder: Path) -> dict[str, _Tensor]:
    """Name -> dtype and shape of every tensor in the folder's weight files."""
    found: dict[str, _Tensor] = {}
    for path in _weight_files(folder):
        found |= _header(path)
    return found


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = sorted({str(name) for name in _json_object(folder / INDEX).get("weight_map", {}).values()})
        files = [folder / name for name in names]
        if missing := [path.name for path in files if not path.is_file()]:
            raise RecipeError(
                f"{len(missing)} of {len(files)} weight files are missing, {missing[0]} first",
                where=str(folder),
                fix="download the model again",
            )
        if files:
            return files
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise RecipeError(
            f"the weights are pickled ({pickled[0].name}), and loading a pickle can run any code",
            where=str(folder),
            fix=FIX_SAFETENSORS,
        )
    raise RecipeError("the model folder has no weights", where=str(folder), fix=FIX_SAFETENSORS)


def _header(path: Path) -> dict[str, _Tensor]:
    """The header of a safetensors file: eight bytes of little-endian length, then JSON."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("the header's length is impossible")
            header = json.loads(stream.read(length))
            tensors = {
                str(name): _Tensor(str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                for name, entry in header.items()
                if name != "__metadata__"
            }
            end = max(
                (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"),
                default=0,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise RecipeError(
            f"not a safetensors file: {error}", where=str(path), fix="download it again"
        ) from error
    if path.stat().st_size < 8 + length + end:
        raise RecipeError("the weight file is cut short", where=str(path), fix="download it again")
    return tensors


def _is_extra(name: str, tensor: _Tensor, tensors: Mapping[str, _Tensor], tied: bool) -> bool:
    """Whether a stored tensor is no weight of the model: an old buffer, or the copy of a tied embedding."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("inv_freq", "masked_bias") or (leaf == "bias" and len(tensor.shape) > 1):
        return True
    has_embedding = any(_module(other) in EMBEDDINGS for other in tensors)
    return tied and has_embedding and _module(name) in HEADS and leaf == "weight"


def _module(tensor_name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `up_proj`."""
    parts = tensor_name.split(".")
    return parts[-2] if len(parts) > 1 else ""


def _linears(weights: Mapping[str, _Tensor]) -> Iterable[Linear]:
    for name, tensor in weights.items():
        module = name.removesuffix(".weight")
        if module != name and len(tensor.shape) == 2 and _module(name) not in EMBEDDINGS | HEADS:
            bias = weights.get(f"{module}.bias")
            yield Linear(module, sum(tensor.shape), math.prod(bias.shape) if bias else 0)


def _stored(tensors: Iterable[_Tensor]) -> str:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.dtype] += math.prod(tensor.shape)
    dtype = counts.most_common(1)[0][0] if counts else ""
    return DTYPES.get(dtype, dtype.lower())


def _first(config: Mapping[str, Any], *keys: str, default: int = 0) -> int:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), default)


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_json_object(path).get("chat_template"))
