"""The local provider with a scripted trainer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from providers.local import LocalProvider
from providers.offers import Query
from providers.protocol import Attempt, Cargo, Observation, Phase, Ref, Request
from tests.factories.trainer_double import make_trainer_double, script
from trainer_image.trainer import warden

PATIENCE_S = 20.0
T = TypeVar("T")


@dataclass
class Local:
    """A `LocalProvider` and what was started with it."""

    folder: Path
    provider: LocalProvider
    started: list[Ref] = field(default_factory=list)

    def request(self, job: str, *steps: tuple[object, ...]) -> Request:
        data = self.folder.parent / "data"
        data.mkdir(exist_ok=True)
        (data / "train.jsonl").write_text("{}\n")
        offer = next(iter(self.provider.offers(Query())))
        cargo = Cargo(script(*steps), data, self.folder.parent / "checkpoints")
        return self.provider.prepare(Attempt(f"{job}-1", "store", job, offer, cargo))

    def start(self, job: str, *steps: tuple[object, ...]) -> Ref:
        request = self.request(job, *steps)
        ref = self.provider.submit(request)
        assert self.provider.stage(request, ref)
        self.started.append(ref)
        return ref

    def look(self, ref: Ref) -> Observation:
        return self.provider.observe([ref])[ref]

    def wait_for(self, ref: Ref, *phases: Phase) -> Observation:
        return wait_until(lambda: self.look(ref), lambda seen: seen.phase in phases)

    def workdir(self, ref: Ref) -> Path:
        return self.folder / ref.id


def wait_until(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    until = time.monotonic() + PATIENCE_S
    while not good(seen := look()):
        assert time.monotonic() < until, f"still {seen}"
        time.sleep(0.02)
    return seen


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(
        tmp_path / "local", LocalProvider(tmp_path / "local", make_trainer_double(tmp_path / "double"))
    )
    yield made
    for ref in made.started:
        if made.workdir(ref).is_dir():
            kill_group(made.workdir(ref))


def kill_group(workdir: Path) -> None:
    """Leave no process behind. A warden that has only just started has not said its group yet."""
    told = wait_until(
        lambda: warden.status(workdir),
        lambda seen: seen.group is not None or seen.phase in ("absent", "ended", "lost"),
    )
    if told.group and told.phase in ("waiting", "running"):
        assert told.group != os.getpgrp(), "the trainer must have a group of its own, not this session's"
        with suppress(ProcessLookupError):
            os.killpg(told.group, signal.SIGKILL)
