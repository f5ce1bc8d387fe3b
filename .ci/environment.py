"""Make a virtual environment of this checkout, or find that nothing is to be done.

    python .ci/environment.py .venv train demo dev

makes `.venv` with this Python and installs ftcloud into it, editable, with those extras. The versions
are those of `trainer_image/requirements.txt`. A stamp in the environment holds a digest of all that was
asked for, so that a second call installs nothing and costs a Python start.

An interrupted call leaves a mark in the environment; the next one then starts from an empty folder, as a
half-installed package looks whole to pip. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "trainer_image" / "requirements.txt"
PYPROJECT = ROOT / "pyproject.toml"


def requirements() -> list[str]:
    return REQUIREMENTS.read_text(encoding="utf-8").splitlines()


def digest_of(extras: list[str]) -> str:
    """SHA-256 of what decides the content of the environment; tools' settings are no part of it."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    tool = project.pop("tool", {})
    project["hatch"] = tool.get("hatch")
    described = json.dumps(project, sort_keys=True)
    parts = [sys.version, str(ROOT), *extras, described, *requirements()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Environment:
    """A virtual environment and the marks that say how far it came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.unfinished = path / ".unfinished"

    def stamp(self, extras: list[str]) -> Path:
        return self.path / f".installed-{'-'.join(extras) or 'base'}"

    def is_ready(self, extras: list[str]) -> bool:
        """True when a whole environment holds these extras, alone or among others, as they are now."""
        if self.unfinished.exists() or not self.python.exists():
            return False
        for stamp in self.path.glob(".installed-*"):
            names = stamp.name.removeprefix(".installed-").split("-")
            if set(extras) <= set(names) and stamp.read_text("utf-8") == digest_of(names):
                return True
        return False

    def create(self) -> None:
        """An empty environment of this Python, unless a usable one is there."""
        if self._is_usable():
            return
        print(f"making {self.path} with Python {sys.version.split()[0]}", flush=True)
        if (missing := _missing_modules()) is not None:
            sys.exit(f"this Python cannot make environments: {missing}\n  fix: apt-get install python3-venv")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.path)], check=True)

    def _is_usable(self) -> bool:
        """Whole, of this Python, and made at this place: its scripts name it by its absolute path."""
        if self.unfinished.exists() or not self.python.exists():
            return False
        if not (self.path / "pyvenv.cfg").read_text("utf-8").rstrip().endswith(f" {self.path}"):
            return False
        question = "import pip, sys; print(sys.version)"
        answer = subprocess.run([self.python, "-c", question], capture_output=True, text=True, check=False)
        return answer.returncode == 0 and answer.stdout.strip() == sys.version.strip()

    def install(self, extras: list[str]) -> None:
        """torch first and alone, where the trainer's stack is asked for; then its pins; then ftcloud."""
        self.unfinished.touch()
        for stamp in self.path.glob(".installed-*"):
            stamp.unlink()
        if "train" in extras:
            self._pip(*(line for line in requirements() if line.startswith("torch==")))
            self._pip("-r", str(REQUIREMENTS))
        target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
        self._pip("-c", str(REQUIREMENTS), "-e", target)
        self.stamp(extras).write_text(digest_of(extras), "utf-8")
        self.unfinished.unlink()

    def _pip(self, *arguments: str) -> None:
        print("pip install", *arguments, flush=True)
        environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        command = [str(self.python), "-m", "pip", "install", "--quiet", *arguments]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode:
            if done.returncode > 0:  # pip ended by itself and rolled back; a signal leaves halves
                self.unfinished.unlink()
            sys.exit(
                "the environment could not be installed, see above\n  fix: check the network and run it again"
            )


def _missing_modules() -> str | None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="make a virtual environment of this checkout")
    parser.add_argument("path", type=Path)
    parser.add_argument("extras", nargs="*")
    arguments = parser.parse_args()
    environment = Environment((ROOT / arguments.path).absolute())
    if environment.is_ready(arguments.extras):
        return
    lock = environment.path.with_name(environment.path.name + ".lock")
    with lock.open("w") as held:  # two `make test` at once: the second waits, then finds the stamp
        fcntl.flock(held, fcntl.LOCK_EX)
        if not environment.is_ready(arguments.extras):
            environment.create()
            environment.install(arguments.extras)


if __name__ == "__main__":
    main()
