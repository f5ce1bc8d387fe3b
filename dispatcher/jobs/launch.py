"""From a recipe to a job in the store: the last place where everything can still be refused for free.

A draft holds all that is known before anything starts: the data in place and checked, the spec resolved
for the machine, what the model and the adapters weigh, what is doubtful. It becomes a job in one rename
and one row, or it is discarded and leaves nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dispatcher.jobs.disk import check_disk
from dispatcher.jobs.job import Job, JobFolder, new_job_id
from dispatcher.jobs.lease import holder_name, is_alive
from dispatcher.jobs.store import JobStore
from dispatcher.recipe.adapters import Trainable, trainable
from dispatcher.recipe.base_model import ModelFacts, read_facts
from dispatcher.recipe.lint import LintWarning, lint
from dispatcher.recipe.load import dump_recipe, is_folder
from dispatcher.recipe.resolve import resolve
from dispatcher.recipe.schema import Recipe
from dispatcher.recipe.splits import Splits, prepare_splits
from dispatcher.storage.home import Home
from providers.offers import Offer, Query
from providers.protocol import Attempt, Provider, Request
from trainer_image.trainer.errors import FtcloudError
from trainer_image.trainer.hardware import Hardware
from trainer_image.trainer.spec import TrainSpec

DRAFT = ".draft-"
"""A draft's folder is `.draft-JOB@HOLDER`; see `lease.holder_name`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that nobody has agreed to yet."""

    id: str
    recipe: Recipe
    spec: TrainSpec
    offer: Offer
    hardware: Hardware
    splits: Splits
    facts: ModelFacts | None
    trainable: Trainable | None
    warnings: list[LintWarning]
    folder: JobFolder

    def request(self, store: JobStore, provider: Provider) -> Request:
        """What the first attempt would send."""
        cargo = self.folder.cargo(self.spec.to_json())
        return provider.prepare(Attempt(f"{self.id}-1", store.store_id, self.id, self.offer, cargo))

    def commit(self, store: JobStore, home: Home) -> Job:
        """Make it a job. The folder first: a row always has its data."""
        final = home.job(self.id)
        self.folder.path.rename(final)
        recipe = self.recipe.model_dump(mode="json")
        return store.add(self.id, self.recipe.name, recipe, self.spec.to_json(), [self.offer])

    def discard(self) -> None:
        shutil.rmtree(self.folder.path, ignore_errors=True)


def draft(home: Home, recipe: Recipe, provider: Provider) -> Draft:
    """Check and prepare everything that can be before a launch; raises the error that the user must mend."""
    _sweep(home)
    facts = read_facts(Path(recipe.model)) if is_folder(recipe.model) else None
    offer = _offer(provider)
    hardware = provider.hardware(offer)
    job_id = new_job_id()
    folder = JobFolder(home.path / "jobs" / f"{DRAFT}{job_id}@{holder_name()}")
    try:
        folder.data.mkdir(parents=True)
        splits = prepare_splits(recipe, folder.data)
        spec = resolve(recipe, hardware, splits, facts, labels={"job": job_id})
        count = trainable(recipe, facts) if facts else None
        if facts is not None:
            check_disk(home.path, spec, facts, count)
        folder.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
        (folder.path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise FtcloudError(
            f"the job cannot be prepared: {error.strerror or error}",
            where=str(error.filename or home.path),
            fix="free disk space or mend the folder's permissions",
        ) from error
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    warnings = lint(recipe, splits, facts, hardware)
    return Draft(job_id, recipe, spec, offer, hardware, splits, facts, count, warnings, folder)


def _sweep(home: Home) -> None:
    """Remove the drafts, and with them the copies of data, of launches that were killed."""
    for left in (home.path / "jobs").glob(f"{DRAFT}*"):
        holder = left.name.partition("@")[2]
        if not holder or not is_alive(holder):
            shutil.rmtree(left, ignore_errors=True)


def _offer(provider: Provider) -> Offer:
    offers = sorted(provider.offers(Query()), key=lambda offer: offer.price_usd_per_hour)
    if not offers:
        raise FtcloudError("the provider offers nothing that fits", where=provider.name)
    return offers[0]
