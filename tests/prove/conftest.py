"""What the proofs share: a seed that is printed and can be given again, a model, a generator of moments.

make prove                              all that CI does, then these
PROVE_SEED=4711 pytest tests/prove      the same kills again
PROVE_RUNS=100 pytest tests/prove       more chaos
"""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path

import pytest

from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model

SEED = "PROVE_SEED"

# In the environment, so that the processes of a parallel session have the same one.
os.environ.setdefault(SEED, str(secrets.randbelow(1_000_000)))


def pytest_report_header() -> str:
    return f"prove: {SEED}={os.environ[SEED]} gives the same kills again"


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(900))  # half a dozen trainers, one after the other, on a busy machine


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random moments of this test, the same for the same seed whichever other tests run."""
    print(f"{SEED}={os.environ[SEED]}")
    return random.Random(f"{os.environ[SEED]} {request.node.name}")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "tiny", CHAT_TEMPLATE)
