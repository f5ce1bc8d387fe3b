"""Combinations of fields that cannot work, each refused with its field and what to do instead.

Only what is impossible on every machine and with any data stands here. What depends on the machine or
the data is refused in `resolve.py`; what works but is unwise is a warning in `lint.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from pydantic_core import PydanticCustomError

from dispatcher.recipe.defaults import ADAPTER_FIELDS, PRESET_METHOD

if TYPE_CHECKING:
    from dispatcher.recipe.schema import Recipe

IMPOSSIBLE: Final = "impossible"
"""Type of the pydantic error; its context has `field` and `fix`."""


def refuse_impossible(recipe: Recipe) -> None:
    """Raise the pydantic error of the first rule that `recipe` breaks."""
    for rule in (_preset, _adapter_fields, _batch, _validation, _attention):
        rule(recipe)


def _refuse(field: str, what: str, fix: str) -> NoReturn:
    # As context, not as template: a value from the recipe may itself hold braces.
    raise PydanticCustomError(IMPOSSIBLE, "{what}", {"field": field, "what": what, "fix": fix})


def _preset(recipe: Recipe) -> None:
    method = PRESET_METHOD.get(recipe.preset)
    if method is not None and recipe.method != method:
        _refuse(
            "preset",
            f"preset {recipe.preset} is for method {method}, not {recipe.method}",
            f"set method: {method}, or preset: none",
        )


def _adapter_fields(recipe: Recipe) -> None:
    if recipe.method != "full":
        return
    for field in ADAPTER_FIELDS:
        if getattr(recipe, field) is not None:
            _refuse(
                field,
                f"{field} has no meaning with method full",
                f"remove {field}, or set method: lora or qlora",
            )
    if not recipe.merge:
        _refuse(
            "merge",
            "method full has no adapter to leave unmerged",
            "remove merge, or set method: lora or qlora",
        )


def _batch(recipe: Recipe) -> None:
    total, micro = recipe.global_batch, recipe.micro_batch
    if total is None:
        return
    if recipe.grad_accum is not None:
        _refuse(
            "global_batch", "global_batch and grad_accum say the same thing twice", "remove one of the two"
        )
    if total % micro:
        near = max(1, round(total / micro)) * micro
        _refuse(
            "global_batch",
            f"global_batch {total} is not a multiple of micro_batch {micro}",
            f"set global_batch: {near}, or a micro_batch that divides {total}",
        )


def _validation(recipe: Recipe) -> None:
    if recipe.validation_data is not None and recipe.validation_fraction is not None:
        _refuse(
            "validation_fraction",
            "validation_fraction is for data without a validation file, and validation_data names one",
            "remove one of the two",
        )
    if recipe.early_stopping and recipe.eval_every == "never":
        _refuse(
            "early_stopping",
            "early stopping needs validations, and eval_every is never",
            "set eval_every: epoch, or early_stopping: 0",
        )


def _attention(recipe: Recipe) -> None:
    if recipe.attention == "flash" and recipe.precision == "fp32":
        _refuse(
            "attention",
            "flash attention computes in bf16 or fp16, and precision is fp32",
            "set attention: sdpa, or precision: bf16",
        )
