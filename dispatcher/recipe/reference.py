"""The generated part of `docs/recipe.md`: every field, from the schema itself.

    python -m dispatcher.recipe.reference docs/recipe.md

rewrites what stands between the two marks of that file; a test holds that it is current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dispatcher.recipe.defaults import GUIDE, METHODS
from dispatcher.recipe.fields import accepted, description, flag, group
from dispatcher.recipe.lint import CODES
from dispatcher.recipe.load import build_recipe, plain
from dispatcher.recipe.schema import GROUPS, Recipe
from dispatcher.recipe.written import to_yaml

BEGIN: Final = "<!-- generated: python -m dispatcher.recipe.reference docs/recipe.md -->"
END: Final = "<!-- end of generated part -->"
REQUIRED: Final = ("model", "data")


def reference() -> str:
    """All fields by group, and all warnings, as Markdown."""
    lines = [line for heading in GROUPS for line in _group(heading)]
    warnings = [f"| `{code}` | {when} |" for code, when in CODES.items()]
    return "\n".join([*lines, "## Warnings", "", "| code | given when |", "|---|---|", *warnings, ""])


def with_reference(document: str) -> str:
    """`document` with the part between the marks replaced by the current reference."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _group(heading: str) -> Iterator[str]:
    yield from (
        f"### {heading}",
        "",
        "| field and flag | what it is | values | default | the guide |",
        "|---|---|---|---|---|",
    )
    for field in Recipe.model_fields:
        if group(field) == heading:
            cells = (
                f"`{field}` `{flag(field)}`",
                description(field),
                accepted(field),
                _default(field),
                GUIDE.get(field, ""),
            )
            yield "| " + " | ".join(cells) + " |"
    yield ""


def _default(field: str) -> str:
    """One default for all methods, or each with its methods."""
    if field in REQUIRED:
        return "required"
    if field in ("name", "method"):
        return {"name": "`MODEL-DATA`", "method": "`lora`"}[field]
    methods: dict[str, list[str]] = {}
    for method in METHODS:
        recipe = build_recipe({"model": "a/b", "data": "c", "method": method})
        methods.setdefault(_shown(getattr(recipe, field)), []).append(method)
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(
        f"{value} ({', '.join(names)})" for value, names in methods.items() if value != "none set"
    )


def _shown(value: Any) -> str:
    return "none set" if value is None else f"`{to_yaml(plain(value))}`"


if __name__ == "__main__":
    _path = Path(sys.argv[1])
    _path.write_text(with_reference(_path.read_text(encoding="utf-8")), encoding="utf-8")
