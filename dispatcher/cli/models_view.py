"""How model versions look: tables for people, documents for `--json` (schemas in tests/contract/)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from dispatcher.cli.output import iso_time, local_time, print_json, print_table, visible, warn
from dispatcher.registry.version import ModelVersion

if TYPE_CHECKING:  # only `compare` needs it at run time
    from dispatcher.registry.compare import Comparison, Difference

MIB = 1 << 20


def version_summary(version: ModelVersion, *, has_files: bool) -> dict[str, object]:
    """One entry of `ftcloud models --json`."""
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created_at": iso_time(version.created_at),
        "job": version.job,
        "attempt": version.attempt,
        "base_model": version.base_model,
        "base_revision": version.base_revision,
        "method": version.method,
        "data_fingerprint": version.data_fingerprint,
        "metrics": dict(version.metrics),
        "cost_usd": version.cost_usd,
        "bytes": version.bytes,
        "folder": str(version.folder),
        "has_files": has_files,
    }


def version_document(version: ModelVersion, *, has_files: bool) -> dict[str, object]:
    """`ftcloud models show --json`: the summary, and all that made it."""
    return version_summary(version, has_files=has_files) | {
        "recipe": dict(version.recipe),
        "environment": dict(version.environment),
        "files": [dataclasses.asdict(file) for file in version.files],
    }


def print_list(versions: Sequence[ModelVersion]) -> None:
    rows = [
        (
            version.reference,
            " ".join(f"@{alias}" for alias in version.aliases),
            _short(version.base_model),
            version.method,
            _share(version.metrics, "base"),
            _share(version.metrics, "tuned"),
            _figure(version.metrics.get("eval_loss")),
            f"{version.cost_usd:.2f}",
            local_time(version.created_at),
        )
        for version in versions
    ]
    headers = ("MODEL", "ALIASES", "BASE", "METHOD", "BEFORE", "AFTER", "EVAL LOSS", "USD", "CREATED")
    print_table(headers, rows, right=(4, 5, 6, 7))


def print_version(version: ModelVersion, *, has_files: bool) -> None:
    facts = {
        "model": version.reference + "".join(f" @{alias}" for alias in version.aliases),
        "created": f"{local_time(version.created_at)} by job {version.job}, attempt {version.attempt}",
        "base model": version.base_model + (f" at {version.base_revision}" if version.base_revision else ""),
        "method": version.method,
        "data": version.data_fingerprint,
        "cost": f"{version.cost_usd:.2f} USD",
        "files": f"{len(version.files)}, {version.bytes / MIB:.1f} MiB in {version.folder}",
    }
    for section, document in (("", facts), *_documents(version)):
        if section:
            click.secho(f"\n{section}", bold=True)
        for name, value in document.items():
            click.echo(f"{name:<18} {_plain(value)}")
    if not has_files:
        warn(f"the files of {version.reference} are not there")


def _documents(version: ModelVersion) -> tuple[tuple[str, Mapping[str, object]], ...]:
    return ("Metrics", version.metrics), ("Recipe", version.recipe), ("Environment", version.environment)


def print_comparison(comparison: Comparison, *, as_json: bool) -> None:
    first, second = comparison.first, comparison.second
    if as_json:
        print_json(
            {
                "first": version_summary(first, has_files=first.folder.exists()),
                "second": version_summary(second, has_files=second.folder.exists()),
                "same_data": comparison.same_data,
                "metrics": [dataclasses.asdict(f) | {"change": f.change} for f in comparison.metrics],
                "recipe": [dataclasses.asdict(field) for field in comparison.recipe],
                "environment": [dataclasses.asdict(field) for field in comparison.environment],
            }
        )
        return
    titles = ("", first.reference, second.reference)
    figures = [(f.name, _figure(f.first), _figure(f.second), _signed(f.change)) for f in comparison.metrics]
    figures.append(("cost_usd", f"{first.cost_usd:.2f}", f"{second.cost_usd:.2f}", ""))
    print_table((*titles, "CHANGE"), figures, right=(1, 2, 3))
    for section, fields in (("Recipe", comparison.recipe), ("Environment", comparison.environment)):
        _print_differences(section, titles, fields)
    if not comparison.same_data:
        warn("they were trained or tested on different data: the figures are not comparable by themselves")


def _print_differences(section: str, titles: tuple[str, str, str], fields: Sequence[Difference]) -> None:
    if not fields:
        click.echo(f"\n{section}: equal")
        return
    click.echo()
    print_table(
        (section, *titles[1:]), [(field.name, _plain(field.first), _plain(field.second)) for field in fields]
    )


def _short(base_model: str) -> str:
    """A hub id as it is; of a folder its name."""
    return PurePath(base_model).name if PurePath(base_model).is_absolute() else base_model


def _share(metrics: Mapping[str, object], model: str) -> str:
    """`score` of the base or of the tuned model, in percent."""
    scores = metrics.get(model)
    score = scores.get("score") if isinstance(scores, Mapping) else None
    return f"{score:.1%}" if isinstance(score, int | float) else "-"


def _figure(value: object) -> str:
    """A count in full, anything else to four digits."""
    if isinstance(value, int | float) and float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}" if isinstance(value, float) else "-"


def _signed(value: float | None) -> str:
    return "-" if value is None else ("+" if value > 0 else "") + _figure(value)


def _plain(value: object) -> str:
    """A JSON value on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else visible(str(value))
