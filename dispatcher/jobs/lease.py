"""The lease: who carries a job right now.

One process at a time steps a job. It holds a lease with a time limit, renewed by a heartbeat, and a
token that grows with every taking: a write that shows an older token is refused, so a process that was
asleep for an hour cannot undo what its successor did.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from trainer_image.trainer.errors import FtcloudError

LEASE_S = 60.0
HEARTBEAT_S = 10.0


class LeaseLost(FtcloudError):
    """Another process carries the job now; this one must not write to it any more."""


@dataclass(frozen=True, slots=True)
class Lease:
    job: str
    token: int


def holder_name() -> str:
    """HOST:PID:START of this process. The start time tells it from a later one with the same pid."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(holder: str) -> bool:
    """Whether the holder may still be at work; one on another host is believed until its time is up."""
    host, pid, started = holder.rsplit(":", 2)
    return host != socket.gethostname() or _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process of this machine began, to 10 ms; empty where there is none."""
    import psutil  # not needed to list jobs that nobody carries

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


class Heartbeat:
    """Renews a lease from a thread while a long move (a big copy, a slow registry) runs."""

    def __init__(self, database: Path, lease: Lease) -> None:
        self._database = database
        self._lease = lease
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{lease.job}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        from dispatcher.jobs.store import JobStore  # the store knows leases; this breaks the circle

        with contextlib.closing(JobStore.open(self._database)) as store:
            while not self._over.wait(HEARTBEAT_S):
                with contextlib.suppress(LeaseLost):  # the next write of the carrier will meet it
                    store.renew(self._lease)
