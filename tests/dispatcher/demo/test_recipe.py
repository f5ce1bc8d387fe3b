"""The demo's recipe is one that ftcloud itself reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.demo.orders import Rows
from dispatcher.demo.recipe import write_demo
from dispatcher.recipe.load import load_recipe


@pytest.mark.parametrize("name", ["model", 'it\'s "my": model # 1'])
def test_the_recipe_loads_and_points_at_the_data_beside_it(tmp_path: Path, name: str) -> None:
    model = tmp_path / name
    model.mkdir()
    recipe = load_recipe(write_demo(tmp_path / "demo", model, seed=3, rows=Rows(40, 4, 10)))
    assert (recipe.model, recipe.method, recipe.metric) == (str(model), "lora", "json")
    assert (recipe.seed, recipe.test_rows) == (3, 10)
    assert recipe.data == tmp_path / "demo" / "data"
    assert {path.name for path in recipe.data.iterdir()} == {"train.jsonl", "validation.jsonl", "test.jsonl"}


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    first = write_demo(tmp_path / "a", tmp_path, seed=5)
    second = write_demo(tmp_path / "b", tmp_path, seed=5)
    assert first.read_bytes() == second.read_bytes()
