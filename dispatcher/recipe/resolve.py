"""From a recipe to the spec that a trainer gets: every `auto` answered for one machine, one model, its data.

What cannot run there is refused here, before anything is started: the message names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from dispatcher.recipe.adapters import absent, effective_targets
from dispatcher.recipe.base_model import ModelFacts
from dispatcher.recipe.load import is_folder
from dispatcher.recipe.memory import activations_gib, weights_gib
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.splits import Split, Splits
from trainer_image.trainer.errors import RecipeError
from trainer_image.trainer.hardware import Hardware
from trainer_image.trainer.spec import (
    Attention,
    Cadence,
    DataSpec,
    EvaluateSpec,
    LoopSpec,
    LoraSpec,
    Metric,
    ModelSpec,
    OptimSpec,
    Precision,
    TrainSpec,
)

AMPERE: Final = (8, 0)
"""First CUDA compute capability with bf16 and with flash attention 2."""
CUDA_OPTIMIZERS: Final = ("adamw_8bit", "paged_adamw_8bit")
SHORT_ANSWER: Final = 64
"""Characters up to which equal text is a fair score: a label, a name, a number."""
RAM_SHARE: Final = 0.6
"""Of the machine's RAM, what a job may fill before recomputing activations is the safer choice."""


def resolve(
    recipe: Recipe,
    hardware: Hardware,
    splits: Splits,
    facts: ModelFacts | None,
    *,
    labels: Mapping[str, str] | None = None,
    flash_attn: bool = False,
) -> TrainSpec:
    """The spec of `recipe` on `hardware`, with nothing left `auto`.

    `facts` is None for a hub model that was not looked at; `flash_attn` says whether the package is known
    to be installed there. RecipeError names the field that this machine, model or data cannot serve.
    """
    _check_model(recipe, facts)
    _check_machine(recipe, hardware)
    _check_validation(recipe, splits)
    precision = _precision(recipe, hardware, facts)
    return TrainSpec(
        method=recipe.method,
        model=ModelSpec(
            path=recipe.model,
            revision=recipe.revision,
            precision=precision,
            attention=_attention(recipe, hardware, precision, flash_attn),
            name=recipe.model,
        ),
        data=_data(recipe, splits, facts),
        optim=OptimSpec(
            optimizer=recipe.optimizer,
            learning_rate=recipe.learning_rate,
            warmup_ratio=recipe.warmup_ratio,
            scheduler=recipe.scheduler,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
        ),
        loop=_loop(recipe, splits, _grad_ckpt(recipe, hardware, splits, facts, precision)),
        evaluate=EvaluateSpec(
            metric=_metric(recipe, splits),
            rows=min(recipe.test_rows, splits.test.rows) if splits.test else 0,
            max_new_tokens=recipe.max_new_tokens,
        ),
        lora=_lora(recipe, facts),
        merge=recipe.merge,
        labels={"recipe": recipe.name, "data": splits.fingerprint} | dict(labels or {}),
    )


def _refuse(field: str, what: str, fix: str) -> NoReturn:
    raise RecipeError(what, where=field, fix=fix)


def _check_model(recipe: Recipe, facts: ModelFacts | None) -> None:
    if recipe.revision is not None and is_folder(recipe.model):
        _refuse("revision", "a folder has no revisions", "remove revision, or name a hub model")
    if facts is not None and facts.quantized:
        _refuse(
            "model",
            f"the model is stored quantized ({facts.quantized}), which cannot be trained or merged",
            "use the unquantized model; method qlora quantizes it while it loads",
        )
    if facts is None or facts.experts or recipe.target_modules is None:
        return  # of experts, only the library knows which layers there will be
    if missing := absent(facts, effective_targets(recipe.target_modules, facts)):
        known = sorted({linear.name.rsplit(".", 1)[-1] for linear in facts.linears})
        _refuse(
            "target_modules",
            f"the model has no linear layer {missing[0]!r}",
            f"set target_modules: all-linear, or names among {', '.join(known)}",
        )


def _check_machine(recipe: Recipe, hardware: Hardware) -> None:
    gpu = hardware.gpus[0] if hardware.gpus else None
    if gpu is None and recipe.optimizer in CUDA_OPTIMIZERS:
        _refuse(
            "optimizer",
            f"{recipe.optimizer} needs an NVIDIA GPU, and this machine has none",
            "set optimizer: adamw",
        )
    if gpu is None and recipe.precision == "fp16":
        _refuse("precision", "fp16 is not for training on a CPU", "set precision: auto, or fp32")
    if gpu is not None and recipe.precision == "bf16" and gpu.capability < AMPERE:
        _refuse("precision", f"{gpu.name} has no bf16", "set precision: auto, or fp32")
    if recipe.attention == "flash" and (gpu is None or gpu.capability < AMPERE):
        machine = gpu.name if gpu else "a CPU"
        _refuse("attention", f"flash attention does not run on {machine}", "set attention: auto, or sdpa")


def _check_validation(recipe: Recipe, splits: Splits) -> None:
    if recipe.early_stopping and splits.validation is None:
        _refuse(
            "early_stopping",
            "early stopping needs validation rows, and there are none",
            "set validation_fraction: 0.1, give validation_data, or set early_stopping: 0",
        )


def _precision(recipe: Recipe, hardware: Hardware, facts: ModelFacts | None) -> Precision:
    """bf16 where the machine multiplies it fast, else fp32.

    fp16 holds nothing above 65,504: it is chosen only on a GPU without bf16 for a model that is itself
    stored in fp16. Activations of a model that was trained in bf16 can overflow it, and then the loss is
    NaN or, worse, is not.
    """
    if recipe.precision == "fp16" and facts is not None and facts.stored == "bf16":
        _refuse(
            "precision",
            "the model is stored in bf16; fp16 holds a smaller range, and its activations may overflow",
            "set precision: auto, bf16 or fp32",
        )
    if recipe.precision != "auto":
        return recipe.precision
    if hardware.gpus:
        if hardware.gpus[0].capability >= AMPERE:
            return "bf16"
        return "fp16" if facts is not None and facts.stored == "fp16" else "fp32"
    return "bf16" if hardware.fast_bf16 else "fp32"


def _attention(recipe: Recipe, hardware: Hardware, precision: Precision, flash_attn: bool) -> Attention:
    if recipe.attention != "auto":
        return recipe.attention
    runs = (
        flash_attn and bool(hardware.gpus) and hardware.gpus[0].capability >= AMPERE and precision != "fp32"
    )
    return "flash" if runs else "sdpa"


def _grad_ckpt(
    recipe: Recipe, hardware: Hardware, splits: Splits, facts: ModelFacts | None, precision: Precision
) -> bool:
    """On a GPU, where memory is what is short. On a CPU only where the RAM would not do: it costs a third."""
    if recipe.grad_ckpt != "auto":
        return recipe.grad_ckpt
    if hardware.gpus or facts is None:
        return True
    need = weights_gib(recipe, facts, precision) + activations_gib(
        recipe, facts, precision, splits.train.longest
    )
    return need > RAM_SHARE * hardware.ram_gib


def _data(recipe: Recipe, splits: Splits, facts: ModelFacts | None) -> DataSpec:
    positions = facts.max_positions if facts is not None else None
    return DataSpec(
        train=splits.train.path.name,
        validation=splits.validation.path.name if splits.validation else None,
        test=splits.test.path.name if splits.test else None,
        format=splits.format,
        # No row can be longer than the model's context, whatever the recipe allows.
        seq_len=min(recipe.seq_len, positions) if positions else recipe.seq_len,
        overlong=recipe.overlong,
        packing=recipe.packing is not False,
        # A completion row is one text without a question: all of it is the answer.
        loss_on="all" if splits.format == "completion" else recipe.loss_on,
        append_eos=recipe.append_eos,
        train_on_eos=recipe.train_on_eos,
    )


def _loop(recipe: Recipe, splits: Splits, grad_ckpt: bool) -> LoopSpec:
    eval_every: Cadence = recipe.eval_every if splits.validation else "never"
    return LoopSpec(
        epochs=recipe.epochs,
        max_steps=recipe.max_steps,
        micro_batch=recipe.micro_batch,
        grad_accum=recipe.accumulation(),
        grad_ckpt=grad_ckpt,
        log_every=recipe.log_every,
        eval_every=eval_every,
        save_every=recipe.save_every,
        keep_checkpoints=recipe.keep_checkpoints,
        early_stopping=recipe.early_stopping,
        seed=recipe.seed,
    )


def _metric(recipe: Recipe, splits: Splits) -> Metric:
    """`auto`: json where every expected answer is JSON, exact where all are short, else none."""
    test = splits.test
    if recipe.metric != "auto":
        _check_metric(recipe.metric, splits)
        return recipe.metric
    if test is None or splits.format == "completion":
        return "none"
    if test.json_answers == test.rows:
        return "json"
    return "exact" if test.longest_answer <= SHORT_ANSWER else "none"


def _check_metric(metric: Metric, splits: Splits) -> None:
    if metric == "none":
        return
    test: Split | None = splits.test
    if test is None:
        _refuse(
            "metric",
            f"metric {metric} needs test rows, and there are none",
            "give test_data, or set metric: none",
        )
    if splits.format == "completion":
        _refuse("metric", "completion rows have no expected answer to compare with", "set metric: none")
    if metric == "json" and test.json_answers < test.rows:
        _refuse(
            "metric",
            f"{test.rows - test.json_answers} of {test.rows} expected answers are no JSON object or list",
            "set metric: exact, or correct the test rows",
        )


def _lora(recipe: Recipe, facts: ModelFacts | None) -> LoraSpec | None:
    if recipe.method == "full":
        return None
    rank, alpha, dropout = recipe.rank, recipe.alpha, recipe.dropout
    bias, names = recipe.bias, recipe.target_modules
    assert rank is not None and alpha is not None and dropout is not None, "filled by defaults"
    assert bias is not None and names is not None, "filled by defaults"
    return LoraSpec(rank, alpha, dropout, bias, effective_targets(names, facts))
