"""Carrying a job to its end: in the foreground, or in a process of its own that outlives the terminal."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dispatcher.jobs.engine import Engine
from dispatcher.jobs.job import AttemptRow, Job, job_folder
from dispatcher.jobs.lease import Heartbeat, LeaseLost
from dispatcher.jobs.store import JobStore
from dispatcher.registry.store import ModelRegistry
from dispatcher.registry.version import Candidate
from dispatcher.storage.home import Home
from providers.plugins import load_provider
from providers.protocol import Provider
from trainer_image.trainer.errors import FtcloudError

WATCH_S = 0.3
"""Between two looks at a job that another process carries, and between two calls of a tick."""


def carry(home: Home, store: JobStore, job_id: str, tick: Callable[[], None] = lambda: None) -> Job:
    """Step the job until nothing is left to do, or watch while another process does.

    `tick` is called often, to show what is new. Killed at any point, the next call goes on.
    """
    providers: dict[str, Provider] = {}

    def provider(name: str) -> Provider:
        if name not in providers:
            providers[name] = load_provider(name, home.path)
        return providers[name]

    engine = Engine(store, home, provider, lambda job, attempt, files: _register(home, job, attempt, files))
    while True:
        lease = store.take(job_id)
        if lease is None:
            tick()
            time.sleep(WATCH_S)
            continue
        try:
            with Heartbeat(home.database, lease):
                while (wait := engine.step(lease)) is not None:
                    _sleep(wait, tick)
        except LeaseLost:
            continue  # we were asleep and another took over: watch it
        except OSError as error:
            raise FtcloudError(
                f"the job cannot be carried on: {error.strerror or error}",
                where=str(error.filename or home.path),
                fix=f"free disk space or mend permissions, then: ftcloud resume {job_id}",
            ) from error
        finally:
            with contextlib.suppress(LeaseLost):
                store.release(lease)
        tick()
        return store.job(job_id)


def spawn_carrier(home: Home, job_id: str) -> None:
    """Start a process that carries the job and outlives this one; it takes the lease when it is free."""
    log = job_folder(home, job_id).carrier_log
    with log.open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", "ftcloud", "carry", job_id],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def take_up(home: Home, store: JobStore) -> list[Job]:
    """Start carriers for jobs that nobody carries: their process was killed, or the machine restarted."""
    left = [job for job in store.unattended() if job_folder(home, job.id).path.is_dir()]
    for job in left:
        spawn_carrier(home, job.id)
    return left


def _sleep(seconds: float, tick: Callable[[], None]) -> None:
    tick()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, WATCH_S))
        tick()


def _register(home: Home, job: Job, attempt: AttemptRow, files: Path) -> str:
    """Make a trainer's output the next version of the recipe's name."""
    spec = json.loads(job.spec)
    result = json.loads((files / "result.json").read_text(encoding="utf-8"))
    candidate = Candidate(
        name=job.name,
        job=job.id,
        attempt=attempt.number,
        base_model=spec["model"]["name"],
        base_revision=spec["model"]["revision"],
        method=spec["method"],
        recipe=job.recipe,
        data_fingerprint=spec["labels"].get("data", ""),
        metrics=result["metrics"],
        environment=result["environment"],
        cost_usd=job.cost_usd,
    )
    with contextlib.closing(ModelRegistry.open(home)) as registry:
        return registry.register(candidate, files).reference
