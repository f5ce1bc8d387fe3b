"""The protocol behind which every provider stands. The engine knows nothing else of them.

All calls return at once or after one round trip, and all may be repeated: the engine calls again
after a crash, from another process, or because an answer was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol

from providers.offers import Offer, Query
from trainer_image.trainer.hardware import Hardware

EndsItself = Literal["confirmed", "best_effort", "compute_only", "none"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data."""

    spot: bool
    ends_itself: EndsItself
    """Whether a machine left alone ends its own billing, and how surely."""
    billing_step_s: int
    billing_minimum_s: int
    stop_keeps_billing: bool
    tags: bool
    regions: tuple[str, ...]
    poll_s: float
    """How often it is worth asking while a job runs."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The provider's own id of a machine or managed run."""

    id: str


@dataclass(frozen=True, slots=True)
class Cargo:
    """What goes to the machine."""

    spec: str
    """The text of spec.json, paths as the laptop sees them."""
    data: Path
    checkpoints: Path
    """Checkpoints of earlier attempts; may be missing or empty."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job on one offer. `id` is unique for ever and names what is rented."""

    id: str
    store: str
    job: str
    offer: Offer
    cargo: Cargo

    @property
    def tag(self) -> str:
        """Stands on everything that is rented for this attempt."""
        return f"ftcloud-{self.store}-{self.id}"


@dataclass(frozen=True, slots=True)
class Request:
    """What `submit` would send, complete; `--dry-run` shows it. Secrets are named, never contained."""

    attempt: Attempt
    body: Mapping[str, Any]


class Phase(Enum):
    PENDING = "pending"
    """Paid for or asked for, not yet training."""
    READY = "ready"
    """Up, and waiting for its cargo."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    GONE = "gone"
    """The provider's own word, on a full list, twice."""
    UNKNOWN = "unknown"
    """We could not find out: never a reason to end or replace anything."""


@dataclass(frozen=True, slots=True)
class Observation:
    phase: Phase
    cause: str = ""
    """In words, for the user."""


class Stop(Enum):
    STOPPING = "stopping"
    STOPPED = "stopped"
    """The provider confirms the end of billing."""


@dataclass(frozen=True, slots=True)
class Owned:
    """Something of ftcloud that is alive in this account."""

    ref: Ref
    store: str
    attempt: str


PullKind = Literal["checkpoints", "output"]


class Provider(Protocol):
    """See `docs/architecture.md`. Methods raise `providers.errors` and nothing else of their own."""

    name: str
    can: Capabilities

    def check(self) -> None:
        """Raise what keeps this provider from being used at all: a missing key, a missing package."""

    def hardware(self, offer: Offer) -> Hardware:
        """What the machine of this offer will have; recipes are resolved against it."""

    def offers(self, query: Query) -> Iterable[Offer]:
        """What can be rented now."""

    def prepare(self, attempt: Attempt) -> Request:
        """The request for this attempt: a pure function, sends nothing."""

    def submit(self, request: Request) -> Ref:
        """Start it. Idempotent by the attempt's id: a repeated call finds what the first one made."""

    def stage(self, request: Request, ref: Ref) -> bool:
        """Bring the cargo and start the trainer, a slice at a time; True once nothing is left to do."""

    def observe(self, refs: Sequence[Ref]) -> dict[Ref, Observation]:
        """The state of all refs of this account in as few calls as the API allows; never raises."""

    def logs(self, ref: Ref, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of the log from byte `offset` on; empty where there is no more yet."""

    def pull(self, ref: Ref, what: PullKind, dest: Path) -> bool:
        """Bring files into `dest`, a slice at a time; True once `dest` is whole."""

    def stop(self, ref: Ref) -> Stop:
        """End it, and its billing; returns at once and is called again until it says STOPPED."""

    def owned(self) -> list[Owned]:
        """All of ftcloud that is alive in this account. An incomplete answer raises, it is never short."""
