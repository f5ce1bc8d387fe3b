"""`ftcloud jobs` and `ftcloud show`."""

from __future__ import annotations

import click

from dispatcher.cli.command import FtCommand, json_option
from dispatcher.cli.documents import job_page, job_row
from dispatcher.cli.output import local_time, note, print_json, print_table, visible
from dispatcher.cli.state import opened_and_taken_up
from dispatcher.jobs.job import Job, job_folder


@click.command(cls=FtCommand)
@json_option
def jobs(as_json: bool) -> None:
    """List jobs, newest first.

    \b
    Example:
      ftcloud jobs
    """
    with opened_and_taken_up() as (_, store):
        found = store.jobs()
    if as_json:
        print_json([job_row(job) for job in found])
        return
    print_table(
        ["JOB", "NAME", "STATE", "PROVIDER", "CREATED", "COST", "MODEL"],
        [
            [
                job.id,
                job.name,
                job.state,
                job.provider,
                local_time(job.created_at),
                f"${job.cost_usd:.2f}",
                job.model or "",
            ]
            for job in found
        ],
        right=(5,),
    )


@click.command(cls=FtCommand)
@click.argument("job")
@json_option
def show(job: str, as_json: bool) -> None:
    """Show one job: its state, attempts, events, scores.

    JOB is an id, the beginning of one, a name (its newest job) or `last`.

    \b
    Example:
      ftcloud show last
    """
    with opened_and_taken_up() as (home, store):
        found = store.find(job)
        attempts, events = store.attempts(found.id), store.events(found.id)
    if as_json:
        print_json(job_page(found, attempts, events))
        return
    _print_head(found)
    note(f"folder     {job_folder(home, found.id).path}")
    for event in events:
        cost = f"  ${event.cost_usd:.2f}" if event.cost_usd else ""
        words = event.message or (event.cause or event.kind)
        click.echo(f"{local_time(event.at)}  {event.state:<12}  {visible(words)}{cost}")
    if found.result:
        from dispatcher.cli.scores import print_scores

        print_scores(found)


def _print_head(job: Job) -> None:
    click.secho(f"job {job.id}: {visible(job.name)} is {job.state}", bold=True)
    if job.failure:
        click.echo(f"why        {visible(job.failure.what)}")
        if job.failure.fix:
            click.echo(f"fix        {visible(job.failure.fix)}")
