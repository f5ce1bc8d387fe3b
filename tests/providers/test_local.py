"""`local`: a folder and a process group that outlive whoever started them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from providers.errors import NotFound
from providers.protocol import Phase, Stop
from tests.factories.outputs import make_output
from tests.providers.conftest import Local, wait_until
from trainer_image.trainer import warden

# The trainer is a double, but `local` starts none where the trainer's stack is missing.
pytestmark = pytest.mark.torch


def test_a_trainer_runs_says_its_lines_and_succeeds(local: Local) -> None:
    ref = local.start("job", ("say", "one"), ("say", "two"))
    local.wait_for(ref, Phase.SUCCEEDED)
    assert local.provider.logs(ref, 0, 1000) == b"one\ntwo\n"
    assert local.provider.logs(ref, 4, 2) == b"tw"
    assert local.provider.logs(ref, 8, 1000) == b""


def test_everything_may_be_repeated_and_only_one_trainer_starts(local: Local) -> None:
    request = local.request("job", ("say", "started"), ("wait", "go"))
    for _ in range(3):
        ref = local.provider.submit(request)
        assert local.provider.stage(request, ref)
    local.started.append(ref)
    local.wait_for(ref, Phase.RUNNING)
    local.provider.stage(request, ref)
    (local.workdir(ref) / "go").touch()
    local.wait_for(ref, Phase.SUCCEEDED)
    local.provider.stage(request, ref)
    assert local.provider.logs(ref, 0, 1000) == b"started\n"


def test_two_starts_at_the_same_moment_make_one_trainer(local: Local, tmp_path: Path) -> None:
    request = local.request("job", ("say", "started"), ("wait", "go"))
    ref = local.provider.submit(request)
    local.started.append(ref)
    workdir = local.workdir(ref)
    (workdir / "spec.json").write_text(request.attempt.cargo.spec)
    start = [sys.executable, "-m", "trainer_image.trainer.warden", "start", str(workdir)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "double"), "PYTHONSAFEPATH": "1"}
    racers = [subprocess.Popen(start, env=environment) for _ in range(6)]
    assert [racer.wait() for racer in racers] == [0] * 6
    local.wait_for(ref, Phase.RUNNING)
    (workdir / "go").touch()
    local.wait_for(ref, Phase.SUCCEEDED)
    assert local.provider.logs(ref, 0, 1000) == b"started\n"


def test_the_trainer_outlives_the_process_that_started_it(local: Local) -> None:
    ref = local.start("job", ("wait", "go"))
    local.wait_for(ref, Phase.RUNNING)
    group = warden.status(local.workdir(ref)).group
    assert group is not None
    process = psutil.Process(group)
    assert os.getsid(group) == group, "a session of its own: Ctrl-C in the terminal does not reach it"
    assert process.parent() is None or process.parent().pid != os.getpid()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("step", "phase", "words"),
    [
        (("exit", 0), Phase.SUCCEEDED, ""),
        (("exit", 75), Phase.PREEMPTED, "asked to stop"),
        (("exit", 1), Phase.FAILED, "exit code 1"),
        (("kill", 9), Phase.FAILED, "signal 9 (out of memory?)"),
        (("kill", 11), Phase.FAILED, "signal 11"),
    ],
)
def test_how_it_ended_is_told(local: Local, step: tuple[object, ...], phase: Phase, words: str) -> None:
    ref = local.start("job", step)
    seen = local.wait_for(ref, Phase.SUCCEEDED, Phase.FAILED, Phase.PREEMPTED)
    assert seen.phase is phase
    assert words in seen.cause


def test_killed_together_with_its_warden_it_is_failed_and_not_running_for_ever(local: Local) -> None:
    ref = local.start("job", ("wait", "go"))
    local.wait_for(ref, Phase.RUNNING)
    group = warden.status(local.workdir(ref)).group
    assert group is not None
    os.killpg(group, signal.SIGKILL)
    assert "without a word" in local.wait_for(ref, Phase.FAILED).cause


def test_a_trainer_whose_warden_was_killed_still_counts_as_running_and_can_be_stopped(local: Local) -> None:
    ref = local.start("job", ("wait", "go"))
    local.wait_for(ref, Phase.RUNNING)
    group = warden.status(local.workdir(ref)).group
    assert group is not None
    os.kill(group, signal.SIGKILL)  # the leader of the group is the warden alone
    wait_until(lambda: psutil.pid_exists(group), lambda there: not there)
    assert local.look(ref).phase is Phase.RUNNING
    assert wait_until(lambda: local.provider.stop(ref), lambda said: said is Stop.STOPPED)
    assert local.look(ref).phase is Phase.GONE


def test_a_second_job_waits_for_the_first_and_says_for_which(local: Local) -> None:
    first = local.start("first", ("wait", "go"))
    local.wait_for(first, Phase.RUNNING)
    second = local.start("second", ("say", "ran"))
    seen = wait_until(lambda: local.look(second), lambda seen: bool(seen.cause))
    assert (seen.phase, seen.cause) == (Phase.PENDING, "this machine is training job first")
    (local.workdir(first) / "go").touch()
    local.wait_for(second, Phase.SUCCEEDED)


def test_a_job_can_be_stopped_while_it_waits_for_another(local: Local) -> None:
    first = local.start("first", ("wait", "go"))
    local.wait_for(first, Phase.RUNNING)
    second = local.start("second")
    wait_until(lambda: local.provider.stop(second), lambda said: said is Stop.STOPPED)
    assert local.look(first).phase is Phase.RUNNING


def test_stop_ends_the_whole_group_removes_the_folder_and_may_be_repeated(local: Local) -> None:
    ref = local.start("job", ("wait", "go"))
    local.wait_for(ref, Phase.RUNNING)
    group = warden.status(local.workdir(ref)).group
    assert group is not None
    wait_until(lambda: local.provider.stop(ref), lambda said: said is Stop.STOPPED)
    # The warden writes its last word and then leaves: a moment later nobody of the group is there.
    wait_until(
        lambda: [p for p in psutil.process_iter(["status"]) if _group(p) == group], lambda left: not left
    )
    assert not local.workdir(ref).exists()
    assert local.provider.stop(ref) is Stop.STOPPED
    assert local.provider.owned() == []


def test_a_stubborn_trainer_is_killed_after_the_grace(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warden, "STOP_GRACE_S", 0.3)
    ref = local.start("job", ("stubborn",), ("make", "ready"), ("wait", "go"))
    wait_until((local.workdir(ref) / "ready").exists, bool)
    assert local.provider.stop(ref) is Stop.STOPPING
    wait_until(lambda: local.provider.stop(ref), lambda said: said is Stop.STOPPED)


def test_checkpoints_come_home_whole_and_old_ones_go(local: Local, tmp_path: Path) -> None:
    ref = local.start("job", ("wait", "go"))
    source, home = local.workdir(ref) / "checkpoints", tmp_path / "kept"
    for step in (1, 2):
        (source / f"step-{step}").mkdir(parents=True)
        (source / f"step-{step}" / "state.json").write_text(str(step))
    (source / ".step-3").mkdir()
    local.provider.pull(ref, "checkpoints", home)
    assert sorted(path.name for path in home.iterdir()) == ["step-1", "step-2"]
    for file in (source / "step-1").iterdir():
        file.unlink()
    (source / "step-1").rmdir()
    local.provider.pull(ref, "checkpoints", home)
    assert [path.read_text() for path in home.rglob("state.json")] == ["2"]


def test_an_output_of_which_a_part_has_come_home_has_no_manifest_yet(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who pulls is killed at each file in turn; whoever finds a manifest may believe the rest."""
    ref, home = local.start("job"), tmp_path / "kept"
    make_output(local.workdir(ref) / "output")
    files = {
        path.relative_to(local.workdir(ref) / "output") for path in local.workdir(ref).rglob("output/**/*.*")
    }
    real = Path.hardlink_to
    for count in range(len(files)):
        calls: list[Path] = []

        def killed(self: Path, target: Path, calls: list[Path] = calls, count: int = count) -> None:
            calls.append(target)
            if len(calls) > count:
                raise KeyboardInterrupt
            real(self, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "hardlink_to", killed)
            local.provider.pull(ref, "output", home)
        assert not (home / "manifest.json").exists(), f"killed at file {count + 1} of {len(files)}"
        shutil.rmtree(home)
    local.provider.pull(ref, "output", home)
    assert {path.relative_to(home) for path in home.rglob("*.*")} == files


def test_the_next_attempt_gets_the_checkpoints(local: Local, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints" / "step-5"
    kept.mkdir(parents=True)
    (kept / "state.json").write_text("5")
    ref = local.start("job")
    assert (local.workdir(ref) / "checkpoints" / "step-5" / "state.json").read_text() == "5"


def test_what_is_alive_is_owned_with_its_store_and_attempt(local: Local) -> None:
    ref = local.start("job", ("wait", "go"))
    assert [(owned.ref, owned.store, owned.attempt) for owned in local.provider.owned()] == [
        (ref, "store", "job-1")
    ]


def test_an_attempt_whose_folder_was_deleted_is_gone(local: Local, tmp_path: Path) -> None:
    from providers.protocol import Ref

    assert local.look(Ref("never-1")).phase is Phase.GONE
    with pytest.raises(NotFound):
        local.provider.pull(Ref("never-1"), "output", tmp_path / "out")


def test_the_request_says_everything_that_will_be_run(local: Local) -> None:
    body = local.request("job").body
    assert body["command"][1:4] == ["-m", "trainer_image.trainer.warden", "start"]
    assert body["workdir"] == str(local.folder / "job-1")


def _group(process: psutil.Process) -> int:
    """Of a process that is more than an entry which its parent has not collected yet."""
    try:
        return os.getpgid(process.pid) if process.info["status"] != psutil.STATUS_ZOMBIE else -1
    except ProcessLookupError:
        return -1
