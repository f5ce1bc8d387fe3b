"""The tables: medians over the rounds, ratios, and each target met or missed. Needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

LOSS_BOUND = 0.02
"""Largest difference of the held-out loss from ours at which two trainers did the same work."""


@dataclass(slots=True)
class Measured:
    """What is known of one contestant after some rounds."""

    name: str
    tokens: int = 0
    steps: int = 0
    loss: float = 0.0
    """Held-out, after the epoch [nats/token]."""
    seconds: list[float] = field(default_factory=list)
    """Of the training loop, a round each."""
    failure: str = ""

    @property
    def rate(self) -> float:
        """Useful tokens a second in the median round; 0 where it did not run."""
        return self.tokens / statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def spread(self) -> tuple[float, float]:
        """Rates of the slowest and the fastest round."""
        return self.tokens / max(self.seconds), self.tokens / min(self.seconds)


def table(title: str, contestants: Sequence[Measured], references: Sequence[Measured]) -> Iterator[str]:
    """The lines of a table, ours in its first row.

    A column for each of `references`: the contestant's rate as a multiple of its rate.
    """
    ours = contestants[0]
    heads = "".join(f"  {'x ' + reference.name:>18}" for reference in references)
    yield f"{title:<28} {'useful tok/s':>12}  {'min - max':>15}{heads}  {'steps':>5}  {'loss':>7}"
    for one in contestants:
        if one.failure:
            yield f"  {one.name:<26} failed: {one.failure}"
            continue
        low, high = one.spread
        ratios = "".join(f"  {_multiple(one, reference):>18}" for reference in references)
        numbers = (
            f"{one.rate:>12.1f}  {f'{low:.1f} - {high:.1f}':>15}{ratios}  {one.steps:>5}  {one.loss:>7.4f}"
        )
        yield f"  {one.name:<26} {numbers}{_difference(one, ours)}"


def verdict(ours: Measured, factor: float, rivals: Sequence[Measured]) -> str:
    """Whether our rate is at least `factor` times that of the fastest rival, in a line."""
    names = " and ".join(rival.name for rival in rivals)
    target = f"target: at least {factor:.1f} x the rate of {names}"
    if failed := [rival.name for rival in rivals if rival.failure]:
        return f"{target}: open, as {failed[0]} failed"
    multiple = ours.rate / max(rival.rate for rival in rivals)
    return f"{target}: {multiple:.2f}, {'met' if multiple >= factor else 'missed'}"


def _multiple(one: Measured, reference: Measured) -> str:
    return f"{one.rate / reference.rate:.2f}" if reference.rate else "-"


def _difference(one: Measured, ours: Measured) -> str:
    if one is ours:
        return ""
    difference = one.loss / ours.loss - 1
    return f" {difference:+.2%}" + (
        f", not within {LOSS_BOUND:.0%} of ours" if abs(difference) > LOSS_BOUND else ""
    )
