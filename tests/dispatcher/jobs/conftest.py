"""A world to carry jobs in: a home, a store with a clock in the hand, a cloud, a registry that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dispatcher.jobs.engine import Engine
from dispatcher.jobs.job import AttemptRow, Job, job_folder, new_job_id
from dispatcher.jobs.lease import Lease
from dispatcher.jobs.store import JobStore
from dispatcher.storage.database import connect
from dispatcher.storage.home import Home
from tests.factories.cloud import Cloud, make_offer


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    home: Home
    clock: Clock
    cloud: Cloud
    store: JobStore
    registered: dict[tuple[str, int], str] = field(default_factory=dict)

    def add_job(self, name: str = "orders") -> Job:
        job_id = new_job_id()
        folder = job_folder(self.home, job_id)
        folder.data.mkdir(parents=True)
        return self.store.add(job_id, name, {}, "{}", [make_offer()])

    def engine(self, cloud: object = None, store: object = None) -> Engine:
        provider = cloud or self.cloud
        return Engine(store or self.store, self.home, lambda _: provider, self.register)  # type: ignore[arg-type]

    def register(self, job: Job, attempt: AttemptRow, files: Path) -> str:
        assert (files / "manifest.json").exists(), "only whole outputs are registered"
        return self.registered.setdefault((job.id, attempt.number), f"{job.name}:{len(self.registered) + 1}")

    def take(self, job: Job) -> Lease:
        lease = self.store.take(job.id)
        assert lease is not None
        return lease

    def run(self, job: Job, steps: int = 200) -> Job:
        """Step to the end, the clock going on by what the engine asks for and at least a second."""
        lease, engine = self.take(job), self.engine()
        for _ in range(steps):
            wait = engine.step(lease)
            if wait is None:
                self.store.release(lease)
                return self.store.job(job.id)
            self.clock.advance(max(wait, 1.0))
        raise AssertionError(f"not over after {steps} steps: {self.store.job(job.id).state}")


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(faults: list[str] | None = None) -> World:
        home = Home(tmp_path / f"home-{len(worlds)}")
        home.path.mkdir()
        clock = Clock()
        worlds.append(World(home, clock, Cloud(faults or []), JobStore(connect(home.database), clock)))
        return worlds[-1]

    yield make
    for world in worlds:
        world.store.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
