"""Real jobs on this machine, from the command line to the registry, through what users do to them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.factories.command import Ftcloud, wait_for
from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model
from tests.factories.tiny_recipe import write_tiny_recipe

pytestmark = pytest.mark.torch

LONG = ("--epochs", "400", "--save-every", "2")
"""Flags of a run that is never over before the test ends it."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "tiny", CHAT_TEMPLATE)


@pytest.fixture
def recipe(ftcloud: Ftcloud, model: Path) -> Path:
    return write_tiny_recipe(ftcloud.here, model)


def kept_steps(ftcloud: Ftcloud) -> list[str]:
    return sorted(path.name for path in ftcloud.home.glob("jobs/*/checkpoints/step-*"))


def nothing_runs(ftcloud: Ftcloud) -> bool:
    """No process of this home is left, and no work directory."""
    mine = [
        p for p in psutil.process_iter(["cmdline"]) if str(ftcloud.home) in " ".join(p.info["cmdline"] or [])
    ]
    return not mine and not list(ftcloud.home.glob("local/*/"))


def test_launch_trains_scores_merges_registers_and_leaves_nothing_running(
    ftcloud: Ftcloud, recipe: Path
) -> None:
    document = ftcloud.json("launch", recipe, "--provider", "local", "--yes")
    assert (document["state"], document["model_version"], document["cost_usd"]) == (
        "succeeded",
        "tiny-orders:1",
        0.0,
    )
    metrics = document["metrics"]
    assert metrics["base"]["rows"] == metrics["tuned"]["rows"] == 20
    assert metrics["tokens"] > 0 and metrics["tokens_per_s"] > 0 and metrics["peak_gib"] > 0
    assert [job["state"] for job in ftcloud.json("jobs")] == ["succeeded"]
    assert [(m["name"], m["version"], m["job"]) for m in ftcloud.json("models")] == [
        ("tiny-orders", 1, document["job"])
    ]
    folder = Path(ftcloud.run("models", "path", "tiny-orders").stdout.strip())
    _loads_without_ftcloud(folder)
    answers = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(ftcloud.home.glob("jobs/*/output/evaluation/*.jsonl"))
    ]
    base, tuned = answers
    assert [row["prompt"] for row in base] == [row["prompt"] for row in tuned]
    assert [row["expected"] for row in base] == [row["expected"] for row in tuned]
    assert nothing_runs(ftcloud)
    shown = ftcloud.json("show", "last")
    moved = [event["state"] for event in shown["events"] if event["kind"] == "moved"]
    assert moved == ["queued", "provisioning", "staging", "training", "finishing", "succeeded"]
    assert "training" in ftcloud.run("logs", "last").stdout
    pulled = ftcloud.run("pull", document["job"], "out")
    assert (ftcloud.here / pulled.stdout.strip() / "merged" / "config.json").exists()


def _loads_without_ftcloud(folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, transformers; m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]);"
        "assert 'trainer_image' not in sys.modules; print(m.num_parameters())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 0


def test_a_launch_whose_process_is_killed_goes_on_and_a_later_command_finishes_it(
    ftcloud: Ftcloud, recipe: Path
) -> None:
    launch = ftcloud.start("launch", recipe, "--yes", "--epochs", "12")
    wait_for(lambda: kept_steps(ftcloud))
    launch.kill()
    launch.communicate()
    assert "carrying it on" in ftcloud.run("jobs").stderr
    assert wait_for(lambda: ftcloud.json("jobs")[0]["state"] == "succeeded")
    wait_for(lambda: nothing_runs(ftcloud))


def test_a_killed_trainer_fails_clearly_and_resume_goes_on_from_its_checkpoint(
    ftcloud: Ftcloud, recipe: Path
) -> None:
    launch = ftcloud.start("launch", recipe, "--yes", "--json", *LONG)
    wait_for(lambda: len(kept_steps(ftcloud)) >= 2)
    state = json.loads(next(ftcloud.home.glob("local/*/state.json")).read_text())
    trainers = psutil.Process(state["group"]).children()
    os.kill(trainers[0].pid, signal.SIGKILL)
    out, err = launch.communicate(timeout=60)
    document = json.loads(out)
    assert (launch.returncode, document["state"]) == (1, "failed")
    assert "signal 9" in document["error"]["what"]
    assert f"ftcloud resume {document['job']}" in err
    kept = kept_steps(ftcloud)
    done = ftcloud.start("resume", document["job"], "--json")
    wait_for(lambda: kept_steps(ftcloud) > kept)
    log = ftcloud.run("logs", document["job"], "--raw").stdout
    assert '"resumed_step": ' in log
    done.kill()
    done.communicate()
    assert ftcloud.run("cancel", document["job"]).returncode == 0
    assert nothing_runs(ftcloud)


def test_ctrl_c_without_a_terminal_detaches_and_cancel_ends_it(ftcloud: Ftcloud, recipe: Path) -> None:
    launch = ftcloud.start("launch", recipe, "--yes", "--json", *LONG)
    wait_for(lambda: kept_steps(ftcloud))
    launch.send_signal(signal.SIGINT)
    out, err = launch.communicate(timeout=60)
    document = json.loads(out)
    assert (launch.returncode, document["state"]) == (4, "training")
    assert "ftcloud cancel" in err
    assert ftcloud.json("cancel", document["job"])["state"] == "cancelled"
    assert nothing_runs(ftcloud)
    assert kept_steps(ftcloud), "the newest checkpoint is kept for a resume"
    assert ftcloud.run("cancel", document["job"]).returncode == 0, "cancelling twice is fine"


def test_detached_a_job_is_carried_to_its_end_and_logs_follow_it(ftcloud: Ftcloud, recipe: Path) -> None:
    done = ftcloud.run("launch", recipe, "--yes", "--detach", "--json")
    job = json.loads(done.stdout)["job"]
    assert done.returncode == 4
    followed = ftcloud.run("logs", "-f", job)
    assert "scoring the tuned model" in followed.stdout
    assert wait_for(lambda: ftcloud.json("jobs")[0]["model_version"]) == "tiny-orders:1"


def test_two_launches_at_once_train_one_after_the_other_and_make_two_versions(
    ftcloud: Ftcloud, recipe: Path
) -> None:
    launches = [ftcloud.start("launch", recipe, "--yes", "--json", "--seed", str(seed)) for seed in (1, 2)]
    outcomes = [launch.communicate(timeout=120) for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0]
    versions = {json.loads(out)["model_version"] for out, _ in outcomes}
    assert versions == {"tiny-orders:1", "tiny-orders:2"}
    assert any("this machine is training job" in err for _, err in outcomes)


def test_without_a_terminal_and_without_yes_nothing_is_started(ftcloud: Ftcloud, recipe: Path) -> None:
    done = ftcloud.run("launch", recipe)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert ftcloud.json("jobs") == []


def test_a_dry_run_shows_the_request_and_keeps_nothing(ftcloud: Ftcloud, recipe: Path) -> None:
    document = ftcloud.json("launch", recipe, "--dry-run", "--learning-rate", "1e-3")
    assert document["spec"]["optim"]["learning_rate"] == 1e-3
    assert document["request"]["command"]
    assert [warning["code"] for warning in document["warnings"]] != []
    assert ftcloud.json("jobs") == []
    assert not list(ftcloud.home.glob("jobs/*"))
