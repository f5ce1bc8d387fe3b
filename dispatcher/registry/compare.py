"""Two versions side by side: how good they are, and what was done differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher.registry.version import ModelVersion

Leaf = object
"""A JSON value that is not an object: text, number, boolean, null, or a list as a whole."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of both versions; `name` is its dotted path in the metrics. None where one lacks it."""

    name: str
    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        """second - first"""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not equal in both; None where one does not set it."""

    name: str
    first: Leaf
    second: Leaf


@dataclass(frozen=True, slots=True)
class Comparison:
    first: ModelVersion
    second: ModelVersion
    metrics: tuple[Figure, ...]
    recipe: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    same_data: bool
    """Scores of versions on different data are not comparable by themselves."""


def compare(first: ModelVersion, second: ModelVersion) -> Comparison:
    """All numbers of both, and every recipe and environment field in which they differ."""
    return Comparison(
        first=first,
        second=second,
        metrics=tuple(_figures(first.metrics, second.metrics)),
        recipe=tuple(_differences(first.recipe, second.recipe)),
        environment=tuple(_differences(first.environment, second.environment)),
        same_data=first.data_fingerprint == second.data_fingerprint,
    )


def _figures(first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[Figure]:
    ours, theirs = dict(_leaves(first)), dict(_leaves(second))
    for name in ours | theirs:
        pair = _number(ours.get(name)), _number(theirs.get(name))
        if pair != (None, None):
            yield Figure(name, *pair)


def _differences(first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[Difference]:
    ours, theirs = dict(_leaves(first)), dict(_leaves(second))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            yield Difference(name, ours.get(name), theirs.get(name))


def _leaves(document: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """Dotted paths and values of a JSON object, in its own order."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _number(value: Leaf) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
