"""The plugin that fails a session in which something was not really tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PLANTED = {
    "skipped": "@pytest.mark.skip\ndef test_x():\n    pass\n",
    "skips_itself": "def test_x():\n    pytest.skip('no')\n",
    "skipped_module": "pytest.skip('no', allow_module_level=True)\n",
    "expected_failure": "@pytest.mark.xfail\ndef test_x():\n    assert False\n",
    "unexpected_pass": "@pytest.mark.xfail\ndef test_x():\n    pass\n",
}


def run_session(folder: Path, modules: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, body in modules.items():
        (folder / f"test_{name}.py").write_text("import pytest\n\n" + body)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, str(folder)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "in parallel"])
def test_a_session_fails_on_every_kind_of_test_that_was_not_run(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    done = run_session(tmp_path, PLANTED | {"good": "def test_x():\n    pass\n"}, *options)
    assert done.returncode == 1, done.stdout
    verdict = next(line for line in done.stdout.splitlines() if line.startswith("failed: 5 tests"))
    for name in PLANTED:
        assert f"test_{name}.py" in verdict


def test_a_session_in_which_every_test_ran_passes(tmp_path: Path) -> None:
    done = run_session(tmp_path, {"good": "def test_x():\n    pass\n"})
    assert done.returncode == 0, done.stdout
