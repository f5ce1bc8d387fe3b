"""From pydantic's errors to one RecipeError: the field, its line, what is wrong, what to write."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from dispatcher.recipe.fields import accepted, choices
from dispatcher.recipe.rules import IMPOSSIBLE
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.written import Written
from trainer_image.trainer.errors import RecipeError

MISSING_FIX = {
    "model": "set model: to a hub id (org/name) or a model folder",
    "data": "set data: to a .jsonl file or a folder with train.jsonl",
}


def explain(error: ValidationError, written: Written) -> RecipeError:
    """The first problem in full, and the others by field and place after it."""
    problems: dict[str, RecipeError] = {}
    for detail in error.errors(include_url=False):
        field = str(detail["ctx"]["field"] if detail["type"] == IMPOSSIBLE else detail["loc"][0])
        problems.setdefault(field, _problem(field, detail, written))
    first, *others = problems.values()
    if not others:
        return first
    also = "".join(f"\n  also {other.where}: {other.what}" for other in others)
    return RecipeError(first.what + also, where=first.where, fix=first.fix)


def _problem(field: str, detail: Any, written: Written) -> RecipeError:
    place, kind, value = written.place(field), detail["type"], written.values.get(field)
    if kind == IMPOSSIBLE:
        return RecipeError(detail["ctx"]["what"], where=place, fix=detail["ctx"]["fix"])
    if kind == "extra_forbidden":
        return RecipeError(
            f"unknown field {field!r}", where=place, fix=_nearest(field, list(Recipe.model_fields))
        )
    if kind == "missing":
        return RecipeError(f"{field} is missing", where=place, fix=MISSING_FIX.get(field, ""))
    if field == "name":
        return RecipeError(
            f"name {value!r} is not a name",
            where=place,
            fix="use a-z, 0-9, `-`, `_` and `.`, at most 64, with a letter or digit at both ends",
        )
    near = _nearest(str(value), choices(field)) if isinstance(value, str) else ""
    return RecipeError(f"{field}: {value!r} is not {accepted(field)}", where=place, fix=near)


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(
        word.lower().replace("-", "_"), [k.replace("-", "_") for k in known], n=1
    )
    if not close:
        return ""
    original = next(k for k in known if k.replace("-", "_") == close[0])
    return f"did you mean {original!r}?"
