"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dispatcher.cli.main import COMMANDS, cli
from dispatcher.jobs.moves import diagram

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(document: Path) -> set[str]:
    """The names that headings get on the web."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


@each_document
def test_every_file_of_the_project_that_is_named_exists(document: Path) -> None:
    folders = "ftcloud|dispatcher|providers|trainer_image|templates|tests|benchmarks|docs"
    named = re.findall(rf"`((?:{folders})/[\w./*-]*)`", document.read_text(encoding="utf-8"))
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing, f"{document.name} names {missing}"


@each_document
def test_every_command_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    in_code = re.findall(r"`(ftcloud [^`\n]+)`|^(?:\$|    )\s*(ftcloud .+)$", text, re.MULTILINE)
    for line in filter(None, (word for pair in in_code for word in pair)):
        name = line.split()[1]
        assert name in COMMANDS or not name.isalpha() or name.isupper(), f"{document.name}: {line}"


def commands(group: click.Group, path: str = "ftcloud") -> dict[str, click.Command]:
    context, found = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[f"{path} {name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{path} {name}")
    return found


@pytest.mark.parametrize("path", commands(cli))
def test_the_help_of_every_command_has_an_example_that_calls_it(path: str) -> None:
    command = commands(cli)[path]
    shown = command.get_help(click.Context(command, info_name=path))
    _, _, after = shown.partition("Example:")
    assert path in after, shown


def test_the_diagram_of_the_moves_is_the_table_of_the_code() -> None:
    assert diagram() in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
