"""`ftcloud demo`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from dispatcher.cli.command import FtCommand, json_option
from dispatcher.cli.draft_view import print_draft
from dispatcher.cli.follow import follow_to_the_end
from dispatcher.cli.output import note
from dispatcher.cli.state import opened
from dispatcher.demo.model import demo_model
from dispatcher.demo.recipe import write_demo
from dispatcher.jobs.launch import draft
from dispatcher.jobs.moves import State
from dispatcher.recipe.load import load_recipe
from providers.local import require_trainer
from providers.plugins import load_provider
from trainer_image.trainer.errors import ExitCode, FtcloudError

SURE = 2.0
"""Standard errors that the gain must reach for the demo to have shown anything."""


@click.command(cls=FtCommand)
@click.option("--seed", default=1, show_default=True, help="Seed of the data and of the training.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where data and recipe go.")
@json_option
def demo(seed: int, folder: Path | None, as_json: bool) -> ExitCode:
    """Fine-tune a real small model on this machine, start to finish.

    SmolLM2-135M learns to turn order e-mails into JSON: data, recipe, plan, training, scores before and
    after, merge, registry: the same path as a cloud job. Under 10 minutes on 2 CPU cores.

    \b
    Example:
      ftcloud demo
      ftcloud demo --seed 2 --folder ./demo
    """
    require_trainer()
    with opened() as (home, store):
        model = demo_model(home.cache, note)
        place = folder or home.path / "demo"
        place.mkdir(parents=True, exist_ok=True)
        recipe = write_demo(place, model, seed)
        note(f"data and recipe are in {place}")
        prepared = draft(home, load_recipe(recipe), load_provider("local", home.path))
        print_draft(prepared)
        job = prepared.commit(store, home)
        note(f"job {job.id}", bold=True)
        code = follow_to_the_end(home, store, job.id, as_json=as_json)
        job = store.job(job.id)
    if job.state is State.SUCCEEDED and job.result is not None:
        gain = job.result["metrics"]["gain"]
        if gain["value"] < SURE * gain["standard_error"]:
            raise FtcloudError(
                f"the gain is below {SURE:g} standard errors: the fine-tune has shown nothing",
                where=f"job {job.id}",
                fix=f"look at: ftcloud show {job.id}",
            )
        _show_how_to_ask(job.model, place / "data")
    return code


def _show_how_to_ask(model: str | None, data: Path) -> None:
    """The command that tries the model on an order it has not seen, with the system line it knows."""
    with (data / "test.jsonl").open(encoding="utf-8") as rows:
        system, user, _ = json.loads(next(rows))["messages"]
    words = shlex.join(["--system", system["content"], user["content"]])
    note(f"an order:    ftcloud models generate {model} {words}")
