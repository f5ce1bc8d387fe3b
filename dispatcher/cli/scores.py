"""The scores of a job, for people: base against tuned, and what to do next."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli.output import note, print_table
from dispatcher.jobs.job import Job
from dispatcher.jobs.progress_text import duration, number

ROWS = (
    # metric in result.json, words, format
    ("score", "right answers", ".1%"),
    ("valid_json", "valid JSON", ".1%"),
    ("fields", "fields right", ".1%"),
    ("eval_loss", "validation loss", ".4f"),
)


def print_scores(job: Job) -> None:
    """A table of what changed by training, and the version that came out."""
    metrics: dict[str, Any] = (job.result or {}).get("metrics") or {}
    base, tuned = metrics.get("base") or {}, metrics.get("tuned") or {}
    rows = [
        [words, number(base.get(key), form), number(tuned.get(key), form)]
        for key, words, form in ROWS
        if key in base or key in tuned
    ]
    if rows:
        print_table(["", "base", "tuned"], rows, right=(1, 2))
    gain = metrics.get("gain")
    if isinstance(gain, dict):
        click.echo(
            f"gain: {number(100 * gain['value'], '+.1f')} points, standard error "
            f"{number(100 * gain['standard_error'], '.1f')}, on the same {number(gain.get('rows'))} rows"
        )
    click.echo(
        f"train loss {number(metrics.get('train_loss'), '.4f')}, "
        f"{number(metrics.get('tokens'), ',')} tokens at "
        f"{number(metrics.get('tokens_per_s'), ',.0f')} a second, "
        f"peak {number(metrics.get('peak_gib'), '.1f')} GiB, "
        f"{duration(metrics.get('seconds'))}, ${job.cost_usd:.2f}"
    )
    click.secho(f"registered as {job.model}", bold=True)
    note(f'try it:      ftcloud models generate {job.model} "..."')
    note(f"its folder:  ftcloud models path {job.model}")
