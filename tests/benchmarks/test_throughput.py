"""The parts of the throughput benchmark that need no torch: its rows and its tables."""

from __future__ import annotations

import pytest

from benchmarks.throughput.report import Measured, table, verdict
from benchmarks.throughput.rows import Lengths, Split, make_rows, padded_share, tokens_of
from benchmarks.trainer_throughput import LENGTHS, parse, rotated
from trainer_image.trainer.batches import Example


def tokenise(text: str) -> list[int]:
    """A token a word, so that a row of any length holds words of orders."""
    return [sum(word.encode()) for word in text.split()]


def rows(seed: int = 0) -> Split:
    return make_rows(tokenise, LENGTHS, train=200, held_out=40, seed=seed)


def test_the_rows_are_at_least_200_and_their_lengths_skewed() -> None:
    assert parse([]).rows >= 200
    lengths = sorted(len(row.ids) for row in rows().train)
    median, mean = lengths[100], sum(lengths) / len(lengths)
    assert mean > 1.3 * median
    assert lengths[-1] > 5 * median
    assert lengths[-1] <= LENGTHS.longest


def test_two_tokens_of_five_carry_loss_and_never_a_rows_first() -> None:
    train = rows().train
    assert sum(row.loss_tokens for row in train) / tokens_of(train) == pytest.approx(0.4, abs=0.01)
    assert all(row.loss_tokens and not row.target[0] for row in train)
    assert all(len(row.ids) == len(row.target) for row in train)


def test_equal_seeds_give_equal_rows_and_no_held_out_row_is_trained_on() -> None:
    made = rows()
    assert made == rows()
    assert made != rows(seed=1)
    assert not {tuple(row.ids) for row in made.held_out} & {tuple(row.ids) for row in made.train}


def test_a_batch_is_padded_to_its_longest_row() -> None:
    lengths = (4, 8, 2)
    some = [Example([1] * n, bytes(n)) for n in lengths]
    assert padded_share(some, 2) == pytest.approx(1 - 14 / (16 + 2))
    assert padded_share(some, 1) == 0


def test_a_round_starts_with_the_contestant_after_the_one_before() -> None:
    assert [rotated("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


OURS = Measured("ours", tokens=600, steps=3, loss=1.0, seconds=[2.0, 3.0, 6.0])
PEER = Measured("peer", tokens=600, steps=3, loss=1.03, seconds=[4.0, 6.0, 12.0])
BROKEN = Measured("broken", failure="ValueError: no")


def test_the_median_round_counts() -> None:
    assert OURS.rate == 200
    assert OURS.spread == (100, 300)


def test_a_table_names_every_contestant_also_one_that_failed() -> None:
    _, ours, peer, broken = table("title", [OURS, PEER, BROKEN], [PEER])
    assert "2.00" in ours
    assert "within" not in ours
    assert "+3.00%, not within 2% of ours" in peer
    assert "failed: ValueError: no" in broken


def test_a_target_is_met_or_missed_by_the_fastest_rival() -> None:
    slow = Measured("slow", tokens=600, seconds=[60.0])
    assert verdict(OURS, 2.0, [slow, PEER]).endswith("2.00, met")
    assert verdict(OURS, 2.1, [slow, PEER]).endswith("2.00, missed")
    assert "open" in verdict(OURS, 2.0, [PEER, BROKEN])


def test_the_shortest_row_still_has_a_prompt_and_an_answer() -> None:
    (row,) = make_rows(tokenise, Lengths(median=1, longest=1), train=1, held_out=0, seed=0).train
    assert row.loss_tokens
    assert row.loss_tokens < len(row.ids)
