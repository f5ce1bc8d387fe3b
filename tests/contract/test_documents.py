"""The JSON documents of jobs, as frozen on the first day: scripts of users are written against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dispatcher.cli.documents import job_page, job_row, outcome
from dispatcher.jobs.moves import State
from tests.dispatcher.jobs.conftest import World

HERE = Path(__file__).parent


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


def check(document: object, name: str) -> None:
    as_printed = json.loads(json.dumps(document, allow_nan=False))
    validator = jsonschema.Draft202012Validator(schema(name), format_checker=jsonschema.FormatChecker())
    validator.validate(as_printed)


@pytest.mark.parametrize("faults", [[], ["trainer fails"], ["preempted"]])
def test_documents_of_a_job_are_as_their_schemas_say(
    make_world: Callable[..., World], faults: list[str]
) -> None:
    world = make_world(list(faults))
    job = world.run(world.add_job())
    check([job_row(job)], "jobs")
    check(outcome(job), "launch")
    check(job_page(job, world.store.attempts(job.id), world.store.events(job.id)), "show")


def test_documents_of_a_job_that_has_not_started_are_as_their_schemas_say(world: World) -> None:
    job = world.add_job()
    check([job_row(job)], "jobs")
    check(outcome(job), "launch")
    check(job_page(job, [], []), "show")


def test_every_state_of_a_job_stands_in_the_schema() -> None:
    assert set(schema("jobs")["items"]["properties"]["state"]["enum"]) == set(State)


@pytest.mark.parametrize("name", ["jobs", "launch", "show"])
def test_a_field_that_nobody_froze_is_refused(world: World, name: str) -> None:
    job = world.add_job()
    documents = {"jobs": [job_row(job)], "launch": outcome(job), "show": job_page(job, [], [])}
    document: Any = json.loads(json.dumps(documents[name]))
    (document[0] if name == "jobs" else document)["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(document, name)
