"""Rows of skewed lengths that a model can learn something from. Needs no torch.

A row is a pile of the demo's order e-mails followed by their JSON answers, both cut to the row's length,
which is log-normal: most rows are short, a few are as long as ten of those, as in data that people wrote.
The answers carry the loss, 40 % of the tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dispatcher.demo.orders import Order, training_orders
from trainer_image.trainer.batches import Example

SIGMA = 0.9
"""Of the logarithm of the length: the mean is 1.5 times the median."""
SHORTEST = 4
ANSWER_SHARE = 0.4

Tokenise = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a row: log-normal around `median`, at most `longest`."""

    median: int
    longest: int

    def draw(self, rng: random.Random) -> int:
        wanted = round(math.exp(rng.gauss(math.log(self.median), SIGMA)))
        return max(SHORTEST, min(self.longest, wanted))


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Example]
    held_out: list[Example]


def make_rows(tokenise: Tokenise, lengths: Lengths, *, train: int, held_out: int, seed: int) -> Split:
    """Rows to train on and rows to compare losses with; equal arguments, equal rows, no order in two rows."""
    orders = training_orders(seed)
    rng = random.Random(f"lengths {seed}")
    rows = [_row(tokenise, orders, lengths.draw(rng)) for _ in range(train + held_out)]
    return Split(rows[:train], rows[train:])


def tokens_of(rows: Sequence[Example]) -> int:
    """Useful tokens: all but pads, prompts included."""
    return sum(len(row.ids) for row in rows)


def padded_share(rows: Sequence[Example], batch: int) -> float:
    """Share of pads in batches of `batch` neighbours, each padded to its longest row."""
    batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    cells = sum(len(some) * max(len(row.ids) for row in some) for some in batches)
    return 1 - tokens_of(rows) / cells


def _row(tokenise: Tokenise, orders: Iterator[Order], length: int) -> Example:
    answered = max(1, round(length * ANSWER_SHARE))
    asked = length - answered
    prompt: list[int] = []
    answer: list[int] = []
    while len(prompt) < asked or len(answer) < answered:
        order = next(orders)
        prompt += tokenise(order.email + "\n")
        answer += tokenise(order.answer() + "\n")
    return Example([*prompt[:asked], *answer[:answered]], bytes(asked) + b"\1" * answered)
