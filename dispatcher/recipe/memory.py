"""A rough, deliberately high bound on a job's memory: only good for "does it fit the RAM with room"."""

from __future__ import annotations

from typing import Final

from dispatcher.recipe.adapters import trainable
from dispatcher.recipe.base_model import ModelFacts
from dispatcher.recipe.schema import Recipe
from trainer_image.trainer.hardware import GIB
from trainer_image.trainer.spec import Precision

BYTES: Final[dict[Precision, int]] = {"bf16": 2, "fp16": 2, "fp32": 4}
STATE_BYTES: Final = 16
"""A trained parameter: gradient, fp32 master and AdamW's two fp32 moments."""
CHARACTERS_PER_TOKEN_AT_LEAST: Final = 2


def weights_gib(recipe: Recipe, facts: ModelFacts, precision: Precision) -> float:
    """Weights, and gradients and optimizer state of what is trained [GiB]. Four bits are not counted on."""
    trained = trainable(recipe, facts)
    count = trained.count if trained else facts.parameters
    return (facts.parameters * BYTES[precision] + count * STATE_BYTES) / GIB


def activations_gib(
    recipe: Recipe, facts: ModelFacts, precision: Precision, longest_characters: int
) -> float:
    """Activations of one micro-batch kept for the backward pass, without checkpointing [GiB].

    66 h + 15 f bytes a token and layer in 16 bits (hidden size h, MLP size f), with adapters on every
    linear layer of a Llama-shaped block; full fine-tuning keeps less. Obtained by counting the
    tensors that autograd saves in transformers' Llama.
    """
    tokens = recipe.micro_batch * min(
        recipe.seq_len, longest_characters // CHARACTERS_PER_TOKEN_AT_LEAST + 64
    )
    per_token = facts.layers * (66 * facts.hidden + 15 * facts.intermediate)
    return tokens * per_token * BYTES[precision] / 2 / GIB
