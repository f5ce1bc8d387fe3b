"""The optimizer: rates by step, masters of 16-bit weights, clipping, and what a checkpoint of it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.trainer.errors import UsageError
from trainer_image.trainer.optim import FP16_SCALE, Optimizer, learning_rate
from trainer_image.trainer.spec import OptimSpec, TrainSpec

pytestmark = pytest.mark.torch


@pytest.fixture
def spec(make_spec: Callable[..., TrainSpec]) -> Callable[..., OptimSpec]:
    def make(**changes: Any) -> OptimSpec:
        return make_spec(**{f"optim__{name}": value for name, value in changes.items()}).optim

    return make


def test_the_rate_rises_to_the_full_one_and_falls_by_a_cosine(spec: Callable[..., OptimSpec]) -> None:
    rates = [learning_rate(spec(learning_rate=1.0, warmup_ratio=0.2), step, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + torch.cos(torch.tensor(torch.pi * 7 / 8)).item()))


@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.integers(1, 300),
    st.floats(0, 1),
    st.data(),
)
def test_no_step_is_wasted_on_a_rate_of_zero_or_above_the_full_one(
    scheduler: Any, steps: int, warmup: float, data: st.DataObject
) -> None:
    spec = OptimSpec("adamw", 3e-4, warmup, scheduler, 0.0, 1.0)
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < learning_rate(spec, step, steps) <= 3e-4


def layer(dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 65, dtype=dtype)  # 4,160 weights: bitsandbytes leaves tensors < 4,096 in fp32


def descend(model: torch.nn.Linear, optimizer: Optimizer, steps: int, start: int = 0) -> list[float]:
    """Steps towards a map that negates; returns the losses."""
    losses = []
    for step in range(start, start + steps):
        x = torch.randn(16, 64, generator=torch.Generator().manual_seed(step)).to(model.weight.dtype)
        loss = (model(x).float()[:, :64] + x.float()).square().mean()
        optimizer.backward(loss)
        optimizer.step(step, 100)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor", "sgd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_optimizer_learns_and_goes_on_from_its_saved_state_bit_for_bit(
    name: Any, dtype: torch.dtype, spec: Callable[..., OptimSpec]
) -> None:
    settings = spec(optimizer=name, learning_rate=0.01 if name != "sgd" else 1.0, warmup_ratio=0.0)
    model = layer(dtype)
    optimizer = Optimizer(model, settings)
    losses = descend(model, optimizer, 4)
    assert losses[-1] < losses[0]
    weights = {key: value.clone() for key, value in optimizer.weights().items()}
    state = torch.utils._pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, optimizer.state_dict()
    )
    straight = descend(model, optimizer, 3, start=4)
    other = layer(dtype)
    resumed = Optimizer(other, settings)
    resumed.load_weights(weights)
    resumed.load_state_dict(state)
    assert descend(other, resumed, 3, start=4) == straight
    assert torch.equal(other.weight, model.weight)


def test_small_updates_of_bf16_weights_are_not_lost(spec: Callable[..., OptimSpec]) -> None:
    settings = spec(learning_rate=1e-5, warmup_ratio=0.0, scheduler="constant", weight_decay=0.0)
    model = layer(torch.bfloat16)
    start = model.weight.detach().float().clone()
    optimizer = Optimizer(model, settings)
    descend(model, optimizer, 30)
    moved = (optimizer.weights()["weight"] - start).abs().mean()
    assert moved > 5e-5  # 30 steps of about 1e-5, each far below bf16's resolution of these weights
    assert model.weight.dtype == torch.bfloat16
    assert torch.equal(model.weight, optimizer.weights()["weight"].bfloat16())


def test_gradients_of_micro_batches_are_summed_in_fp32(spec: Callable[..., OptimSpec]) -> None:
    model = layer(torch.bfloat16)
    optimizer = Optimizer(
        model, spec(optimizer="sgd", learning_rate=1.0, max_grad_norm=0.0, warmup_ratio=0.0)
    )
    for _ in range(1000):
        optimizer.backward(model.bias.float().sum() / 1000)  # in bf16 the sum would stop at about 0.25
    norm, _ = optimizer.step(0, 1)
    assert norm == pytest.approx(65**0.5, rel=5e-3)


def test_weight_decay_spares_vectors(spec: Callable[..., OptimSpec]) -> None:
    model = layer()
    before = model.bias.detach().clone(), model.weight.detach().clone()
    optimizer = Optimizer(model, spec(optimizer="sgd", weight_decay=0.5, learning_rate=0.1, warmup_ratio=0.0))
    optimizer.backward(0.0 * model(torch.zeros(1, 64)).sum())
    optimizer.step(0, 1)
    assert torch.equal(model.bias, before[0])
    assert torch.allclose(model.weight, before[1] * 0.95)


def test_the_norm_is_clipped_and_reported_unclipped(spec: Callable[..., OptimSpec]) -> None:
    model = layer()
    start = model.bias.detach().clone()
    optimizer = Optimizer(
        model, spec(optimizer="sgd", learning_rate=1.0, warmup_ratio=0.0, max_grad_norm=1.0, weight_decay=0.0)
    )
    optimizer.backward(100 * model.bias.sum())
    norm, _ = optimizer.step(0, 1)
    assert norm == pytest.approx(100 * 65**0.5)
    assert (model.bias - start).norm().item() == pytest.approx(1.0, rel=1e-4)


def test_an_fp16_step_that_overflows_is_left_out_and_the_scale_halved(spec: Callable[..., OptimSpec]) -> None:
    model = layer(torch.float16)
    optimizer = Optimizer(model, spec(optimizer="sgd", learning_rate=0.1, warmup_ratio=0.0))
    before = model.weight.detach().clone()
    optimizer.backward(model.weight.float().sum() * 100)  # times the scale it is beyond 65,504
    optimizer.step(0, 10)
    assert torch.equal(model.weight, before)
    assert optimizer.loss_scale == FP16_SCALE / 2
    assert optimizer.state_dict()["loss_scale"] == FP16_SCALE / 2
    optimizer.backward(model.weight.float().sum())
    norm, _ = optimizer.step(1, 10)
    assert norm == pytest.approx(4160**0.5, rel=1e-3)
    assert not torch.equal(model.weight, before)


def test_paged_moments_are_refused_on_a_cpu(spec: Callable[..., OptimSpec]) -> None:
    with pytest.raises(UsageError, match="trains on its CPU"):
        Optimizer(layer(), spec(optimizer="paged_adamw_8bit"))
