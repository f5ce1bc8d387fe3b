"""What a user reads when a recipe is wrong: the line, the field, what is wrong, what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.load import load_recipe
from trainer_image.trainer.errors import ExitCode, RecipeError

BASE = "model: org/model\ndata: rows.jsonl\n"


def refused(path: Path, text: str) -> RecipeError:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert raised.value.exit_code == ExitCode.USAGE
    return raised.value


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        (BASE + "learning_rat: 1e-4", 3, "unknown field 'learning_rat'", "did you mean 'learning_rate'?"),
        (BASE + "learning-rate: 1e-4", 3, "unknown field 'learning-rate'", "did you mean 'learning_rate'?"),
        (BASE + "zzz: 1", 3, "unknown field 'zzz'", ""),
        (BASE + "method: lorra", 3, "method: 'lorra' is not full, lora or qlora", "did you mean 'lora'?"),
        (BASE + "bias: no", 3, "bias: 'no' is not none, all or lora_only", "did you mean 'none'?"),
        (BASE + "optimizer: adamw-8bit", 3, "optimizer: 'adamw-8bit' is not", "did you mean 'adamw_8bit'?"),
        (BASE + "\nwarmup_ratio: 1.5", 4, "warmup_ratio: 1.5 is not a number from 0 to below 1", ""),
        (BASE + "epochs: 0", 3, "epochs: 0 is not a number above 0", ""),
        (BASE + "epochs: true", 3, "epochs: True is not a number above 0", ""),
        (BASE + "rank: 8.5", 3, "rank: 8.5 is not a whole number from 1", ""),
        (BASE + "learning_rate: .nan", 3, "learning_rate: nan is not a number above 0", ""),
        (BASE + "learning_rate: .inf", 3, "learning_rate: inf is not a number above 0", ""),
        (BASE + "eval_every: 0", 3, "eval_every: 0 is not epoch, never or a whole number from 1", ""),
        (BASE + "merge: perhaps", 3, "merge: 'perhaps' is not true or false", ""),
        (BASE + "name: a:b", 3, "name 'a:b' is not a name", "a letter or digit at both ends"),
        (BASE + "target_modules: []", 3, "target_modules: [] is not names", ""),
        ("data: x", None, "model is missing", "hub id"),
        ("model: a/b", None, "data is missing", "train.jsonl"),
        (BASE + "rank: 1\nrank: 2", 4, "rank is there twice", "recipe.yaml:3"),
        (BASE + "seed: {{ x }}", 3, "seed holds fields of its own", "seed: VALUE"),
        (BASE + "seed: [[1]]", 3, "seed", ""),
        ("- model", None, "a recipe is a list of `field: value` lines", "ftcloud init"),
        ("", None, "a recipe is a list of `field: value` lines", "ftcloud init"),
        (BASE + "name: 'a", 3, "not YAML", ""),
        (BASE + "\tname: a", 3, "not YAML", ""),
        (BASE + "---\nname: a", 3, "not YAML", ""),
        (BASE + "? [a]\n: b", 3, "a field's name must be a plain word", ""),
        (BASE + "seed: !!int many", 3, "seed: 'many' is not int", ""),
        (
            BASE + "name: !!python/object/apply:os.system [id]",
            3,
            "the tag tag:yaml.org,2002:python",
            "plain text",
        ),
        (BASE + "name: !mine x", 3, "the tag !mine is not read", ""),
        # Combinations.
        (BASE + "method: full\nrank: 8", 4, "rank has no meaning with method full", "method: lora"),
        (BASE + "method: full\ntarget_modules: mlp", 4, "target_modules has no meaning", "method: lora"),
        (BASE + "method: full\nmerge: false", 4, "method full has no adapter", "remove merge"),
        (
            BASE + "preset: guide-qlora\nmethod: full",
            3,
            "guide-qlora is for method qlora, not full",
            "method: qlora",
        ),
        (
            BASE + "preset: guide-qlora\nmethod: lora",
            3,
            "guide-qlora is for method qlora, not lora",
            "preset: none",
        ),
        (BASE + "grad_accum: 2\nglobal_batch: 32", 4, "the same thing twice", "remove one"),
        (
            BASE + "micro_batch: 4\nglobal_batch: 13",
            4,
            "13 is not a multiple of micro_batch 4",
            "global_batch: 12",
        ),
        (
            BASE + "early_stopping: 2\neval_every: never",
            3,
            "early stopping needs validations",
            "eval_every: epoch",
        ),
        (
            BASE + "validation_data: v\nvalidation_fraction: 0.1",
            4,
            "validation_fraction is for data without",
            "remove",
        ),
        (
            BASE + "attention: flash\nprecision: fp32",
            3,
            "flash attention computes in bf16",
            "attention: sdpa",
        ),
    ],
)
def test_each_mistake_names_its_line_and_what_to_write(
    tmp_path: Path, text: str, line: int | None, what: str, fix: str
) -> None:
    path = tmp_path / "recipe.yaml"
    error = refused(path, text)
    assert error.where == (f"{path}:{line}" if line else str(path))
    assert what in error.what
    assert fix in error.fix


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path / "recipe.yaml", BASE + "rank: 0\nepochs: -1\n")
    assert "rank" in str(error)
    assert "recipe.yaml:4: epochs" in str(error)


def test_a_mistake_in_an_override_names_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE, encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, {"learning_rate": -1.0})
    assert raised.value.where == "--learning-rate"


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(path)


@given(st.text())
def test_no_text_whatever_escapes_the_errors_meant_for_users(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "recipe.yaml"
    path.write_text(BASE + text, encoding="utf-8", newline="")
    try:
        load_recipe(path)
    except RecipeError as error:
        assert error.what
