"""From a trained model to a folder that transformers loads by itself, and the proof that both agree.

LoRA and QLoRA weights are merged layer by layer in fp32: W = W_base + (alpha / rank) B A. For QLoRA,
W_base is the dequantised NF4 weight that training saw. Two short cuts give another model without a word:
reloading the unquantised base (training corrected the quantisation error, which is then not there), and
PEFT's merge into 4-bit weights (it quantises the sum again, and reads garbage where a CPU forward pass
has repacked the weights). So the saved folder is loaded again and compared with the trained model.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from trainer_image.trainer.batches import Example
from trainer_image.trainer.errors import DataError, FtcloudError
from trainer_image.trainer.model import DTYPES, bare
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.spec import TrainSpec

MAX_MEAN_KL = 0.005
"""Nats/token. Measured on SmolLM2-135M (LoRA r 16 on all linear layers, answers of a JSON task):

    right, saved in bf16                LoRA 6e-5 to 8e-5, QLoRA 2e-5; LoRA computing in bf16 2e-4
    right, saved in fp32                below 1e-6
    onto the unquantised base           0.049  (the top token still agrees at 99 %)
    into 4 bits                         0.86   (81 %)
    into 4 bits that were repacked      21     (0 %)
"""
MIN_AGREE = 0.97
"""Share of positions with the same likeliest token; below 1, as rounding decides between near ties."""

CHECK_ROWS = 16
CHECK_TOKENS = 2_000
CHECK_BYTES = 512 << 20
"""The trained model's logits at the checked positions are kept in memory, in fp32, up to this size."""

MAX_SHARD_SIZE = "4GB"
DISK_RESERVE = 64 << 20
"""Bytes beyond the weights: tokenizer, configs, file-system blocks."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """How far the saved model is from the trained one, over the positions whose next token was learned."""

    dtype: str
    """Of the saved weights."""
    mean_kl: float
    """Mean KL(trained || merged) of the next-token distributions [nats/token]."""
    agree: float
    """Share of positions with the same likeliest token."""
    max_abs: float
    """Largest difference of two logits."""
    rows: int
    tokens: int
    """Positions compared."""

    @property
    def within_bounds(self) -> bool:
        return self.mean_kl <= MAX_MEAN_KL and self.agree >= MIN_AGREE

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def merge_and_verify(
    model: Any,
    tokenizer: Any,
    spec: TrainSpec,
    *,
    rows: Sequence[Example],
    folder: Path,
    reporter: Reporter,
) -> tuple[MergeReport, Any]:
    """Save `model` as the ordinary model folder `folder` and check it on `rows`.

    `model` is a trained PeftModel (LoRA, QLoRA) or a plain model (full); its weights stay as they are.
    The weights are saved in the dtype of the base model's own files; where that rounds the training
    away, in fp32. Returns the report and the model as loaded from disk, in eval mode.

    FtcloudError: the disk is too full, or no dtype is within the bounds; `folder` is then absent.
    """
    trained = reference(model, rows)
    plain, config = bare(model), _base_config(spec)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else DTYPES[spec.model.precision]
    for dtype in dict.fromkeys((stored, torch.float32)):
        aside = folder.with_name(folder.name + ".part")
        try:
            _save(plain, tokenizer, config, dtype, aside)
            merged = _load(aside, DTYPES[spec.model.precision], plain.device)
            report = compare(trained, merged, dtype)
            reporter.say("merge", **report.as_dict())
            if report.within_bounds:
                shutil.rmtree(folder, ignore_errors=True)
                aside.replace(folder)
                return report, merged
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    raise FtcloudError(
        f"the merged model does not answer as the trained one: KL {report.mean_kl:.3g} nats/token "
        f"(at most {MAX_MEAN_KL}), same top token {report.agree:.1%} (at least {MIN_AGREE:.0%})",
        where=str(folder),
        fix="use the adapter with its base model as it was trained, and report this with spec.json",
    )


def merged_state(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict of the plain architecture, on the CPU: adapters merged, 4-bit weights dequantised.

    `model` is the base model with whatever LoRA layers PEFT has put into it. Arithmetic is fp32 and
    rounded to `dtype` once; tensors that are not floating-point stay as they are.
    """
    state: dict[str, Tensor] = {}
    for path, module in _plain_modules(model):
        base, name = _base_layer(module), path + "." if path else ""
        for leaf, tensor in _own_tensors(base):
            value = _full_precision(base, tensor) if leaf == "weight" else tensor
            if leaf == "weight" and base is not module:
                value = value.float() + _delta(module).to(value.device)
            state[name + leaf] = value.detach().to("cpu", dtype if value.is_floating_point() else None)
    return state


# --- merging ---------------------------------------------------------------------------------------


def _plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules under the names of the plain architecture: nothing from inside a LoRA layer."""
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules(remove_duplicate=False):
        if path.startswith(inside):
            continue
        if isinstance(module, LoraLayer):
            inside = (*inside, path + ".")
        yield path, module


def _base_layer(module: nn.Module) -> nn.Module:
    base = getattr(module, "base_layer", module)
    assert isinstance(base, nn.Module)
    return base


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers of the module itself, tied ones included."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        if name not in module._non_persistent_buffers_set:
            yield name, buffer


def _full_precision(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight as numbers: 4-bit codes are dequantised, anything else is returned as it is."""
    if getattr(weight, "quant_state", None) is None:
        return weight
    import bitsandbytes

    # `model.load_base` forbids bitsandbytes to repack the codes for the CPU in an eval-mode forward pass,
    # as dequantising would then read garbage. Should it have happened all the same, building the layer's
    # state dict is the public way to undo it; the blocks' scales are then rounded, which the check bounds.
    layer.state_dict()
    weight = layer.get_parameter("weight")
    state = copy.copy(weight.quant_state)  # type: ignore[attr-defined]
    state.dtype = torch.float32
    full: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, state)
    return full


def _delta(layer: Any) -> Tensor:
    """sum over active adapters of (alpha / rank) B A, in fp32. Hu et al. 2021, section 4.1."""
    total: Tensor | None = None
    for name in layer.active_adapters:
        down, up = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
        delta = (up @ down) * layer.scaling[name]
        delta = delta.T if getattr(layer, "fan_in_fan_out", False) else delta
        total = delta if total is None else total + delta
    assert total is not None
    return total


# --- saving and loading ----------------------------------------------------------------------------


@torch.inference_mode()
def _save(plain: Any, tokenizer: Any, config: Any, dtype: torch.dtype, folder: Path) -> None:
    state = merged_state(plain, dtype)
    _require_space(folder.parent, sum(tensor.nbytes for tensor in state.values()))
    if isinstance(plain.get_output_embeddings(), LoraLayer):
        config.tie_word_embeddings = False  # the head has learned, the embedding has not
    with torch.device("meta"):
        shell = type(plain)(config)
    shell.load_state_dict(state, assign=True)
    shell.tie_weights()
    shell.generation_config = _savable(plain.generation_config)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        shell.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise FtcloudError(f"the merged model cannot be written: {error}", where=str(folder)) from error


def _base_config(spec: TrainSpec) -> Any:
    """The config of the base model as its author wrote it: training sets flags in the one in memory."""
    config = AutoConfig.from_pretrained(
        spec.model.path, revision=spec.model.revision, trust_remote_code=False
    )
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the merged weights are ordinary numbers
    return config


def _savable(config: Any) -> Any:
    """A copy of a generation config that transformers will save: hub configs may contradict themselves."""
    config = copy.deepcopy(config)
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True  # what a temperature or top_p in the file says about its author's wish
    return config


def _require_space(folder: Path, wanted: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted += DISK_RESERVE
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise FtcloudError(
            f"the merged model needs {wanted / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free",
            where=str(folder),
            fix="free disk space and resume the job, or set merge: false",
        )


def _load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The saved model, computing as the trained one did; on the CPU where the GPU cannot hold both."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        return model.to("cpu")


# --- comparing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """A row and what the trained model makes of it."""

    ids: Tensor
    """int64 [1, length]"""
    at: Tensor
    """int64 [positions] whose next token was learned"""
    logits: Tensor
    """fp32 [positions, vocabulary], on the CPU"""


def reference(model: Any, rows: Sequence[Example]) -> list[Sample]:
    """What `model` answers on the first rows with learned tokens, within CHECK_ROWS, _TOKENS and _BYTES.

    DataError where no row has a learned token.
    """
    samples: list[Sample] = []
    tokens, positions = CHECK_TOKENS, max(1, CHECK_BYTES // (4 * int(model.config.vocab_size)))
    for row in rows:
        ids = list(row.ids)[:tokens]
        at = [i - 1 for i in range(1, len(ids)) if row.target[i]][:positions]
        if at:
            row_ids, row_at = torch.tensor([ids]), torch.tensor(at)
            samples.append(Sample(row_ids, row_at, _logits(model, row_ids, row_at)))
            tokens, positions = tokens - len(ids), positions - len(at)
        if len(samples) == CHECK_ROWS:
            break
    if not samples:
        raise DataError("no row with a learned token to check the merged model on")
    return samples


def compare(trained: Sequence[Sample], merged: Any, dtype: torch.dtype) -> MergeReport:
    """How far `merged`, saved as `dtype`, is from the trained model."""
    kl = agree = max_abs = 0.0
    for sample in trained:
        ours, theirs = sample.logits, _logits(merged, sample.ids, sample.at)
        p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
        kl += float((p.exp() * (p - q)).sum())
        agree += float((ours.argmax(-1) == theirs.argmax(-1)).sum())
        max_abs = max(max_abs, float((ours - theirs).abs().max()))
    tokens = sum(len(sample.at) for sample in trained)
    return MergeReport(
        dtype=str(dtype).removeprefix("torch."),
        # Rounding can leave the KL of two equal distributions just below zero.
        mean_kl=float("inf") if math.isnan(kl) else max(0.0, kl / tokens),
        agree=agree / tokens,
        max_abs=max_abs,
        rows=len(trained),
        tokens=tokens,
    )


@torch.inference_mode()
def _logits(model: Any, ids: Tensor, at: Tensor) -> Tensor:
    """fp32 [positions, vocabulary] on the CPU, dropout off."""
    training, device = model.training, model.device
    model.eval()
    try:
        logits = model(input_ids=ids.to(device), use_cache=False).logits[0]
        at_positions: Tensor = logits[at.to(device)].float().cpu()
    finally:
        model.train(training)
    return at_positions
