"""Recipes from and to YAML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.defaults import ADAPTER_FIELDS, SEVEN_PROJECTIONS
from dispatcher.recipe.fields import choices, kinds
from dispatcher.recipe.load import build_recipe, dump_recipe, load_recipe
from dispatcher.recipe.schema import Recipe
from tests.factories.recipes import make_recipe
from trainer_image.trainer.errors import RecipeError

BASE = "model: org/model\ndata: rows.jsonl\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_defaults_of_lora_are_the_guides() -> None:
    recipe = make_recipe()
    assert (recipe.method, recipe.rank, recipe.alpha, recipe.dropout, recipe.bias) == (
        "lora",
        16,
        32,
        0.05,
        "none",
    )
    assert recipe.target_modules == SEVEN_PROJECTIONS
    assert (recipe.micro_batch, recipe.grad_accum, recipe.learning_rate) == (8, 4, 2e-4)
    assert (recipe.scheduler, recipe.warmup_ratio, recipe.weight_decay, recipe.max_grad_norm) == (
        "cosine",
        0.1,
        0.01,
        1,
    )
    assert (recipe.epochs, recipe.log_every, recipe.eval_every, recipe.save_every) == (
        3,
        10,
        "epoch",
        "epoch",
    )


def test_the_defaults_of_full_are_the_guides_and_have_no_adapter() -> None:
    recipe = make_recipe(method="full")
    assert (recipe.micro_batch, recipe.grad_accum, recipe.learning_rate) == (4, 4, 2e-5)
    assert all(getattr(recipe, field) is None for field in ADAPTER_FIELDS)


def test_eos_is_appended_and_trained_on_by_default() -> None:
    assert make_recipe().append_eos
    assert make_recipe().train_on_eos


def test_the_guides_qlora_preset_brings_method_rank_and_targets_and_yields_to_what_is_written() -> None:
    recipe = make_recipe(preset="guide-qlora")
    assert (recipe.method, recipe.rank, recipe.alpha) == ("qlora", 8, 16)
    assert recipe.target_modules == ("q_proj", "v_proj")
    assert make_recipe(preset="guide-qlora", rank=4).rank == 4


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", ".0001"])
def test_a_number_in_scientific_notation_is_a_number(write: Any, text: str) -> None:
    assert load_recipe(write(f"{BASE}learning_rate: {text}\n")).learning_rate == 1e-4


def test_words_that_yaml_1_1_reads_as_something_else_are_words(write: Any) -> None:
    recipe = load_recipe(write(f"{BASE}revision: 1e10\nname: 007\nbias: none\neval_every: never\n"))
    assert (recipe.revision, recipe.name, recipe.bias, recipe.eval_every) == ("1e10", "007", "none", "never")


@pytest.mark.parametrize("word", ["no", "off", "false"])
def test_every_way_to_say_no_turns_a_cadence_off(write: Any, word: str) -> None:
    assert load_recipe(write(f"{BASE}eval_every: {word}\n")).eval_every == "never"


def test_a_null_means_the_default(write: Any) -> None:
    assert load_recipe(write(f"{BASE}rank:\nmax_steps: null\n")).rank == 16


def test_targets_may_be_a_list_or_words_with_commas(write: Any) -> None:
    as_list = load_recipe(write(f"{BASE}target_modules: [q_proj, v_proj]\n"))
    as_text = load_recipe(write(f"{BASE}target_modules: q_proj, v_proj\n"))
    assert as_list == as_text
    assert as_list.target_modules == ("q_proj", "v_proj")


def test_paths_are_relative_to_the_recipe_and_those_of_flags_to_the_working_directory(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(write(BASE), {"test_data": "test.jsonl"})
    assert recipe.data == tmp_path / "rows.jsonl"
    assert recipe.test_data == elsewhere / "test.jsonl"


def test_a_model_is_a_folder_where_there_is_one_and_a_hub_id_otherwise(write: Any, tmp_path: Path) -> None:
    assert load_recipe(write(BASE)).model == "org/model"
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert load_recipe(write(BASE)).model == str(tmp_path / "org" / "model")


@pytest.mark.parametrize("text", ["./base", "../base", "a/b/c"])
def test_what_can_only_be_a_path_is_a_path(write: Any, tmp_path: Path, text: str) -> None:
    model = load_recipe(write(f"model: {text}\ndata: x\n")).model
    assert os.path.normpath(model) == os.path.normpath(tmp_path / text)


def test_an_override_wins_and_displaces_the_field_that_it_excludes(write: Any) -> None:
    recipe = load_recipe(write(f"{BASE}grad_accum: 2\nrank: 4\n"), {"global_batch": 64, "rank": 8})
    assert (recipe.rank, recipe.global_batch, recipe.grad_accum, recipe.accumulation()) == (8, 64, None, 8)


def test_a_name_is_made_from_model_and_data() -> None:
    assert make_recipe(model="HuggingFaceTB/SmolLM2-135M").name == "smollm2-135m-orders"


@given(st.text(min_size=1), st.text())
def test_the_name_that_is_made_is_always_a_name(model: str, data: str) -> None:
    recipe = build_recipe({"model": model, "data": "/" + data.replace("\0", "")})
    assert recipe.name


NUMBERS = {int: st.integers(1, 10**6), float: st.floats(1e-9, 0.99), bool: st.booleans()}
TEXT = st.text(min_size=1).filter(lambda text: "\0" not in text)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe: each field left out, or any value of its type."""
    values: dict[str, Any] = {"model": draw(TEXT), "data": "/" + draw(TEXT)}
    for field in Recipe.model_fields:
        options = [st.sampled_from(choices(field))] if choices(field) else []
        options += [NUMBERS[kind] for kind in kinds(field) if kind in NUMBERS]
        if field not in values and options and draw(st.booleans()):
            values[field] = draw(st.one_of(options))
    if draw(st.booleans()):
        values["target_modules"] = draw(st.lists(TEXT, min_size=1))
    if draw(st.booleans()):
        values["revision"] = draw(TEXT)
    if draw(st.booleans()):
        values["test_data"] = "/" + draw(TEXT)
    return build_recipe(_possible(values))


def _possible(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with what contradicts itself mended."""
    if values.get("preset") == "guide-qlora":
        values["method"] = "qlora"
    if values.get("method") == "full":
        for field in (*ADAPTER_FIELDS, "merge"):
            values.pop(field, None)
    if "global_batch" in values:
        values.pop("grad_accum", None)
        values["global_batch"] *= values.setdefault("micro_batch", 8)
    if values.get("eval_every") == "never":
        values.pop("early_stopping", None)
    if values.get("precision") == "fp32":
        values.pop("attention", None)
    return values


@given(recipes())
def test_a_dumped_recipe_reads_back_as_itself(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> None:
    path = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    # A model that looks like a path is made absolute on the first reading; from then on it stays.
    path.write_text(dump_recipe(recipe), encoding="utf-8", newline="")
    once = load_recipe(path)
    assert once.model_copy(update={"model": recipe.model}) == recipe
    path.write_text(dump_recipe(once), encoding="utf-8", newline="")
    assert load_recipe(path) == once


def test_a_recipe_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe") as raised:
        load_recipe(tmp_path / "recipe.yaml")
    assert "ftcloud init" in raised.value.fix


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
