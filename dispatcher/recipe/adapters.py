"""Which layers of a model get adapters, and how many parameters are trained."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.recipe.base_model import Linear, ModelFacts
from dispatcher.recipe.schema import Recipe

ATTENTION_PARTS = ("attn", "attention")
MLP_PARTS = ("mlp", "ffn", "feed_forward", "fc1", "fc2", "moe", "experts")


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


def is_target(name: str, target_modules: tuple[str, ...]) -> bool:
    """Whether the linear layer `name` gets an adapter: PEFT's rule for names, ours for the words.

    A name matches the whole module path, or its end behind a dot.
    """
    match target_modules:
        case ("all-linear",):
            return True
        case ("attention",):
            return _has_part(name, ATTENTION_PARTS)
        case ("mlp",):
            return _has_part(name, MLP_PARTS) and not _has_part(name, ATTENTION_PARTS)
    return any(name == target or name.endswith("." + target) for target in target_modules)


def targets(facts: ModelFacts, target_modules: tuple[str, ...]) -> tuple[Linear, ...]:
    """The linear layers of the model that get adapters; never its embeddings or output head."""
    return tuple(linear for linear in facts.linears if is_target(linear.name, target_modules))


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
    chosen = targets(facts, recipe.target_modules)
    lora = recipe.rank * sum(linear.in_plus_out for linear in chosen)
    biases = {"none": 0, "all": facts.biases, "lora_only": sum(linear.bias for linear in chosen)}
    return Trainable(lora + biases[recipe.bias or "none"], facts.parameters + lora)


def _has_part(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in piece for piece in name.lower().split(".") for part in parts)
