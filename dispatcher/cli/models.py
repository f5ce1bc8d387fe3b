"""`ftcloud models`: what came out of jobs, and what is done with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from dispatcher.cli.command import FtCommand, FtGroup, json_option
from dispatcher.cli.models_view import (
    print_comparison,
    print_list,
    print_version,
    version_document,
    version_summary,
)
from dispatcher.cli.output import note, print_json, visible
from dispatcher.registry.reference import parse_reference
from dispatcher.registry.store import ModelRegistry
from dispatcher.registry.version import ModelVersion
from dispatcher.storage.home import open_home
from trainer_image.trainer.errors import ExitCode, FtcloudError, UsageError


class ModelsGroup(FtGroup, FtCommand):
    """A group that does something by itself (it lists), so it has the common options too."""


REFERENCE = click.argument("reference", metavar="NAME[:VERSION|@ALIAS]")


@contextlib.contextmanager
def registry() -> Iterator[ModelRegistry]:
    opened = ModelRegistry.open(open_home())
    try:
        yield opened
    finally:
        opened.close()


@click.group(cls=ModelsGroup, invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List, compare, promote, try and remove trained models.

    A model is named NAME (its newest version), NAME:VERSION or NAME@ALIAS.

    \b
    Example:
      ftcloud models
      ftcloud models generate orders@production "Two lamps to Oslo, please. Kari Moe"
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json)
    elif as_json:
        raise UsageError(
            "--json stands after the sub-command", fix=f"ftcloud models {ctx.invoked_subcommand} --json"
        )


@models.command("list")
@click.argument("name", required=False)
@json_option
def list_command(name: str | None, as_json: bool) -> None:
    """List all versions, newest first, or those of one NAME.

    \b
    Example:
      ftcloud models list orders --json
    """
    _list(name, as_json)


def _list(name: str | None, as_json: bool) -> None:
    with registry() as opened:
        if name is not None:
            opened.find(name)  # an unknown name is an error, an empty registry is not
        versions = opened.versions(name)
        if as_json:
            print_json(
                [version_summary(version, has_files=opened.has_files(version)) for version in versions]
            )
        else:
            print_list(versions)


@models.command()
@REFERENCE
@json_option
def show(reference: str, as_json: bool) -> None:
    """Show where a model comes from and how good it is.

    \b
    Example:
      ftcloud models show orders:2
    """
    with registry() as opened:
        version = opened.find(reference)
        _report(opened, version, as_json)


def _report(opened: ModelRegistry, version: ModelVersion, as_json: bool) -> None:
    if as_json:
        print_json(version_document(version, has_files=opened.has_files(version)))
    else:
        print_version(version, has_files=opened.has_files(version))


@models.command()
@REFERENCE
@json_option
def path(reference: str, as_json: bool) -> None:
    """Print the folder of the merged model, which transformers loads by itself.

    \b
    Example:
      python -m vllm.entrypoints.openai.api_server --model "$(ftcloud models path orders@production)"
    """
    with registry() as opened:
        version = opened.find(reference)
        folder = opened.path(version.reference)
    if as_json:
        print_json({"name": version.name, "version": version.version, "path": str(folder)})
    else:
        click.echo(str(folder))


@models.command()
@REFERENCE
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Take the alias away; the version stays.")
@json_option
def alias(reference: str, alias: str, remove: bool, as_json: bool) -> None:
    """Let ALIAS mean a version, and no longer another of its name.

    \b
    Example:
      ftcloud models alias orders:2 staging
      ftcloud models alias orders staging --remove
    """
    with registry() as opened:
        if remove:
            version = opened.remove_alias(parse_reference(reference).name, alias)
        else:
            version = opened.set_alias(reference, alias)
        _tell_alias(version, alias, removed=remove, as_json=as_json)


@models.command()
@REFERENCE
@json_option
def promote(reference: str, as_json: bool) -> None:
    """Make a version the one in production: the same as `alias REFERENCE production`.

    \b
    Example:
      ftcloud models promote orders:2
    """
    with registry() as opened:
        _tell_alias(opened.set_alias(reference, "production"), "production", removed=False, as_json=as_json)


def _tell_alias(version: ModelVersion, alias: str, *, removed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"name": version.name, "version": version.version, "aliases": list(version.aliases)})
    else:
        state = f"no alias of {version.reference} any more" if removed else version.reference
        note(f"{version.name}@{alias} is {state}")


@models.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@json_option
def compare(first: str, second: str, as_json: bool) -> None:
    """Compare two versions: scores, cost, and the recipe fields that differ.

    \b
    Example:
      ftcloud models compare orders:1 orders:2
    """
    from dispatcher.registry.compare import compare as compare_versions

    with registry() as opened:
        comparison = compare_versions(opened.find(first), opened.find(second))
    print_comparison(comparison, as_json=as_json)


@models.command()
@REFERENCE
@json_option
def verify(reference: str, as_json: bool) -> int:
    """Read every file of a version again and compare its checksum.

    \b
    Example:
      ftcloud models verify orders@production
    """
    with registry() as opened:
        version = opened.find(reference)
        problems = opened.damage(version)
    if as_json:
        print_json({"name": version.name, "version": version.version, "problems": problems})
    elif problems:
        raise FtcloudError(
            f"{version.reference} is damaged: {'; '.join(problems)}", where=str(version.folder)
        )
    else:
        note(f"{version.reference}: {len(version.files)} files are as they were registered")
    return ExitCode.FAILED if problems else ExitCode.SUCCEEDED


@models.command()
@REFERENCE
@click.option("--force", is_flag=True, help="Also a version that an alias points at.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def remove(reference: str, force: bool, yes: bool, as_json: bool) -> None:
    """Delete a version's files. Its number is not given again.

    \b
    Example:
      ftcloud models remove orders:1
    """
    with registry() as opened:
        version = opened.find(reference)
        if not yes:
            click.confirm(
                f"Delete {version.reference} and its files in {version.folder}?", abort=True, err=True
            )
        removed = opened.remove(version.reference, force=force)
    if as_json:
        print_json({"name": removed.name, "version": removed.version, "freed_bytes": removed.bytes})
    else:
        note(f"removed {removed.reference}")


@models.command()
@REFERENCE
@click.argument("prompt", required=False)
@click.option("--system", help="A system message before the prompt.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--raw", is_flag=True, help="Give the prompt as it is, without the model's chat template.")
@json_option
def generate(
    reference: str, prompt: str | None, *, system: str | None, max_new_tokens: int, raw: bool, as_json: bool
) -> None:
    """Let a model answer PROMPT, or each line of standard input.

    \b
    Example:
      ftcloud models generate orders "Two lamps to Oslo, please. Kari Moe"
    """
    from dispatcher.registry.generate import Asking
    from dispatcher.registry.generate import generate as answers_of

    with registry() as opened:
        folder = opened.path(reference)
    prompts = [prompt] if prompt is not None else _prompts_from_stdin()
    answers = answers_of(folder, prompts, Asking(system, raw, max_new_tokens))
    if as_json:
        print_json([{"prompt": p, "answer": answer} for p, answer in zip(prompts, answers, strict=True)])
        return
    for answer in answers:
        click.echo(visible(answer))


def _prompts_from_stdin() -> list[str]:
    if sys.stdin.isatty():
        note("one prompt a line; Ctrl-D ends")
    prompts = [line.strip() for line in sys.stdin if line.strip()]
    if not prompts:
        raise UsageError(
            "no prompt", fix='write one: ftcloud models generate NAME "PROMPT", or lines on stdin'
        )
    return prompts
