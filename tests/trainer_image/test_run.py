"""The command, from a work directory to its output, and every way in which it can end."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.factories.workdirs import replaced, write_jsonl
from trainer_image.trainer import job, train
from trainer_image.trainer.errors import ExitCode
from trainer_image.trainer.progress import Progress, Reporter, parse
from trainer_image.trainer.run import run
from trainer_image.trainer.spec import TrainSpec

pytestmark = pytest.mark.torch

MakeWorkdir = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def start(workdir: Path) -> tuple[ExitCode, list[Progress]]:
    """Run in this process; the exit code and the progress lines."""
    stream = io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = run(workdir, Reporter(stream))
    finally:
        signal.signal(signal.SIGTERM, handler)
    return code, [line for line in map(parse, stream.getvalue().splitlines()) if line]


def command(workdir: Path) -> list[str]:
    return [sys.executable, "-m", "trainer_image.trainer", str(workdir)]


def only(lines: list[Progress], kind: str) -> dict[str, Any]:
    (line,) = [line for line in lines if line.kind == kind]
    return line.values


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_job_goes_from_data_to_a_model_that_loads_by_itself(method: str, make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir("with 'quote", validation=5, test=4, method=method)
    code, lines = start(workdir)
    assert code == 0, lines[-1]
    assert [line.values["phase"] for line in lines if line.kind == "phase"] == [
        "load", "base", "train", "merge", "test", "save",
    ]  # fmt: skip
    output = workdir / "output"
    result = json.loads((output / "result.json").read_text())
    assert result["metrics"]["base"]["rows"] == result["metrics"]["tuned"]["rows"] == 4
    assert result["metrics"]["gain"]["rows"] == 4
    assert result["metrics"]["tuned"]["eval_loss"] < result["metrics"]["base"]["eval_loss"]
    assert result["metrics"]["steps"] == 6
    assert result["share"] == pytest.approx(result["trainable"] / result["total"])
    done = only(lines, "done")
    assert {key: done[key] for key in result} == result
    assert (output / "adapter").is_dir() == (method != "full")

    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(output / "merged").num_parameters() == 99_648


def test_the_manifest_names_every_file_with_its_hash(make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir(loop__max_steps=1)
    assert start(workdir)[0] == 0
    output = workdir / "output"
    entries = json.loads((output / "manifest.json").read_text())["files"]
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {entry["path"] for entry in entries} == files - {"manifest.json"}
    for entry in entries:
        content = (output / entry["path"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_adapter_is_safetensors_and_names_the_base_as_the_user_does(make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir(loop__max_steps=1, merge=False)
    assert start(workdir)[0] == 0
    adapter = workdir / "output" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        assert len(file.keys()) == 2 * 7 * 2
    assert not (workdir / "output" / "merged").exists()


def test_the_start_line_tells_what_will_be_trained_on(make_workdir: MakeWorkdir) -> None:
    _, lines = start(make_workdir(validation=5, test=4, loop__max_steps=1))
    said = only(lines, "start")
    assert said["rows"] == {"train": 22, "validation": 5, "test": 4}
    assert (said["trainable"], said["steps"], said["packing"], said["resumed_step"]) == (8192, 1, True, 0)
    assert 0 < said["loss_tokens"] < said["tokens"]


def test_a_finished_job_is_left_alone(make_workdir: MakeWorkdir, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = make_workdir(loop__max_steps=1)
    start(workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert start(workdir) == (0, [])
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    assert "finished already" in capsys.readouterr().err


def test_base_scores_are_kept_over_a_resume(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = make_workdir(test=4)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            start(workdir)
    kept = workdir / "output" / "evaluation" / "base.jsonl"
    written = kept.stat().st_mtime_ns
    code, lines = start(workdir)
    assert code == 0
    assert kept.stat().st_mtime_ns == written
    assert {line.values["model"] for line in lines if line.kind == "test"} == {"tuned"}
    assert json.loads((workdir / "output" / "result.json").read_text())["metrics"]["base"]["rows"] == 4


def test_base_scores_of_other_rows_are_not_kept(make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir(test=4, loop__max_steps=1, merge=False)
    old = {"prompt": "p", "expected": "e", "answer": "e", "correct": True}
    write_jsonl(workdir / "output" / "evaluation" / "base.jsonl", [old] * 3)
    assert start(workdir)[0] == 0
    assert json.loads((workdir / "output" / "result.json").read_text())["metrics"]["base"]["rows"] == 4


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda w: (w / "spec.json").unlink(), 1, "spec.json: cannot be read"),
        (lambda w: (w / "spec.json").write_text("{"), 2, "not JSON"),
        (
            lambda w: (w / "data" / "train.jsonl").write_text('{"instruction": "a"}\n'),
            2,
            "train.jsonl:1: field",
        ),
        (lambda w: (w / "data" / "train.jsonl").write_text(""), 2, "no rows"),
        (lambda w: (w / "data" / "validation.jsonl").unlink(), 2, "validation.jsonl: cannot be read"),
        (lambda w: _change(w, model__path="/no/such/model"), 2, "there is no such model folder"),
        (lambda w: _change(w, lora__target_modules=("query",)), 2, "no linear layer 'query'"),
        (lambda w: _change(w, optim__learning_rate=1e30), 1, "diverged"),
    ],
)
def test_what_cannot_be_done_is_one_error_line_and_an_exit_code(
    damage: Callable[[Path], object], code: int, message: str, make_workdir: MakeWorkdir,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir = make_workdir(validation=3)
    damage(workdir)
    ended, lines = start(workdir)
    said = only(lines, "error")
    assert ended == code == said["code"]
    error = capsys.readouterr().err
    assert message in f"{said['where']}: {said['what']}"
    assert message in error
    assert "Traceback" not in error


def _change(workdir: Path, **changes: Any) -> None:
    spec = TrainSpec.read(workdir / "spec.json")
    (workdir / "spec.json").write_text(replaced(spec, **changes).to_json())


@pytest.mark.parametrize(
    ("raised", "message", "fix"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", "free disk space"),
        (
            RuntimeError("safetensors: I/O error: No space left on device"),
            "the disk is full",
            "free disk space",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "micro_batch"),
        (MemoryError(), "out of memory", "micro_batch"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            "out of memory",
            "qlora",
        ),
    ],
)
def test_what_the_machine_runs_out_of_is_said_with_what_to_do(
    raised: Exception, message: str, fix: str, make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise raised

    monkeypatch.setattr(train, "_step", exhausted)
    code, lines = start(make_workdir())
    said = only(lines, "error")
    assert (code, said["what"]) == (1, message)
    assert fix in said["fix"]


def test_a_defect_of_ours_is_said_with_its_traceback(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(train, "_step", broken)
    code, lines = start(make_workdir())
    assert (code, only(lines, "error")["what"]) == (1, "ZeroDivisionError: oh")
    assert "Traceback" in capsys.readouterr().err


def test_a_disk_too_full_for_checkpoints_is_refused_before_the_first_step(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    code, lines = start(make_workdir())
    assert code == 1
    assert "too full for checkpoints" in only(lines, "error")["what"]
    assert not [line for line in lines if line.kind == "train"]


def test_a_model_whose_documents_would_leak_is_padded_with_a_warning(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.attention, "isolates", lambda *_: False)
    code, lines = start(make_workdir(loop__max_steps=1))
    assert code == 0
    assert "padded, not packed" in only(lines, "warning")["message"]
    assert only(lines, "start")["packing"] is False


def test_a_stop_outside_training_ends_the_phase_at_once(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "load_data", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code, lines = start(make_workdir())
    assert code == ExitCode.PREEMPTED
    assert not [line for line in lines if line.kind == "error"]


def test_sigterm_ends_with_a_checkpoint_and_code_75_and_the_same_command_goes_on(
    make_workdir: MakeWorkdir,
) -> None:
    """In processes of their own: stopped once by SIGTERM, once by SIGKILL, and the result is the same."""
    settings = {"loop__epochs": 14.0, "loop__save_every": 3, "rows": 30}
    straight, stopped = make_workdir("straight", **settings), make_workdir("stopped", **settings)
    assert start(straight)[0] == 0
    codes = []
    for ending in (signal.SIGTERM, signal.SIGKILL, None):
        with subprocess.Popen(
            command(stopped), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            lines = []
            for text in process.stdout:
                line = parse(text)
                assert line is not None
                lines.append(line)
                trained = sum(line.kind == "train" for line in lines)
                if ending is not None and trained == 7:
                    process.send_signal(ending)
                    break
            process.communicate(timeout=60)
        codes.append(process.returncode)
        if ending is None:
            resumed = only(lines, "start")["resumed_step"]
    assert codes == [75, -9, 0]
    assert resumed >= 9

    def weights(workdir: Path) -> str:
        return hashlib.sha256((workdir / "output/adapter/adapter_model.safetensors").read_bytes()).hexdigest()

    assert weights(stopped) == weights(straight)


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "spec.json: cannot be read" in done.stderr
    assert json.loads(done.stdout)["ftcloud"] == "error"
