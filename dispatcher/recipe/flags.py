"""A command-line flag for every field of the recipe.

    @click.command(cls=RecipeCommand)
    @click.argument("recipe", type=click.Path(path_type=Path))
    @recipe_options
    def launch(recipe: Path, overrides: dict[str, Any]) -> None: ...

Only fields that were given arrive in `overrides`, ready for `load.load_recipe`. A flag's text means what
it would mean as a value in the file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import click

from dispatcher.recipe.fields import accepted, choices, description, flag, group, kinds
from dispatcher.recipe.load import TEXT_FIELDS
from dispatcher.recipe.schema import GROUPS, Recipe
from dispatcher.recipe.written import scalar

P = ParamSpec("P")
R = TypeVar("R")

PREFIX: Final = "recipe_"
"""Before the parameter's name, so that no field can meet a command's own parameter."""
ALIASES: Final = {"target_modules": "--targets"}
"""Shorter names for flags, the words of `ftcloud plan` and `estimate`."""


class RecipeOption(click.Option):
    """An option that stands for a field of the recipe."""

    def __init__(self, param_decls: Sequence[str], *, field: str, **attributes: Any) -> None:
        super().__init__(param_decls, help=description(field), **attributes)
        self.field = field


class RecipeCommand(click.Command):
    """A command whose help lists recipe flags under their groups, after its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Options", *GROUPS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                heading = group(parameter.field) if isinstance(parameter, RecipeOption) else "Options"
                sections[heading].append(record)
        for heading, records in sections.items():
            if records:
                title = heading if heading == "Options" else f"Recipe: {heading}"
                with formatter.section(title):
                    formatter.write_dl(records)


def recipe_options(command: Callable[P, R]) -> Callable[..., R]:
    """Give `command` a flag for every field; those given arrive as its keyword argument `overrides`."""

    @functools.wraps(command)
    def with_overrides(*args: Any, **kwargs: Any) -> R:
        flags = {key: kwargs.pop(key) for key in list(kwargs) if key.startswith(PREFIX)}
        overrides = {key.removeprefix(PREFIX): value for key, value in flags.items() if value is not None}
        return command(*args, overrides=overrides, **kwargs)  # type: ignore[arg-type]

    wrapped: Callable[..., R] = with_overrides
    for field in reversed(Recipe.model_fields):
        wrapped = _option(field)(wrapped)
    return wrapped


def _option(field: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """The decorator that adds the option of `field`."""
    name, words = flag(field), choices(field)
    attributes: dict[str, Any] = {"default": None}
    declarations = [name, *([ALIASES[field]] if field in ALIASES else [])]
    if bool in kinds(field):
        declarations = [f"{name}/--no-{name.removeprefix('--')}"]
    elif words and not kinds(field):
        attributes["type"] = click.Choice(words)
    else:
        attributes["callback"] = functools.partial(_parsed, field)
        attributes["metavar"] = _metavar(field)

    def add(command: Callable[..., R]) -> Callable[..., R]:
        return click.option(*declarations, PREFIX + field, cls=RecipeOption, field=field, **attributes)(
            command
        )

    return add


def _parsed(field: str, _context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    return None if text is None else scalar(text, as_text=field in TEXT_FIELDS)


def _metavar(field: str) -> str:
    """`epoch|never|N`, `NUMBER`, `NAMES`, `PATH` or `TEXT`."""
    names = {"a whole number": "N", "a number": "NUMBER", "names": "NAMES", "a path": "PATH", "text": "TEXT"}
    kind = accepted(field).rpartition(" or ")[2] if choices(field) else accepted(field)
    value = next(name for words, name in names.items() if kind.startswith(words))
    return "|".join([*choices(field), value])
