"""Killed at every boundary between the engine and the world, a job goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.jobs.moves import State
from tests.dispatcher.jobs.conftest import World


class Killed(BaseException):
    """kill -9: nothing may catch it."""


class Fuse:
    """Burns at each boundary; at the chosen one the process dies."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.burnt = 0

    def burn(self) -> None:
        self.burnt += 1
        if self.burnt == self.length:
            raise Killed


class Fused:
    """Passes every call of `target` through, with a boundary before it and one after it."""

    def __init__(self, target: object, fuse: Fuse) -> None:
        self._target = target
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.burn()
            answer = found(*args, **kwargs)
            self._fuse.burn()
            return answer

        return call


def run_fused(world: World, fuse: Fuse) -> None:
    """Carry the world's only job to its end, or to the end of the fuse."""
    job = world.store.jobs()[0]
    lease = world.take(job)
    engine = world.engine(Fused(world.cloud, fuse), Fused(world.store, fuse))
    while engine.step(lease) is not None:
        world.clock.advance(1)


def boundaries(make_world: Callable[..., World], faults: list[str]) -> int:
    world, fuse = make_world(list(faults)), Fuse(0)
    world.add_job()
    run_fused(world, fuse)
    return fuse.burnt


@pytest.mark.parametrize("faults", [[], ["answer lost"], ["preempted"], ["machine gone", "stop is slow"]])
def test_killed_anywhere_the_job_still_succeeds_once_with_one_machine_at_a_time(
    make_world: Callable[..., World], faults: list[str]
) -> None:
    count = boundaries(make_world, faults)
    assert count > 50, "the fuse must meet the store and the cloud"
    for length in range(1, count + 1):
        world = make_world(list(faults))
        job = world.add_job()
        with pytest.raises(Killed):
            run_fused(world, Fuse(length))
        world.clock.advance(3600)  # the lease of the dead runs out
        after = world.run(job)
        where = f"killed at boundary {length} of {count}"
        assert after.state is State.SUCCEEDED, where
        assert world.cloud.alive() == [], where
        assert world.cloud.most_alive_for_a_job == 1, where
        assert after.model in world.registered.values(), where
        assert all(attempt.state == "closed" for attempt in world.store.attempts(job.id)), where
