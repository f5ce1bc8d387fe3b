"""Try a model: a few answers from its merged folder, in a process of the trainer's Python.

Loading a model takes seconds and gigabytes; the command line itself stays light.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from providers.local import ENVIRONMENT, PYTHON_VARIABLE, require_trainer
from trainer_image.trainer.errors import ExitCode, FtcloudError, UsageError

SAID_LINES = 5
"""Lines of the process's own words that go into the message when it fails."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How prompts are put to the model."""

    system: str | None = None
    raw: bool = False
    """The prompt as it is, without the model's chat template."""
    max_new_tokens: int = 256


def generate(merged: Path, prompts: Sequence[str], asking: Asking) -> list[str]:
    """Greedy answers, one a prompt. Raises FtcloudError with the process's last words where it fails."""
    require_trainer()
    command = [
        os.environ.get(PYTHON_VARIABLE, sys.executable),
        "-m",
        "trainer_image.trainer.generate",
        str(merged),
    ]
    command += ["--max-new-tokens", str(asking.max_new_tokens), *(["--raw"] if asking.raw else [])]
    system = {"system": asking.system} if asking.system else {}
    requests = "".join(json.dumps({"prompt": prompt} | system) + "\n" for prompt in prompts)
    done = subprocess.run(
        command,
        input=requests,
        env=os.environ | ENVIRONMENT | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-SAID_LINES:])
        kind = UsageError if done.returncode == ExitCode.USAGE else FtcloudError
        raise kind(f"the model gave no answer: {said or f'exit code {done.returncode}'}", where=str(merged))
    return [json.loads(line)["answer"] for line in done.stdout.splitlines() if line.startswith("{")]
