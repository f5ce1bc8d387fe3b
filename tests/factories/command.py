"""`ftcloud` as a user runs it: a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

TIME_LIMIT_S = 240
T = TypeVar("T")


@dataclass(frozen=True)
class Ftcloud:
    """Runs commands in folder `here` with FTCLOUD_HOME at `home`."""

    here: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FTCLOUD_HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(args),
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=TIME_LIMIT_S,
            check=False,
        )

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """As `run`, without waiting; in a process group of its own, as a terminal would have it."""
        return subprocess.Popen(
            self._command(args),
            cwd=self.here,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            process_group=0,
        )

    def json(self, *args: str | Path) -> Any:
        """The document on stdout of a command that must succeed."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def leftovers(self) -> list[str]:
        """Processes that work on this home, and work directories: what no job that is over may leave."""
        found = [str(path) for path in self.home.glob("local/*/")]
        for process in psutil.process_iter(["pid", "cmdline", "environ"]):
            words, variables = process.info["cmdline"] or [], process.info["environ"] or {}
            if process.pid != os.getpid() and variables.get("FTCLOUD_HOME") == str(self.home):
                found.append(f"{process.pid}: {' '.join(words)}")
        return found

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "ftcloud", *map(str, args)]


def wait_for(look: Callable[[], T], patience_s: float = 90) -> T:
    """What `look` gives once it gives something."""
    until = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)
    return found
