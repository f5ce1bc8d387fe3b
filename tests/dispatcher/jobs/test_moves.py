"""The table of moves: complete, and without a dead end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.jobs.moves import MOVES, OVER, PAID, Cause, ImpossibleMove, State, diagram, move


def reachable(start: State) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for (state, _), after in MOVES.items():
            if state is here and after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def test_every_state_can_be_reached_from_planned() -> None:
    assert reachable(State.PLANNED) == set(State)


@pytest.mark.parametrize("state", sorted(set(State) - OVER))
def test_every_state_that_is_not_over_can_still_succeed_fail_and_be_cancelled(state: State) -> None:
    assert reachable(state) >= OVER


@pytest.mark.parametrize("state", sorted(PAID))
def test_every_paid_state_knows_what_a_lost_machine_is(state: State) -> None:
    assert move(state, Cause.LOST) is State.RECOVERING
    assert move(state, Cause.PREEMPTED) is State.RECOVERING


def test_success_is_final() -> None:
    assert not [cause for (state, cause) in MOVES if state is State.SUCCEEDED]


@given(st.lists(st.sampled_from(Cause), max_size=30))
def test_no_sequence_of_causes_trains_twice_without_a_new_intent(causes: list[Cause]) -> None:
    state, intents, started = State.PLANNED, 0, 0
    for cause in causes:
        try:
            state = move(state, cause)
        except ImpossibleMove:
            continue
        intents += cause is Cause.INTENDED
        started += cause is Cause.STARTED
    assert started <= intents


def test_the_diagram_shows_every_move() -> None:
    drawn = diagram()
    assert all(f"{start} --> {end}: {cause}" in drawn for (start, cause), end in MOVES.items())
