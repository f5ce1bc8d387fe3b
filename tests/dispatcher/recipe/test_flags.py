"""Every field is a flag, and a flag means what the same text means in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dispatcher.recipe.fields import choices, description, flag, kinds
from dispatcher.recipe.flags import RecipeCommand, recipe_options
from dispatcher.recipe.load import load_recipe
from dispatcher.recipe.schema import GROUPS, Recipe


@click.command(cls=RecipeCommand)
@click.argument("recipe")
@click.option("--yes", is_flag=True, help="Do not ask.")
@recipe_options
def launch(recipe: str, yes: bool, overrides: dict[str, Any]) -> None:
    click.echo(json.dumps([recipe, yes, overrides]))


def overrides(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(launch, ["recipe.yaml", *arguments])
    assert result.exit_code == 0, result.output
    recipe, _, given = json.loads(result.output)
    assert recipe == "recipe.yaml"
    assert isinstance(given, dict)
    return given


def test_only_flags_that_are_given_override() -> None:
    assert overrides() == {}
    assert overrides("--yes", "--rank", "8") == {"rank": 8}


EXAMPLES = {int: "8", float: "0.5", str: "text", Path: "a/b.jsonl", tuple: "q_proj,v_proj"}


@pytest.mark.parametrize("field", Recipe.model_fields)
def test_a_flag_means_what_its_text_means_in_the_file(tmp_path: Path, field: str) -> None:
    words = choices(field) or ["false"]
    text = next((EXAMPLES[kind] for kind in kinds(field) if kind in EXAMPLES), words[-1])
    arguments = [flag(field), text]
    if bool in kinds(field):
        text, arguments = "false", [f"--no-{flag(field)[2:]}"]
    given = overrides(*arguments)
    assert list(given) == [field]
    as_flag, as_file = (tmp_path / name for name in ("flag.yaml", "file.yaml"))
    base = "".join(f"{key}: /{key}\n" for key in ("model", "data") if key != field)
    as_flag.write_text(base + ("" if field not in ("model", "data") else f"{field}: other\n"))
    as_file.write_text(f"{base}{field}: {text}\n")
    value = getattr(load_recipe(as_flag, given), field)
    expected = getattr(load_recipe(as_file), field)
    if isinstance(value, Path):  # a flag's path is relative to the working directory
        value, expected = value.relative_to(Path.cwd()), expected.relative_to(tmp_path)
    assert value == expected


def test_numbers_lists_and_switches_are_read_as_in_yaml() -> None:
    numbers = ["--learning-rate", "1e-4", "--eval-every", "5", "--save-every", "never"]
    switches = ["--no-packing", "--grad-ckpt"]
    given = overrides(*numbers, *switches, "--targets", "q_proj,v_proj", "--revision", "1e10")
    assert given == {
        "learning_rate": 1e-4,
        "eval_every": 5,
        "save_every": "never",
        "packing": False,
        "grad_ckpt": True,
        "target_modules": "q_proj,v_proj",
        "revision": "1e10",
    }


def test_an_unknown_word_is_refused_with_those_that_are_known() -> None:
    result = CliRunner().invoke(launch, ["recipe.yaml", "--method", "lorra"])
    assert result.exit_code == 2
    assert "'full', 'lora', 'qlora'" in result.output


def test_help_lists_every_field_under_its_group() -> None:
    text = CliRunner().invoke(launch, ["--help"], terminal_width=300).output
    for field in Recipe.model_fields:
        assert f"{flag(field)} " in text or f"{flag(field)}," in text
        assert " ".join(description(field).split()) in " ".join(text.split())
    positions = [text.index(f"Recipe: {group}:") for group in GROUPS]
    assert positions == sorted(positions)
    assert text.index("--yes") < positions[0]
