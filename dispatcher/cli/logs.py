"""`ftcloud logs`."""

from __future__ import annotations

import time

import click

from dispatcher.cli.command import FtCommand
from dispatcher.cli.output import visible
from dispatcher.cli.state import opened_and_taken_up
from dispatcher.jobs.job import job_folder
from dispatcher.jobs.joblog import Follower
from dispatcher.jobs.progress_text import describe
from trainer_image.trainer.progress import parse

POLL_S = 0.3


@click.command(cls=FtCommand)
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is over.")
@click.option("--raw", is_flag=True, help="Progress as the JSON lines that the trainer wrote.")
def logs(job: str, follow: bool, raw: bool) -> None:
    """Print or follow the log of a job; it stays readable after the machine is gone.

    \b
    Example:
      ftcloud logs -f last
    """
    with opened_and_taken_up() as (home, store):
        found = store.find(job)
        follower = Follower(job_folder(home, found.id).path / "logs")
        while True:
            over = not follow or store.job(found.id).over
            for line in follower.lines(to_the_end=over):
                click.echo(visible(line if raw else _in_words(line)))
            if over:
                return
            time.sleep(POLL_S)


def _in_words(line: str) -> str:
    progress = parse(line)
    return line if progress is None else describe(progress)
