"""From a recipe to the spec of one machine: what `auto` becomes, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.base_model import Linear, ModelFacts
from dispatcher.recipe.resolve import resolve
from dispatcher.recipe.splits import Splits
from tests.factories.recipes import A100, T4, machine, make_facts, make_recipe, make_split, make_splits
from trainer_image.trainer.errors import RecipeError
from trainer_image.trainer.hardware import Hardware
from trainer_image.trainer.spec import Attention, LoraSpec, Metric, Precision, TrainSpec

CPU, FAST_CPU, AMPERE, TURING = machine(), machine(fast_bf16=True), machine(A100), machine(T4)


def spec(
    hardware: Hardware = CPU,
    splits: Splits | None = None,
    facts: ModelFacts | None = None,
    *,
    flash_attn: bool = False,
    **values: Any,
) -> TrainSpec:
    return resolve(make_recipe(**values), hardware, splits or make_splits(), facts, flash_attn=flash_attn)


@pytest.mark.parametrize(
    ("hardware", "stored", "precision"),
    [
        (CPU, "bf16", "fp32"),
        (FAST_CPU, "bf16", "bf16"),
        (FAST_CPU, "fp32", "bf16"),
        (AMPERE, "bf16", "bf16"),
        (AMPERE, "fp16", "bf16"),
        (TURING, "bf16", "fp32"),
        (TURING, "fp32", "fp32"),
        (TURING, "fp16", "fp16"),
    ],
)
def test_precision_is_the_machines_best_that_is_safe(hardware: Hardware, stored: str, precision: str) -> None:
    assert spec(hardware, facts=make_facts(stored=stored)).model.precision == precision


def test_an_unknown_model_is_never_put_into_fp16() -> None:
    assert spec(TURING, facts=None).model.precision == "fp32"


@pytest.mark.parametrize(
    ("hardware", "installed", "values", "attention"),
    [
        (AMPERE, True, {}, "flash"),
        (AMPERE, False, {}, "sdpa"),
        (AMPERE, True, {"precision": "fp32"}, "sdpa"),
        (TURING, True, {}, "sdpa"),
        (CPU, True, {}, "sdpa"),
        (CPU, False, {"attention": "eager"}, "eager"),
        (AMPERE, False, {"attention": "flash"}, "flash"),
    ],
)
def test_flash_attention_is_chosen_only_where_it_is_known_to_run(
    hardware: Hardware, installed: bool, values: dict[str, Any], attention: str
) -> None:
    assert spec(hardware, flash_attn=installed, **values).model.attention == attention


def test_activations_are_recomputed_on_a_gpu_and_on_a_cpu_only_where_ram_is_short() -> None:
    assert spec(AMPERE, facts=make_facts()).loop.grad_ckpt
    assert not spec(machine(ram_gib=64), facts=make_facts()).loop.grad_ckpt
    big = make_facts(parameters=7_000_000_000, layers=32, hidden=4096, intermediate=11008)
    assert spec(machine(ram_gib=32), facts=big).loop.grad_ckpt
    assert spec(machine(ram_gib=64), facts=None).loop.grad_ckpt
    assert not spec(AMPERE, facts=make_facts(), grad_ckpt=False).loop.grad_ckpt


def test_rows_are_packed_unless_the_recipe_says_no() -> None:
    assert spec().data.packing
    assert not spec(packing=False).data.packing


def test_global_batch_becomes_accumulation() -> None:
    assert spec(micro_batch=4, global_batch=32).loop.grad_accum == 8


def test_without_validation_rows_nothing_is_validated() -> None:
    resolved = spec(splits=make_splits(validation=None), eval_every=5)
    assert (resolved.loop.eval_every, resolved.data.validation) == ("never", None)


def test_a_completion_row_is_learned_whole() -> None:
    assert spec(splits=make_splits(format="completion")).data.loss_on == "all"
    assert spec().data.loss_on == "answer"


def test_no_row_is_longer_than_the_models_context() -> None:
    assert spec(facts=make_facts(max_positions=1024)).data.seq_len == 1024
    assert spec(facts=make_facts(max_positions=1024), seq_len=512).data.seq_len == 512


@pytest.mark.parametrize(
    ("splits", "metric"),
    [
        (make_splits(test=None), "none"),
        (make_splits(format="completion"), "none"),
        (make_splits(test=make_split("test", 50, json_answers=50)), "json"),
        (make_splits(test=make_split("test", 50, json_answers=49, longest_answer=20)), "exact"),
        (make_splits(test=make_split("test", 50, longest_answer=64)), "exact"),
        (make_splits(test=make_split("test", 50, longest_answer=65)), "none"),
    ],
)
def test_the_metric_fits_the_expected_answers(splits: Splits, metric: str) -> None:
    assert spec(splits=splits).evaluate.metric == metric


def test_no_more_test_rows_are_scored_than_there_are() -> None:
    assert spec(splits=make_splits(test=make_split("test", 7))).evaluate.rows == 7
    assert spec(test_rows=3).evaluate.rows == 3


def test_full_has_no_adapter_and_the_others_have_the_recipes() -> None:
    assert spec(method="full").lora is None
    assert spec(preset="guide-qlora").lora == LoraSpec(8, 16, 0.05, "none", ("q_proj", "v_proj"))


def test_default_targets_become_all_linear_where_the_model_calls_its_layers_otherwise() -> None:
    gpt2 = make_facts(linears=(Linear("h.0.attn.c_attn", 20, 0),))
    lora = spec(facts=gpt2).lora
    assert lora is not None
    assert lora.target_modules == ("all-linear",)


def test_labels_carry_the_recipe_and_the_data() -> None:
    labels = resolve(make_recipe(name="orders"), CPU, make_splits(), None, labels={"job": "j1"}).labels
    assert labels == {"recipe": "orders", "data": "f" * 64, "job": "j1"}


@pytest.mark.parametrize(
    ("field", "hardware", "values", "splits", "facts", "what"),
    [
        ("precision", CPU, {"precision": "fp16"}, {}, {"stored": "fp16"}, "not for training on a CPU"),
        ("precision", AMPERE, {"precision": "fp16"}, {}, {"stored": "bf16"}, "stored in bf16"),
        ("precision", TURING, {"precision": "bf16"}, {}, {}, "Tesla T4 has no bf16"),
        ("attention", CPU, {"attention": "flash"}, {}, {}, "does not run on a CPU"),
        ("attention", TURING, {"attention": "flash"}, {}, {}, "does not run on Tesla T4"),
        ("optimizer", CPU, {"optimizer": "adamw_8bit"}, {}, {}, "needs an NVIDIA GPU"),
        ("optimizer", CPU, {"optimizer": "paged_adamw_8bit"}, {}, {}, "needs an NVIDIA GPU"),
        ("early_stopping", CPU, {"early_stopping": 1}, {"validation": None}, {}, "there are none"),
        ("target_modules", CPU, {"target_modules": "q_porj"}, {}, {}, "no linear layer 'q_porj'"),
        ("model", CPU, {}, {}, {"quantized": "awq"}, "stored quantized (awq)"),
        ("revision", CPU, {"model": "/models/base", "revision": "main"}, {}, {}, "a folder has no revisions"),
        ("metric", CPU, {"metric": "exact"}, {"test": None}, {}, "needs test rows"),
        ("metric", CPU, {"metric": "exact"}, {"format": "completion"}, {}, "no expected answer"),
        ("metric", CPU, {"metric": "json"}, {}, {}, "100 of 100 expected answers are no JSON"),
    ],
)
def test_what_this_machine_model_or_data_cannot_serve_is_refused_by_its_field(
    field: str,
    hardware: Hardware,
    values: dict[str, Any],
    splits: dict[str, Any],
    facts: dict[str, Any],
    what: str,
) -> None:
    with pytest.raises(RecipeError) as raised:
        spec(hardware, make_splits(**splits), make_facts(**facts), **values)
    assert raised.value.where == field
    assert what in raised.value.what
    assert raised.value.fix


@given(
    hardware=st.sampled_from([CPU, FAST_CPU, AMPERE, TURING]),
    method=st.sampled_from(["full", "lora", "qlora"]),
    facts=st.sampled_from([None, *(make_facts(stored=stored) for stored in ("bf16", "fp16", "fp32"))]),
    validation=st.sampled_from([None, make_split("validation", 10)]),
    test=st.sampled_from([None, make_split("test", 10), make_split("test", 10, json_answers=10)]),
    flash_attn=st.booleans(),
)
def test_a_resolved_recipe_leaves_nothing_open_and_survives_the_journey(
    hardware: Hardware, method: str, facts: ModelFacts | None, validation: Any, test: Any, flash_attn: bool
) -> None:
    resolved = spec(
        hardware, make_splits(validation=validation, test=test), facts, method=method, flash_attn=flash_attn
    )
    assert resolved.model.precision in get_args(Precision)
    assert resolved.model.attention in get_args(Attention)
    assert resolved.evaluate.metric in get_args(Metric)
    assert "auto" not in str(dataclasses.asdict(resolved))
    assert TrainSpec.from_json(resolved.to_json()) == resolved
