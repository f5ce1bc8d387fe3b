"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import ftcloud

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    requirement.name.replace("_", "-"): requirement
    for line in (ROOT / "trainer_image" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if (requirement := Requirement(line) if line and not line.startswith("#") else None)
}
TRAINER_STACK = frozenset(
    {
        "accelerate",
        "bitsandbytes",
        "gguf",
        "numpy",
        "peft",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
    }
)


def project_files() -> list[Path]:
    """All that git has or would take."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "folder",
    [
        "ftcloud",
        "trainer_image/trainer",
        "providers",
        "dispatcher",
        "templates",
        "tests",
        "docs",
        "benchmarks",
    ],
)
def test_each_folder_of_the_layout_is_there(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_the_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    # In pieces, so that this file does not find itself.
    machine_path = re.compile(
        "|".join(f"/{name}/" for name in ("work", "root", "Users", "opt/wheels", "opt/pypi"))
    )
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in project_files()
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if machine_path.search(line)
    ]
    assert found == []


def test_there_is_one_version() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert importlib.metadata.version("ftcloud") == ftcloud.__version__
    Version(ftcloud.__version__)


@pytest.mark.parametrize("extra", ["train", "demo"])
def test_the_machines_pins_satisfy_the_ranges_of_the_extra(extra: str) -> None:
    for text in PROJECT["project"]["optional-dependencies"][extra]:
        wanted = Requirement(text)
        if wanted.name == "ftcloud":
            continue
        (pin,) = PINS[wanted.name].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{wanted} does not allow {pin}"


def test_torch_is_pinned_first_so_that_it_can_be_installed_alone() -> None:
    assert next(iter(PINS)) == "torch"


def test_the_wheel_takes_every_package_and_the_templates() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"}
    listed = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages | {"templates"} == listed


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["jobs"], ["jobs", "--json"], ["models", "--json"]]
)
def test_a_command_that_only_answers_imports_nothing_heavy(args: list[str]) -> None:
    program = (
        "import sys, json\n"
        "from dispatcher.cli.main import run\n"
        f"code = run({args!r})\n"
        "names = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print(json.dumps([code, names]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    heavy = {
        "asyncio",
        "boto3",
        "huggingface_hub",
        "jinja2",
        "mlflow",
        "paramiko",
        "pydantic",
        "requests",
        "yaml",
    }
    assert not (heavy | TRAINER_STACK) & set(names)


def test_a_test_module_that_imports_the_trainers_stack_is_marked_so() -> None:
    """Or the Pythons without torch could not even collect it; `tests/conftest.py` reads the mark."""
    unmarked = []
    for file in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("tests/**/conftest.py")]:
        text = file.read_text(encoding="utf-8")
        if TRAINER_STACK & set(top_level_imports(text)) and "pytestmark = pytest.mark.torch" not in text:
            unmarked.append(str(file.relative_to(ROOT)))
    assert unmarked == []


def top_level_imports(source: str) -> list[str]:
    names: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module.partition(".")[0])
    return names


def test_every_shell_script_is_clean() -> None:
    scripts = [
        file
        for file in project_files()
        if file.suffix == ".sh" or re.match(rb"#!.*\b(ba|da)?sh\b", file.read_bytes()[:64])
    ]
    assert ROOT / ".ci" / "run" in scripts
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_system_package_says_why_it_is_needed() -> None:
    lines = (ROOT / "tests" / "system-packages.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    for line in packages:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.+-]+  # .{10,}", line), line
