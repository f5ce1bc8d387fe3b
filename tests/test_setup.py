"""The scripts behind `make setup` and `make test`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script, ROOT / ".ci" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder that looks like an environment with the extras train and demo."""
    environment = load("environment")
    path = tmp_path / "venv"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(sys.executable)
    (path / ".installed-train-demo").write_text(environment.digest_of(["train", "demo"]))
    return path


def test_an_environment_serves_each_part_of_what_was_installed(made: Path) -> None:
    environment = load("environment").Environment(made)
    assert environment.is_ready(["train", "demo"])
    assert environment.is_ready(["demo"])
    assert not environment.is_ready(["train", "demo", "dev"])


def test_a_change_of_the_requirements_makes_an_environment_stale(made: Path, tmp_path: Path) -> None:
    module = load("environment")
    changed = tmp_path / "requirements.txt"
    changed.write_text(module.REQUIREMENTS.read_text() + "another==1.0\n")
    module.REQUIREMENTS = changed
    assert not module.Environment(made).is_ready(["train", "demo"])


def test_a_change_of_a_tools_settings_installs_nothing(made: Path, tmp_path: Path) -> None:
    module = load("environment")
    changed = tmp_path / "pyproject.toml"
    changed.write_text(module.PYPROJECT.read_text() + "\n[tool.another]\nx = 1\n")
    module.PYPROJECT = changed
    assert module.Environment(made).is_ready(["train", "demo"])
    changed.write_text(changed.read_text().replace('"click>=', '"click>=8.2,>='))
    assert not module.Environment(made).is_ready(["train", "demo"])


def test_an_interrupted_set_up_is_started_over_from_an_empty_folder(made: Path) -> None:
    environment = load("environment").Environment(made)
    (made / ".unfinished").touch()
    assert not environment.is_ready(["demo"])
    environment.create()
    assert not (made / ".unfinished").exists()
    assert not list(made.glob(".installed-*"))
    assert subprocess.run([made / "bin" / "python", "-m", "pip", "--version"], check=False).returncode == 0


def packages(names: str, tmp_path: Path, commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the script with only these commands on PATH."""
    (tmp_path / "bin").mkdir()
    for command in commands:
        if found := shutil.which(command):
            (tmp_path / "bin" / command).symlink_to(found)
    (tmp_path / "packages.txt").write_text(f"# a comment\n{names}\n")
    script = [sys.executable, ROOT / ".ci" / "system_packages.py", tmp_path / "packages.txt"]
    environment = os.environ | {"PATH": str(tmp_path / "bin")}
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)


def test_a_missing_package_that_cannot_be_installed_is_named_with_its_command(tmp_path: Path) -> None:
    done = packages("no-such-package  # to be missing", tmp_path, ["dpkg-query"])
    assert done.returncode == 2
    assert "apt-get install --no-install-recommends no-such-package" in done.stderr


def test_nothing_is_run_when_all_packages_are_there(tmp_path: Path) -> None:
    done = packages("git  # is there, as make test needs it", tmp_path, ["dpkg-query", "git"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def commands_of(target: str) -> str:
    """What `make TARGET` would run, whether or not this test is itself run by make."""
    done = subprocess.run(
        ["make", "--dry-run", target, f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_what_takes_minutes_is_collected_by_make_prove_alone(pytestconfig: pytest.Config) -> None:
    proofs = "-m pytest -n auto --maxprocesses 4 --dist worksteal tests/prove\n"
    assert proofs not in commands_of("test")
    assert commands_of("prove").endswith(proofs)
    assert commands_of("prove").startswith(commands_of("check"))
    assert "prove" in pytestconfig.getini("norecursedirs")
    assert list((ROOT / "tests" / "prove").glob("test_*.py"))
