"""`ftcloud completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dispatcher.cli.command import FtCommand


@click.command(cls=FtCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Example:
      ftcloud completion bash >> ~/.bashrc
    """
    from dispatcher.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click has one for each choice"
    click.echo(found(cli, {}, "ftcloud", "_FTCLOUD_COMPLETE").source())
