"""What a user at a terminal sees and may answer."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pexpect
import pytest

from tests.factories.command import Ftcloud
from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model
from tests.factories.tiny_recipe import write_tiny_recipe

pytestmark = pytest.mark.torch

COLOUR = re.compile(r"\x1b\[[0-9;]*[0-9]m")


LONG = ("--epochs", "400", "--save-every", "2")
"""Flags of a run that is never over before the test ends it."""


@pytest.fixture
def recipe(ftcloud: Ftcloud, tmp_path: Path) -> Path:
    return write_tiny_recipe(ftcloud.here, save_tiny_model(tmp_path / "tiny", CHAT_TEMPLATE))


def on_a_terminal(ftcloud: Ftcloud, *args: str | Path, no_color: str = "") -> pexpect.spawn:
    """The command on a terminal of 120 columns, at which the test may type."""
    return pexpect.spawn(
        sys.executable,
        ["-P", "-m", "ftcloud", *map(str, args)],
        cwd=str(ftcloud.here),
        env={**ftcloud.environment, "TERM": "xterm-256color", "NO_COLOR": no_color},
        dimensions=(40, 120),
        timeout=90,
        searchwindowsize=2000,  # the bar repaints one line for ever
        encoding="utf-8",
    )


def exit_code(terminal: pexpect.spawn) -> int:
    terminal.expect(pexpect.EOF)
    terminal.close()
    code: int = terminal.exitstatus
    return code


def test_no_at_the_question_starts_nothing(ftcloud: Ftcloud, recipe: Path) -> None:
    terminal = on_a_terminal(ftcloud, "launch", recipe)
    terminal.expect("price .*an hour")
    terminal.expect(r"start\? \[Y/n\]")
    terminal.sendline("n")
    assert exit_code(terminal) == 3
    assert ftcloud.json("jobs") == []
    assert not list(ftcloud.home.glob("jobs/*"))


def test_training_shows_a_bar_and_ctrl_c_asks_to_cancel(ftcloud: Ftcloud, recipe: Path) -> None:
    terminal = on_a_terminal(ftcloud, "launch", recipe, *LONG)
    terminal.expect(r"start\?")
    terminal.sendline("")
    terminal.expect(r"tokens/s  [\d:]+ left")
    assert re.search(r"training .*━.* \d+/2000", terminal.before[-600:])
    terminal.sendintr()
    terminal.expect(r"\[d\]etach and let it run, or \[c\]ancel it\?")
    terminal.sendline("c")
    terminal.expect("is cancelled; ftcloud resume")
    assert exit_code(terminal) == 3
    assert not ftcloud.leftovers()


def test_detached_by_ctrl_c_the_job_is_carried_on(ftcloud: Ftcloud, recipe: Path) -> None:
    terminal = on_a_terminal(ftcloud, "launch", recipe, "--yes", *LONG)
    terminal.expect(r"tokens/s  [\d:]+ left")
    terminal.sendintr()
    terminal.expect(r"\[c\]ancel it\?")
    terminal.sendline("")  # the default harms nothing
    terminal.expect("goes on in the background")
    assert exit_code(terminal) == 4
    assert ftcloud.json("jobs")[0]["state"] == "training"
    assert ftcloud.json("cancel", "last")["state"] == "cancelled"
    assert not ftcloud.leftovers()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals_that_want_them(ftcloud: Ftcloud, no_color: str, coloured: bool) -> None:
    terminal = on_a_terminal(ftcloud, "launch", "nowhere.yaml", no_color=no_color)
    terminal.expect(pexpect.EOF)
    assert bool(COLOUR.search(terminal.before)) is coloured
    assert "nowhere.yaml" in terminal.before


def test_init_asks_for_what_no_flag_gave_and_its_recipe_runs(ftcloud: Ftcloud, recipe: Path) -> None:
    model = recipe.read_text().split("model: ")[1].split("\n")[0].strip('"')
    recipe.unlink()
    terminal = on_a_terminal(ftcloud, "init", "--model", model)
    terminal.expect("Training data")
    terminal.sendline("data")
    terminal.expect("Method .*lora")
    terminal.sendline("")
    terminal.expect(r"Name of the result \[tiny-data\]")
    terminal.sendline("mine")
    terminal.expect("How to score")
    terminal.sendline("")
    terminal.expect("wrote recipe.yaml; next: ftcloud launch recipe.yaml")
    assert exit_code(terminal) == 0
    assert ftcloud.run("launch", "recipe.yaml", "--dry-run").returncode == 0
    assert "name: mine" in recipe.read_text()
