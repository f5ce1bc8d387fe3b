"""What every test shares. Factories that several folders use stand in tests/factories/."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.factories.command import Ftcloud

pytest_plugins = ["tests.no_skips"]

# Before torch is loaded anywhere: its threads wait instead of spinning, as workers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

_NEEDS_TORCH = re.compile(r"^pytestmark = .*pytest\.mark\.torch", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without torch, a module that is marked as a whole to need it cannot even be imported."""
    if find_spec("torch") is not None or not collection_path.name.startswith("test_"):
        return None
    return True if _NEEDS_TORCH.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home of whoever runs it."""
    monkeypatch.setenv("FTCLOUD_HOME", str(tmp_path / "home"))


@pytest.fixture
def ftcloud(tmp_path: Path) -> Ftcloud:
    here = tmp_path / "here"
    here.mkdir()
    return Ftcloud(here, tmp_path / "home")
