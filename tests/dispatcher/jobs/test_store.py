"""The store: leases that fence, jobs that are found, and writes that are whole."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.jobs import lease as module
from dispatcher.jobs.job import Failure, Job
from dispatcher.jobs.lease import LEASE_S, Heartbeat, Lease, LeaseLost, holder_name, is_alive
from dispatcher.jobs.moves import Cause, ImpossibleMove, State
from dispatcher.jobs.store import JobStore
from dispatcher.storage.database import connect
from tests.dispatcher.jobs.conftest import World
from tests.factories.cloud import make_offer
from trainer_image.trainer.errors import UsageError

WRITES: dict[str, Callable[[JobStore, Lease], object]] = {
    "move": lambda store, lease: store.move(lease, Cause.FAILED, "why", failure=Failure("why")),
    "note": lambda store, lease: store.note(lease, "something new"),
    "intend": lambda store, lease: store.intend(lease, make_offer()),
    "update attempt": lambda store, lease: store.update_attempt(
        lease, f"{lease.job}-1", "closed", ref="other", cost_usd=2.0
    ),
    "record progress": lambda store, lease: store.record_progress(
        lease, store.attempts(lease.job)[-1], 99, [("eval", "one", {}), ("eval", "two", {})]
    ),
    "renew": lambda store, lease: store.renew(lease),
    "release": lambda store, lease: store.release(lease),
}
NEEDS = {"intend": State.QUEUED}


def in_state(world: World, job: Job, state: State) -> Lease:
    """Carry the job until it is in `state`, and a moment longer."""
    world.cloud.runs_for = 1000
    lease, engine = world.take(job), world.engine()
    while world.store.job(job.id).state is not state:
        engine.step(lease)
    world.clock.advance(1)
    return lease


def everything(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    rows = [database.execute(f"SELECT * FROM {table}") for table in ("jobs", "attempts", "events")]
    return [tuple(row) for table in rows for row in table]


def killed_before_statement(
    number: int, database: Path, world: World, write: Callable[[JobStore], object]
) -> bool:
    """Whether there was such a statement."""
    child = os.fork()
    if child == 0:
        left = [number]

        def count(_: str) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        try:
            connection = connect(database)
            connection.set_trace_callback(count)
            write(JobStore(connection, world.clock))
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "the child failed by itself"
    return code != 0


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


@pytest.mark.parametrize("write", WRITES)
def test_no_write_of_a_process_that_was_asleep_changes_anything(world: World, write: str) -> None:
    job = world.add_job()
    asleep = in_state(world, job, NEEDS.get(write, State.TRAINING))
    world.clock.advance(LEASE_S + 1)
    awake = world.take(job)
    before = everything(world.store._db)
    with pytest.raises(LeaseLost):
        WRITES[write](world.store, asleep)
    assert everything(world.store._db) == before
    world.clock.advance(1)
    WRITES[write](world.store, awake)
    assert everything(world.store._db) != before


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_is_killed_before_any_of_its_statements_is_whole_or_absent(
    world: World, write: str, tmp_path: Path
) -> None:
    """kill -9 in a child process before its n-th statement, for every n."""
    lease = in_state(world, world.add_job(), NEEDS.get(write, State.TRAINING))
    before = everything(world.store._db)
    world.store.close()
    found, kills, killed = [], 0, True
    while killed:
        database = Path(shutil.copy(world.home.database, tmp_path / f"{kills}.db"))
        killed = killed_before_statement(kills, database, world, lambda store: WRITES[write](store, lease))
        found.append(everything(connect(database)))
        kills += 1
    after = found[-1]
    assert kills > 3
    assert after != before
    assert all(state in (before, after) for state in found)


def test_the_heartbeat_keeps_a_lease_through_a_long_move(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    job = world.add_job()
    with Heartbeat(world.home.database, world.take(job)):
        until = time.monotonic() + 10
        # The heart beats by the real clock, which is decades ahead of this world's.
        while world.store.job(job.id).lease_until < 1e9:
            assert time.monotonic() < until, "the lease was not renewed"
            time.sleep(0.01)


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
