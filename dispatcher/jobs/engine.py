"""The engine: a reconciler that carries a job one move at a time.

`step` reads the job and the world, makes one move, records it, and says when to look again. Every
move may be repeated: a process killed between any two lines leaves a job that the next one carries on.
The intent is recorded before anything is rented, and no transaction is open while a provider is asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispatcher.jobs.job import AttemptRow, Failure, Job, JobFolder, job_folder
from dispatcher.jobs.joblog import append_from, progress_since
from dispatcher.jobs.lease import Lease
from dispatcher.jobs.moves import Cause, State
from dispatcher.jobs.progress_text import describe
from dispatcher.jobs.store import JobStore
from dispatcher.storage.home import Home
from providers.errors import NotFound, ProviderError, Then
from providers.protocol import Attempt, Observation, Phase, Provider, Ref, Stop
from trainer_image.trainer.errors import FtcloudError

NOW = 0.0
RETRY_S = 5.0
CAPACITY_RETRY_S = 60.0
"""After every offer of the plan was refused once."""
MAX_ATTEMPTS = 4
"""The first and three more, when machines are lost or taken back."""
TOLD = frozenset({"start", "eval", "checkpoint", "merge", "warning", "error", "phase"})
"""Progress that becomes an event; the rest stays in the log."""

Register = Callable[[Job, AttemptRow, Path], str]
"""Takes the pulled output of an attempt into the registry, once; returns NAME:VERSION."""


class Engine:
    """Moves jobs of one store. `provider` gives the adapter of a name, `register` fills the registry."""

    def __init__(
        self, store: JobStore, home: Home, provider: Callable[[str], Provider], register: Register
    ) -> None:
        self._store = store
        self._home = home
        self._provider = provider
        self._register = register
        self._moves: dict[State, Callable[[Lease, Job], float]] = {
            State.PLANNED: self._launch,
            State.QUEUED: self._rent,
            State.PROVISIONING: self._provision,
            State.STAGING: self._stage,
            State.TRAINING: self._train,
            State.FINISHING: self._finish,
            State.RECOVERING: self._recover,
        }

    def step(self, lease: Lease) -> float | None:
        """Make one move. Seconds until the next is worth a look; None when nothing is left to do."""
        job = self._store.job(lease.job)
        if job.over:
            return self._close(lease, job)
        try:
            if job.wanted == "cancelled":
                return self._cancel(lease, job)
            return self._moves[job.state](lease, job)
        except ProviderError as error:
            return self._meet(lease, job, error)

    # One move for each state, in the order in which a job meets them

    def _launch(self, lease: Lease, _job: Job) -> float:
        self._store.move(lease, Cause.LAUNCHED)
        return NOW

    def _rent(self, lease: Lease, job: Job) -> float:
        attempts = self._store.attempts(job.id)
        if attempts and attempts[-1].state != "closed":
            return self._end(lease, job, attempts[-1])  # never two training
        # What an attempt that was given up has left is not the output of the next one.
        shutil.rmtree(self._folder(job).output, ignore_errors=True)
        self._store.intend(lease, job.options[len(attempts) % len(job.options)])
        return NOW

    def _provision(self, lease: Lease, job: Job) -> float:
        attempt, provider = self._current(job)
        if attempt.ref is None:
            ref = provider.submit(provider.prepare(self._attempt(job, attempt)))
            self._store.update_attempt(lease, attempt.id, "open", ref=ref.id)
            return NOW
        seen = self._observe(provider, attempt)
        if seen.phase in (Phase.PENDING, Phase.UNKNOWN):
            return self._wait(lease, provider, seen)
        if seen.phase is Phase.GONE:
            return self._lose(lease, Cause.LOST, seen)
        self._store.move(lease, Cause.READY)
        return NOW

    def _stage(self, lease: Lease, job: Job) -> float:
        attempt, provider = self._current(job)
        request = provider.prepare(self._attempt(job, attempt))
        if provider.stage(request, _ref(attempt)):
            self._store.move(lease, Cause.STARTED)
        return NOW

    def _train(self, lease: Lease, job: Job) -> float:
        attempt, provider = self._current(job)
        seen = self._observe(provider, attempt)  # before the log: what ended has written its last line
        self._collect(lease, job, attempt, provider)
        if seen.phase is Phase.SUCCEEDED:
            self._store.move(lease, Cause.TRAINED)
            return NOW
        if seen.phase is Phase.FAILED:
            return self._fail(lease, self._told_failure(job, attempt) or _failure_of(job, seen))
        if seen.phase is Phase.PREEMPTED:
            return self._lose(lease, Cause.PREEMPTED, seen)
        if seen.phase is Phase.GONE:
            return self._lose(lease, Cause.LOST, seen)
        return self._wait(lease, provider, seen)

    def _finish(self, lease: Lease, job: Job) -> float:
        attempt, provider = self._current(job)
        folder = job_folder(self._home, job.id)
        if not (folder.output / "manifest.json").exists() and not provider.pull(
            _ref(attempt), "output", folder.output
        ):
            return NOW
        try:
            model = self._register(job, attempt, folder.output)
        except FtcloudError as error:
            return self._fail(lease, Failure(error.what, error.where, error.fix))
        result = json.loads((folder.output / "result.json").read_text(encoding="utf-8"))
        self._store.move(lease, Cause.REGISTERED, f"registered as {model}", result=result, model=model)
        return NOW

    def _recover(self, lease: Lease, job: Job) -> float:
        attempt, _ = self._current(job)
        if attempt.number >= MAX_ATTEMPTS:
            fix = f"look at: ftcloud logs {job.id}; then: ftcloud resume {job.id}"
            return self._fail(lease, Failure(f"{attempt.number} attempts were lost", fix=fix))
        self._store.move(lease, Cause.RETRIED)
        return NOW

    # What may come between

    def _cancel(self, lease: Lease, job: Job) -> float:
        attempts = self._store.attempts(job.id)
        if attempts and attempts[-1].state != "closed":
            return self._end(lease, job, attempts[-1])
        self._store.move(lease, Cause.CANCELLED, "cancelled by the user")
        return NOW

    def _close(self, lease: Lease, job: Job) -> float | None:
        """The job is over; what was rented for it may not be."""
        for attempt in self._store.attempts(job.id):
            if attempt.state != "closed":
                return self._end(lease, job, attempt)
        return None

    def _end(self, lease: Lease, job: Job, attempt: AttemptRow) -> float:
        """Stop an attempt, keep its log and checkpoints, and close it once its billing has ended."""
        provider = self._provider(attempt.offer.provider)
        # Where no ref was recorded, the call that makes it may still have been made.
        ref = Ref(attempt.ref) if attempt.ref else None
        if ref is None:
            ref = next((o.ref for o in provider.owned() if o.attempt == attempt.id), None)
        if ref is not None:
            if self._observe(provider, attempt).phase not in (Phase.PENDING, Phase.RUNNING):
                self._collect(lease, job, attempt, provider)
            if provider.stop(ref) is Stop.STOPPING:
                self._store.update_attempt(lease, attempt.id, "stopping")
                return provider.can.poll_s
        self._store.update_attempt(lease, attempt.id, "closed", cost_usd=self._cost(attempt))
        return NOW

    def _meet(self, lease: Lease, job: Job, error: ProviderError) -> float:
        """Do what the class of a provider's error says."""
        if isinstance(error, NotFound) and job.state is not State.PROVISIONING:
            return self._lose(lease, Cause.LOST, Observation(Phase.GONE, str(error)))
        if error.then in (Then.AGAIN, Then.LOOK_FIRST):
            self._store.note(lease, str(error))
            return max(RETRY_S, error.retry_after_s)
        if error.then is Then.NEXT_OFFER and job.state is State.PROVISIONING:
            attempt, _ = self._current(job)
            self._store.update_attempt(lease, attempt.id, "closed", cause=str(error), cost_usd=0.0)
            self._store.move(lease, Cause.NO_CAPACITY, str(error))
            return CAPACITY_RETRY_S if attempt.number % len(job.options) == 0 else NOW
        return self._fail(lease, Failure(error.what, error.where, error.fix))

    def _fail(self, lease: Lease, failure: Failure) -> float:
        self._store.move(lease, Cause.FAILED, failure.what, failure=failure)
        return NOW

    def _lose(self, lease: Lease, cause: Cause, seen: Observation) -> float:
        self._store.move(lease, cause, seen.cause)
        return NOW

    def _wait(self, lease: Lease, provider: Provider, seen: Observation) -> float:
        if seen.cause:
            self._store.note(lease, seen.cause)
        return provider.can.poll_s

    # Looking

    def _current(self, job: Job) -> tuple[AttemptRow, Provider]:
        attempt = self._store.attempts(job.id)[-1]
        return attempt, self._provider(attempt.offer.provider)

    def _attempt(self, job: Job, attempt: AttemptRow) -> Attempt:
        return Attempt(
            id=attempt.id,
            store=self._store.store_id,
            job=job.id,
            offer=attempt.offer,
            cargo=self._folder(job).cargo(job.spec),
        )

    def _folder(self, job: Job) -> JobFolder:
        return job_folder(self._home, job.id)

    def _observe(self, provider: Provider, attempt: AttemptRow) -> Observation:
        if attempt.ref is None:
            return Observation(Phase.UNKNOWN)
        ref = Ref(attempt.ref)
        return provider.observe([ref])[ref]

    def _collect(self, lease: Lease, job: Job, attempt: AttemptRow, provider: Provider) -> None:
        """Bring the log up to date, turn its progress into events, fetch checkpoints that are new."""
        if attempt.ref is None:
            return
        ref, folder = Ref(attempt.ref), self._folder(job)
        log = folder.log(attempt.number)
        append_from(log, lambda offset, limit: provider.logs(ref, offset, limit))
        found, parsed = progress_since(log, attempt.log_parsed)
        # Checkpoints first: an event says what is kept here.
        if any(progress.kind == "checkpoint" for progress in found):
            try:
                provider.pull(ref, "checkpoints", folder.checkpoints)
            except NotFound:
                return
        told = [(p.kind, describe(p), p.values) for p in found if p.kind in TOLD]
        if parsed != attempt.log_parsed:
            self._store.record_progress(lease, attempt, parsed, told)

    def _told_failure(self, job: Job, attempt: AttemptRow) -> Failure | None:
        """The error in the trainer's own words, where it could still speak."""
        for event in reversed(self._store.events(job.id)):
            if event.kind == "error" and event.attempt == attempt.number:
                words: dict[str, Any] = event.data or {}
                return Failure(*(str(words.get(key) or "") for key in ("what", "where", "fix")))
        return None

    def _cost(self, attempt: AttemptRow) -> float:
        """Price × time since the intent: never less than what is billed."""
        hours = (self._store.now() - attempt.created_at) / 3600
        return attempt.offer.price_usd_per_hour * hours


def _ref(attempt: AttemptRow) -> Ref:
    if attempt.ref is None:
        raise NotFound("nothing was rented for this attempt", where=attempt.id)
    return Ref(attempt.ref)


def _failure_of(job: Job, seen: Observation) -> Failure:
    return Failure(seen.cause, fix=f"look at: ftcloud logs {job.id}; then: ftcloud resume {job.id}")
