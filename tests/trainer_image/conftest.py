"""A tiny real model, and work directories on it that are ready for the trainer."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.factories import workdirs
from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model
from trainer_image.trainer.spec import TrainSpec

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has a ChatML template."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder whose tokenizer has no chat template."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-plain", None)


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def plain_tokenizer(tiny_plain_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_plain_model)


@pytest.fixture
def make_spec(tiny_model: Path) -> Callable[..., TrainSpec]:
    """See `workdirs.make_spec`."""
    return partial(workdirs.make_spec, tiny_model)


@pytest.fixture
def make_workdir(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """A work directory of the test, by its name; see `workdirs.make_workdir`."""

    def make(name: str = "work", **settings: Any) -> Path:
        return workdirs.make_workdir(tmp_path / name, tiny_model, **settings)

    return make
