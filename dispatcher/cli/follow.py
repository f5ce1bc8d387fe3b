"""Carrying a job in the foreground: show it, and on Ctrl-C ask whether to leave it running or to end it."""

from __future__ import annotations

import sys

import click

from dispatcher.cli.documents import outcome
from dispatcher.cli.output import note, print_json, show_error
from dispatcher.cli.scores import print_scores
from dispatcher.cli.watch import Watcher
from dispatcher.jobs.carrier import carry, spawn_carrier
from dispatcher.jobs.job import Job, job_folder
from dispatcher.jobs.moves import State
from dispatcher.jobs.store import JobStore
from dispatcher.storage.home import Home
from trainer_image.trainer.errors import ExitCode

EXIT_CODES = {
    State.SUCCEEDED: ExitCode.SUCCEEDED,
    State.FAILED: ExitCode.FAILED,
    State.CANCELLED: ExitCode.CANCELLED,
}


def follow_to_the_end(
    home: Home, store: JobStore, job_id: str, *, as_json: bool, from_now: bool = False
) -> ExitCode:
    """Carry (or watch) the job until it is over, print how it ended, return the exit code for that."""
    with Watcher(store, job_id, job_folder(home, job_id), from_now=from_now) as watcher:
        while True:
            try:
                job = carry(home, store, job_id, watcher.tick)
                break
            except KeyboardInterrupt:
                watcher.clear()
                if _on_interrupt() == "d":
                    return detach(home, store, job_id, as_json=as_json)
                store.want(job_id, "cancelled")
                note("cancelling; the trainer finishes its step and writes a checkpoint first")
    return report(job, as_json=as_json)


def detach(home: Home, store: JobStore, job_id: str, *, as_json: bool) -> ExitCode:
    """Leave the job to a process of its own."""
    spawn_carrier(home, job_id)
    if as_json:
        print_json(outcome(store.job(job_id)))
    note(f"job {job_id} goes on in the background: ftcloud logs -f {job_id}, ftcloud cancel {job_id}")
    return ExitCode.DETACHED


def report(job: Job, *, as_json: bool) -> ExitCode:
    """Print how a job that is over has ended."""
    if as_json:
        print_json(outcome(job))
    if job.state is State.FAILED and job.failure:
        show_error(job.failure.what, job.failure.where, job.failure.fix)
    elif job.state is State.CANCELLED:
        note(f"job {job.id} is cancelled; ftcloud resume {job.id} goes on from its newest checkpoint")
    elif not as_json:
        print_scores(job)
    return EXIT_CODES[job.state]


def _on_interrupt() -> str:
    """d or c. Without a terminal there is nobody to ask, and a healthy job is never ended by our silence."""
    if not sys.stdin.isatty():
        return "d"
    click.echo(err=True)
    try:
        choice = click.Choice(["d", "c"])
        answer: str = click.prompt(
            "[d]etach and let it run, or [c]ancel it?", type=choice, default="d", err=True
        )
    except click.Abort:
        return "c"
    return answer
