"""Run the tests that need no torch on every supported Python at hand besides the one that runs this.

    .venv/bin/python .ci/other_pythons.py [PYTEST ARGUMENTS]

Each gets a small environment of its own, `.venv-3.12` and so on, kept for the next time. A Python is at
hand when it runs by its name on PATH or stands among pyenv's versions. Fails when one of the runs fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))


def interpreters() -> dict[tuple[int, int], Path]:
    """A working interpreter for each supported version that this machine has."""
    found: dict[tuple[int, int], Path] = {}
    for version in SUPPORTED:
        for candidate in _candidates(version):
            if _version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def _candidates(version: tuple[int, int]) -> list[Path]:
    name = f"python{version[0]}.{version[1]}"
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders += sorted(pyenv.glob(f"{version[0]}.{version[1]}.*/bin"), reverse=True)
    return [folder / name for folder in folders if (folder / name).exists()]


def _version_of(python: Path) -> tuple[int, int] | None:
    """None where it does not run, as pyenv's shims of versions that are not switched on."""
    question = "import sys, ensurepip, sqlite3; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [python, "-c", question], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = answer.stdout.split()
    return int(major), int(minor)


def run_tests(version: tuple[int, int], python: Path) -> bool:
    name = f".venv-{version[0]}.{version[1]}"
    print(f"\n--- tests without torch on Python {version[0]}.{version[1]}", flush=True)
    made = subprocess.run([python, ROOT / ".ci" / "environment.py", name, "dev"], check=False)
    if made.returncode:
        return False
    pytest = [str(ROOT / name / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([*pytest, "-m", "not torch", *sys.argv[1:]], cwd=ROOT, check=False).returncode == 0


def main() -> None:
    others = interpreters()
    others.pop(sys.version_info[:2], None)
    failed = [version for version, python in others.items() if not run_tests(version, python)]
    if failed:
        sys.exit("failed on Python " + ", ".join(f"{major}.{minor}" for major, minor in failed))


if __name__ == "__main__":
    main()
