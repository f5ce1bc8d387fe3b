"""A draft becomes a job, or leaves nothing; also when whoever made it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.jobs.launch import draft
from dispatcher.jobs.lease import holder_name
from dispatcher.recipe.schema import Recipe
from tests.dispatcher.jobs.conftest import World
from tests.factories.recipes import make_recipe, questions, write_rows


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return make_recipe(data=str(write_rows(tmp_path / "rows.jsonl", questions(20))))


def folders(world: World) -> list[str]:
    return sorted(path.name for path in (world.home.path / "jobs").iterdir())


def test_a_draft_becomes_a_job_with_its_data(world: World, recipe: Recipe) -> None:
    job = draft(world.home, recipe, world.cloud).commit(world.store, world.home)
    assert folders(world) == [job.id]
    assert list((world.home.job(job.id) / "data").glob("*.jsonl"))
    assert [row.id for row in world.store.jobs()] == [job.id]


def test_a_discarded_draft_leaves_nothing(world: World, recipe: Recipe) -> None:
    draft(world.home, recipe, world.cloud).discard()
    assert folders(world) == []


def test_what_a_killed_launch_left_is_swept_by_the_next_and_a_living_ones_is_not(
    world: World, recipe: Recipe
) -> None:
    host, pid, _ = holder_name().rsplit(":", 2)
    for holder in (f"{host}:999999999:1.00", f"{host}:{pid}:1.00", holder_name(), "elsewhere:1:1.00"):
        (world.home.path / "jobs" / f".draft-abc@{holder}" / "data").mkdir(parents=True)
    (world.home.path / "jobs" / ".draft-nobody").mkdir()
    draft(world.home, recipe, world.cloud).discard()
    assert folders(world) == sorted([f".draft-abc@{holder_name()}", ".draft-abc@elsewhere:1:1.00"])
