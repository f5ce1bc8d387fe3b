"""Bad input gets one clear message, the right exit code, and leaves nothing behind; torch is not needed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories.command import Ftcloud

ROWS = [{"instruction": f"order {i}", "output": f"answer {i}"} for i in range(40)]
CONFIG = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 16}


def write_model(folder: Path) -> Path:
    """Enough of a model for everything that happens before training: a config and a header of weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensor = {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]}
    header = json.dumps({"model.layers.0.self_attn.q_proj.weight": tensor}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(256))
    return folder


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def launch(ftcloud: Ftcloud) -> Callable[..., tuple[int, str]]:
    """Dry-run a good recipe with some lines changed; exit code and what was said."""
    write_model(ftcloud.here / "model")
    write_rows(ftcloud.here / "data.jsonl", ROWS)

    def run(*flags: str, **fields: object) -> tuple[int, str]:
        values = {"name": "orders", "model": "./model", "data": "data.jsonl", "method": "lora"} | fields
        lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
        (ftcloud.here / "recipe.yaml").write_text("\n".join(lines) + "\n")
        done = ftcloud.run("launch", "recipe.yaml", *(flags or ("--dry-run",)))
        assert "Traceback" not in done.stderr
        jobs = ftcloud.home / "jobs"
        assert not jobs.exists() or not list(jobs.iterdir()), "a refused launch leaves no folder"
        return done.returncode, done.stderr

    return run


def test_the_recipe_that_the_others_spoil_is_good(launch: Callable[..., tuple[int, str]]) -> None:
    code, said = launch()
    assert code == 0, said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "./nowhere"}, ["nowhere"]),
        ({"model": "./empty"}, ["empty", "config.json"]),
        ({"model": "./weightless"}, ["weightless", "weights"]),
        ({"data": "nowhere.jsonl"}, ["nowhere.jsonl"]),
        ({"data": "empty.jsonl"}, ["empty.jsonl"]),
        ({"data": "broken.jsonl"}, ["broken.jsonl:2"]),
        ({"data": "folder"}, ["validation.jsonl"]),
        ({"method": "lorra"}, ["recipe.yaml:4", "method", "lora"]),
        ({"learning_rat": 1}, ["recipe.yaml:5", "learning_rat", "learning_rate"]),
        ({"epochs": -1}, ["recipe.yaml:5", "epochs", "above 0"]),
        ({"optimizer": "adamw_8bit"}, ["optimizer", "GPU"]),
        ({"target_modules": ["nothing_proj"]}, ["target_modules", "q_proj"]),
        ({"name": "../up"}, ["name"]),
        ({"keep_checkpoints": 10**12}, ["disk", "free"]),
    ],
    ids=lambda value: "{}={}".format(*next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named_with_its_place_and_exit_code(
    ftcloud: Ftcloud,
    launch: Callable[..., tuple[int, str]],
    fields: dict[str, object],
    words: list[str],
) -> None:
    (ftcloud.here / "empty").mkdir()
    (ftcloud.here / "weightless").mkdir()
    (ftcloud.here / "weightless" / "config.json").write_text(json.dumps(CONFIG))
    (ftcloud.here / "empty.jsonl").touch()
    (ftcloud.here / "broken.jsonl").write_text(json.dumps(ROWS[0]) + "\n{broken\n")
    (ftcloud.here / "folder").mkdir()
    write_rows(ftcloud.here / "folder" / "train.jsonl", ROWS)
    (ftcloud.here / "folder" / "validation.jsonl").touch()
    code, said = launch(**fields)
    assert code == (1 if "keep_checkpoints" in fields else 2), said
    assert all(word in said for word in words), said
    assert "error: " in said
    assert "fix: " in said or " is not " in said, "what to do, where what is wrong does not say it"


def test_an_unknown_provider_is_answered_with_those_that_there_are(
    launch: Callable[..., tuple[int, str]],
) -> None:
    code, said = launch("--provider", "locl", "--dry-run")
    assert (code, "did you mean local?" in said) == (2, True)


def test_a_home_that_cannot_be_written_is_named(ftcloud: Ftcloud) -> None:
    ftcloud.home.write_text("a file where a folder should be")
    done = ftcloud.run("jobs")
    assert done.returncode == 1
    assert str(ftcloud.home) in done.stderr
    assert "FTCLOUD_HOME" in done.stderr


def test_a_database_that_is_no_database_is_named(ftcloud: Ftcloud) -> None:
    ftcloud.home.mkdir()
    (ftcloud.home / "ftcloud.db").write_text("not a database at all, " * 100)
    done = ftcloud.run("jobs")
    assert (done.returncode, "ftcloud.db" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "resume", "pull"])
def test_a_job_that_does_not_exist_is_refused(ftcloud: Ftcloud, command: str) -> None:
    done = ftcloud.run(command, "nothere1")
    assert (done.returncode, "ftcloud jobs" in done.stderr) == (2, True)


def test_an_empty_home_lists_nothing_and_is_fine(ftcloud: Ftcloud) -> None:
    assert ftcloud.json("jobs") == []
    assert ftcloud.json("models") == []
    assert ftcloud.run("jobs").stdout.startswith("JOB")


def test_an_unknown_command_gets_the_nearest(ftcloud: Ftcloud) -> None:
    done = ftcloud.run("lanch")
    assert (done.returncode, "'launch'" in done.stderr) == (2, True)


def test_the_traceback_is_for_debug_only(ftcloud: Ftcloud) -> None:
    assert "Traceback" not in ftcloud.run("show", "nothere1").stderr
    assert "Traceback" in ftcloud.run("show", "nothere1", "--debug").stderr
