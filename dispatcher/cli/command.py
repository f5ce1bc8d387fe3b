"""What every command shares: the options `--debug`, `--quiet`, `-v`, and the session behind them.

They work before the command's name and after it: `ftcloud -q jobs` and `ftcloud jobs -q`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Session:
    """How this invocation talks."""

    debug: bool = False
    quiet: bool = False
    verbose: bool = False


def session(ctx: click.Context | None = None) -> Session:
    """The session of the running command."""
    ctx = ctx or click.get_current_context()
    found: Session = ctx.ensure_object(Session)
    return found


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and param.name:
        setattr(session(ctx), param.name, True)


class FtCommand(click.Command):
    """A command with the common options, listed last in its help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for names, text in (
            (["--quiet", "-q"], "Print results and errors only."),
            (["--verbose", "-v"], "Print more."),
            (["--debug"], "Show tracebacks."),
        ):
            option = click.Option(names, is_flag=True, expose_value=False, callback=_remember, help=text)
            self.params.append(option)


class FtGroup(click.Group):
    """A group whose sub-commands are `FtCommand`s."""

    command_class = FtCommand


def json_option(command: F) -> F:
    """`--json`, passed as `as_json`: one JSON document on stdout, all else on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
