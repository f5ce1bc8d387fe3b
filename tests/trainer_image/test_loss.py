"""Layout is not mathematics: packed, padded or cut otherwise, a step has one loss and one gradient."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from trainer_image.trainer.attention import Isolation, isolated
from trainer_image.trainer.batches import Example, collate, micro_batches
from trainer_image.trainer.loss import TokenLoss

pytestmark = pytest.mark.torch


@pytest.fixture
def llama(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def rows(count: int = 8) -> list[Example]:
    draw = random.Random(0)
    made = []
    for _ in range(count):
        n = draw.randint(2, 40)
        made.append(
            Example([draw.randrange(5, 400) for _ in range(n)], bytes([0, *draw.choices([0, 1], k=n - 1)]))
        )
    return made


def step_loss(
    model: Any, examples: list[Example], micro_batch: int, isolation: Isolation, *, keeps: bool = True
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one step, accumulated over its micro-batches as the trainer does."""
    model.zero_grad()
    loss = TokenLoss(model, model, isolation, keeps)
    packing = isolation is not Isolation.PADDED
    tokens = sum(example.loss_tokens for example in examples)
    total = 0.0
    with isolated(model, isolation):
        for pile in micro_batches(examples, micro_batch, packing=packing):
            part = loss.sum(collate(pile, 0, packing=packing)) / tokens
            torch.autograd.backward(part)
            total += float(part.detach())
    return total, [parameter.grad.clone() for parameter in model.parameters()]


def reference(model: Any, examples: list[Example]) -> float:
    """Each document by itself, the loss as transformers computes it."""
    total = tokens = 0.0
    for example in examples:
        ids = torch.tensor([list(example.ids)])
        labels = torch.where(torch.tensor([list(example.target)]) == 1, ids, -100)
        if example.loss_tokens:
            total += float(model(ids, labels=labels).loss.detach()) * example.loss_tokens
            tokens += example.loss_tokens
    return total / tokens


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("micro_batch", [8, 3, 1])
def test_every_layout_has_the_loss_and_gradient_of_the_documents_alone(
    isolation: Isolation, micro_batch: int, llama: Any
) -> None:
    examples = rows()
    wanted_loss, wanted = step_loss(llama, examples, 1, Isolation.PADDED)
    loss, gradients = step_loss(llama, examples, micro_batch, isolation)
    assert loss == pytest.approx(reference(llama, examples), rel=1e-5)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)


def test_logits_are_made_at_learned_positions_only(llama: Any) -> None:
    seen: list[int] = []
    llama.lm_head.register_forward_hook(lambda _module, _inputs, out: seen.append(out.shape[1]))
    examples = rows()
    with isolated(llama, Isolation.SEGMENTS):
        TokenLoss.of(llama, llama, Isolation.SEGMENTS).sum(collate(examples, 0, packing=True))
    assert seen == [sum(example.loss_tokens for example in examples)]


@pytest.mark.parametrize("isolation", [Isolation.SEGMENTS, Isolation.PADDED])
def test_a_model_that_cannot_leave_logits_out_has_the_same_loss(isolation: Isolation, llama: Any) -> None:
    examples = rows()
    kept, _ = step_loss(llama, examples, 4, isolation)
    full, _ = step_loss(llama, examples, 4, isolation, keeps=False)
    assert full == pytest.approx(kept, rel=1e-6)


def test_another_architecture_has_the_same_loss_packed_and_padded() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    gpt2 = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    packed, _ = step_loss(gpt2, rows(), 8, Isolation.SEGMENTS)
    assert packed == pytest.approx(reference(gpt2, rows()), rel=1e-5)
