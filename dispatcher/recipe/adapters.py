"""Which layers of a model get adapters, and how many parameters are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.recipe.base_model import Linear, ModelFacts
from dispatcher.recipe.defaults import SEVEN_PROJECTIONS
from dispatcher.recipe.schema import Recipe

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "expert", "moe"),
    "all-linear": ("",),
}
"""Words of `target_modules`, and what the path of such a layer contains: as the trainer has them (test)."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """What a job trains of its model [parameters]."""

    count: int
    total: int
    """All parameters, adapters included: what PEFT's print_trainable_parameters divides by."""

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.count / self.total if self.total else 0.0


def is_target(name: str, target: str) -> bool:
    """Whether `target` (a name, or a word) means the linear layer `name`.

    A word goes by the path in front of the layer's own name; a name is the whole path or its end.
    """
    if marks := FAMILIES.get(target):
        return any(mark in name.rpartition(".")[0].lower() for mark in marks)
    return name == target or name.endswith("." + target)


def targets(facts: ModelFacts, target_modules: tuple[str, ...]) -> tuple[Linear, ...]:
    """The linear layers of the model that get adapters; never its embeddings or output head."""
    return tuple(
        linear for linear in facts.linears if any(is_target(linear.name, target) for target in target_modules)
    )


def absent(facts: ModelFacts, target_modules: tuple[str, ...]) -> list[str]:
    """The targets that mean no layer of the model."""
    names = [linear.name for linear in facts.linears]
    return [target for target in target_modules if not any(is_target(name, target) for name in names)]


def effective_targets(target_modules: tuple[str, ...], facts: ModelFacts | None) -> tuple[str, ...]:
    """`target_modules`, but `all-linear` for the seven projections of a model that calls them otherwise.

    The seven are the default and mean every linear layer of a block; GPT-2 or Phi have the layers under
    other names, and a default must not fail there.
    """
    if target_modules == SEVEN_PROJECTIONS and facts is not None and absent(facts, target_modules):
        return ("all-linear",)
    return target_modules


def trainable(recipe: Recipe, facts: ModelFacts) -> Trainable | None:
    """Parameters that are trained; None where it cannot be known without the library (experts).

    LoRA: the sum over targeted layers of rank * (in + out). Hu et al. 2021, 4.1: B is out x r, A is
    r x in. Biases come on top where `bias` asks for them. Equals PEFT's count (test).
    """
    if recipe.method == "full":
        return Trainable(facts.parameters, facts.parameters)
    if facts.experts:
        return None
    assert recipe.rank is not None and recipe.target_modules is not None
    chosen = targets(facts, effective_targets(recipe.target_modules, facts))
    lora = recipe.rank * sum(linear.in_plus_out for linear in chosen)
    biases = {"none": 0, "all": facts.biases, "lora_only": sum(linear.bias for linear in chosen)}
    return Trainable(lora + biases[recipe.bias or "none"], facts.parameters + lora)
