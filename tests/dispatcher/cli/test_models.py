"""`ftcloud models` as a user and as a script meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dispatcher.cli.main import run
from dispatcher.registry.store import ModelRegistry
from dispatcher.storage.home import open_home
from tests.factories.outputs import make_candidate, make_output

CONTRACT = Path(__file__).resolve().parents[2] / "contract"

Ask = Callable[..., Any]


@pytest.fixture
def two_versions(tmp_path: Path) -> None:
    """orders:1 with a score of 50 %, orders:2 with 75 %."""
    registry = ModelRegistry.open(open_home())
    for number, score in ((1, 0.5), (2, 0.75)):
        candidate = make_candidate(job=f"job-{number}", score=score)
        registry.register(candidate, make_output(tmp_path / f"output-{number}"))
    registry.close()


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command with --json; its document, checked against the schema named."""

    def ask(schema: str, *args: str, code: int = 0) -> Any:
        assert run(["models", *args, "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        Draft202012Validator(json.loads((CONTRACT / f"{schema}.schema.json").read_text())).validate(document)
        return document

    return ask


def test_an_empty_home_has_an_empty_list(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("models") == []
    assert run(["models"]) == 0
    assert capsys.readouterr().out.split() == [
        "MODEL",
        "ALIASES",
        "BASE",
        "METHOD",
        "BEFORE",
        "AFTER",
        "EVAL",
        "LOSS",
        "USD",
        "CREATED",
    ]


def test_the_list_is_newest_first(two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert [(entry["name"], entry["version"]) for entry in ask("models")] == [("orders", 2), ("orders", 1)]
    assert ask("models", "list", "orders") == ask("models")
    assert run(["models"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].startswith("orders:2") and "75.0%" in rows[1]
    assert rows[2].startswith("orders:1") and "50.0%" in rows[2]


def test_show_tells_the_whole_lineage(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    document = ask("models_show", "show", "orders:1")
    candidate = make_candidate()
    assert document["recipe"] == candidate.recipe
    assert document["environment"] == candidate.environment
    assert document["job"] == "job-1"
    assert run(["models", "show", "orders:1"]) == 0
    text = capsys.readouterr().out
    for word in ("orders:1", "job-1", "SmolLM2-135M-Instruct", "sha256:1234", "rank 16", "2.13.0"):
        assert word in text


def test_path_prints_the_merged_folder_and_nothing_else(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "path", "orders"]) == 0
    printed = capsys.readouterr()
    folder = Path(printed.out.removesuffix("\n"))
    assert folder == open_home().models / "orders" / "2" / "merged"
    assert (folder / "config.json").exists()
    assert printed.err == ""
    assert ask("models_path", "path", "orders:2")["path"] == str(folder)


def test_an_alias_is_set_moved_and_taken_away(two_versions: None, ask: Ask) -> None:
    assert ask("models_alias", "alias", "orders:1", "staging")["aliases"] == ["staging"]
    assert ask("models_alias", "promote", "orders:1")["aliases"] == ["production", "staging"]
    assert ask("models_alias", "promote", "orders")["version"] == 2
    assert ask("models_path", "path", "orders@production")["version"] == 2
    assert ask("models_alias", "alias", "orders", "staging", "--remove")["aliases"] == []


def test_compare_shows_what_got_better(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    document = ask("models_compare", "compare", "orders:1", "orders:2")
    figures = {figure["name"]: figure for figure in document["metrics"]}
    assert figures["tuned.score"] == {"name": "tuned.score", "first": 0.5, "second": 0.75, "change": 0.25}
    assert document["recipe"] == []
    assert document["same_data"] is True
    assert run(["models", "compare", "orders:1", "orders:2"]) == 0
    assert "+0.25" in capsys.readouterr().out


def test_verify_fails_when_a_file_changed(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("models_verify", "verify", "orders:1")["problems"] == []
    (open_home().models / "orders" / "1" / "result.json").write_text("[]")
    assert ask("models_verify", "verify", "orders:1", code=1)["problems"] == [
        "the content of 'result.json' changed (SHA-256)"
    ]
    assert run(["models", "verify", "orders:1"]) == 1
    assert "orders:1 is damaged" in capsys.readouterr().err


def test_remove_frees_the_files_and_spares_what_an_alias_names(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "promote", "orders:2"]) == 0
    assert run(["models", "remove", "orders:2", "--yes"]) == 2
    assert "orders:2 is @production" in capsys.readouterr().err
    assert ask("models_remove", "remove", "orders:1", "--yes")["freed_bytes"] > 0
    assert ask("models_remove", "remove", "orders:2", "--yes", "--force")["version"] == 2
    assert ask("models") == []
    assert not (open_home().models / "orders").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "order"], "did you mean orders?"),
        (["path", "orders:9"], "'orders' has no version 9"),
        (["path", "Orders"], "'Orders' is not a possible model name"),
        (["alias", "orders:1", "latest"], "'latest' always means the newest version"),
        (["list", "order"], "there is no model 'order'"),
        (["--json", "show", "orders"], "--json stands after the sub-command"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_exit_code_2(
    args: list[str], message: str, two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", *args]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_files_that_are_gone_are_said_to_be_gone(
    two_versions: None, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    (open_home().models / "orders" / "1").rename(open_home().path / "elsewhere")
    assert run(["models", "path", "orders:1"]) == 1
    assert "the files of orders:1 are not there" in capsys.readouterr().err
    assert [entry["has_files"] for entry in ask("models")] == [True, False]


def test_every_schema_is_a_valid_schema() -> None:
    for schema in CONTRACT.glob("models*.schema.json"):
        Draft202012Validator.check_schema(json.loads(schema.read_text()))
