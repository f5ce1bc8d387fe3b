"""Documents in one row never see each other, on any decoder, or the rows are padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from trainer_image.trainer import attention
from trainer_image.trainer.attention import Isolation, choose_isolation, isolated, isolates, packed_arguments

pytestmark = pytest.mark.torch

SMALL = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def build(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**SMALL | config)
    return AutoModelForCausalLM.from_config(made, attn_implementation=config.get("attention", "sdpa")).eval()


@pytest.fixture
def llama(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def test_a_plain_decoder_is_cut_into_segments(llama: Any) -> None:
    assert choose_isolation(llama, "sdpa") is Isolation.SEGMENTS


def test_eager_attention_is_isolated_by_positions(llama: Any) -> None:
    llama.set_attn_implementation("eager")
    assert choose_isolation(llama, "eager") is Isolation.POSITIONS


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Mistral", {"sliding_window": 6}),
        ("Mistral", {"sliding_window": 64}),  # longer than any document of the check
        (
            "Gemma3Text",
            {"sliding_window": 6, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
        ),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    ],
)
def test_a_model_with_windows_keeps_them_and_is_isolated_by_positions(
    name: str, config: dict[str, Any]
) -> None:
    assert choose_isolation(build(name, **config), "sdpa") is Isolation.POSITIONS


def test_segments_would_change_a_model_with_windows() -> None:
    """Why the configuration is asked first: short documents do not show that a long window is ignored."""
    assert not isolates(build("Mistral", sliding_window=6), Isolation.SEGMENTS)


def test_a_model_that_carries_state_over_its_row_is_padded() -> None:
    config = transformers.MambaConfig(vocab_size=120, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    mamba = AutoModelForCausalLM.from_config(config).eval()
    assert choose_isolation(mamba, "sdpa") is Isolation.PADDED


def test_the_check_sees_a_leak(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the segments forgotten, attention runs over the whole row."""

    def forgetful(isolation: Isolation, positions: torch.Tensor, lengths: object) -> dict[str, Any]:
        return {"position_ids": positions, "segments": [positions.shape[1]]}

    monkeypatch.setattr(attention, "packed_arguments", forgetful)
    assert not isolates(llama, Isolation.SEGMENTS)


def test_segments_that_are_not_given_are_an_error_and_not_a_leak(llama: Any) -> None:
    with isolated(llama, Isolation.SEGMENTS), pytest.raises(TypeError, match="segments"):
        llama(torch.tensor([[1, 2, 3]]))


def test_the_model_attends_as_before_afterwards(llama: Any) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    before = llama(ids).logits
    with isolated(llama, Isolation.SEGMENTS):
        pass
    assert torch.equal(llama(ids).logits, before)


@pytest.mark.parametrize("way", [Isolation.SEGMENTS, Isolation.POSITIONS])
def test_another_document_in_the_row_changes_nothing(way: Isolation, llama: Any) -> None:
    lengths, positions = [4, 6], torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    row = torch.randint(300, (1, 10), generator=torch.Generator().manual_seed(1))
    other = row.clone()
    other[0, :4] += 1
    with isolated(llama, way), torch.no_grad():
        a, b = (llama(x, **packed_arguments(way, positions, lengths)).logits for x in (row, other))
    assert torch.equal(a[:, 4:], b[:, 4:])
    assert not torch.equal(a[:, :4], b[:, :4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_16_bits_is_not_taken_for_a_leak(dtype: torch.dtype, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).eval()
    assert isolates(model, Isolation.SEGMENTS)
    assert isolates(model, Isolation.POSITIONS)
