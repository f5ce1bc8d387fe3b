"""The store: leases that fence, jobs that are found, and writes that are whole."""

from __future__ import annotations

import pytest

from dispatcher.jobs.lease import LEASE_S, LeaseLost, holder_name, is_alive
from dispatcher.jobs.moves import Cause, ImpossibleMove, State
from tests.dispatcher.jobs.conftest import World
from trainer_image.trainer.errors import UsageError


def test_a_job_that_is_carried_is_not_given_to_another(world: World) -> None:
    job = world.add_job()
    assert world.store.take(job.id) is not None
    assert world.store.take(job.id) is None


def test_a_lease_that_ran_out_is_given_away_and_its_holder_is_fenced(world: World) -> None:
    job = world.add_job()
    asleep = world.take(job)
    world.clock.advance(LEASE_S + 1)
    awake = world.take(job)
    with pytest.raises(LeaseLost):
        world.store.move(asleep, Cause.LAUNCHED)
    assert world.store.job(job.id).state is State.PLANNED, "a refused write leaves nothing"
    assert world.store.move(awake, Cause.LAUNCHED).state is State.QUEUED


def test_a_renewed_lease_is_kept(world: World) -> None:
    job = world.add_job()
    lease = world.take(job)
    world.clock.advance(LEASE_S - 1)
    world.store.renew(lease)
    world.clock.advance(LEASE_S - 1)
    assert world.store.take(job.id) is None


def test_the_lease_of_a_process_that_is_gone_is_free_at_once(world: World) -> None:
    job = world.add_job()
    world.take(job)
    host = holder_name().rsplit(":", 2)[0]
    world.store._db.execute("UPDATE jobs SET lease_holder = ?", (f"{host}:999999999:1.00",))
    assert world.store.take(job.id) is not None


def test_a_process_with_the_same_pid_but_another_start_is_another_process() -> None:
    host, pid, _ = holder_name().rsplit(":", 2)
    assert is_alive(holder_name())
    assert not is_alive(f"{host}:{pid}:1.00")
    assert is_alive("elsewhere:1:1.00"), "another host cannot be asked: its lease must run out"


def test_a_job_is_found_by_id_beginning_name_and_last(world: World) -> None:
    first, second = world.add_job("a"), world.add_job("b")
    for word, expected in ((first.id, first), (first.id[:6], first), ("a", first), ("last", second)):
        assert world.store.find(word).id == expected.id


@pytest.mark.parametrize("word", ["", "nothing", "%", "_", "' OR 1=1 --"])
def test_a_word_that_means_no_job_is_refused(world: World, word: str) -> None:
    world.add_job()
    with pytest.raises(UsageError, match="no job"):
        world.store.find(word)


def test_an_impossible_move_writes_nothing(world: World) -> None:
    job = world.add_job()
    lease = world.take(job)
    with pytest.raises(ImpossibleMove):
        world.store.move(lease, Cause.REGISTERED, model="orders:1")
    assert world.store.job(job.id).model is None
    assert world.store.events(job.id) == []


def test_unattended_are_jobs_that_nobody_carries_and_that_have_something_left(world: World) -> None:
    done, carried, left = world.add_job("done"), world.add_job("carried"), world.add_job("left")
    world.run(done)
    world.take(carried)
    assert [job.id for job in world.store.unattended()] == [left.id]


def test_a_job_that_is_over_is_unattended_while_its_machine_is_not_closed(world: World) -> None:
    world.cloud.faults = ["stop is slow"]
    job = world.add_job()
    lease, engine = world.take(job), world.engine()
    while not world.store.job(job.id).over:
        engine.step(lease)
    world.store.release(lease)
    assert [left.id for left in world.store.unattended()] == [job.id]
