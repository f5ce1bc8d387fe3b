"""A card says what the model is, and nothing that a user wrote can break it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.trainer import card
from trainer_image.trainer.spec import (
    DataSpec,
    EvaluateSpec,
    LoopSpec,
    LoraSpec,
    ModelSpec,
    OptimSpec,
    TrainSpec,
)

SPEC = TrainSpec(
    method="lora",
    model=ModelSpec("/nowhere", None, "fp32", "sdpa", name="org/base"),
    data=DataSpec("train.jsonl", None, "test.jsonl", "chat", 192, "drop", True, "answer", True, True),
    optim=OptimSpec("adamw", 5e-4, 0.1, "linear", 0.0, 1.0),
    loop=LoopSpec(1.0, None, 8, 1, False, 1, "epoch", "epoch", 2, 0, 7),
    evaluate=EvaluateSpec("json", 100, 48),
    lora=LoraSpec(16, 32, 0.0, "none", ("all-linear",)),
    labels={"recipe": "orders", "data": "sha256:abc"},
)
RESULT: dict[str, Any] = {
    "metrics": {
        "train_loss": 0.05,
        "eval_loss": 0.04,
        "tokens": 1000,
        "base": {"rows": 100, "score": 0.0, "standard_error": 0.0},
        "tuned": {"rows": 100, "score": 0.67, "standard_error": 0.047},
    },
    "environment": {"torch": "2.13.0"},
}


def front_matter(text: str) -> dict[str, Any]:
    _, block, _ = text.split("---\n", 2)
    fields: dict[str, Any] = yaml.safe_load(block)
    return fields


def test_a_card_holds_base_method_scores_data_and_environment() -> None:
    text = card.render(SPEC, RESULT, adapter=True)
    assert front_matter(text) == {
        "base_model": "org/base",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["ftcloud", "lora"],
    }
    for fact in ("`16, 32, 0.0`", "| right answers | 0 | 0.67 |", "`sha256:abc`", "`2.13.0`", "PeftModel"):
        assert fact in text


def test_the_card_of_a_merged_model_loads_it_with_transformers_alone() -> None:
    text = card.render(SPEC, RESULT, adapter=False)
    assert front_matter(text)["library_name"] == "transformers"
    assert "peft" not in text.split("## Use")[1].split("## Scores")[0]


def test_the_card_of_a_qlora_adapter_says_that_it_needs_the_4_bit_base() -> None:
    text = card.render(dataclasses.replace(SPEC, method="qlora"), RESULT, adapter=True)
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "quantization_config=nf4" in code


@given(name=st.text(min_size=1), label=st.text())
def test_no_text_of_a_user_breaks_the_front_matter_or_opens_a_section(name: str, label: str) -> None:
    model = dataclasses.replace(SPEC.model, name=name)
    spec = dataclasses.replace(SPEC, model=model, labels={"recipe": label, "data": label})
    text = card.render(spec, RESULT, adapter=False)
    assert front_matter(text)["base_model"] == name
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Use", "## Scores", "## Training", "## Data", "## Environment"]


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# x\n", "apache-2.0"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        (None, None),
    ],
)
def test_the_licence_is_the_one_that_the_base_folder_states(
    tmp_path: Path, readme: str | None, licence: str | None
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    spec = dataclasses.replace(SPEC, model=dataclasses.replace(SPEC.model, path=str(tmp_path)))
    assert front_matter(card.render(spec, RESULT, adapter=True)).get("license") == licence


def test_a_job_without_test_rows_gets_a_card_without_scores(tmp_path: Path) -> None:
    result = {"metrics": {"eval_loss": 0.5, "base": None, "tuned": {"eval_loss": 0.5}}}
    card.write(tmp_path / "README.md", SPEC, result)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Not scored on test rows. Validation loss: 0.5" in text
    assert not list(tmp_path.glob("*.part"))
