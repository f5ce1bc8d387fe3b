"""What would run: the plan of a launch, as people and as programs read it."""

from __future__ import annotations

import json
from typing import Any

from dispatcher.cli.output import note, warn
from dispatcher.jobs.launch import Draft
from providers.protocol import Request


def print_draft(prepared: Draft) -> None:
    """Six lines that say what will happen and what it costs, then the warnings."""
    recipe, spec, splits = prepared.recipe, prepared.spec, prepared.splits
    note(f"plan       {recipe.name}: {spec.method} on {spec.model.name}", bold=True)
    if prepared.facts is not None:
        line = f"model      {prepared.facts.parameters:,} parameters stored in {prepared.facts.stored}"
        if prepared.trainable is not None:
            line += f"; {prepared.trainable.count:,} train ({100 * prepared.trainable.share:.2f} %)"
        note(line)
    counts = [f"{splits.train.rows:,} training rows"]
    counts += [f"{splits.validation.rows:,} validation"] if splits.validation else []
    counts += [f"{splits.test.rows:,} test"] if splits.test else []
    note(f"data       {', '.join(counts)} ({splits.format})")
    loop, batch = spec.loop, spec.loop.micro_batch * spec.loop.grad_accum
    count, unit = (loop.max_steps, "step") if loop.max_steps else (loop.epochs, "epoch")
    length = f"{count:g} {unit}{'' if count == 1 else 's'}"
    note(
        f"training   {length} of {batch} rows a step ({loop.micro_batch} × {loop.grad_accum}), "
        f"learning rate {spec.optim.learning_rate:g}, {spec.model.precision}"
    )
    offer = prepared.offer
    note(f"machine    {offer.provider}: {prepared.hardware.describe()}")
    note(f"price      ${offer.price_usd_per_hour:.2f} an hour")
    for warning in prepared.warnings:
        warn(f"{warning.message} ({warning.fix})" if warning.fix else warning.message)


def draft_document(prepared: Draft, request: Request) -> dict[str, Any]:
    """`launch --dry-run --json`."""
    return {
        "recipe": prepared.recipe.model_dump(mode="json"),
        "spec": json.loads(prepared.spec.to_json()),
        "provider": prepared.offer.provider,
        "price_usd_per_hour": prepared.offer.price_usd_per_hour,
        "trainable": prepared.trainable.count if prepared.trainable else None,
        "share": prepared.trainable.share if prepared.trainable else None,
        "warnings": [
            {"code": warning.code, "message": warning.message, "fix": warning.fix}
            for warning in prepared.warnings
        ],
        "request": dict(request.body),
    }
