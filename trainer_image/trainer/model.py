"""Load the base model and make it trainable: all of it, or LoRA adapters on a frozen or 4-bit base.

Only safetensors are read and no code of a model repository is run: nothing is unpickled or executed
from what was downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from trainer_image.trainer.errors import FtcloudError, RecipeError, UsageError
from trainer_image.trainer.lora import speed_up
from trainer_image.trainer.spec import LoraSpec, ModelSpec, Precision, TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTENTION = {"sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
# Words of `target_modules`, and what the path of such a layer contains in transformers' models.
FAMILIES = {
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "expert", "moe"),
    "all-linear": ("",),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts [parameters]. 4-bit weights count as the weights they stand for, tied ones once."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


def load_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The base model's tokenizer, with a pad token (the EOS where it has none of its own)."""
    _check_folder(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.path, revision=spec.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unloadable("the tokenizer", spec, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_base(spec: TrainSpec, device: torch.device | None = None) -> PreTrainedModel:
    """The base model in the spec's precision on the spec's device, in 4 bits for `qlora`; nothing frozen yet.

    Raises UsageError for a folder that is missing or holds no usable model, FtcloudError where the hub
    does not give the model.
    """
    _check_folder(spec.model)
    dtype = DTYPES[spec.model.precision]
    options: dict[str, Any] = {}
    if spec.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            spec.model.path,
            revision=spec.model.revision,
            dtype=dtype,
            attn_implementation=ATTENTION[spec.model.attention],
            device_map={"": device or default_device()},
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except ImportError as error:
        raise UsageError(
            str(error).strip().splitlines()[0], where="model.attention", fix="set attention: sdpa"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise _unloadable("the model", spec.model, error) from error
    if spec.method == "qlora":
        _keep_4bit_layout(model)
    return model


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare(base: PreTrainedModel, spec: TrainSpec) -> PreTrainedModel:
    """The model that is trained: `base` itself for `full`, else a PEFT model around the frozen base.

    Adapters get the base's computing dtype; fp32 master copies are the optimizer's business. Their
    random start depends on `loop.seed` alone.
    """
    if spec.loop.grad_ckpt:
        # Not re-entrant: gradients then reach the adapters of a frozen base without further ado.
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if spec.method == "full":
        return base
    if spec.lora is None:
        raise UsageError(f"method {spec.method} needs the section `lora`", where="lora")
    return add_adapters(base, spec.lora, DTYPES[spec.model.precision], spec.loop.seed)


def add_adapters(base: PreTrainedModel, lora: LoraSpec, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """Freeze `base` and wrap it with LoRA adapters of `dtype` (Hu 2021)."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=resolve_targets(base, lora.target_modules),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)  # on a 4-bit base PEFT leaves them fp32
    speed_up(model)
    return model


def resolve_targets(model: PreTrainedModel, wanted: Iterable[str]) -> list[str]:
    """Names of the linear layers to adapt: `q_proj` and the like, or `attention`, `mlp`, `all-linear`.

    The output projection is never among them unless named. Short names are given where they suffice,
    full paths where a name also occurs elsewhere. RecipeError lists the names that exist.
    """
    paths = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    head = model.get_output_embeddings()
    inner = [path for path in paths if model.get_submodule(path) is not head]
    targets: set[str] = set()
    for word in wanted:
        if word not in FAMILIES:
            chosen = [path for path in paths if path == word or path.endswith(f".{word}")]
        else:
            chosen = [path for path in inner if any(mark in _parent(path) for mark in FAMILIES[word])]
        if not chosen:
            names = sorted({_leaf(path) for path in paths})
            raise RecipeError(
                f"the model has no linear layer {word!r}",
                where="lora.target_modules",
                fix=f"it has: {', '.join(names)}; or use: {', '.join(FAMILIES)}",
            )
        elsewhere = {_leaf(path) for path in paths if path not in chosen}
        targets |= {path if _leaf(path) in elsewhere else _leaf(path) for path in chosen}
    return sorted(targets)


def count_parameters(model: torch.nn.Module) -> Parameters:
    """Trainable and all parameters of the model, adapters included."""
    counts = [(_logical_count(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return Parameters(sum(n for n, trains in counts if trains), sum(n for n, _ in counts))


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def _parent(path: str) -> str:
    return path.rpartition(".")[0].lower()


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _logical_count(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # of a 4-bit weight: two to a byte
    return int(state.shape.numel()) if state is not None else parameter.numel()


def _keep_4bit_layout(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place at the first evaluation on some CPUs.

    The repacked bytes are no NF4 any more; training on, or a merge, would silently compute with garbage.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def _check_folder(spec: ModelSpec) -> None:
    """Refuse a folder that cannot hold the model; what does not look like a path is a hub id."""
    folder = Path(spec.path)
    looks_like_path = folder.is_absolute() or spec.path.startswith((".", "~")) or spec.path.count("/") > 1
    if not folder.is_dir():
        if looks_like_path:
            raise UsageError(
                "there is no such model folder", where=spec.path, fix="check the recipe's base model"
            )
        return
    if not (folder / "config.json").is_file():
        raise UsageError(
            "not a model folder: it has no config.json",
            where=spec.path,
            fix="give the folder that `save_pretrained` wrote",
        )
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise UsageError(
            "the model folder has no weights" + (" in safetensors, only pickled ones" if pickled else ""),
            where=spec.path,
            fix="convert the weights to safetensors; pickles can run code and are not read"
            if pickled
            else "copy the *.safetensors files of the model into it",
        )


def _unloadable(what: str, spec: ModelSpec, error: Exception) -> FtcloudError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if Path(spec.path).is_dir():
        damaged = "the folder may be damaged or incomplete"
        return UsageError(f"{what} cannot be loaded: {reason}", where=spec.path, fix=damaged)
    return FtcloudError(
        f"{what} cannot be fetched: {reason}",
        where=f"{spec.path}" + (f"@{spec.revision}" if spec.revision else ""),
        fix="check the id, the network, and HF_TOKEN for a gated model; with HF_HUB_OFFLINE=1 only cached "
        "models load",
    )
