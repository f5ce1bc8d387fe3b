"""The engine carries a job through whatever a cloud does, and leaves nothing running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.jobs.engine import MAX_ATTEMPTS
from dispatcher.jobs.job import Failure, job_folder
from dispatcher.jobs.moves import Cause, State
from providers.errors import ProviderDown
from providers.protocol import Observation, Phase, PullKind, Ref, Stop
from tests.dispatcher.jobs.conftest import World
from tests.factories.cloud import FAULTS, LOG
from trainer_image.trainer.errors import FtcloudError


def test_a_job_goes_through_its_states_in_order(world: World) -> None:
    job = world.run(world.add_job())
    moved = [event.state for event in world.store.events(job.id) if event.kind == "moved"]
    assert moved == ["queued", "provisioning", "staging", "training", "finishing", "succeeded"]
    assert job.model == "orders:1"
    assert world.cloud.alive() == []


def test_the_intent_is_recorded_before_the_paid_call(world: World) -> None:
    job, intents_at_submit = world.add_job(), []
    submit = world.cloud.submit

    def watched(request):  # type: ignore[no-untyped-def]
        intents_at_submit.append([a.id for a in world.store.attempts(job.id) if a.state == "intended"])
        return submit(request)

    world.cloud.submit = watched  # type: ignore[method-assign]
    world.run(job)
    assert intents_at_submit == [[f"{job.id}-1"]]


def test_cost_is_price_times_time_until_the_machine_is_gone(world: World) -> None:
    world.cloud.runs_for = 3601  # one look a second
    job = world.add_job()
    lease, engine = world.take(job), world.engine()
    while (wait := engine.step(lease)) is not None:
        world.clock.advance(max(wait, 1.0))
    assert world.store.job(job.id).cost_usd == pytest.approx(1.0, rel=0.01)


def test_a_lost_answer_rents_no_second_machine(make_world: Callable[..., World]) -> None:
    world = make_world(["answer lost"])
    job = world.run(world.add_job())
    assert (job.state, world.cloud.created) == (State.SUCCEEDED, 1)


@pytest.mark.parametrize("state", [State.PROVISIONING, State.TRAINING])
def test_what_cannot_be_reached_is_not_lost(world: World, state: State) -> None:
    job = world.add_job()
    lease, engine = world.take(job), world.engine()
    while world.store.job(job.id).state is not state or world.store.attempts(job.id)[-1].ref is None:
        engine.step(lease)
    world.store.release(lease)
    world.cloud.faults = ["observe fails"] * 50
    job = world.run(job)
    assert (job.state, world.cloud.created) == (State.SUCCEEDED, 1)
    noted = [event.message for event in world.store.events(job.id) if event.kind == "noted"]
    assert noted == ["time-out"], "the same words are told once"


@pytest.mark.parametrize("fault", ["preempted", "machine gone"])
def test_a_lost_machine_is_replaced_after_it_is_closed(make_world: Callable[..., World], fault: str) -> None:
    world = make_world([fault])
    job = world.run(world.add_job())
    assert (job.state, world.cloud.created) == (State.SUCCEEDED, 2)
    assert world.cloud.most_alive_for_a_job == 1


def test_a_job_whose_machines_keep_being_lost_fails_in_the_end(make_world: Callable[..., World]) -> None:
    world = make_world(["preempted"] * 50)
    job = world.run(world.add_job())
    assert (job.state, world.cloud.created) == (State.FAILED, MAX_ATTEMPTS)
    assert job.failure is not None
    assert world.cloud.alive() == []


def test_no_capacity_waits_for_some(make_world: Callable[..., World]) -> None:
    world = make_world(["no capacity", "no capacity"])
    job = world.run(world.add_job())
    assert (job.state, world.cloud.created) == (State.SUCCEEDED, 1)
    assert job.cost_usd < 0.01, "attempts that got nothing cost nothing"


def test_the_log_is_kept_to_the_byte_and_its_progress_told_once(world: World) -> None:
    job = world.run(world.add_job())
    assert job_folder(world.home, job.id).log(1).read_bytes() == LOG
    assert [e.data for e in world.store.events(job.id) if e.kind == "checkpoint"] == [
        {"step": 1, "path": "checkpoints/step-1"}
    ]


def test_a_checkpoint_that_could_not_be_fetched_is_fetched_at_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event says that it is kept here, so it is recorded after that."""
    job, fetched = world.add_job(), []
    pull = world.cloud.pull

    def down_once(ref: Ref, what: PullKind, dest: Path) -> bool:
        if what == "checkpoints":
            fetched.append([event.kind for event in world.store.events(job.id)].count("checkpoint"))
            if len(fetched) == 1:
                raise ProviderDown("503")
        return pull(ref, what, dest)

    monkeypatch.setattr(world.cloud, "pull", down_once)
    assert world.run(job).state is State.SUCCEEDED
    assert fetched == [0, 0]
    assert [event.kind for event in world.store.events(job.id)].count("checkpoint") == 1


def test_a_failure_is_told_in_the_trainers_last_words(make_world: Callable[..., World]) -> None:
    """They are written after one look and before the next, which finds the end."""
    world = make_world(["trainer fails"])
    job = world.run(world.add_job())
    assert job.failure == Failure("out of memory", "RAM", "lower it")


def test_what_a_trainer_wrote_while_it_was_stopped_is_fetched_before_its_machine_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cloud.runs_for = 1000
    job, stop, fetched = world.add_job(), world.cloud.stop, []
    lease, engine = world.take(job), world.engine()
    for _ in range(8):
        engine.step(lease)
    world.store.release(lease)
    line = b'{"ftcloud": "checkpoint", "step": 2, "path": "checkpoints/step-2"}\n'

    def graceful(ref: Ref) -> Stop:
        machine = world.cloud.machines[ref.id]
        if machine.ended is not None:
            return stop(ref)
        machine.ended = Observation(Phase.PREEMPTED, "asked to stop")
        world.cloud.log += line
        monkeypatch.setattr(world.cloud, "pull", lambda _, what, __: fetched.append(what) or True)
        return Stop.STOPPING

    monkeypatch.setattr(world.cloud, "stop", graceful)
    world.store.want(job.id, "cancelled")
    assert world.run(job).state is State.CANCELLED
    assert job_folder(world.home, job.id).log(1).read_bytes() == LOG + line
    assert fetched == ["checkpoints"]


@pytest.mark.parametrize("faults", [[], ["answer lost"] * 9, ["stop is slow"]], ids=str)
@pytest.mark.parametrize("steps", range(12))
def test_a_job_cancelled_at_any_point_ends_cancelled_with_nothing_alive(
    steps: int, faults: list[str], make_world: Callable[..., World]
) -> None:
    world = make_world(list(faults))
    world.cloud.runs_for = 1000
    job = world.add_job()
    lease, engine = world.take(job), world.engine()
    for _ in range(steps):
        engine.step(lease)
    world.store.want(job.id, "cancelled")
    while not world.store.job(job.id).over:
        engine.step(lease)
    assert world.cloud.alive() == [], "it is called cancelled once nothing is paid for any more"
    world.store.release(lease)
    assert world.run(job).state is State.CANCELLED
    assert world.cloud.alive() == []


def test_a_failed_job_that_is_resumed_gets_a_new_attempt_after_the_old_is_closed(
    make_world: Callable[..., World],
) -> None:
    world = make_world(["trainer fails"])
    job = world.run(world.add_job())
    assert job.state is State.FAILED
    lease = world.take(job)
    world.store.move(lease, Cause.RESUMED)
    world.store.release(lease)
    job = world.run(job)
    assert (job.state, world.cloud.created, world.cloud.most_alive_for_a_job) == (State.SUCCEEDED, 2, 1)
    assert job.failure is None


def test_an_output_that_was_refused_is_not_taken_for_the_next_attempts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise FtcloudError("damaged on the way")

    job = world.add_job()
    with monkeypatch.context() as patch:
        patch.setattr(world, "register", refuse)
        assert world.run(job).state is State.FAILED
    lease = world.take(job)
    world.store.move(lease, Cause.RESUMED)
    world.store.release(lease)
    job = world.run(job)
    assert (job.state, job.model) == (State.SUCCEEDED, "orders:1")
    assert job.result == {"metrics": {}, "attempt": f"{job.id}-2"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(FAULTS), max_size=12))
def test_whatever_the_cloud_does_a_job_ends_with_nothing_alive_and_never_two_machines(
    make_world: Callable[..., World], faults: list[str]
) -> None:
    world = make_world(list(faults))
    job = world.run(world.add_job(), steps=400)
    assert job.over
    assert world.cloud.alive() == []
    assert world.cloud.most_alive_for_a_job <= 1
    assert all(attempt.state == "closed" for attempt in world.store.attempts(job.id))
    assert (job.state is State.SUCCEEDED) == (job.model is not None)
