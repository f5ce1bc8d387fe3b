from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.registry.store import ModelRegistry
from dispatcher.storage.home import Home, open_home
from tests.factories.outputs import make_output


@pytest.fixture
def home() -> Home:
    return open_home()


@pytest.fixture
def registry(home: Home) -> Iterator[ModelRegistry]:
    registry = ModelRegistry.open(home)
    yield registry
    registry.close()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return make_output(tmp_path / "output")
