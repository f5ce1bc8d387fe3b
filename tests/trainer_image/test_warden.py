"""The warden's word and its lock; tests/providers/test_local.py has it start real processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from trainer_image.trainer import warden
from trainer_image.trainer.warden import Status


def test_a_start_beside_one_that_has_the_lock_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    other = os.open(tmp_path / "alive.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    warden.start(tmp_path)
    assert started == []
    os.close(other)
    warden.start(tmp_path)
    assert len(started) == 1


def test_the_word_of_a_warden_that_was_lost_is_gone_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process group may be another's by now, and `stop` would kill that."""
    warden._write(tmp_path, Status("running", group=os.getpgrp()))
    (tmp_path / "alive.lock").touch()
    assert warden.status(tmp_path).phase == "lost"
    seen: list[Status] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: seen.append(warden.status(tmp_path)))
    warden.start(tmp_path)
    assert seen == [Status("waiting")]


def test_an_end_that_is_written_between_two_looks_is_an_end_and_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warden._write(tmp_path, Status("running", group=1))
    (tmp_path / "alive.lock").touch()
    real = warden._take

    def ends_meanwhile(lock: int, *, shared: bool = False) -> bool:
        warden._write(tmp_path, Status("ended", exit_code=0))
        return real(lock, shared=shared)

    monkeypatch.setattr(warden, "_take", ends_meanwhile)
    assert warden.status(tmp_path) == Status("ended", exit_code=0)


def test_whoever_reads_the_state_while_it_is_written_finds_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warden._write(tmp_path, Status("running", group=1))
    seen: list[Status] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(warden._read(tmp_path)))
    warden._write(tmp_path, Status("ended", exit_code=0))
    assert seen == [Status("running", group=1)], "flushed, and only then put into its place"
    assert warden._read(tmp_path) == Status("ended", exit_code=0)
