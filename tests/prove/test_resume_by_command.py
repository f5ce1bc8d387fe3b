"""The same from the command line: killed and resumed, a job gives what an undisturbed one gives."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.factories.command import Ftcloud, wait_for
from tests.factories.tiny_recipe import write_tiny_recipe
from tests.prove.trainer import Session, Story, story, weights
from trainer_image.trainer.progress import Progress, parse

pytestmark = pytest.mark.torch

FLAGS = ("--epochs", "40", "--save-every", "6", "--eval-every", "25", "--dropout", "0.1")
STEPS = 200
LATEST_KILLS = (70, 140)


def test_a_detached_job_killed_and_resumed_twice_gives_the_weights_of_one_that_was_not(
    ftcloud: Ftcloud, model: Path, rng: random.Random
) -> None:
    recipe = write_tiny_recipe(ftcloud.here, model)
    straight = ftcloud.json("launch", recipe, "--yes", *FLAGS)["job"]
    launched = ftcloud.run("launch", recipe, "--yes", "--detach", "--json", *FLAGS)
    assert launched.returncode == 4
    job = json.loads(launched.stdout)["job"]
    done = 0
    for latest in LATEST_KILLS:
        step = rng.randint(done + 7, max(latest, done + 20))
        done = kill_trainer_at(ftcloud, step)
        print(f"killed at step {done}, meant was {step}")
        wait_for(lambda: state_of(ftcloud, job) == "failed")
        wait_for(lambda: not ftcloud.leftovers())
        assert ftcloud.run("resume", job, "--detach").returncode == 4
    resumed = ftcloud.json("resume", job)
    assert resumed["state"] == "succeeded"
    assert ftcloud.json("show", straight)["metrics"]["steps"] == resumed["metrics"]["steps"] == STEPS
    assert told(ftcloud, job) == told(ftcloud, straight)
    outputs = [weights(ftcloud.home / "jobs" / name / "output") for name in (straight, job)]
    assert len(outputs[0]) == 2
    assert outputs[0] == outputs[1]
    attempts = ftcloud.json("show", job)["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["closed"] * 3
    began = [line.values["resumed_step"] for line in progress(ftcloud, job, "start")]
    assert began[0] == 0 < began[1] <= began[2], "it went on, it did not begin again"


def kill_trainer_at(ftcloud: Ftcloud, step: int) -> int:
    """SIGKILL to the trainer alone once it has made `step`, which is returned as it was then."""
    done = 0
    while done < step:
        logs = list(ftcloud.home.glob("local/*/log.txt"))
        lines = map(parse, logs[0].read_text().splitlines() if logs else [])
        done = max((line.values["step"] for line in lines if line and line.kind == "train"), default=0)
        time.sleep(0.01)
    (state,) = ftcloud.home.glob("local/*/state.json")
    (trainer,) = psutil.Process(json.loads(state.read_text())["group"]).children()
    trainer.kill()
    return done


def state_of(ftcloud: Ftcloud, job: str) -> Any:
    return ftcloud.json("show", job)["state"]


def progress(ftcloud: Ftcloud, job: str, *kinds: str) -> list[Progress]:
    """What all attempts said of these kinds."""
    lines = map(parse, ftcloud.run("logs", job, "--raw").stdout.splitlines())
    return [line for line in lines if line and line.kind in kinds]


def told(ftcloud: Ftcloud, job: str) -> Story:
    """Of each step what was said of it; steps that were done twice must agree."""
    return story([Session(0, progress(ftcloud, job, "train", "eval"))])
