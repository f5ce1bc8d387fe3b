"""The forward pass of a LoRA layer with less memory traffic than PEFT's, and the same numbers.

PEFT computes y = W x + s B (A dropout(x)) in passes of their own over tensors as large as x and y: the
dropout mask, its scaling, the scaling by s, the sum. Here the product with B is added into y directly
and both scalings ride on matrix products of rank r. The dropout mask costs a third of torch's on a CPU:
16 random bits an element, four to a draw of the generator, which is one thread's work there.

On 2 cores a training step of a 135M model with rank 16 and dropout 0.05 takes about a quarter less time.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEVELS = 1 << 16


def speed_up(model: PreTrainedModel) -> None:
    """Give the plain LoRA layers of a PEFT model the forward pass of this file, where it is theirs."""
    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(getattr(module, "base_layer", None), nn.Linear):
            module.forward = functools.partial(_forward, module, module.forward)


class LowRankUpdate(torch.autograd.Function):
    """y + scale * B A (keep * x), into y. Shapes: y [N, out], x [N, in], A [r, in], B [out, r].

    `keep` [N, in] is the bool mask of dropout, or None; 1 / (1 - p) belongs into `scale`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        keep: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        low = (x if keep is None else x * keep) @ a.T
        ctx.save_for_backward(x, a, b, keep, low)
        ctx.scale = scale
        ctx.mark_dirty(y)
        return y.addmm_(low, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_y,) = grads
        x, a, b, keep, low = ctx.saved_tensors
        grad_low = (grad_y @ b).mul_(ctx.scale)
        grad_b = (grad_y.T @ low).mul_(ctx.scale)
        grad_a = grad_low.T @ (x if keep is None else x * keep)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = grad_low @ a
            grad_x = grad_x if keep is None else grad_x.mul_(keep)
        return grad_y, grad_x, grad_a, grad_b, None, None


def keep_mask(x: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
    """A mask of the shape of `x`, False with probability p (to 2^-17), and the share that is kept."""
    dropped = round(p * LEVELS)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(1 << 63), None)
    lanes = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return lanes >= dropped - LEVELS // 2, 1 - dropped / LEVELS


def _forward(layer: Any, plain_forward: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    (name, *others) = layer.active_adapters
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    unusual = others or layer.disable_adapters or layer.merged or layer.lora_variant or args or kwargs
    if unusual or x.dtype != a.dtype or layer.lora_B[name].bias is not None:
        out: torch.Tensor = plain_forward(x, *args, **kwargs)
        return out
    flat, scale, keep = x.reshape(-1, x.shape[-1]), layer.scaling[name], None
    y = layer.base_layer(flat)
    p = getattr(layer.lora_dropout[name], "p", 0.0)
    if layer.training and p:
        keep, kept = keep_mask(flat, p)
        scale /= kept
    updated: torch.Tensor = LowRankUpdate.apply(y, flat, a, b, keep, scale)  # type: ignore[no-untyped-call]
    return updated.view(*x.shape[:-1], -1)
