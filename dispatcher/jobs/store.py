"""The store: the only module that knows the tables of jobs, attempts and events.

Every write to a job that is being carried shows the token of a lease; a stale token writes nothing
and raises LeaseLost. Nothing here calls a provider, and no transaction is open while one is called.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dispatcher.jobs.job import AttemptRow, AttemptState, Event, Failure, Job, Wanted
from dispatcher.jobs.lease import LEASE_S, Lease, LeaseLost, holder_name, is_alive
from dispatcher.jobs.moves import OVER, Cause, State, move
from dispatcher.storage.database import connect, transaction
from providers.offers import Offer
from trainer_image.trainer.errors import UsageError


class JobStore:
    """One connection; one thread. `clock` gives seconds since 1970 and is replaced in tests."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] = time.time) -> None:
        self._db = connection
        self._clock = clock

    @classmethod
    def open(cls, database: Path) -> Self:
        return cls(connect(database))

    def close(self) -> None:
        self._db.close()

    def now(self) -> float:
        return self._clock()

    @property
    def store_id(self) -> str:
        return str(self._db.execute("SELECT id FROM store").fetchone()["id"])

    # Jobs: creating, reading

    def add(
        self, job_id: str, name: str, recipe: Mapping[str, Any], spec: str, options: Sequence[Offer]
    ) -> Job:
        """Record a new job, `planned`, due at once."""
        now = self._clock()
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO jobs (id, name, provider, state, recipe, spec, options,"
                " created_at, updated_at, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    name,
                    options[0].provider,
                    State.PLANNED,
                    json.dumps(recipe),
                    spec,
                    json.dumps([dataclasses.asdict(offer) for offer in options]),
                    now,
                    now,
                    now,
                ),
            )
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise UsageError(f"there is no job {job_id!r}", fix="ftcloud jobs lists them")
        return _job(row)

    def find(self, word: str) -> Job:
        """The job with this id, a unique beginning of one, `last`, or the newest with this name."""
        order = "ORDER BY created_at DESC, rowid DESC"
        if word == "last":
            rows = self._db.execute(f"SELECT * FROM jobs {order} LIMIT 1").fetchall()
        else:
            rows = self._db.execute("SELECT * FROM jobs WHERE id = ?", (word,)).fetchall()
            rows = (
                rows
                or self._db.execute(
                    f"SELECT * FROM jobs WHERE substr(id, 1, ?) = ? {order}", (len(word), word)
                ).fetchall()
            )
            if len(rows) > 1:
                raise UsageError(
                    f"{word!r} is the beginning of {len(rows)} jobs",
                    fix="write more letters of " + " or ".join(row["id"] for row in rows[:3]),
                )
            named = f"SELECT * FROM jobs WHERE name = ? {order} LIMIT 1"
            rows = rows or self._db.execute(named, (word,)).fetchall()
        if not word or not rows:
            raise UsageError(f"there is no job {word!r}", fix="ftcloud jobs lists them")
        return _job(rows[0])

    def jobs(self) -> list[Job]:
        """All, newest first."""
        return [
            _job(row) for row in self._db.execute("SELECT * FROM jobs ORDER BY created_at DESC, rowid DESC")
        ]

    def unattended(self) -> list[Job]:
        """Jobs that are not over, or have an attempt to close, and that nobody carries."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE state NOT IN (SELECT value FROM json_each(?))"
            " OR id IN (SELECT job FROM attempts WHERE state != 'closed') ORDER BY created_at",
            (json.dumps(sorted(OVER)),),
        ).fetchall()
        return [job for job in map(_job, rows) if not self._is_carried(job)]

    def attempts(self, job_id: str) -> list[AttemptRow]:
        rows = self._db.execute("SELECT * FROM attempts WHERE job = ? ORDER BY number", (job_id,))
        return [_attempt(row) for row in rows]

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        rows = self._db.execute("SELECT * FROM events WHERE job = ? AND id > ? ORDER BY id", (job_id, after))
        return [_event(row) for row in rows]

    # Leases

    def take(self, job_id: str) -> Lease | None:
        """Take the job, or None while another living process has it."""
        with transaction(self._db):
            job = self.job(job_id)
            if self._is_carried(job):
                return None
            self._db.execute(
                "UPDATE jobs SET lease_token = lease_token + 1, lease_holder = ?, lease_until = ?"
                " WHERE id = ?",
                (holder_name(), self._clock() + LEASE_S, job_id),
            )
            token = self._db.execute("SELECT lease_token FROM jobs WHERE id = ?", (job_id,)).fetchone()[0]
        return Lease(job_id, token)

    def renew(self, lease: Lease) -> None:
        with transaction(self._db):
            self._guarded(lease, "lease_until = ?", self._clock() + LEASE_S)

    def release(self, lease: Lease) -> None:
        with transaction(self._db):
            self._guarded(lease, "lease_holder = NULL, lease_until = 0")

    def _is_carried(self, job: Job) -> bool:
        in_time = job.lease_until > self._clock()
        return job.lease_holder is not None and in_time and is_alive(job.lease_holder)

    # Moves: each one transaction, guarded by the lease

    def move(
        self,
        lease: Lease,
        cause: Cause,
        message: str = "",
        *,
        failure: Failure | None = None,
        result: Mapping[str, Any] | None = None,
        model: str | None = None,
    ) -> Job:
        """Move the job by `cause` and record the event; what came with it is kept on the row."""
        with transaction(self._db):
            job = self.job(lease.job)
            state = move(job.state, cause)
            self._guarded(lease, "state = ?, updated_at = ?, due_at = ?", state, self._clock(), self._clock())
            if cause is Cause.RESUMED:
                self._guarded(lease, "wanted = 'succeeded', failure = NULL")
            if failure is not None:
                self._guarded(lease, "failure = ?", json.dumps(dataclasses.asdict(failure)))
            if result is not None:
                self._guarded(lease, "result = ?", json.dumps(result))
            if model is not None:
                self._guarded(lease, "model = ?", model)
            self._event(lease.job, "moved", state, message, cause=cause)
        return self.job(lease.job)

    def want(self, job_id: str, wanted: Wanted) -> None:
        """What the user wants of the job. Needs no lease: the carrier reads it before each step."""
        with transaction(self._db):
            self._db.execute("UPDATE jobs SET wanted = ?, due_at = 0 WHERE id = ?", (wanted, job_id))

    def note(self, lease: Lease, message: str) -> None:
        """Tell the user something once: the same words as the last event's are not repeated."""
        with transaction(self._db):
            self._guarded(lease, "updated_at = ?", self._clock())
            last = self._db.execute(
                "SELECT message FROM events WHERE job = ? ORDER BY id DESC LIMIT 1", (lease.job,)
            ).fetchone()
            if last is None or last["message"] != message:
                self._event(lease.job, "noted", self.job(lease.job).state, message)

    # Attempts

    def intend(self, lease: Lease, offer: Offer) -> AttemptRow:
        """Record the intent to rent `offer`, before the paid call, and move to provisioning."""
        with transaction(self._db):
            state = move(self.job(lease.job).state, Cause.INTENDED)
            number = len(self.attempts(lease.job)) + 1
            self._db.execute(
                "INSERT INTO attempts (id, job, number, provider, offer, state, created_at)"
                " VALUES (?, ?, ?, ?, ?, 'intended', ?)",
                (
                    f"{lease.job}-{number}",
                    lease.job,
                    number,
                    offer.provider,
                    json.dumps(dataclasses.asdict(offer)),
                    self._clock(),
                ),
            )
            self._guarded(
                lease, "state = ?, updated_at = ?, provider = ?", state, self._clock(), offer.provider
            )
            where = f"{offer.provider} {offer.instance_type} in {offer.region}"
            self._event(lease.job, "moved", state, where, cause=Cause.INTENDED)
        return self.attempts(lease.job)[-1]

    def update_attempt(
        self,
        lease: Lease,
        attempt: str,
        state: AttemptState,
        *,
        ref: str | None = None,
        cause: str | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Record what became of an attempt; None leaves a column as it is."""
        closed_at = self._clock() if state == "closed" else None
        with transaction(self._db):
            self._guarded(lease, "updated_at = ?", self._clock())
            self._db.execute(
                "UPDATE attempts SET state = ?, ref = COALESCE(?, ref), cause = COALESCE(?, cause),"
                " cost_usd = COALESCE(?, cost_usd), closed_at = COALESCE(?, closed_at) WHERE id = ?",
                (state, ref, cause, cost_usd, closed_at, attempt),
            )
            self._guarded(
                lease, "cost_usd = (SELECT COALESCE(SUM(cost_usd), 0) FROM attempts WHERE job = ?)", lease.job
            )

    def record_progress(
        self,
        lease: Lease,
        attempt: AttemptRow,
        parsed: int,
        progress: Sequence[tuple[str, str, dict[str, Any]]],
    ) -> None:
        """Turn progress lines (kind, message, values) into events, once: `parsed` goes with them."""
        with transaction(self._db):
            job = self.job(lease.job)
            self._guarded(lease, "updated_at = ?", self._clock())
            self._db.execute("UPDATE attempts SET log_parsed = ? WHERE id = ?", (parsed, attempt.id))
            for kind, message, values in progress:
                self._event(lease.job, kind, job.state, message, data=values)

    def _guarded(self, lease: Lease, assignments: str, *values: object) -> None:
        """Update the job's row if the lease still holds. `assignments` is ours, never a user's text."""
        changed = self._db.execute(
            f"UPDATE jobs SET {assignments} WHERE id = ? AND lease_token = ?",
            (*values, lease.job, lease.token),
        ).rowcount
        if changed == 0:
            raise LeaseLost("another process carries this job now", where=lease.job)

    def _event(
        self,
        job_id: str,
        kind: str,
        state: State,
        message: str,
        *,
        cause: Cause | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._db.execute(
            "INSERT INTO events (job, attempt, at, kind, state, cause, message, data, cost_usd) VALUES"
            " (?, (SELECT MAX(number) FROM attempts WHERE job = ?), ?, ?, ?, ?, ?, ?,"
            " (SELECT cost_usd FROM jobs WHERE id = ?))",
            (
                job_id,
                job_id,
                self._clock(),
                kind,
                state,
                cause,
                message,
                json.dumps(data) if data else None,
                job_id,
            ),
        )


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        name=row["name"],
        provider=row["provider"],
        state=State(row["state"]),
        wanted=row["wanted"],
        recipe=json.loads(row["recipe"]),
        spec=row["spec"],
        options=tuple(Offer(**offer) for offer in json.loads(row["options"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        result=json.loads(row["result"]) if row["result"] else None,
        model=row["model"],
        failure=Failure(**json.loads(row["failure"])) if row["failure"] else None,
        cost_usd=row["cost_usd"],
        lease_holder=row["lease_holder"],
        lease_until=row["lease_until"],
    )


def _attempt(row: sqlite3.Row) -> AttemptRow:
    return AttemptRow(
        id=row["id"],
        job=row["job"],
        number=row["number"],
        offer=Offer(**json.loads(row["offer"])),
        ref=row["ref"],
        state=row["state"],
        cause=row["cause"],
        log_parsed=row["log_parsed"],
        created_at=row["created_at"],
        closed_at=row["closed_at"],
        cost_usd=row["cost_usd"],
    )


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        attempt=row["attempt"],
        at=row["at"],
        kind=row["kind"],
        state=State(row["state"]),
        cause=row["cause"],
        message=row["message"],
        data=json.loads(row["data"]) if row["data"] else None,
        cost_usd=row["cost_usd"],
    )
