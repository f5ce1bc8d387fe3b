"""`ftcloud init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.command import FtCommand
from dispatcher.cli.output import note
from dispatcher.recipe.flags import RecipeCommand, recipe_options
from dispatcher.recipe.interview import Question, interview, render
from trainer_image.trainer.errors import FtcloudError, UsageError


class InitCommand(FtCommand, RecipeCommand):
    """Common options, and recipe flags under their groups."""


@click.command(cls=InitCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="recipe.yaml")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--yes", "-y", is_flag=True, help="Take defaults instead of asking.")
@recipe_options
def init(file: Path, force: bool, yes: bool, overrides: dict[str, Any]) -> None:
    """Write a commented recipe to FILE (recipe.yaml by default).

    Asks for what no flag gives. Every other field stands in the file as a comment with its default.

    \b
    Example:
      ftcloud init --model ./my-model --data orders.jsonl --method lora
    """
    if file.exists() and not force:
        raise UsageError("the file exists", where=str(file), fix="name another file, or add --force")
    ask = _default if yes or not sys.stdin.isatty() else _ask
    text = render(interview(overrides, ask), file.parent)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FtcloudError(f"cannot write: {error.strerror or error}", where=str(file)) from error
    note(f"wrote {file}; next: ftcloud launch {file}")


def _ask(question: Question) -> str:
    choice = click.Choice(question.choices) if question.choices else None
    answer: str = click.prompt(question.prompt, default=question.default, type=choice, err=True)
    return answer


def _default(_question: Question) -> str:
    return ""
