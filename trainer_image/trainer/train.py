"""The training loop, top to bottom.

What a step does depends on nothing but the weights, the optimizer's state and the step number: the rows
come from `batches`, dropout is seeded anew for each micro-batch, the learning rate is a formula. So a
run that was killed anywhere and resumed from its last checkpoint is the run that was not, bit for bit on
CPU, and nothing but numbers needs saving.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainer_image.trainer.attention import Isolation, isolated
from trainer_image.trainer.batches import Example, Plan, collate, micro_batches
from trainer_image.trainer.checkpoint import Checkpoint, CheckpointFolder
from trainer_image.trainer.errors import FtcloudError
from trainer_image.trainer.loss import TokenLoss
from trainer_image.trainer.optim import Optimizer
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.run import Preempted
from trainer_image.trainer.spec import Cadence, LoopSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True)
class TrainState:
    """All counters of the loop; saved with every checkpoint as plain JSON."""

    step: int = 0
    tokens: int = 0
    """Trained on, prompts included, pads not."""
    seconds: float = 0.0
    """Spent in optimizer steps, over all attempts."""
    window_loss: float = 0.0
    window_tokens: int = 0
    train_loss: float | None = None
    """Mean over the learned tokens of the last logged window of steps [nats/token]."""
    validated_step: int | None = None
    base_eval_loss: float | None = None
    """Validation loss before the first step."""
    eval_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    """Validations since the best one."""
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: everything that the loop uses but does not change."""

    loop: LoopSpec
    plan: Plan
    model: PreTrainedModel
    loss: TokenLoss
    optimizer: Optimizer
    train: Sequence[Example]
    validation: Sequence[Example]
    pad_id: int
    checkpoints: CheckpointFolder
    reporter: Reporter
    asked_to_stop: Callable[[], bool]

    @property
    def packing(self) -> bool:
        return self.loss.isolation is not Isolation.PADDED


def resume(run: Run) -> TrainState:
    """Bring model and optimizer to the newest whole checkpoint, or leave them where a run begins."""
    found = run.checkpoints.newest()
    if found is None:
        return TrainState()
    run.optimizer.load_weights(found.weights)
    run.optimizer.load_state_dict(found.optimizer)
    return TrainState(**found.state)


def train(run: Run, state: TrainState) -> None:
    """Train from `state` to the end, counting in `state`.

    The model is left with the weights of the best validation, or the last ones where nothing was
    validated. Raises Preempted once `asked_to_stop`, after the running step and with a checkpoint;
    FtcloudError when the loss is no number any more.
    """
    saved = state.step
    with isolated(run.loss.base, run.loss.isolation):
        while True:
            if run.validation and _due(run.loop.eval_every, state.step, run.plan, ends=True):
                _validate(run, state)
            ended = state.step == run.plan.steps or state.stopped_early
            wanted = _due(run.loop.save_every, state.step, run.plan, ends=False)
            best_now = state.best_step == state.step
            if state.step != saved and (wanted or best_now or (ended and run.loop.save_every != "never")):
                _save(run, state)
                saved = state.step
            if run.asked_to_stop():
                if state.step != saved:
                    _save(run, state)
                raise Preempted
            if ended:
                break
            _step(run, state)
    _take_best(run, state)


def _due(cadence: Cadence, step: int, plan: Plan, *, ends: bool) -> bool:
    """Whether what is done every `cadence` is due after `step`; `ends` answers for step 0 and the last."""
    if step in (0, plan.steps):
        return ends
    if cadence == "never":
        return False
    return step % (plan.steps_per_epoch if cadence == "epoch" else cadence) == 0


def _step(run: Run, state: TrainState) -> None:
    """One optimizer step over one global batch."""
    began = time.perf_counter()
    rows = [run.train[i] for i in run.plan.rows_of(state.step)]
    loss_tokens = sum(row.loss_tokens for row in rows)
    run.model.train()
    total = torch.zeros((), device=run.model.device)
    for micro, examples in enumerate(micro_batches(rows, run.loop.micro_batch, packing=run.packing)):
        torch.manual_seed(_dropout_seed(run.loop.seed, state.step, micro))
        loss = run.loss.sum(collate(examples, run.pad_id, packing=run.packing))
        run.optimizer.backward(loss / loss_tokens)
        total += loss.detach()
    loss_sum = float(total)
    if not math.isfinite(loss_sum):
        raise FtcloudError(
            f"the loss is {loss_sum} at step {state.step + 1}: training has diverged",
            where=f"step {state.step + 1}",
            fix="lower the learning rate, raise warmup_ratio, or use bf16 instead of fp16",
        )
    norm, rate = run.optimizer.step(state.step, run.plan.steps)
    state.step += 1
    state.tokens += sum(len(row.ids) for row in rows)
    state.seconds += time.perf_counter() - began
    state.window_loss += loss_sum
    state.window_tokens += loss_tokens
    if state.step % run.loop.log_every == 0 or state.step == run.plan.steps:
        _log(run, state, norm, rate)


def _dropout_seed(seed: int, step: int, micro: int) -> int:
    """A seed of its own for each micro-batch of a run (64 bits; splitmix64's odd constants spread them)."""
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + micro * 0x94D049BB133111EB
    return mixed & 0x7FFFFFFFFFFFFFFF


def _log(run: Run, state: TrainState, norm: float, rate: float) -> None:
    state.train_loss = state.window_loss / state.window_tokens
    state.window_loss, state.window_tokens = 0.0, 0
    left = run.plan.steps - state.step
    run.reporter.say(
        "train",
        step=state.step,
        steps=run.plan.steps,
        epoch=round(run.plan.epoch_of(state.step), 4),
        loss=state.train_loss,
        lr=rate,
        grad_norm=norm,
        tokens=state.tokens,
        tokens_per_s=round(state.tokens / state.seconds, 1),
        eta_s=round(left * state.seconds / state.step, 1),
        peak_gib=round(peak_gib(), 3),
    )


def _validate(run: Run, state: TrainState) -> None:
    """Validation loss after `state.step`, best and early stopping; nothing if asked to stop meanwhile."""
    if state.validated_step == state.step:
        return  # done before the checkpoint that this run was resumed from
    loss = validation_loss(run)
    if loss is None:
        return
    state.validated_step, state.eval_loss = state.step, loss
    best = state.step > 0 and (state.best_loss is None or loss < state.best_loss)
    if state.step == 0:
        state.base_eval_loss = loss
    elif best:
        state.best_loss, state.best_step, state.stale = loss, state.step, 0
    else:
        state.stale += 1
        state.stopped_early = 0 < run.loop.early_stopping <= state.stale and state.step < run.plan.steps
    epoch = round(run.plan.epoch_of(state.step), 4)
    run.reporter.say("eval", step=state.step, epoch=epoch, eval_loss=loss, best=best)


def validation_loss(run: Run) -> float | None:
    """Mean loss over the learned tokens of the validation rows [nats/token]; None if asked to stop."""
    run.model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for examples in micro_batches(run.validation, run.loop.micro_batch, packing=run.packing):
            if run.asked_to_stop():
                return None
            total += float(run.loss.sum(collate(examples, run.pad_id, packing=run.packing)))
            tokens += sum(example.loss_tokens for example in examples)
    return total / tokens


def _save(run: Run, state: TrainState) -> None:
    found = Checkpoint(
        state.step, dataclasses.asdict(state), run.optimizer.weights(), run.optimizer.state_dict()
    )
    path = run.checkpoints.save(found)
    keep = () if state.best_step is None else (state.best_step,)
    run.checkpoints.prune(keep, run.loop.keep_checkpoints)
    run.reporter.say("checkpoint", step=state.step, path=f"{run.checkpoints.root.name}/{path.name}")


def _take_best(run: Run, state: TrainState) -> None:
    if state.best_step in (None, state.step):
        return
    try:
        run.optimizer.load_weights(run.checkpoints.load(state.best_step).weights)
        state.eval_loss = state.best_loss
    except FtcloudError as error:
        message = f"the best checkpoint is lost ({error.what}); the last weights are taken"
        run.reporter.say("warning", message=message)


def peak_gib() -> float:
    """Peak memory of this process [GiB]: allocated on the GPU, or resident where it trains on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
