"""A model version: what it is, what it came from, and the files that it consists of."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer_image.trainer.errors import UsageError

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
"""Safe as a folder's name on every system: no separator, no leading dot or dash, no upper case."""

NEWEST = "latest"
"""The alias that nobody sets: the newest version."""

MERGED = "merged"
"""The folder of a version that transformers loads by itself."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a version: path relative to the version's folder, with `/`; size; SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an attempt of a job yields, before it has a version number.

    `recipe`, `metrics` and `environment` are JSON documents, kept whole.
    """

    name: str
    job: str
    attempt: int
    base_model: str
    base_revision: str | None
    method: str
    recipe: Mapping[str, object]
    data_fingerprint: str
    metrics: Mapping[str, object]
    environment: Mapping[str, object]
    cost_usd: float

    def __post_init__(self) -> None:
        check_name(self.name, "model name")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered candidate. Times are seconds since 1970, UTC."""

    name: str
    version: int
    job: str
    attempt: int
    created_at: float
    base_model: str
    base_revision: str | None
    method: str
    recipe: Mapping[str, object]
    data_fingerprint: str
    metrics: Mapping[str, object]
    environment: Mapping[str, object]
    cost_usd: float
    files: tuple[FileRecord, ...]
    folder: Path
    aliases: tuple[str, ...] = field(default=())
    removed_at: float | None = None

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def created(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.created_at, datetime.UTC)


def check_name(name: str, kind: str) -> str:
    """Refuse what cannot be the name of a model or of an alias; `kind` names it in the message."""
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} is not a possible {kind}",
            fix="use 1 to 64 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends",
        )
    return name


def check_alias(alias: str) -> str:
    """Refuse an alias that would be read as something else."""
    check_name(alias, "alias")
    if alias == NEWEST:
        raise UsageError(f"{NEWEST!r} always means the newest version", fix="choose another alias")
    if alias.isdigit():
        raise UsageError(f"the alias {alias!r} would look like a version", fix="begin it with a letter")
    return alias
