"""Install the Debian packages that the tests need, or say how.

    .venv/bin/python .ci/system_packages.py tests/system-packages.txt

Does nothing when all are there. As root on a Debian system it installs what is missing; otherwise it prints
the command and exits 2, because a test that cannot run must not look like one that passed. On a system
without dpkg a package counts as there when the command of its name is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def listed(file: Path) -> list[str]:
    """Package names: one a line, the rest of the line after `#` says why."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return shutil.which(package) is not None
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", package]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.returncode == 0 and answer.stdout == "installed"


def install(packages: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    print(" ".join(command), flush=True)
    subprocess.run(["apt-get", "update", "--quiet"], env=environment, stdout=subprocess.DEVNULL, check=False)
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit("apt-get failed, see above")


def main() -> None:
    missing = [package for package in listed(Path(sys.argv[1])) if not is_installed(package)]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install(missing)
        return
    print(
        f"the tests need system packages that are not installed: {' '.join(missing)}\n"
        f"  fix: sudo apt-get install --no-install-recommends {' '.join(missing)}",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    main()
