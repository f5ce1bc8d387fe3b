"""How a user names a model version: NAME, NAME:VERSION or NAME@ALIAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.registry.version import NEWEST, check_name
from trainer_image.trainer.errors import UsageError


@dataclass(frozen=True, slots=True)
class Reference:
    """At most one of `version` and `alias` is set; neither means the newest version.

    The newest, not the promoted one: `ftcloud models path NAME` right after a job is the model just made.
    """

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


def parse_reference(text: str) -> Reference:
    """Read `NAME`, `NAME:VERSION` or `NAME@ALIAS`; UsageError says which part is wrong."""
    name, colon, version = text.partition(":")
    if colon:
        check_name(name, "model name")
        if not (version.isascii() and version.isdigit() and int(version) > 0):
            raise UsageError(
                f"{version!r} is not a version number",
                where=text,
                fix=f"write a number ({name}:1), or an alias ({name}@production)",
            )
        return Reference(name, version=int(version))
    name, at, alias = text.partition("@")
    check_name(name, "model name")
    if not at:
        return Reference(name)
    check_name(alias, "alias")
    return Reference(name, alias=None if alias == NEWEST else alias)


def nearest(wanted: str, known: Sequence[str]) -> str:
    """The `fix` of a message about an unknown name: the likeliest one meant, else all (at most ten)."""
    from difflib import get_close_matches  # for errors alone

    if close := get_close_matches(wanted, known, n=1, cutoff=0.5):
        return f"did you mean {close[0]}?"
    return f"there is {', '.join(sorted(known)[:10])}" if known else "see: ftcloud models"
