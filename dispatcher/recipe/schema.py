"""The recipe: what to train, as a user writes it.

Flat on purpose: one YAML key is one field is one command-line flag (`learning_rate`,
`--learning-rate`). The description of a field is written once, here, and becomes its flag's help, its
comment in the YAML that `ftcloud init` writes, and its row in `docs/recipe.md`.

A `Recipe` is complete: what the user left out has been filled in (`defaults.py`), and only the word
`auto` is still open, because its answer depends on the machine and the data (`resolve.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dispatcher.recipe.defaults import default_method, defaults_for
from dispatcher.recipe.rules import refuse_impossible
from trainer_image.trainer.spec import LossOn, Method, Optimizer, Overlong, Scheduler

GROUPS: Final = ("Model", "Method", "Data", "Training", "Optimizer", "Memory", "Cadence", "Evaluation")

Switch = bool | Literal["auto"]


def _as_names(value: Any) -> Any:
    """`q_proj, v_proj` (a flag, or a YAML string) as the tuple it stands for."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


def _as_path(value: Any) -> Any:
    """A path with `~` expanded. Whoever knows what it is relative to has made it absolute."""
    if isinstance(value, str) and value and "\0" not in value:
        return Path(value).expanduser()
    return value


def _as_cadence(value: Any) -> Any:
    """`false`, `no` and `off` read as `never`: nothing else can be meant."""
    return "never" if value is False or value in ("no", "off") else value


Word = Annotated[str, Field(strict=True, min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Ratio = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
File = Annotated[Path, BeforeValidator(_as_path), Field(strict=True)]
Names = Annotated[tuple[Word, ...], BeforeValidator(_as_names), Field(min_length=1)]
EveryN = Annotated[Literal["epoch", "never"] | Count, BeforeValidator(_as_cadence)]


def _setting(group: str, description: str, default: Any = ..., **constraints: Any) -> Any:
    """A field with its one-line description and the group that its flag is listed in.

    `None` as default means that it depends on the method, or is derived from other fields.
    """
    assert group in GROUPS
    return Field(default, description=description, json_schema_extra={"group": group}, **constraints)


class Recipe(BaseModel):
    """A fine-tuning recipe; see the module. Build one with `load.build_recipe`, which explains errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    name: Word = _setting(
        "Model",
        "Name of the result in the registry; by default the model's and the data's, joined.",
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$",  # the registry's rule; a test holds them equal
    )
    model: Word = _setting(
        "Model", "Base model: a hub id (org/name) or a folder with config.json and safetensors."
    )
    revision: Word | None = _setting(
        "Model", "Branch, tag or commit of a hub model; by default its main branch.", None
    )

    preset: Literal["none", "guide-qlora"] = _setting(
        "Method",
        "A named set of defaults: none, or guide-qlora (qlora, rank 8, alpha 16, q_proj and v_proj).",
        "none",
    )
    method: Method = _setting(
        "Method", "full trains all weights, lora adapters, qlora adapters over a base held in 4 bits (NF4)."
    )
    rank: Count | None = _setting("Method", "Rank of the LoRA matrices.", None)
    alpha: Count | None = _setting("Method", "LoRA scale: adapters are multiplied by alpha / rank.", None)
    dropout: Ratio | None = _setting("Method", "Dropout on the input of each adapter, 0 to below 1.", None)
    bias: Literal["none", "all", "lora_only"] | None = _setting(
        "Method", "Which biases are trained beside the adapters.", None
    )
    target_modules: Names | None = _setting(
        "Method", "Layers that get adapters: names, or the words attention, mlp, all-linear.", None
    )
    merge: Annotated[bool, Field(strict=True)] = _setting(
        "Method", "Merge the adapter into the base at the end, into a model that loads without ftcloud.", True
    )

    data: File = _setting(
        "Data", "A .jsonl or .json file, or a folder with train.jsonl, validation.jsonl and test.jsonl."
    )
    validation_data: File | None = _setting(
        "Data", "Validation rows, where they are not beside the training rows.", None
    )
    test_data: File | None = _setting("Data", "Test rows, on which base and tuned model are scored.", None)
    validation_fraction: Ratio | None = _setting(
        "Data",
        "Share of the rows set aside for validation where no validation file is given; 0 for none.",
        None,
    )
    format: Literal["auto", "completion", "instruction", "chat", "prompt-completion"] = _setting(
        "Data", "Shape of a row; auto reads it from the first row.", "auto"
    )
    seq_len: Count = _setting("Data", "Longest row [tokens], prompt and answer together.", 2048)
    overlong: Overlong = _setting("Data", "What happens to a row longer than seq_len.", "drop")
    packing: Switch = _setting(
        "Data", "Lay rows end to end instead of padding them; they stay isolated.", "auto"
    )
    loss_on: LossOn = _setting("Data", "Learn the answer only, or the whole text.", "answer")
    append_eos: Annotated[bool, Field(strict=True)] = _setting(
        "Data", "End each row with the end-of-sequence token.", True
    )
    train_on_eos: Annotated[bool, Field(strict=True)] = _setting(
        "Data", "Learn the end-of-sequence token: a model that never does, never stops.", True
    )

    epochs: Positive = _setting("Training", "Passes over the training rows.", 3.0)
    max_steps: Count | None = _setting("Training", "Optimizer steps; wins over epochs.", None)
    micro_batch: Count = _setting("Training", "Rows in memory at once on one device.")
    grad_accum: Count | None = _setting("Training", "Micro-batches in one optimizer step.", None)
    global_batch: Count | None = _setting(
        "Training", "Rows in one optimizer step: instead of grad_accum, a multiple of micro_batch.", None
    )
    early_stopping: Whole = _setting(
        "Training", "End after so many validations without a better loss; 0 never does.", 0
    )
    seed: Whole = _setting("Training", "Seed of initialization, order and dropout.", 42)

    learning_rate: Positive = _setting("Optimizer", "Peak learning rate.")
    warmup_ratio: Ratio = _setting("Optimizer", "Share of the steps over which the learning rate rises.", 0.1)
    scheduler: Scheduler = _setting("Optimizer", "How the learning rate falls after warm-up.", "cosine")
    weight_decay: NotNegative = _setting("Optimizer", "Decoupled weight decay.", 0.01)
    max_grad_norm: NotNegative = _setting(
        "Optimizer", "Norm to which gradients are clipped; 0 turns it off.", 1.0
    )
    optimizer: Optimizer = _setting(
        "Optimizer", "The optimizer; those in 8 bits need an NVIDIA GPU.", "adamw"
    )

    precision: Literal["auto", "bf16", "fp16", "fp32"] = _setting(
        "Memory", "Dtype of weights and computation; auto takes the machine's best that is safe.", "auto"
    )
    grad_ckpt: Switch = _setting(
        "Memory",
        "Gradient checkpointing: recompute activations to save memory, for a third more time.",
        "auto",
    )
    attention: Literal["auto", "sdpa", "flash", "eager"] = _setting(
        "Memory",
        "Attention kernel; flash needs flash-attn and a GPU of the Ampere generation or later.",
        "auto",
    )

    log_every: Count = _setting("Cadence", "Optimizer steps between two lines of the log.", 10)
    eval_every: EveryN = _setting("Cadence", "Validation: epoch, never, or every N optimizer steps.", "epoch")
    save_every: EveryN = _setting(
        "Cadence", "Checkpoints: epoch, never, or every N optimizer steps.", "epoch"
    )
    keep_checkpoints: Count = _setting("Cadence", "Newest checkpoints kept, beside the best one.", 2)

    metric: Literal["auto", "none", "exact", "json"] = _setting(
        "Evaluation",
        "Score of base and tuned model on the test rows: equal text, or equal parsed JSON.",
        "auto",
    )
    test_rows: Count = _setting("Evaluation", "Test rows scored, from the top of the file.", 100)
    max_new_tokens: Count = _setting("Evaluation", "Longest answer generated for the score [tokens].", 256)

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        return with_defaults(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _refuse_impossible(self) -> Self:
        refuse_impossible(self)
        return self

    def accumulation(self) -> int:
        """Micro-batches in one optimizer step, whichever of the two fields says it."""
        if self.global_batch is not None:
            return self.global_batch // self.micro_batch
        assert self.grad_accum is not None, "filled by defaults"
        return self.grad_accum


def with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """`given` without its nulls, and with every default that depends on other fields filled in."""
    values = {key: value for key, value in given.items() if value is not None}
    values.setdefault("method", default_method(values.get("preset")))
    defaults = defaults_for(values["method"], values.get("preset", "none"))
    if "global_batch" in values:
        defaults.pop("grad_accum", None)
    if "validation_data" not in values:
        defaults["validation_fraction"] = 0.1
    defaults["name"] = default_name(str(values.get("model", "")), Path(str(values.get("data", ""))))
    return defaults | values


def default_name(model: str, data: Path) -> str:
    """`HuggingFaceTB/SmolLM2-135M` and `orders.jsonl` -> `smollm2-135m-orders`; always a valid name."""
    words = f"{model.rstrip('/').rsplit('/', 1)[-1]}-{data.stem or 'data'}".lower()
    slug = re.sub(r"[^a-z0-9.]+", "-", words).strip("-.")
    return slug[:64].rstrip("-.") or "model"
