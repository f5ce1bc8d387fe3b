"""Killed by SIGKILL, for real and at random steps, a run is bit for bit the run that was not.

Dropout, accumulation, shuffling and validation are on. Compared are the loss, the norm of the gradient and
the learning rate of every step, every validation loss, the tokens counted, the last checkpoint with the
optimizer's moments, the adapter, the merged model, and the metrics of the result.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.factories.workdirs import make_workdir
from tests.prove.trainer import MEASURED, Session, Story, run, run_until_the_rename, story, weights
from trainer_image.trainer.progress import Progress

pytestmark = pytest.mark.torch

ROWS, STEPS_AN_EPOCH, EPOCHS = 38, 10, 6
SETTINGS: dict[str, Any] = {
    "rows": ROWS,  # the last step of an epoch has half a batch
    "validation": 6,
    "test": 4,
    "loop__micro_batch": 2,
    "loop__grad_accum": 2,
    "loop__epochs": float(EPOCHS),
    "loop__save_every": 3,
    "loop__eval_every": 7,  # neither falls together with an epoch, nor with each other
    "lora__dropout": 0.1,
}
WINDOWS = ((2, 12), (17, 30), (36, 48))
"""Steps in which the three kills come, far enough apart for a trainer that runs on until the signal lands."""


@dataclass(frozen=True)
class Straight:
    """A run that nobody killed."""

    told: Story
    weights: dict[str, str]
    result: dict[str, Any]

    @classmethod
    def of(cls, workdir: Path, sessions: list[Session]) -> Straight:
        result = json.loads((workdir / "output" / "result.json").read_text())
        for measured in (*MEASURED, "seconds"):
            result["metrics"].pop(measured, None)
        output = {f"output/{name}": digest for name, digest in weights(workdir / "output").items()}
        last = workdir / "checkpoints" / f"step-{EPOCHS * STEPS_AN_EPOCH:06d}"
        return cls(story(sessions), output | weights(last), result)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Callable[[bool], Straight]:
    """The run without a kill, packed or padded; made once."""
    made: dict[bool, Straight] = {}

    def get(packing: bool) -> Straight:
        if packing not in made:
            workdir = make_workdir(
                tmp_path_factory.mktemp("straight") / "work", model, data__packing=packing, **SETTINGS
            )
            session = run(workdir)
            assert session.code == 0
            made[packing] = Straight.of(workdir, [session])
            steps = {step for kind, step in made[packing].told if kind == "train"}
            assert steps == set(range(1, EPOCHS * STEPS_AN_EPOCH + 1))
            assert len(made[packing].weights) == 4  # adapter, merged, and the two of the last checkpoint
        return made[packing]

    return get


def trained(step: int) -> Callable[[Progress], bool]:
    return lambda line: line.kind == "train" and line.values["step"] >= step


def kept(workdir: Path) -> list[Path]:
    return sorted((workdir / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_killed_at_three_random_steps_it_is_the_run_that_was_not(
    packing: bool, straight: Callable[[bool], Straight], model: Path, tmp_path: Path, rng: random.Random
) -> None:
    """One kill comes between writing and renaming a checkpoint; two at the least after the first epoch."""
    workdir = make_workdir(tmp_path / "work", model, data__packing=packing, **SETTINGS)
    at_rename = rng.randrange(3)
    sessions = []
    for number, window in enumerate(WINDOWS):
        step, delay_s = rng.randint(*window), rng.uniform(0, 0.03)
        if number == at_rename:
            print(f"kill {number + 1}: between writing and renaming the first checkpoint from step {step} on")
            sessions.append(run_until_the_rename(workdir, step))
            assert_written_and_not_renamed(workdir, step)
        else:
            print(f"kill {number + 1}: {delay_s * 1000:.0f} ms after step {step}")
            sessions.append(run(workdir, trained(step), delay_s))
        assert sessions[-1].code == -9
        assert sessions[-1].last_step() >= step
    assert sessions[1].last_step() > STEPS_AN_EPOCH
    sessions.append(run(workdir))
    assert sessions[-1].code == 0
    assert sessions[-1].resumed_step() > 2 * STEPS_AN_EPOCH, "the run goes on, it does not begin again"
    print([(session.last_step(), session.code) for session in sessions])
    assert Straight.of(workdir, sessions) == straight(packing)


def assert_written_and_not_renamed(workdir: Path, step: int) -> None:
    """The checkpoint lies aside, whole, and has not got its name."""
    (aside,) = (workdir / "checkpoints").glob(".writing-step-*")
    assert int(aside.name.rpartition("-")[2]) >= step
    assert not (workdir / "checkpoints" / aside.name.removeprefix(".writing-")).exists()
    files = json.loads((aside / "checkpoint.json").read_text())["files"]
    assert files == {name: hashlib.sha256((aside / name).read_bytes()).hexdigest() for name in files}


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_with_its_newest_checkpoint_damaged_it_goes_on_from_the_one_before(
    packing: bool, straight: Callable[[bool], Straight], model: Path, tmp_path: Path, rng: random.Random
) -> None:
    workdir = make_workdir(tmp_path / "work", model, data__packing=packing, **SETTINGS)
    killed = run(workdir, trained(rng.randint(12, 45)), rng.uniform(0, 0.03))
    assert killed.code == -9
    *_, before, newest = kept(workdir)
    flip_a_bit(rng.choice(sorted(newest.glob("*.safetensors"))), rng)
    resumed = run(workdir)
    assert resumed.code == 0
    (warning,) = [words for words in resumed.warnings() if "damaged" in words]
    assert warning.startswith(f"checkpoint {newest.name} is damaged")
    assert resumed.resumed_step() == int(before.name.removeprefix("step-"))
    assert Straight.of(workdir, [killed, resumed]) == straight(packing)


def flip_a_bit(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    print(f"bit flipped in byte {place} of {file.name}")
    file.write_bytes(content)


def test_killed_in_each_of_its_phases_the_job_ends_as_the_one_that_was_not(
    straight: Callable[[bool], Straight], model: Path, tmp_path: Path, rng: random.Random
) -> None:
    workdir = make_workdir(tmp_path / "work", model, data__packing=True, **SETTINGS)
    sessions = []
    for phase in ("load", "base", "train", "merge", "test", "save"):
        delay_s = rng.uniform(0, 0.2)
        print(f"killed {delay_s * 1000:.0f} ms after the beginning of {phase!r}")
        sessions.append(run(workdir, in_phase(phase), delay_s))
        if (workdir / "output" / "manifest.json").exists():
            break  # the last phases are short: it was done before the signal came
        assert sessions[-1].code == -9
    sessions.append(run(workdir))
    assert sessions[-1].code == 0
    assert Straight.of(workdir, sessions) == straight(True)
    manifest = json.loads((workdir / "output" / "manifest.json").read_text())
    files = {path.relative_to(workdir / "output").as_posix() for path in (workdir / "output").rglob("*.*")}
    assert {entry["path"] for entry in manifest["files"]} == files - {"manifest.json"}
    assert not [name for name in files if name.endswith(".part")]


def in_phase(name: str) -> Callable[[Progress], bool]:
    return lambda line: line.kind == "phase" and line.values["phase"] == name
