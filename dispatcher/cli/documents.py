"""The JSON documents of jobs; their schemas are frozen in tests/contract/."""

from __future__ import annotations

from typing import Any

from dispatcher.cli.output import iso_time
from dispatcher.jobs.job import AttemptRow, Event, Job


def job_row(job: Job) -> dict[str, Any]:
    """One element of `ftcloud jobs --json`."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "provider": job.provider,
        "created_at": iso_time(job.created_at),
        "updated_at": iso_time(job.updated_at),
        "cost_usd": job.cost_usd,
        "model_version": job.model,
    }


def outcome(job: Job) -> dict[str, Any]:
    """What `launch`, `resume` and `cancel` print about how a job stands."""
    failure = job.failure
    return {
        "job": job.id,
        "state": job.state,
        "model_version": job.model,
        "metrics": job.result["metrics"] if job.result else None,
        "cost_usd": job.cost_usd,
        "error": {"what": failure.what, "where": failure.where, "fix": failure.fix} if failure else None,
    }


def job_page(job: Job, attempts: list[AttemptRow], events: list[Event]) -> dict[str, Any]:
    """`ftcloud show --json`."""
    return {
        **job_row(job),
        **outcome(job),
        "recipe": job.recipe,
        "attempts": [
            {
                "number": attempt.number,
                "provider": attempt.offer.provider,
                "instance_type": attempt.offer.instance_type,
                "region": attempt.offer.region,
                "state": attempt.state,
                "cause": attempt.cause,
                "created_at": iso_time(attempt.created_at),
                "closed_at": iso_time(attempt.closed_at) if attempt.closed_at else None,
                "cost_usd": attempt.cost_usd,
            }
            for attempt in attempts
        ],
        "events": [
            {
                "at": iso_time(event.at),
                "kind": event.kind,
                "state": event.state,
                "cause": event.cause,
                "attempt": event.attempt,
                "message": event.message,
                "cost_usd": event.cost_usd,
            }
            for event in events
        ],
    }
