"""The trainer as a real process: what it said, how it was killed, what it left behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_image.trainer.progress import Progress, parse

ROOT = Path(__file__).parents[2]
TRAINER = "trainer_image.trainer"
DYING_TRAINER = "tests.prove.dying_trainer"
MEASURED = frozenset({"time", "tokens_per_s", "eta_s", "peak_gib"})
"""Fields of a progress line that differ from run to run; every other one must not."""

Story = dict[tuple[str, int], dict[str, Any]]
"""What was said of each step: ("train", 7) -> loss, lr, grad_norm, tokens …"""


@dataclass(frozen=True)
class Session:
    """One process of the trainer, from its start to its end."""

    code: int
    """Exit code; negative: the signal that ended it."""
    lines: list[Progress]
    """As far as they had been written when it ended."""

    def last_step(self) -> int:
        """The last optimizer step that was made."""
        return max((line.values["step"] for line in self.lines if line.kind == "train"), default=0)

    def resumed_step(self) -> int:
        (start,) = [line for line in self.lines if line.kind == "start"]
        return int(start.values["resumed_step"])

    def warnings(self) -> list[str]:
        return [line.values["message"] for line in self.lines if line.kind == "warning"]


def run(workdir: Path, kill_after: Callable[[Progress], bool] | None = None, delay_s: float = 0.0) -> Session:
    """Run the trainer; SIGKILL comes `delay_s` after the first line for which `kill_after` is true."""
    return _run([TRAINER, str(workdir)], kill_after, delay_s)


def run_until_the_rename(workdir: Path, step: int) -> Session:
    """Run the trainer; it is killed instead of renaming its first checkpoint of `step` or later."""
    return _run([DYING_TRAINER, str(step), str(workdir)], None, 0.0)


def _run(module: list[str], kill_after: Callable[[Progress], bool] | None, delay_s: float) -> Session:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines, killed = [], False
    try:
        for text in process.stdout:
            if (line := parse(text)) is None:
                print(text, end="")
                continue
            lines.append(line)
            if kill_after is not None and not killed and kill_after(line):
                time.sleep(delay_s)
                process.kill()
                killed = True  # what it had written before is still to be read
        return Session(process.wait(), lines)
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()


def story(sessions: Iterable[Session]) -> Story:
    """What the sessions of one run said of its steps; what was done twice must have come out the same."""
    told: Story = {}
    for session in sessions:
        for line in session.lines:
            if line.kind in ("train", "eval"):
                values = {name: value for name, value in line.values.items() if name not in MEASURED}
                before = told.setdefault((line.kind, values["step"]), values)
                assert values == before, "done a second time, it came out otherwise"
    return told


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of weights below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
