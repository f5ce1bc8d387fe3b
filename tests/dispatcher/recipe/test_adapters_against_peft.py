"""Our torch-free counts against the libraries themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatcher.recipe.adapters import FAMILIES, trainable
from dispatcher.recipe.base_model import read_facts
from tests.factories.recipes import make_recipe

pytestmark = pytest.mark.torch

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": SIZES | HEADS,
    "llama-tied": SIZES | HEADS | {"tie_word_embeddings": True},
    "qwen2": SIZES | HEADS,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "gpt_neox": SIZES | {"num_attention_heads": 4},
}


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "attention", "rank": 3, "alpha": 6},
        {"target_modules": "all-linear", "bias": "all"},
        {"target_modules": "all-linear", "bias": "lora_only"},
        {"method": "full"},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_counts_equal_those_of_transformers_and_peft(
    tmp_path: Path, model_type: str, values: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainer_image.trainer.model import count_parameters, resolve_targets

    config = AutoConfig.for_model(model_type.removesuffix("-tied"), **CONFIGS[model_type])
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    recipe = make_recipe(**values)
    ours = trainable(recipe, read_facts(tmp_path))
    if recipe.method != "full":
        assert recipe.target_modules is not None
        targets = resolve_targets(model, recipe.target_modules)
        model = get_peft_model(
            model, LoraConfig(r=recipe.rank, target_modules=targets, bias=recipe.bias, task_type="CAUSAL_LM")
        )
    theirs = count_parameters(model)
    assert ours is not None
    assert (ours.count, ours.total) == (theirs.trainable, theirs.total)


def test_the_words_of_target_modules_are_the_trainers() -> None:
    from trainer_image.trainer import model

    assert dict(FAMILIES) == model.FAMILIES
