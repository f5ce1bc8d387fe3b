"""A job, its attempts and its events, as they stand in the store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dispatcher.jobs.moves import OVER, State
from dispatcher.storage.home import Home
from providers.offers import Offer
from providers.protocol import Cargo

Wanted = Literal["succeeded", "cancelled"]
AttemptState = Literal["intended", "open", "stopping", "closed"]

ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""No letter or digit that is read as another."""
ID_PATTERN = re.compile(rf"[{ID_ALPHABET}]{{8}}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, in the words of the error that the user is shown."""

    what: str
    where: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    name: str
    provider: str
    state: State
    wanted: Wanted
    recipe: dict[str, Any]
    spec: str
    """The text of spec.json."""
    options: tuple[Offer, ...]
    created_at: float
    updated_at: float
    due_at: float
    result: dict[str, Any] | None
    model: str | None
    """NAME:VERSION once registered."""
    failure: Failure | None
    cost_usd: float
    lease_holder: str | None
    lease_until: float

    @property
    def over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try. `ref` is None while only the intent to rent is recorded."""

    id: str
    job: str
    number: int
    offer: Offer
    ref: str | None
    state: AttemptState
    cause: str | None
    log_parsed: int
    created_at: float
    closed_at: float | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    attempt: int | None
    at: float
    kind: str
    state: State
    cause: str | None
    message: str
    data: dict[str, Any] | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class JobFolder:
    """What a job keeps on this side, under HOME/jobs/JOB."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def carrier_log(self) -> Path:
        return self.path / "carrier.log"

    def log(self, attempt: int) -> Path:
        """The bytes of an attempt's log as far as they have arrived."""
        return self.path / "logs" / f"{attempt}.txt"

    def cargo(self, spec: str) -> Cargo:
        return Cargo(spec=spec, data=self.data, checkpoints=self.checkpoints)


def job_folder(home: Home, job_id: str) -> JobFolder:
    return JobFolder(home.job(job_id))


def new_job_id() -> str:
    import secrets  # it loads OpenSSL, which listing jobs does not need

    return "".join(secrets.choice(ID_ALPHABET) for _ in range(8))
