"""The root of every error that a user may meet: what is wrong, where, and what to do.

It lives on the lowest floor because the trainer raises it on a machine that has nothing else of
ftcloud. An error is printed as one message without a traceback; its class carries the exit code.

    FtcloudError            1  the job, the machine or the world failed
    └── UsageError          2  what the user wrote cannot be done as written
        ├── RecipeError     2  a field of the recipe
        └── DataError       2  a row of the data
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `ftcloud` and of the trainer; the trainer alone uses PREEMPTED."""

    SUCCEEDED = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    DETACHED = 4
    PREEMPTED = 75
    """The trainer was asked to stop (SIGTERM), wrote a checkpoint, and can be resumed."""


class FtcloudError(Exception):
    """Something that the user should read: `what` is wrong, `where`, and how to `fix` it."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"\n  fix: {self.fix}" if self.fix else "")


class UsageError(FtcloudError):
    """Refused before anything was started or spent."""

    exit_code = ExitCode.USAGE


class RecipeError(UsageError):
    """A recipe field that is unknown, out of range, or impossible beside another."""


class DataError(UsageError):
    """A row or a file of the data that cannot be learned from."""
