"""The home and the store that a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from dispatcher.jobs.store import JobStore
from dispatcher.storage.home import Home, open_home


@contextmanager
def opened() -> Iterator[tuple[Home, JobStore]]:
    home = open_home()
    with closing(JobStore.open(home.database)) as store:
        yield home, store


@contextmanager
def opened_and_taken_up() -> Iterator[tuple[Home, JobStore]]:
    """As `opened`, after starting a carrier for every job that nobody carries any more."""
    with opened() as (home, store):
        if store.unattended():
            from dispatcher.cli.output import note
            from dispatcher.jobs.carrier import take_up

            for job in take_up(home, store):
                note(f"job {job.id} ({job.name}) was left alone: carrying it on in the background")
        yield home, store
