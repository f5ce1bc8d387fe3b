"""Cross-entropy of the learned tokens, without logits anywhere else.

The logits of a position are as wide as the vocabulary, so computing them where nothing is learned can
cost more memory than the model itself. transformers' `logits_to_keep` names the positions that count,
before the output projection, and works with whatever the model does to its logits afterwards.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from trainer_image.trainer.attention import Isolation, packed_arguments
from trainer_image.trainer.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The summed loss of a batch under one model and one way of packing."""

    model: PreTrainedModel
    """What is called: the model, or the PEFT model around it."""
    base: PreTrainedModel
    """The bare transformers model inside."""
    isolation: Isolation
    keeps_logits: bool
    """Whether the model's forward takes `logits_to_keep`."""

    @classmethod
    def of(cls, model: PreTrainedModel, base: PreTrainedModel, isolation: Isolation) -> TokenLoss:
        return cls(model, base, isolation, "logits_to_keep" in inspect.signature(base.forward).parameters)

    def sum(self, batch: Batch) -> torch.Tensor:
        """Sum over the T learned tokens of -log p(token | document so far), fp32 scalar.

        No attention mask is needed for padded rows: the pad stands on the right, where a causal model
        cannot see it.
        """
        device = self.model.device
        ids = torch.tensor(batch.ids, device=device)
        targets = torch.tensor(batch.targets, device=device)
        columns = torch.tensor(batch.loss_columns, device=device)
        rows = torch.tensor(batch.loss_rows, device=device)
        arguments = {}
        if batch.packed:
            positions = torch.tensor(batch.positions, device=device)
            arguments = packed_arguments(self.isolation, positions, batch.lengths)
        if self.keeps_logits:
            # One list of columns serves all rows: the union of what each row needs.
            kept, columns = torch.unique(columns, return_inverse=True)
            arguments |= {"logits_to_keep": kept}
        logits = self.model(input_ids=ids, **{"use_cache": False} | arguments).logits
        one_each = batch.packed and self.keeps_logits  # then they are [1, T, V] in the order of the targets
        learned = logits[0] if one_each else logits[rows, columns]
        return functional.cross_entropy(learned.float(), targets, reduction="sum")
