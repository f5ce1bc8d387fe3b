"""Whether the disk holds what a job will write. Checked before anything starts: machines fail on this too."""

from __future__ import annotations

import shutil
from pathlib import Path

from dispatcher.recipe.adapters import Trainable
from dispatcher.recipe.base_model import ModelFacts
from trainer_image.trainer.errors import FtcloudError
from trainer_image.trainer.spec import TrainSpec

STATE_BYTES = 16
"""Per trained parameter in a checkpoint, at most: fp32 weight or master, two fp32 moments, 16-bit copy."""
STORED_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
MARGIN = 1.1
GIB = 1 << 30


def needed_bytes(spec: TrainSpec, facts: ModelFacts, count: Trainable | None) -> int:
    """Disk for a job [bytes]: checkpoints (kept, best, and one being written), adapter and merged model.

    The registry links the output's files, so they count once.
    """
    trained = count.count if count is not None else facts.parameters
    checkpoints = (spec.loop.keep_checkpoints + 2) * STATE_BYTES * trained
    adapter = 4 * trained if spec.lora is not None else 0
    merged = STORED_BYTES.get(facts.stored, 4) * facts.parameters if spec.merge or spec.lora is None else 0
    return int(MARGIN * (checkpoints + adapter + merged))


def check_disk(folder: Path, spec: TrainSpec, facts: ModelFacts, count: Trainable | None) -> None:
    """Raise FtcloudError where the disk of `folder` has not that much room."""
    need, free = needed_bytes(spec, facts, count), shutil.disk_usage(folder).free
    if need > free:
        raise FtcloudError(
            f"the disk is too full: checkpoints and results need {need / GIB:.1f} GiB, "
            f"{free / GIB:.1f} GiB are free",
            where=str(folder),
            fix="free disk space, point FTCLOUD_HOME at a bigger disk, or lower keep_checkpoints",
        )
