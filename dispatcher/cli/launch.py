"""`ftcloud launch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.command import FtCommand, json_option
from dispatcher.cli.draft_view import draft_document, print_draft
from dispatcher.cli.follow import detach, follow_to_the_end
from dispatcher.cli.output import note, print_json
from dispatcher.cli.state import opened
from dispatcher.jobs.launch import Draft, draft
from dispatcher.jobs.store import JobStore
from dispatcher.recipe.flags import RecipeCommand, recipe_options
from dispatcher.recipe.load import load_recipe
from providers.plugins import load_provider
from providers.protocol import Provider
from trainer_image.trainer.errors import ExitCode, UsageError


class LaunchCommand(FtCommand, RecipeCommand):
    """Common options, and recipe flags under their groups."""


@click.command(cls=LaunchCommand)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--provider", default="local", show_default=True, help="Who runs it; local is this machine.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before starting.")
@click.option("--dry-run", is_flag=True, help="Show what would run and stop: nothing is kept or sent.")
@click.option("--detach", "-d", "detached", is_flag=True, help="Return at once; the job goes on.")
@json_option
@recipe_options
def launch(
    recipe: Path,
    provider: str,
    yes: bool,
    dry_run: bool,
    detached: bool,
    as_json: bool,
    overrides: dict[str, Any],
) -> ExitCode:
    """Run RECIPE and register the model that comes out.

    Every field of the recipe is also a flag, which wins over the file. Ctrl-C asks whether to leave the
    job running or to cancel it.

    \b
    Example:
      ftcloud launch recipe.yaml
      ftcloud launch recipe.yaml --learning-rate 1e-4 --epochs 2 --yes --json
    """
    wanted = load_recipe(recipe, overrides)
    with opened() as (home, store):
        adapter = load_provider(provider, home.path)
        prepared = draft(home, wanted, adapter)
        try:
            if dry_run:
                return _show(prepared, store, adapter, as_json=as_json)
            adapter.check()
            print_draft(prepared)
            _ask(yes=yes)
            job = prepared.commit(store, home)
        except BaseException:
            prepared.discard()
            raise
        note(f"job {job.id}", bold=True)
        if detached:
            return detach(home, store, job.id, as_json=as_json)
        return follow_to_the_end(home, store, job.id, as_json=as_json)


def _show(prepared: Draft, store: JobStore, adapter: Provider, *, as_json: bool) -> ExitCode:
    request = prepared.request(store, adapter)
    if as_json:
        print_json(draft_document(prepared, request))
    else:
        print_draft(prepared)
        click.echo(prepared.spec.to_json(), nl=False)
    prepared.discard()
    return ExitCode.SUCCEEDED


def _ask(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask whether to start", fix="add --yes")
    click.confirm("start?", default=True, abort=True, err=True)
