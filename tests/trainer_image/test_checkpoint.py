"""Checkpoints are whole or absent, are checked before they are believed, and give back what was saved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer_image.trainer import checkpoint as module
from trainer_image.trainer.checkpoint import Checkpoint, CheckpointFolder, check_space
from trainer_image.trainer.errors import FtcloudError, UsageError

pytestmark = pytest.mark.torch


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, warnings: list[str]) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", "run a", warnings.append)


def made(step: int) -> Checkpoint:
    table = torch.arange(6.0)
    state = {
        "optimizer": {
            "state": {0: {"step": torch.tensor(float(step)), "moment": table, "quantised": table[:4].byte()}},
            "param_groups": [{"lr": 0.1, "betas": [0.9, 0.999], "params": [0], "name": None}],
        },
        "loss_scale": 1.0,
    }
    shared = {"a": table, "b": table, "c": table.view(2, 3).T}  # tied weights, and one that is not contiguous
    return Checkpoint(step, {"step": step, "loss": 0.1 + 0.2}, shared, state)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def test_what_is_loaded_is_what_was_saved(folder: CheckpointFolder) -> None:
    folder.save(made(3))
    found = folder.newest()
    assert found is not None
    assert (found.step, found.state) == (3, {"step": 3, "loss": 0.1 + 0.2})
    assert equal(found.weights, made(3).weights)
    assert equal(found.optimizer, made(3).optimizer)


def test_without_a_checkpoint_there_is_none(folder: CheckpointFolder) -> None:
    assert folder.newest() is None


def test_nothing_in_a_checkpoint_is_pickled(folder: CheckpointFolder) -> None:
    names = sorted(path.suffix for path in folder.save(made(3)).iterdir())
    assert names == [".json", ".safetensors", ".safetensors"]


def test_a_step_saved_again_replaces_what_was_there(folder: CheckpointFolder) -> None:
    folder.save(made(3))
    newer = made(3)
    newer.state["loss"] = 7.0
    folder.save(newer)
    assert folder.load(3).state["loss"] == 7.0
    assert [path.name for path in folder.root.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(
    file: str, damage: str, folder: CheckpointFolder, warnings: list[str]
) -> None:
    folder.save(made(3))
    path = folder.save(made(6)) / file
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "flip":
        content[-1] ^= 0xFF  # not UTF-8 in the manifest, another weight elsewhere
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    found = folder.newest()
    assert found is not None
    assert found.step == 3
    assert len(warnings) == 1
    assert "step-000006 is damaged" in warnings[0]
    assert folder.steps() == [3]


def test_with_all_damaged_training_begins_anew(folder: CheckpointFolder, warnings: list[str]) -> None:
    (folder.save(made(3)) / "checkpoint.json").write_text("{}")
    assert folder.newest() is None
    assert len(warnings) == 1


@pytest.mark.parametrize("call", ["save_file", "_sha256", "_flush", "rename"])
def test_a_kill_while_writing_leaves_the_checkpoint_before(
    call: str, folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """The write ends at each of its calls in turn; what is left behind is cleared by the next start."""
    folder.save(made(3))

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing
        patch.setattr(*((Path, "rename") if call == "rename" else (module, call)), die)
        with pytest.raises(Killed):
            folder.save(made(6))
    assert [path.name for path in folder.root.iterdir() if path.name.startswith(".")]
    found = folder.newest()
    assert found is not None
    assert found.step == 3
    assert not warnings
    assert [path.name for path in folder.root.iterdir()] == ["step-000003"]


def test_a_kill_while_replacing_loses_no_more_than_that_step(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save(made(3))
    folder.save(made(6))
    real, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(KeyboardInterrupt):
            folder.save(made(6))
    found = folder.newest()
    assert found is not None
    assert found.step == 3


def test_another_runs_checkpoint_is_refused(folder: CheckpointFolder) -> None:
    folder.save(made(3))
    other = CheckpointFolder(folder.root, "run b", print)
    with pytest.raises(UsageError, match="other settings or other data"):
        other.newest()
    assert other.steps() == [3]


@pytest.mark.parametrize(
    ("keep", "newest", "left"),
    [((), 2, [9, 12]), ((3,), 2, [3, 9, 12]), ((12,), 1, [12]), ((), 9, [3, 6, 9, 12])],
)
def test_the_newest_and_the_best_are_kept(
    keep: tuple[int, ...], newest: int, left: list[int], folder: CheckpointFolder
) -> None:
    for step in (3, 6, 9, 12):
        folder.save(made(step))
    folder.prune(keep, newest)
    assert folder.steps() == left


def test_a_pruned_checkpoint_goes_in_one_piece(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever copies checkpoints, or starts after a kill, meets whole ones."""
    for step in (3, 6, 9):
        folder.save(made(step))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        folder.prune((), 2)
    assert folder.steps() == [6, 9]
    assert folder.newest() is not None
    assert sorted(path.name for path in folder.root.iterdir()) == ["step-000006", "step-000009"]


def test_a_disk_without_room_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12 * 1000 * 4))
    check_space(tmp_path / "checkpoints", {"w": torch.empty(1000)}, 3)
    with pytest.raises(FtcloudError, match="too full for checkpoints"):
        check_space(tmp_path / "checkpoints", {"w": torch.empty(1000)}, 4)


def test_files_and_folder_are_flushed_before_the_rename(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("flush"), real_sync(handle))[1])
    monkeypatch.setattr(Path, "rename", lambda a, b: (events.append("rename"), real_rename(a, b))[1])
    folder.save(made(3))
    assert events == ["flush"] * 4 + ["rename", "flush"]


def test_the_manifest_is_plain_json(folder: CheckpointFolder) -> None:
    manifest = json.loads((folder.save(made(3)) / "checkpoint.json").read_text())
    assert manifest["step"] == 3
    assert set(manifest["files"]) == {"weights.safetensors", "optimizer.safetensors"}
