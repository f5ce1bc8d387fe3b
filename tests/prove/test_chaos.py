"""kill -9 at random moments: the command, the trainer, its warden, both of them, or everything at once.

Whatever was hit, `ftcloud jobs` and `ftcloud resume` bring the job to its end, as one model version with the
weights of an undisturbed run, with the right exit codes, and with nothing left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from tests.factories.command import Ftcloud, wait_for
from tests.factories.tiny_recipe import write_tiny_recipe
from tests.prove.trainer import ROOT, weights

pytestmark = pytest.mark.torch

RUNS = int(os.environ.get("PROVE_RUNS", "10"))
VICTIMS = ("command", "command", "trainer", "warden", "group", "command and group")
"""The group is all that runs on the machine: the warden and the trainer that it watches."""
FLAGS = ("--epochs", "20", "--save-every", "7", "--dropout", "0.1", "--seq-len", "64")
TRIES = 8
"""Calls of `resume` that must be enough; each trainer that was killed takes one."""


@dataclass(frozen=True)
class Undisturbed:
    seconds: float
    weights: dict[str, str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Undisturbed:
    here = tmp_path_factory.mktemp("undisturbed")
    ftcloud = Ftcloud(here, here / "home")
    began = time.monotonic()
    ftcloud.json("launch", write_tiny_recipe(here, model), "--yes", *FLAGS)
    return Undisturbed(time.monotonic() - began, registered_weights(ftcloud))


@pytest.mark.parametrize("run", range(RUNS))
def test_whatever_is_killed_the_job_ends_as_one_version_and_leaves_nothing(
    run: int, ftcloud: Ftcloud, model: Path, undisturbed: Undisturbed, rng: random.Random
) -> None:
    launch = ("launch", write_tiny_recipe(ftcloud.here, model), "--yes", "--json", *FLAGS)
    command = ftcloud.start(*launch)
    for _ in range(rng.choice((1, 1, 2, 3))):
        kill_something(ftcloud, command, undisturbed.seconds, rng)
        # Where it was killed before there was a job, the user launches again.
        known = listed(ftcloud)
        command = ftcloud.start("resume", known[0]["id"], "--json") if known else ftcloud.start(*launch)
    end_of(command, killed=False)

    job = (listed(ftcloud) or [json.loads(ftcloud.run(*launch).stdout)])[0]
    document = brought_to_the_end(ftcloud, job.get("id") or job["job"])
    (model_version,) = ftcloud.json("models")
    assert document["model_version"] == f"{model_version['name']}:{model_version['version']}"
    assert [(job["state"], job["model_version"]) for job in listed(ftcloud)] == [
        ("succeeded", document["model_version"])
    ]
    wait_for(lambda: not ftcloud.leftovers())
    assert not list(ftcloud.home.glob("jobs/.*"))
    assert ftcloud.run("models", "verify", document["model_version"]).returncode == 0
    assert registered_weights(ftcloud) == undisturbed.weights


def kill_something(
    ftcloud: Ftcloud, command: subprocess.Popen[str], seconds: float, rng: random.Random
) -> None:
    """Wait for a random moment of a launch, kill, and see how the command has ended."""
    moment, victim = rng.uniform(0, seconds), rng.choice(VICTIMS)
    print(f"{victim} killed after {moment:.2f} s of about {seconds:.1f}")
    time.sleep(moment)
    if "command" in victim:
        command.kill()
    if victim != "command":
        kill_on_the_machine(ftcloud, victim.rpartition(" ")[2])
    end_of(command, killed="command" in victim)


def kill_on_the_machine(ftcloud: Ftcloud, victim: str) -> None:
    """SIGKILL where something runs: there may be nothing yet, or nothing any more."""
    for file in ftcloud.home.glob("local/*/state.json"):
        with contextlib.suppress(OSError, psutil.Error):
            group = json.loads(file.read_text())["group"]
            if group is None:
                continue
            if victim == "group":
                os.killpg(group, signal.SIGKILL)
            elif victim == "warden":
                os.kill(group, signal.SIGKILL)
            else:
                for trainer in psutil.Process(group).children():
                    trainer.kill()


def end_of(command: subprocess.Popen[str], *, killed: bool) -> None:
    """A command that was not killed ends with a document that says what its exit code says."""
    out, err = command.communicate(timeout=120)
    if killed and command.returncode == -signal.SIGKILL:
        return
    assert_agree(command.returncode, out, err)


def assert_agree(code: int, out: str, err: str) -> None:
    if code == 1 and not out:
        assert "try again" in err, err
        return
    assert (code, json.loads(out)["state"]) in ((0, "succeeded"), (1, "failed")), err


def brought_to_the_end(ftcloud: Ftcloud, job: str) -> dict[str, Any]:
    for _ in range(TRIES):
        done = ftcloud.run("resume", job, "--json")
        assert_agree(done.returncode, done.stdout, done.stderr)
        if done.returncode == 0:
            document: dict[str, Any] = json.loads(done.stdout)
            return document
        time.sleep(0.5)
    raise AssertionError(f"not at its end after {TRIES} calls: {done.stderr}")


def listed(ftcloud: Ftcloud) -> list[dict[str, Any]]:
    """`ftcloud jobs --json`, checked; it also takes up what was left alone."""
    jobs: list[dict[str, Any]] = ftcloud.json("jobs")
    jsonschema.validate(jobs, json.loads((ROOT / "tests/contract/jobs.schema.json").read_text()))
    assert len(jobs) <= 1
    return jobs


def registered_weights(ftcloud: Ftcloud) -> dict[str, str]:
    return weights(Path(ftcloud.run("models", "path", "tiny-orders").stdout.strip()).parent)
