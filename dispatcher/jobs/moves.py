"""The life of a job as a table: the diagram, the documentation and the property test come from it.

A job is in a state; a cause moves it to the next. What is not in the table cannot happen.
"""

from __future__ import annotations

from enum import StrEnum

from trainer_image.trainer.errors import FtcloudError


class State(StrEnum):
    PLANNED = "planned"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    STAGING = "staging"
    TRAINING = "training"
    FINISHING = "finishing"
    RECOVERING = "recovering"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    LAUNCHED = "launched"
    INTENDED = "intended"
    """The intent to rent is recorded; only now may the paid call be made."""
    READY = "ready"
    STARTED = "started"
    TRAINED = "trained"
    REGISTERED = "registered"
    NO_CAPACITY = "no_capacity"
    PREEMPTED = "preempted"
    LOST = "lost"
    RETRIED = "retried"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RESUMED = "resumed"
    """By the user, after it had failed or been cancelled."""


OVER = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
PAID = frozenset({State.PROVISIONING, State.STAGING, State.TRAINING, State.FINISHING})

MOVES: dict[tuple[State, Cause], State] = {
    (State.PLANNED, Cause.LAUNCHED): State.QUEUED,
    (State.QUEUED, Cause.INTENDED): State.PROVISIONING,
    (State.PROVISIONING, Cause.NO_CAPACITY): State.QUEUED,
    (State.PROVISIONING, Cause.READY): State.STAGING,
    (State.STAGING, Cause.STARTED): State.TRAINING,
    (State.TRAINING, Cause.TRAINED): State.FINISHING,
    (State.FINISHING, Cause.REGISTERED): State.SUCCEEDED,
    (State.RECOVERING, Cause.RETRIED): State.QUEUED,
    **{(state, Cause.PREEMPTED): State.RECOVERING for state in State if state in PAID},
    **{(state, Cause.LOST): State.RECOVERING for state in State if state in PAID},
    **{(state, Cause.FAILED): State.FAILED for state in State if state not in OVER},
    **{(state, Cause.CANCELLED): State.CANCELLED for state in State if state not in OVER},
    (State.FAILED, Cause.RESUMED): State.QUEUED,
    (State.CANCELLED, Cause.RESUMED): State.QUEUED,
}


class ImpossibleMove(FtcloudError):
    """A cause that the state does not know: a bug here, never the user's."""


def move(state: State, cause: Cause) -> State:
    """The state after `cause`."""
    try:
        return MOVES[state, cause]
    except KeyError:
        raise ImpossibleMove(f"a job that is {state} cannot be moved by {cause!r}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PLANNED}"]
    lines += [f"    {start} --> {end}: {cause}" for (start, cause), end in MOVES.items()]
    lines += [f"    {state} --> [*]" for state in State if state in OVER]
    return "\n".join(lines) + "\n"
