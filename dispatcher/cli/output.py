"""How results, notes and errors are printed. Results go to stdout, all else to stderr.

Text that came from a machine, a model or a file passes through `visible`, so that it can neither move
the cursor nor repaint the screen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from dispatcher.cli.command import session


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` command."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()
) -> None:
    """Aligned columns; `right` names those that hold figures. No rows: the header alone."""
    cells = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    click.secho(_line(list(headers), widths, right), bold=True)
    for row in cells:
        click.echo(_line(row, widths, right))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    placed = (
        cell.rjust(width) if i in right else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(placed).rstrip()


def note(message: str, *, bold: bool = False) -> None:
    """Tell the user what happens; silent with --quiet."""
    if not session().quiet:
        click.secho(visible(message), err=True, bold=bold or None)


def warn(message: str) -> None:
    """What the user should know even with --quiet."""
    click.secho(f"warning: {visible(message)}", err=True, fg="yellow")


def show_error(what: str, where: str = "", fix: str = "") -> None:
    """What is wrong, where, and what to do."""
    place = f"{visible(where)}: " if where else ""
    click.secho("error: ", err=True, fg="red", bold=True, nl=False)
    click.echo(f"{place}{visible(what)}", err=True)
    if fix:
        click.echo(f"  fix: {visible(fix)}", err=True)


def visible(text: str) -> str:
    """`text` with every control and formatting character but newline and tab written out."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _is_control(c) else _written_out(c) for c in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _written_out(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def iso_time(seconds: float) -> str:
    """ISO 8601, UTC, as all JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def local_time(seconds: float) -> str:
    """For people: their own clock."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
