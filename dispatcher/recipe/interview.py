"""`ftcloud init`: a few questions, then a recipe in which every field stands with its comment.

What was answered is active; every other field is there too, commented out with the default that it
has for this method, so that the file is its own manual.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from dispatcher.recipe.explain import MISSING_FIX
from dispatcher.recipe.fields import accepted, choices, description, group
from dispatcher.recipe.load import PATH_FIELDS, TEXT_FIELDS, build_recipe, is_folder, plain
from dispatcher.recipe.schema import GROUPS, Recipe, default_name, with_defaults
from dispatcher.recipe.written import scalar, to_yaml
from trainer_image.trainer.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that cannot be guessed. `default` is taken on an empty answer; None where there is none."""

    field: str
    prompt: str
    default: str | None
    choices: tuple[str, ...] = ()


Ask = Callable[[Question], str]
"""Puts a question to the user and gives the answer as text."""

PROMPTS: Final = {
    "model": "Base model (hub id or folder)",
    "data": "Training data (.jsonl or .json file, or folder)",
    "method": "Method",
    "name": "Name of the result",
    "metric": "How to score the answers to the test rows",
}


def interview(given: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """`given` (field -> value, as from flags) and an answer for each question that it leaves open.

    RecipeError if what came together is no recipe.
    """
    values = dict(given)
    for field in PROMPTS:
        if field not in values:
            question = _question(field, values)
            answer = ask(question).strip() or question.default
            if not answer:
                raise RecipeError(f"{field} is needed", where=field, fix=MISSING_FIX.get(field, ""))
            values[field] = scalar(answer, as_text=field in TEXT_FIELDS)
    build_recipe(values)
    return values


def render(values: Mapping[str, Any], folder: Path | None = None) -> str:
    """The text of a recipe file in `folder` (the working directory by default) with `values` in it.

    Paths in `values` are relative to the working directory, and come out relative to `folder`.
    """
    here = {field: _seen_from(folder or Path.cwd(), field, value) for field, value in values.items()}
    recipe = build_recipe(here)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["yaml"] = to_yaml
    template = environment.from_string(
        files("templates").joinpath("recipe.yaml.j2").read_text(encoding="utf-8")
    )
    lines = {
        heading: [_Line.of(field, here, recipe) for field in Recipe.model_fields if group(field) == heading]
        for heading in GROUPS
    }
    return template.render(groups=lines, recipe=recipe)


@dataclass(frozen=True, slots=True)
class _Line:
    """A field as the template shows it."""

    field: str
    comment: str
    value: Any
    """None where the field is commented out and has no default to show."""
    given: bool

    @classmethod
    def of(cls, field: str, given: Mapping[str, Any], recipe: Recipe) -> _Line:
        value = given.get(field)
        shown = value if value is not None else plain(getattr(recipe, field))
        return cls(field, f"{description(field)} ({accepted(field)})", plain(shown), value is not None)


def _question(field: str, values: Mapping[str, Any]) -> Question:
    default = None
    if field == "name":
        default = default_name(str(values["model"]), Path(str(values["data"])))
    elif field == "method":
        default = str(with_defaults({**values})["method"])
    elif field == "metric":
        default = "auto"
    return Question(field, PROMPTS[field], default, tuple(choices(field)))


def _seen_from(folder: Path, field: str, value: Any) -> Any:
    """A relative path of the working directory as seen from `folder`; any other value as it is."""
    is_path = field in PATH_FIELDS or (field == "model" and (Path.cwd() / str(value)).is_dir())
    if value is None or not is_path or is_folder(str(value)) or "\0" in str(value):
        return value
    return os.path.relpath(Path.cwd() / Path(value).expanduser(), folder.resolve())
