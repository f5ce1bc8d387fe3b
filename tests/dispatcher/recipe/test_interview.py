"""`ftcloud init`: few questions, and a file in which every field stands with its comment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.fields import description
from dispatcher.recipe.interview import Question, interview, render
from dispatcher.recipe.load import build_recipe, load_recipe
from dispatcher.recipe.schema import Recipe
from trainer_image.trainer.errors import RecipeError


def answers(**by_field: str) -> Any:
    """An ask function that knows these answers, takes the default of the rest, and notes the questions."""
    asked: list[Question] = []

    def ask(question: Question) -> str:
        asked.append(question)
        return by_field.get(question.field, "")

    ask.asked = asked  # type: ignore[attr-defined]
    return ask


def test_the_questions_are_few_and_only_those_that_flags_leave_open() -> None:
    ask = answers(data="rows.jsonl")
    values = interview({"model": "org/model", "rank": 4}, ask)
    assert [question.field for question in ask.asked] == ["data", "method", "name", "metric"]
    assert values == {
        "model": "org/model",
        "rank": 4,
        "data": "rows.jsonl",
        "method": "lora",
        "name": "model-rows",
        "metric": "auto",
    }


def test_flags_can_answer_everything() -> None:
    ask = answers()
    given_values = {"model": "a/b", "data": "x", "method": "full", "name": "n", "metric": "none"}
    assert interview(given_values, ask) == given_values
    assert ask.asked == []


def test_a_preset_suggests_its_method() -> None:
    ask = answers()
    assert interview({"model": "a/b", "data": "x", "preset": "guide-qlora"}, ask)["method"] == "qlora"


def test_what_has_no_default_must_be_answered() -> None:
    with pytest.raises(RecipeError, match="model is needed"):
        interview({}, answers())


def test_answers_that_are_no_recipe_are_refused() -> None:
    with pytest.raises(RecipeError, match="did you mean 'lora'"):
        interview({"model": "a/b", "data": "x"}, answers(method="lorra"))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_every_field_stands_in_the_file_with_its_comment(method: str) -> None:
    text = render({"model": "org/model", "data": "/data/rows.jsonl", "method": method})
    for field in Recipe.model_fields:
        assert re.search(rf"^# {re.escape(description(field))} \(.*\)\n#?{field}:", text, re.MULTILINE)
    active = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert active == ["model", "method", "data"]


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_uncommenting_every_default_changes_nothing(tmp_path: Path, method: str) -> None:
    text = render({"model": "org/model", "data": "/data/rows.jsonl", "method": method})
    path, all_active = tmp_path / "recipe.yaml", tmp_path / "all.yaml"
    path.write_text(text, encoding="utf-8")
    all_active.write_text(re.sub(r"^#(\w+:)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    assert load_recipe(path) == load_recipe(all_active)


def test_paths_are_written_as_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    text = render({"model": "base", "data": "rows.jsonl", "test_data": "/data/test.jsonl"}, folder)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml")
    assert Path(recipe.model).resolve() == tmp_path / "base"
    assert recipe.data.resolve() == tmp_path / "rows.jsonl"
    assert recipe.test_data == Path("/data/test.jsonl")


HOSTILE = st.one_of(
    st.text(min_size=1),
    st.sampled_from(
        ["{{ 7 * 7 }}", "{% raw %}", "a: b", "# no", "'", '"', "a\nb: c", "- x", "!!int 1", "null", " "]
    ),
).filter(lambda text: "\0" not in text)


@given(model=HOSTILE, data=HOSTILE, names=st.lists(HOSTILE, min_size=1), rate=st.floats(1e-12, 1.0))
def test_any_value_comes_back_from_the_file_as_itself(
    tmp_path_factory: pytest.TempPathFactory, model: str, data: str, names: list[str], rate: float
) -> None:
    values = {"model": "/" + model, "data": "/" + data, "target_modules": names, "learning_rate": rate}
    path = tmp_path_factory.mktemp("init") / "recipe.yaml"
    path.write_text(render(values), encoding="utf-8", newline="")
    assert load_recipe(path) == build_recipe(values)
