"""The optimizer: fp32 master weights, learning rate by step, clipping, and the fp16 loss scale.

Weights of 16 bits lose updates smaller than about 1/256 of themselves, so the optimizer works on fp32
copies of the trained ones, and gradients are summed over micro-batches in fp32 (Micikevicius 2018).
Weight decay spares vectors (norms, biases), which it would only shrink.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from trainer_image.trainer.errors import UsageError
from trainer_image.trainer.spec import OptimSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

BETAS = (0.9, 0.999)
SGD_MOMENTUM = 0.9
FP16_SCALE = 2.0**14
FP16_GROWTH_STEPS = 200


def learning_rate(spec: OptimSpec, step: int, steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of `steps`.

    Warm-up rises linearly over ceil(warmup_ratio * steps) steps, its first step being above 0 and its
    last the full rate; then cosine (Loshchilov 2017, to 0), linear (to 0) or constant.
    """
    warmup = math.ceil(spec.warmup_ratio * steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return spec.learning_rate * shape[spec.scheduler]


class Optimizer:
    """Steps the trainable parameters of a model by fp32 masters where they are of 16 bits."""

    def __init__(self, model: torch.nn.Module, spec: OptimSpec) -> None:
        self.spec = spec
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self._weights = [p for _, p in named]
        self._masters = [_master(p) for p in self._weights]
        self._inner = _build(spec, self._masters)
        fp16 = any(p.dtype == torch.float16 for p in self._weights)
        self.loss_scale = FP16_SCALE if fp16 else 1.0
        self._steps_at_scale = 0

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` to those of this step."""
        torch.autograd.backward(loss * self.loss_scale if self.loss_scale != 1 else loss)
        for weight, master in self._pairs():
            if weight.grad is not None:
                grad, weight.grad = weight.grad.float(), None
                master.grad = grad if master.grad is None else master.grad.add_(grad)

    def step(self, step: int, steps: int) -> tuple[float, float]:
        """Clip, update, forget the gradients. Returns the gradient norm before clipping and the rate.

        With fp16 weights a step whose gradients overflow is left out and the loss scale halved; the
        norm returned is then infinite.
        """
        rate = learning_rate(self.spec, step, steps)
        for group in self._inner.param_groups:
            group["lr"] = rate
        grads = [master.grad for master in self._masters if master.grad is not None]
        if self.loss_scale != 1:
            torch._foreach_div_(grads, self.loss_scale)
        norm = torch.nn.utils.get_total_norm(grads)
        if self.spec.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self._masters, self.spec.max_grad_norm, norm)
        if self.loss_scale == 1 or self._scale_fits(norm):
            self._inner.step()
        self._inner.zero_grad()
        self._copy_down()
        return float(norm), rate

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by parameter name, fp32 where there are masters."""
        return {name: master.detach() for name, master in zip(self.names, self._masters, strict=True)}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put back what `weights` gave, into masters and model. KeyError for a missing name."""
        with torch.no_grad():
            for name, master in zip(self.names, self._masters, strict=True):
                master.copy_(weights[name])
        self._copy_down()

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state and, for fp16, the loss scale."""
        scale = {"loss_scale": self.loss_scale, "steps_at_scale": self._steps_at_scale}
        return {"optimizer": self._inner.state_dict()} | scale

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state["optimizer"])
        self.loss_scale, self._steps_at_scale = state["loss_scale"], state["steps_at_scale"]

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Weights that are trained through a master, with it."""
        return ((w, m) for w, m in zip(self._weights, self._masters, strict=True) if w is not m)

    def _copy_down(self) -> None:
        with torch.no_grad():
            for weight, master in self._pairs():
                weight.copy_(master)

    def _scale_fits(self, norm: torch.Tensor) -> bool:
        """Adapt the loss scale; False where the gradients have overflowed."""
        if not torch.isfinite(norm):
            self.loss_scale, self._steps_at_scale = max(2.0, self.loss_scale / 2), 0
            return False
        self._steps_at_scale += 1
        if self._steps_at_scale >= FP16_GROWTH_STEPS:
            self.loss_scale, self._steps_at_scale = self.loss_scale * 2, 0
        return True


def _master(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    if weight.dtype == torch.float32:
        return weight
    return torch.nn.Parameter(weight.detach().float().clone())


def _build(spec: OptimSpec, weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    decayed = [w for w in weights if w.dim() > 1]
    spared = [w for w in weights if w.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, spec.weight_decay), (spared, 0.0))
        if params
    ]
    match spec.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=BETAS, fused=True)
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=spec.learning_rate)
        case "sgd":
            return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=SGD_MOMENTUM)
        case "adamw_8bit" | "paged_adamw_8bit":
            return _adamw_8bit(spec, groups, on_cpu=weights[0].device.type == "cpu")


def _adamw_8bit(spec: OptimSpec, groups: list[dict[str, Any]], *, on_cpu: bool) -> torch.optim.Optimizer:
    """AdamW with 8-bit moments (Dettmers 2022)."""
    paged = spec.optimizer == "paged_adamw_8bit"
    if paged and on_cpu:
        raise UsageError(
            "paged_adamw_8bit moves its state between GPU and CPU memory; this machine trains on its CPU",
            where="optim.optimizer",
            fix="use adamw, or adamw_8bit",
        )
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            f"{spec.optimizer} needs bitsandbytes: {error}", where="optim.optimizer", fix="use adamw"
        ) from error
    kind = bitsandbytes.optim.PagedAdamW8bit if paged else bitsandbytes.optim.AdamW8bit
    optimizer: torch.optim.Optimizer = kind(groups, lr=spec.learning_rate, betas=BETAS)
    return optimizer
