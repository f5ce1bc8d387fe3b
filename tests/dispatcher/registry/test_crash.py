"""kill -9 at every step of a registration and of a removal, found by running them under an audit hook.

A child process counts its own changes of the file system and its SQL statements, and kills itself before
the n-th. So every boundary is tried, also one that a later change of the code adds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.registry.store import ModelRegistry
from dispatcher.registry.version import ModelVersion
from dispatcher.storage.database import connect
from dispatcher.storage.home import Home
from tests.factories.outputs import make_candidate, make_output

# A parallel session has a thread that waits for messages and holds no lock that the child could need.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

CHANGES = frozenset(
    {"os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "fcntl.flock"}
)


def run_and_kill_at(step: int, home: Home, work: Callable[[ModelRegistry], object]) -> bool:
    """Run `work` in a child that is killed before its `step`-th change; False when it came to its end."""
    child = os.fork()
    if child == 0:
        _die_at(step, home, work)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def _die_at(step: int, home: Home, work: Callable[[ModelRegistry], object]) -> None:
    left = step

    def count(event: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    try:
        connection = connect(home.database)
        connection.set_trace_callback(count)
        sys.addaudithook(lambda event, _: count(event) if event in CHANGES else None)
        work(ModelRegistry(connection, home))
    except BaseException:
        os._exit(1)
    os._exit(0)


def assert_sound(home: Home, version: ModelVersion) -> None:
    """One whole version, and nothing else on disk."""
    registry = ModelRegistry.open(home)
    assert registry.versions() == [version]
    assert registry.damage(version) == []
    assert sorted(entry.name for entry in home.models.iterdir()) == [".lock", "orders"]
    assert [entry.name for entry in (home.models / "orders").iterdir()] == [str(version.version)]
    registry.close()


def test_a_registration_killed_anywhere_ends_as_one_whole_version(tmp_path: Path) -> None:
    output = make_output(tmp_path / "output")
    killed_with_a_row = step = 0
    while True:
        home = Home(tmp_path / f"home-{step}")
        home.path.mkdir()
        if not run_and_kill_at(step, home, lambda registry: registry.register(make_candidate(), output)):
            break
        registry = ModelRegistry.open(home)
        before = registry.versions()
        killed_with_a_row += bool(before)
        version = registry.register(make_candidate(), output)
        assert version.version == 1
        assert before in ([], [version])
        registry.close()
        assert_sound(home, version)
        step += 1
    assert step > 20
    assert killed_with_a_row > 1  # between the row and the rename


def test_a_removal_killed_anywhere_is_ended_by_the_next_change(tmp_path: Path) -> None:
    output = make_output(tmp_path / "output")
    hidden_with_files = step = 0
    while True:
        home = Home(tmp_path / f"home-{step}")
        home.path.mkdir()
        registry = ModelRegistry.open(home)
        first = registry.register(make_candidate(job="job-1"), output)
        registry.set_alias("orders", "production")
        registry.close()
        if not run_and_kill_at(step, home, lambda registry: registry.remove("orders:1", force=True)):
            break
        registry = ModelRegistry.open(home)
        if registry.versions():
            assert registry.versions()[0].aliases == ("production",)
            assert registry.damage(registry.versions()[0]) == []
            registry.remove("orders:1", force=True)
        else:
            hidden_with_files += first.folder.exists()
        second = registry.register(make_candidate(job="job-2"), output)
        assert second.version == 2
        registry.close()
        assert_sound(home, second)
        step += 1
    assert step > 10
    assert hidden_with_files > 0


def test_two_processes_that_register_one_attempt_make_one_version(tmp_path: Path) -> None:
    output = make_output(tmp_path / "output")
    home = Home(tmp_path / "home")
    home.path.mkdir()
    ModelRegistry.open(home).close()
    children = []
    for job in ("job-1", "job-1", "job-2", "job-2"):
        child = os.fork()
        if child == 0:
            try:
                ModelRegistry.open(home).register(make_candidate(job=job), output)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
    registry = ModelRegistry.open(home)
    assert {(version.version, version.job) for version in registry.versions()} in (
        {(1, "job-1"), (2, "job-2")},
        {(1, "job-2"), (2, "job-1")},
    )
    assert all(registry.damage(version) == [] for version in registry.versions())
    registry.close()
