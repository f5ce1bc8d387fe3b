"""Recipes in and out of files, with errors that name file, line and field, and say what to write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from dispatcher.recipe.explain import explain
from dispatcher.recipe.fields import flag
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.written import RecipeDumper, Written, parse
from trainer_image.trainer.errors import RecipeError

MAX_BYTES: Final = 1 << 20
PATH_FIELDS: Final = ("data", "validation_data", "test_data")
TEXT_FIELDS: Final = frozenset({"name", "model", "revision", "target_modules", *PATH_FIELDS})
"""Fields whose text in YAML is taken as it stands, never as a number, a date or a truth value."""

EXCLUSIVE: Final = ({"grad_accum", "global_batch"}, {"validation_data", "validation_fraction"})
"""Fields of which an override displaces the other one of the file, rather than contradict it."""

HUB_ID: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read `path`, let `overrides` (field -> value, as from flags) win over it, and validate.

    Paths in the file are relative to the file, paths in `overrides` to the working directory.
    RecipeError names file and line of the field that is wrong.
    """
    written = parse(_read(path), where=str(path), text_fields=TEXT_FIELDS)
    folder = path.resolve().parent
    values = {field: anchored(field, value, folder) for field, value in written.values.items()}
    places = dict(written.places)
    for field, value in (overrides or {}).items():
        for pair in EXCLUSIVE:
            if field in pair:
                for other in pair - {field} - set(overrides or {}):
                    values.pop(other, None)
        values[field] = anchored(field, value, Path.cwd())
        places[field] = flag(field)
    return _build(Written(values, places, str(path)))


def build_recipe(values: Mapping[str, Any], *, where: str = "") -> Recipe:
    """Validate `values` (field -> value); `where` stands before each field's name in an error."""
    return _build(Written(dict(values), {}, where))


def dump_recipe(recipe: Recipe) -> str:
    """`recipe` as YAML, every field that has a value: reading it back gives an equal recipe."""
    values = {field: plain(value) for field, value in recipe.model_dump(exclude_none=True).items()}
    return yaml.dump(values, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=1 << 20)


def anchored(field: str, value: Any, folder: Path) -> Any:
    """`value` with a relative path made absolute from `folder`; other fields as they are."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        return value
    if field in PATH_FIELDS:
        return str(folder / Path(value).expanduser())
    if field == "model":
        return _model(str(value), folder)
    return value


def is_folder(model: str) -> bool:
    """Whether a recipe's `model` is a folder (an absolute path, once loaded) rather than a hub id."""
    return Path(model).is_absolute()


def _model(text: str, folder: Path) -> str:
    """A folder's absolute path, or `text` where it can only be a hub id.

    `org/name` is both a hub id and a relative path: it is the folder where there is one.
    """
    path = folder / Path(text).expanduser()
    looks_like_path = text.startswith((".", "/", "~")) or not HUB_ID.match(text)
    return str(path) if looks_like_path or path.is_dir() else text


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError("a recipe is a short YAML file, and this one is over 1 MiB", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError("no such recipe", where=str(path), fix="write one with `ftcloud init`") from error
    except UnicodeDecodeError as error:
        raise RecipeError("not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _build(written: Written) -> Recipe:
    try:
        return Recipe.model_validate(dict(written.values))
    except ValidationError as error:
        raise explain(error, written) from error


def plain(value: Any) -> Any:
    """A field's value as YAML has it: paths as text, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
