"""The cheaper LoRA layer computes what PEFT's does, and drops what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trainer_image.trainer.lora import LowRankUpdate, keep_mask, speed_up

pytestmark = pytest.mark.torch


def peft_model(folder: Path, *, fast: bool, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    lora = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False, **config)
    model = get_peft_model(base, lora, autocast_adapter_dtype=False)
    if fast:
        speed_up(model)
    return model


def gradients(model: Any, ids: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    loss = model(input_ids=ids, labels=ids).loss
    torch.autograd.backward(loss)
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("config", [{}, {"bias": "all"}, {"use_rslora": True}, {"use_dora": True}])
def test_loss_and_gradients_are_those_of_peft(config: dict[str, Any], tiny_model: Path) -> None:
    ids = torch.randint(400, (2, 17), generator=torch.Generator().manual_seed(0))
    loss, wanted = gradients(peft_model(tiny_model, fast=False, **config), ids)
    fast_loss, got = gradients(peft_model(tiny_model, fast=True, **config), ids)
    assert fast_loss == pytest.approx(loss, rel=1e-6)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (got[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max(), name


def test_the_gradient_is_the_derivative_with_a_mask_too() -> None:
    draw = torch.Generator().manual_seed(0)
    x, a, b = (
        torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in ((5, 6), (2, 6), (4, 2))
    )
    y = torch.randn(5, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    keep = torch.rand(5, 6, generator=draw) > 0.3
    assert torch.autograd.gradcheck(
        lambda y, x, a, b: LowRankUpdate.apply(y * 1, x, a, b, keep, 1.7), (y, x, a, b)
    )


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    keep, kept = keep_mask(torch.empty(1001, 333), p)
    assert kept == pytest.approx(1 - p, abs=2**-16)
    assert keep.float().mean().item() == pytest.approx(1 - p, abs=3e-3)  # five standard deviations
    lanes = keep.flatten()[: 333 * 1000].view(-1, 4).float().mean(0)  # four to a draw: none is worse
    assert torch.allclose(lanes, torch.full((4,), 1 - p), atol=1e-2)


def test_dropout_leaves_the_expected_output_as_it_is() -> None:
    torch.manual_seed(0)
    layer = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(8, 8)),
        LoraConfig(r=4, lora_dropout=0.3, target_modules=["0"], init_lora_weights=False),
    )
    speed_up(layer)
    x = torch.ones(1, 8)
    with torch.no_grad():
        dropped = layer.train()(x.expand(40_000, 8)).mean(0)
        kept = layer.eval()(x)[0]
    assert torch.allclose(dropped, kept, atol=0.02)
    assert (kept - layer.get_base_model()[0].base_layer(x)[0]).abs().max() > 0.2  # what would be scaled


def test_dropout_is_active_in_training_only_and_follows_the_seed(tiny_model: Path) -> None:
    model = peft_model(tiny_model, fast=True, lora_dropout=0.5)
    ids = torch.tensor([[5, 6, 7, 8]])

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            out: torch.Tensor = model(input_ids=ids).logits
        return out

    model.train()
    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    model.eval()
    assert torch.equal(logits(1), logits(2))


def test_a_disabled_adapter_is_the_base_model(tiny_model: Path) -> None:
    model = peft_model(tiny_model, fast=True).eval()
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, base(input_ids=ids).logits)
