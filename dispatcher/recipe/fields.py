"""What a field is, read from the schema: its group, its flag, and the values that it takes, in words.

Help, errors, the commented YAML and the docs all say it by these functions, so they agree.
"""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dispatcher.recipe.schema import Recipe


def flag(field: str) -> str:
    """The command-line flag of `field`."""
    return "--" + field.replace("_", "-")


def group(field: str) -> str:
    """The heading under which `field` stands in help, YAML and docs."""
    extra = Recipe.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["group"])


def description(field: str) -> str:
    """The one line that says what `field` is."""
    return str(Recipe.model_fields[field].description)


def accepted(field: str) -> str:
    """The values that `field` takes, in words: for errors, help and docs."""
    info = Recipe.model_fields[field]
    words, found = _choices(info.annotation)
    if bool in found:
        words = ["true", "false", *words]
    rest = _open_values(info, found)
    if rest:
        return " or ".join(filter(None, [", ".join(words), rest]))
    return f"{', '.join(words[:-1])} or {words[-1]}"


def choices(field: str) -> list[str]:
    """The words among the values of `field`: all of them, or those beside a number."""
    return _choices(Recipe.model_fields[field].annotation)[0]


def kinds(field: str) -> set[type]:
    """The plain types among the values of `field`."""
    return _choices(Recipe.model_fields[field].annotation)[1]


def _choices(annotation: Any) -> tuple[list[str], set[type]]:
    """Words and plain types in an annotation, through unions and `Annotated`."""
    if hasattr(annotation, "__metadata__"):
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)], set()
    if get_origin(annotation) in (Union, UnionType):
        words: list[str] = []
        types: set[type] = set()
        for option in get_args(annotation):
            more_words, more_types = _choices(option)
            words += more_words
            types |= more_types
        return words, types - {type(None)}
    return [], {get_origin(annotation) or annotation}


def _open_values(info: FieldInfo, found: set[type]) -> str:
    """`a whole number from 1`, `a number above 0`, `a path`, ..."""
    bounds = _bounds(info)
    if int in found:
        return "a whole number from " + str(bounds.get("ge", 0))
    if float in found:
        low = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds.get('gt', 0)}"
        return f"a number {low}" + (f" to below {bounds['lt']}" if "lt" in bounds else "")
    names = {tuple: "names", Path: "a path", str: "text"}
    return next((name for kind, name in names.items() if kind in found), "")


def _bounds(info: FieldInfo) -> dict[str, Any]:
    """`ge`, `gt`, `lt` of a field, wherever they stand in its annotation."""
    found: dict[str, Any] = {}
    _collect_bounds([*info.metadata, info.annotation], found)
    return found


def _collect_bounds(parts: list[Any], found: dict[str, Any]) -> None:
    for part in parts:
        for bound in ("ge", "gt", "lt"):
            if getattr(part, bound, None) is not None:
                found[bound] = getattr(part, bound)
        _collect_bounds(list(getattr(part, "metadata", ())), found)
        _collect_bounds(list(getattr(part, "__metadata__", ())), found)
        if get_origin(part) in (Union, UnionType) or hasattr(part, "__metadata__"):
            _collect_bounds(list(get_args(part)), found)
