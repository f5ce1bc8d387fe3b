"""`ftcloud cancel`, `resume`, `pull`, and `carry`, which runs detached jobs."""

from __future__ import annotations

from pathlib import Path

import click

from dispatcher.cli.command import FtCommand, json_option
from dispatcher.cli.documents import outcome
from dispatcher.cli.output import note, print_json
from dispatcher.cli.state import opened
from dispatcher.jobs.job import Job, job_folder
from dispatcher.jobs.moves import Cause, State
from dispatcher.jobs.store import JobStore
from trainer_image.trainer.errors import ExitCode, FtcloudError, UsageError


@click.command(cls=FtCommand)
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> ExitCode:
    """Stop a job and everything that runs for it.

    Its newest checkpoint is kept: `ftcloud resume JOB` goes on from there.

    \b
    Example:
      ftcloud cancel last
    """
    from dispatcher.cli.follow import follow_to_the_end

    with opened() as (home, store):
        found = store.find(job)
        if found.over and found.state is not State.CANCELLED:
            raise UsageError(f"job {found.id} has {found.state} already; there is nothing to cancel")
        store.want(found.id, "cancelled")
        follow_to_the_end(home, store, found.id, as_json=as_json, from_now=True)
        ended = store.job(found.id).state
    return ExitCode.SUCCEEDED if ended is State.CANCELLED else ExitCode.FAILED


@click.command(cls=FtCommand)
@click.argument("job")
@click.option("--detach", "-d", "detached", is_flag=True, help="Return at once; the job goes on.")
@json_option
def resume(job: str, detached: bool, as_json: bool) -> ExitCode:
    """Carry a job on: one that was left alone, has failed or was cancelled.

    Training goes on from the newest whole checkpoint, with the same result as if it had never stopped.

    \b
    Example:
      ftcloud resume last
    """
    from dispatcher.cli.follow import detach, follow_to_the_end, report

    with opened() as (home, store):
        found = store.find(job)
        if found.state is State.SUCCEEDED:
            note(f"job {found.id} has succeeded already")
            return report(found, as_json=as_json)
        if found.over:
            _reopen(store, found)
        if detached:
            return detach(home, store, found.id, as_json=as_json)
        return follow_to_the_end(home, store, found.id, as_json=as_json, from_now=True)


def _reopen(store: JobStore, job: Job) -> None:
    lease = store.take(job.id)
    if lease is None:
        raise FtcloudError(
            "another process still ends what ran for this job",
            where=job.id,
            fix="wait a moment and try again",
        )
    store.move(lease, Cause.RESUMED, "resumed by the user")
    store.release(lease)


@click.command(cls=FtCommand)
@click.argument("job")
@click.argument("dest", type=click.Path(file_okay=False, path_type=Path), required=False)
@json_option
def pull(job: str, dest: Path | None, as_json: bool) -> None:
    """Copy the results of a job (adapter, merged model, answers, scores) into DEST.

    Without DEST, a folder of the job's name here. What a job has not produced yet is said.

    \b
    Example:
      ftcloud pull last ./orders-model
    """
    from providers.transport.files import copy_tree

    with opened() as (home, store):
        found = store.find(job)
        folder = job_folder(home, found.id)
    if not (folder.output / "manifest.json").exists():
        raise FtcloudError(
            f"the job is {found.state} and has no results", where=found.id, fix=f"ftcloud show {found.id}"
        )
    target = dest or Path(found.name)
    if target.is_dir() and any(target.iterdir()) and not (target / "manifest.json").exists():
        raise UsageError("the folder holds something else", where=str(target), fix="name an empty folder")
    try:
        copy_tree(folder.output, target)
    except OSError as error:
        raise FtcloudError(
            f"the results cannot be copied: {error.strerror or error}", where=str(error.filename or target)
        ) from error
    if as_json:
        print_json({**outcome(found), "folder": str(target.absolute())})
    else:
        click.echo(target)


@click.command(cls=FtCommand, hidden=True)
@click.argument("job")
def carry(job: str) -> None:
    """Carry a detached job to its end, with no terminal."""
    from dispatcher.jobs.carrier import carry as carry_to_the_end

    with opened() as (home, store):
        carry_to_the_end(home, store, store.find(job).id)
