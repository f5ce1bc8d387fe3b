"""Trying a registered model: a process of its own loads the merged folder and answers."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dispatcher.cli.main import run
from dispatcher.registry.generate import Asking, generate
from dispatcher.registry.store import ModelRegistry
from dispatcher.storage.home import open_home
from tests.factories.outputs import make_candidate, make_output, write_manifest
from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model
from trainer_image.trainer.errors import UsageError

pytestmark = pytest.mark.torch

SCHEMA = Path(__file__).resolve().parents[2] / "contract" / "models_generate.schema.json"


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """The merged folder of orders:1, a model that can be loaded."""
    output = make_output(tmp_path / "output")
    shutil.rmtree(output / "merged")
    save_tiny_model(output / "merged", CHAT_TEMPLATE)
    write_manifest(output)
    registry = ModelRegistry.open(open_home())
    version = registry.register(make_candidate(), output)
    registry.close()
    return version.folder / "merged"


def test_each_line_of_stdin_is_answered_in_its_place(
    registered: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("order two lamps\n\na model learns\norder two lamps\n"))
    assert run(["models", "generate", "orders", "--max-new-tokens", "4", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert [entry["prompt"] for entry in document] == ["order two lamps", "a model learns", "order two lamps"]
    first, other, again = (entry["answer"] for entry in document)
    assert first == again != other


def test_a_folder_that_holds_no_model_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the model gave no answer: .*no config\.json"):
        generate(tmp_path, ["hello"], Asking())
