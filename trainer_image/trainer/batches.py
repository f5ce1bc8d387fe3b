"""Which rows make an optimizer step, and how they are laid out. Pure functions; needs no torch.

The order of the rows is a function of (seed, epoch) alone, so a step number is all that a resumed run
needs. A step covers `global_batch = micro_batch * grad_accum` rows and its loss is the sum of the token
losses over the number of loss tokens in the whole step; how the step is cut into micro-batches, packed
or padded, changes memory and speed but not the mathematics. The last, smaller step of an epoch is kept.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from trainer_image.trainer.spec import LoopSpec


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row. `target[i]` is 1 where token i is learned, that is predicted from those before it.

    `ids` are token ids, `target` bytes of equal length; target[0] is always 0.
    """

    ids: Sequence[int]
    target: bytes

    @property
    def loss_tokens(self) -> int:
        return sum(self.target)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many steps there are and which rows each covers."""

    rows: int
    global_batch: int
    steps: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.global_batch)

    def epoch_of(self, step: int) -> float:
        """Epochs done when `step` steps are."""
        return step / self.steps_per_epoch

    def rows_of(self, step: int) -> list[int]:
        """Indices of the rows of optimizer step `step`, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        visited = order(self.seed, epoch, self.rows)
        return list(visited[place * self.global_batch : (place + 1) * self.global_batch])


def plan_steps(rows: int, loop: LoopSpec) -> Plan:
    """Steps of a run over `rows` rows: `max_steps`, or `epochs` of them, rounded up."""
    global_batch = loop.micro_batch * loop.grad_accum
    per_epoch = math.ceil(rows / global_batch)
    # Rounded first: 0.1 * 30 is 3.0000000000000004 in floating point and must not become 4 steps.
    steps = loop.max_steps or math.ceil(round(loop.epochs * per_epoch, 6))
    return Plan(rows, global_batch, max(1, steps), loop.seed)


@lru_cache(maxsize=1)  # one epoch at a time: every step of it asks again
def order(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """The permutation of `range(rows)` in which an epoch visits the rows.

    Python's Mersenne Twister seeded by a string: the same on every platform and Python version.
    """
    indices = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(indices)
    return tuple(indices)


def micro_batches(examples: Sequence[Example], micro_batch: int, *, packing: bool) -> list[list[Example]]:
    """Cut the examples of one step into micro-batches of at most `micro_batch` examples.

    Longest first either way. Padded: neighbours in length share a micro-batch, so little is padded.
    Packed: dealt out back and forth, so that no micro-batch is much longer than another and the peak
    memory of the step is low.
    """
    by_length = sorted(examples, key=lambda example: len(example.ids), reverse=True)
    count = math.ceil(len(by_length) / micro_batch)
    if not packing:
        return [by_length[i * micro_batch : (i + 1) * micro_batch] for i in range(count)]
    there_and_back = [*range(count), *reversed(range(count))]
    piles: list[list[Example]] = [[] for _ in range(count)]
    for i, example in enumerate(by_length):
        piles[there_and_back[i % (2 * count)]].append(example)
    return piles


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch as plain lists: `ids` [R][N], and the T places that carry loss.

    Packed, R is 1 and the documents lie end to end, `lengths` [D] telling where each ends; padded, R is
    the number of documents and N the longest of `lengths`, the pad on the right. The logits at row
    `loss_rows[t]`, column `loss_columns[t]` predict token `targets[t]`. No place predicts the first
    token of a document, which would be learned from another document.
    """

    ids: list[list[int]]
    positions: list[list[int]]
    lengths: list[int]
    loss_rows: list[int]
    loss_columns: list[int]
    targets: list[int]
    packed: bool


def collate(examples: Sequence[Example], pad_id: int, *, packing: bool) -> Batch:
    """Lay out the examples of one micro-batch."""
    lengths = [len(example.ids) for example in examples]
    starts = [0, *accumulate(lengths[:-1])] if packing else [0] * len(lengths)
    rows, columns, targets = [], [], []
    for row, (start, example) in enumerate(zip(starts, examples, strict=True)):
        for i, learned in enumerate(example.target):
            if learned:
                rows.append(0 if packing else row)
                columns.append(start + i - 1)
                targets.append(example.ids[i])
    if packing:
        ids = [[token for example in examples for token in example.ids]]
        positions = [[i for length in lengths for i in range(length)]]
    else:
        width = max(lengths)
        ids = [[*example.ids, *[pad_id] * (width - len(example.ids))] for example in examples]
        positions = [list(range(width)) for _ in examples]
    return Batch(ids, positions, lengths, rows, columns, targets, packing)
