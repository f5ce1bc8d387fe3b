"""Which rows a step covers and how they lie: a function of seed and step, whatever the layout."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.trainer.batches import Batch, Example, Plan, collate, micro_batches, order, plan_steps
from trainer_image.trainer.spec import LoopSpec

examples = st.lists(
    st.integers(2, 30)
    .flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(1, 99), min_size=n, max_size=n),
            st.lists(st.booleans(), min_size=n - 1, max_size=n - 1),
        )
    )
    .map(lambda pair: Example(pair[0], bytes([0, *pair[1]]))),
    min_size=1,
    max_size=20,
)


def loop(epochs: float = 1.0, max_steps: int | None = None) -> LoopSpec:
    """Eight rows a step."""
    return LoopSpec(epochs, max_steps, 4, 2, False, 1, "epoch", "epoch", 2, 0, seed=0)


@given(st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 17), st.integers(1, 4))
def test_every_epoch_visits_every_row_once_in_an_order_of_its_own(
    seed: int, rows: int, global_batch: int, epochs: int
) -> None:
    plan = Plan(rows, global_batch, 0, seed)
    for epoch in range(epochs):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        visited = [row for step in steps for row in plan.rows_of(step)]
        assert Counter(visited) == Counter(range(rows))
        assert tuple(visited) == order(seed, epoch, rows)


def test_the_order_is_another_in_each_epoch_and_for_each_seed() -> None:
    orders = {order(seed, epoch, 50) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_the_order_is_the_same_on_every_machine_and_python() -> None:
    assert order(7, 2, 8) == (0, 1, 7, 4, 6, 2, 3, 5)


@pytest.mark.parametrize(
    ("rows", "epochs", "max_steps", "steps"),
    [
        (22, 1.0, None, 3),  # two full steps and a smaller one, which is kept
        (16, 3.0, None, 6),
        (240, 0.1, None, 3),  # 0.1 * 30 is a little above 3 in floating point
        (16, 1.25, None, 3),
        (16, 0.01, None, 1),
        (16, 9.0, 5, 5),
    ],
)
def test_steps_of_a_run(rows: int, epochs: float, max_steps: int | None, steps: int) -> None:
    assert plan_steps(rows, loop(epochs, max_steps)).steps == steps


@given(examples, st.integers(1, 9), st.booleans())
def test_micro_batches_hold_each_example_once_and_no_more_than_asked(
    rows: list[Example], micro_batch: int, packing: bool
) -> None:
    piles = micro_batches(rows, micro_batch, packing=packing)
    assert Counter(id(row) for pile in piles for row in pile) == Counter(map(id, rows))
    assert all(1 <= len(pile) <= micro_batch for pile in piles)


@given(examples, st.integers(1, 9))
def test_padded_micro_batches_pad_no_more_than_any_order_would(rows: list[Example], micro_batch: int) -> None:
    def width(piles: list[list[Example]]) -> int:
        return sum(len(pile) * max(len(row.ids) for row in pile) for pile in piles)

    rows = rows[: len(rows) // micro_batch * micro_batch]  # a pile that is not full costs any order something
    given_order = [rows[i : i + micro_batch] for i in range(0, len(rows), micro_batch)]
    assert width(micro_batches(rows, micro_batch, packing=False)) <= width(given_order)


def _predictions(batch: Batch) -> Counter[tuple[tuple[int, ...], int]]:
    """What each loss position has seen of its own document, and the token that it must predict."""
    seen: Counter[tuple[tuple[int, ...], int]] = Counter()
    for row, column, target in zip(batch.loss_rows, batch.loss_columns, batch.targets, strict=True):
        first = column - batch.positions[row][column]  # positions start again at each document
        seen[tuple(batch.ids[row][first : column + 1]), target] += 1
    return seen


@given(examples)
def test_packed_and_padded_batches_ask_for_the_same_predictions(rows: list[Example]) -> None:
    wanted = Counter(
        (tuple(row.ids[:i]), row.ids[i]) for row in rows for i, learned in enumerate(row.target) if learned
    )
    assert _predictions(collate(rows, 0, packing=True)) == wanted
    assert _predictions(collate(rows, 0, packing=False)) == wanted


@given(examples)
def test_a_packed_batch_is_one_row_without_pads(rows: list[Example]) -> None:
    batch = collate(rows, 0, packing=True)
    assert len(batch.ids) == 1
    assert len(batch.ids[0]) == len(batch.positions[0]) == sum(batch.lengths)
