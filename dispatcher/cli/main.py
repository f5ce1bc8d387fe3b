"""`ftcloud`: the group that knows every command by name and imports only the one that is called.

Start-up is part of the product: `ftcloud --help` and shell completion import click and nothing else of
weight. So the one-line help of each command stands here, beside the place it is loaded from; a test
holds the two together.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from dispatcher.cli.command import CONTEXT_SETTINGS, session
from dispatcher.cli.output import show_error
from dispatcher.version import VERSION
from trainer_image.trainer.errors import ExitCode, FtcloudError

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (where it is, one line of help); in the order of a first day's work
    "init": ("dispatcher.cli.init:init", "Write a commented recipe.yaml from a few questions or flags."),
    "launch": ("dispatcher.cli.launch:launch", "Run a recipe and register the model that comes out."),
    "jobs": ("dispatcher.cli.jobs:jobs", "List jobs, newest first."),
    "show": ("dispatcher.cli.jobs:show", "Show one job: its state, attempts, events, scores."),
    "logs": ("dispatcher.cli.logs:logs", "Print or follow the log of a job."),
    "cancel": ("dispatcher.cli.control:cancel", "Stop a job and everything that runs for it."),
    "resume": ("dispatcher.cli.control:resume", "Carry a job on, from its newest checkpoint."),
    "pull": ("dispatcher.cli.control:pull", "Copy the results of a job into a folder."),
    "models": ("dispatcher.cli.models:models", "List, compare, promote, try and remove trained models."),
    "demo": ("dispatcher.cli.demo:demo", "Fine-tune a real small model on this machine, start to finish."),
    "doctor": ("dispatcher.cli.doctor:doctor", "Check what this machine needs to work."),
    "completion": ("dispatcher.cli.completion:completion", "Print the completion script for a shell."),
    "carry": ("dispatcher.cli.control:carry", ""),
}
HIDDEN = frozenset({"carry"})


class LazyGroup(click.Group):
    """Commands from `COMMANDS`, imported when called; unknown ones get the nearest name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no such command {args[0]!r}.{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table above, so that no command is imported for the help page."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings=CONTEXT_SETTINGS)
@click.version_option(VERSION, "--version", "-V", prog_name="ftcloud", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--quiet", "-q", is_flag=True, help="Print results and errors only.")
@click.option("--verbose", "-v", is_flag=True, help="Print more.")
@click.pass_context
def cli(ctx: click.Context, debug: bool, quiet: bool, verbose: bool) -> None:
    """Fine-tune an open-weight LLM on a rented GPU, knowing the price before paying it.

    \b
    Example:
      ftcloud init --model ./my-model --data orders.jsonl
      ftcloud launch recipe.yaml

    Exit codes: 0 succeeded, 1 failed, 2 wrong usage, 3 cancelled, 4 detached.
    """
    told = session(ctx)
    told.debug |= debug
    told.quiet |= quiet
    told.verbose |= verbose


def main() -> None:
    """Entry point: run the command, turn what went wrong into one message and the right exit code."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """As `main`, with the exit code returned."""
    color = False if os.environ.get("NO_COLOR") else None
    with click.Context(cli, color=color):  # errors are shown after the command's own context has ended
        return _run(args, color)


def _run(args: list[str], color: bool | None) -> int:
    try:
        code = cli.main(args=args, prog_name="ftcloud", standalone_mode=False, color=color)
    except click.exceptions.Abort:
        show_error("stopped before anything was started")
        return ExitCode.CANCELLED
    except click.ClickException as error:
        _show_click_error(error)
        return error.exit_code
    except FtcloudError as error:
        _traceback_for_debug(args)
        show_error(error.what, error.where, error.fix)
        return error.exit_code
    except BrokenPipeError:  # `ftcloud jobs | head`
        sys.stderr.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SUCCEEDED
    except Exception as error:
        _traceback_for_debug(args)
        kind = type(error).__name__
        show_error(f"{kind}: {error}", fix="this is a bug in ftcloud: run again with --debug and report it")
        return ExitCode.FAILED
    return code if isinstance(code, int) else ExitCode.SUCCEEDED


def _show_click_error(error: click.ClickException) -> None:
    """Click's own errors (flags, arguments) in the words and on the lines of ours."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    path = ctx.command_path if ctx else "ftcloud"
    show_error(error.format_message(), fix=f"see: {path} --help")


def _traceback_for_debug(args: list[str]) -> None:
    if "--debug" in args:
        import traceback  # 5 ms that no other start needs

        traceback.print_exc()
