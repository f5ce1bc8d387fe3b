"""Resumable checkpoints: whole or absent, checked before they are believed, never pickled.

    checkpoints/step-000020/
      weights.safetensors     the trained weights, fp32 masters where there are such
      optimizer.safetensors   the tensors of the optimizer's state
      checkpoint.json         everything else, and the SHA-256 of the two files above

A checkpoint is written beside its place, flushed to the disk and renamed, so a kill at any moment leaves
the one before. A file that has changed since is found by its hash, and the checkpoint before is taken.
No state of a random generator is here: order and dropout are functions of the step number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainer_image.trainer.errors import FtcloudError, UsageError

FORMAT = 1
MANIFEST = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
ASIDE = ".writing-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    state: dict[str, Any]
    """The loop's own counters, as plain JSON data."""
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    """As the optimizer's `state_dict` gave it."""


class CheckpointFolder:
    """The checkpoints of one run. `fingerprint` says which run: another one's are refused."""

    def __init__(self, root: Path, fingerprint: str, warn: Callable[[str], None]) -> None:
        self.root = root
        self._fingerprint = fingerprint
        self._warn = warn

    def path(self, step: int) -> Path:
        return self.root / f"step-{step:06d}"

    def has(self, step: int) -> bool:
        return self.path(step).is_dir()

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, whole or not, oldest first."""
        names = (path.name.removeprefix("step-") for path in self.root.glob("step-*") if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write `checkpoint`; when this returns it is on the disk, and an older one of its step is gone."""
        place = self.path(checkpoint.step)
        aside = self.root / f"{ASIDE}{place.name}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            self._write(aside, checkpoint)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        if place.exists():
            replaced = self.root / f"{ASIDE}replaced"
            shutil.rmtree(replaced, ignore_errors=True)
            place.rename(replaced)
        aside.rename(place)
        _flush(self.root)
        shutil.rmtree(self.root / f"{ASIDE}replaced", ignore_errors=True)
        return place

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint, None where there is none; damaged newer ones are removed.

        UsageError where the newest whole one belongs to another run: a changed recipe or changed data.
        """
        for leftover in self.root.glob(f"{ASIDE}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except DamagedCheckpointError as damage:
                name = self.path(step).name
                self._warn(f"checkpoint {name} is damaged ({damage.what}); taking the one before")
                shutil.rmtree(self.path(step), ignore_errors=True)
        return None

    def load(self, step: int) -> Checkpoint:
        """Read a checkpoint and check its hashes; DamagedCheckpointError where it is not what was written."""
        place = self.path(step)
        try:
            manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
            files, fingerprint, skeleton = manifest["files"], manifest["fingerprint"], manifest["optimizer"]
            for name in (WEIGHTS, OPTIMIZER):
                if _sha256(place / name) != files[name]:
                    raise DamagedCheckpointError(f"{name} has another SHA-256", where=str(place))
            weights, tensors = load_file(place / WEIGHTS), load_file(place / OPTIMIZER)
            found = Checkpoint(manifest["step"], manifest["state"], weights, _join(skeleton, tensors))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DamagedCheckpointError(f"{type(error).__name__}: {error}", where=str(place)) from error
        if fingerprint != self._fingerprint:
            raise UsageError(
                "the checkpoint belongs to a run with other settings or other data",
                where=str(place),
                fix="resume with the recipe and data it was started with, or start a new job",
            )
        return found

    def prune(self, keep: Collection[int], newest: int) -> None:
        """Remove all but the `newest` newest checkpoints and those of the steps in `keep`."""
        steps = self.steps()
        for step in set(steps[: max(0, len(steps) - newest)]) - set(keep):
            # In one move: whoever copies checkpoints, or starts after a kill, never meets a part of one.
            pruned = self.root / f"{ASIDE}pruned-{step}"
            self.path(step).rename(pruned)
            shutil.rmtree(pruned, ignore_errors=True)

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        tensors: dict[str, torch.Tensor] = {}
        skeleton = _split(checkpoint.optimizer, tensors)
        save_file(_own_memory(checkpoint.weights), folder / WEIGHTS)
        save_file(_own_memory(tensors), folder / OPTIMIZER)
        manifest = {
            "format": FORMAT,
            "fingerprint": self._fingerprint,
            "step": checkpoint.step,
            "state": checkpoint.state,
            "optimizer": skeleton,
            "files": {name: _sha256(folder / name) for name in (WEIGHTS, OPTIMIZER)},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for name in (WEIGHTS, OPTIMIZER, MANIFEST):
            _flush(folder / name)
        _flush(folder)


class DamagedCheckpointError(FtcloudError):
    """A checkpoint that is not, or no longer, what was written."""


def check_space(root: Path, weights: dict[str, torch.Tensor], count: int) -> None:
    """Refuse to train where `count` checkpoints of `weights` cannot be held.

    Each takes the weights and up to two moments of them, 3 x 4 bytes a parameter, and one more is being
    written while the others are kept.
    """
    parameters = sum(tensor.numel() for tensor in weights.values())
    needed = 12 * parameters * (count + 1)
    root.mkdir(parents=True, exist_ok=True)
    held = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    free = shutil.disk_usage(root).free + held
    if needed > free:
        raise FtcloudError(
            f"the disk is too full for checkpoints: they may take {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free",
            where=str(root),
            fix="free disk space, keep fewer checkpoints, or train adapters (lora) instead of all weights",
        )


def _own_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CPU copies that share no memory: safetensors refuses tensors that do (tied weights, shared tables)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _split(value: Any, tensors: dict[str, torch.Tensor], name: str = "") -> Any:
    """JSON data with the tensors of `value` replaced by their names in `tensors`; `_join` undoes it."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        # Pairs, because the keys of an optimizer's state are numbers, which JSON objects cannot have.
        return {"dict": [[key, _split(item, tensors, f"{name}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _join(item, tensors) for key, item in value["dict"]}
    return [_join(item, tensors) for item in value] if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have the file, or the names in the directory, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(PermissionError):  # some file systems flush no directories
            os.fsync(handle)
    finally:
        os.close(handle)
