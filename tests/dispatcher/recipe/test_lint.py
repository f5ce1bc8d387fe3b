"""Each of the guide's pitfalls is told before anything is spent, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.recipe.lint import CODES, lint
from tests.factories.recipes import A100, machine, make_facts, make_recipe, make_split, make_splits


def codes(
    recipe: dict[str, Any], splits: dict[str, Any], facts: dict[str, Any] | None, gpu: bool = True
) -> list[str]:
    hardware = machine(A100) if gpu else machine()
    known = None if facts is None else make_facts(**facts)
    return [warning.code for warning in lint(make_recipe(**recipe), make_splits(**splits), known, hardware)]


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_recipe_of_defaults_on_ordinary_data_has_no_warning(method: str) -> None:
    assert codes({"method": method}, {}, {}) == []
    assert codes({"method": method}, {}, None) == []


PITFALLS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("epochs-many", {"epochs": 11.0}, {}, {}),
    ("learning-rate-high", {"learning_rate": 1e-3}, {}, {}),
    ("learning-rate-high", {"learning_rate": 1e-3, "method": "qlora"}, {}, {}),
    ("learning-rate-high", {"learning_rate": 1e-4, "method": "full"}, {}, {}),
    ("rows-few", {"grad_accum": 1}, {"train": make_split(rows=99)}, {}),
    ("validation-none", {}, {"validation": None}, {}),
    ("validation-unused", {"eval_every": "never"}, {}, {}),
    ("validation-small", {}, {"validation": make_split("validation", 19)}, {}),
    ("test-small", {}, {"test": make_split("test", 19)}, {}),
    ("duplicates", {}, {"duplicates": 51}, {}),
    ("rows-overlong", {}, {"train": make_split(likely_overlong=1)}, {}),
    ("seq-len-beyond-model", {}, {}, {"max_positions": 1024}),
    ("steps-few", {"global_batch": 1600}, {}, {}),
    ("steps-few", {"max_steps": 19}, {}, {}),
    ("warmup-long", {"warmup_ratio": 0.5}, {}, {}),
    ("save-never", {"save_every": "never"}, {}, {}),
    ("save-late", {"save_every": 95}, {}, {}),
    ("alpha-odd", {"alpha": 80}, {}, {}),
    ("alpha-odd", {"alpha": 7}, {}, {}),
    ("loss-on-prompt", {"loss_on": "all"}, {}, {}),
    ("eos-untrained", {"train_on_eos": False}, {}, {}),
    ("eos-untrained", {"append_eos": False}, {}, {}),
    ("chat-model-on-completion", {}, {"format": "completion"}, {}),
    ("no-chat-template", {}, {"format": "chat"}, {"chat_template": False}),
    ("fp16", {"precision": "fp16"}, {}, {}),
    ("attention-eager", {"attention": "eager"}, {}, {}),
]


@pytest.mark.parametrize(("code", "recipe", "splits", "facts"), PITFALLS)
def test_each_pitfall_has_its_warning(
    code: str, recipe: dict[str, Any], splits: dict[str, Any], facts: dict[str, Any]
) -> None:
    assert codes(recipe, splits, facts) == [code]


@pytest.mark.parametrize(
    ("recipe", "splits", "facts"),
    [
        ({"epochs": 10.0}, {}, {}),
        ({"epochs": 50.0, "max_steps": 100}, {}, {}),
        ({"learning_rate": 9e-4}, {}, {}),
        ({"learning_rate": 9e-5, "method": "full"}, {}, {}),
        ({"grad_accum": 1}, {"train": make_split(rows=100)}, {}),
        ({}, {"duplicates": 50}, {}),
        ({"max_steps": 20}, {}, {}),
        ({"alpha": 64}, {}, {}),
        ({"alpha": 8}, {}, {}),
        ({"save_every": 94}, {}, {}),
        ({"loss_on": "all"}, {"format": "completion"}, {"chat_template": False}),
    ],
)
def test_just_below_each_limit_there_is_no_warning(
    recipe: dict[str, Any], splits: dict[str, Any], facts: dict[str, Any]
) -> None:
    assert codes(recipe, splits, facts) == []


def test_a_cpu_is_told_what_costs_it_time() -> None:
    assert codes({"method": "qlora"}, {}, {}, gpu=False) == ["qlora-on-cpu"]
    assert codes({"precision": "bf16"}, {}, {}, gpu=False) == ["bf16-slow"]


def test_every_warning_says_what_to_write_instead() -> None:
    worst = lint(
        make_recipe(
            epochs=50.0, learning_rate=1e-3, train_on_eos=False, loss_on="all", warmup_ratio=0.9, alpha=1000
        ),
        make_splits(train=make_split(rows=9, likely_overlong=1), validation=None, test=make_split("test", 1)),
        make_facts(max_positions=16),
        machine(),
    )
    assert len(worst) >= 10
    assert all(warning.message and warning.fix for warning in worst)
    assert len({warning.code for warning in worst}) == len(worst)


def test_every_code_is_given_by_some_test_here() -> None:
    assert {code for code, *_ in PITFALLS} | {"qlora-on-cpu", "bf16-slow"} == set(CODES)
