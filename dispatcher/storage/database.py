"""The SQLite database: opening it, migrating it, and transactions.

The standard library's `sqlite3` on purpose: importing an ORM costs more than answering `ftcloud jobs`.
Only the `store.py` modules know a table.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer_image.trainer.errors import FtcloudError

BUSY_TIMEOUT_S = 30.0
MIGRATIONS = Path(__file__).parent / "migrations"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, made and migrated where needed. One connection a thread.

    WAL, so that a reader (`ftcloud jobs`) never waits for the process that carries a job.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # an intent must be on disk before the paid call
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            _switch_to_wal(connection)
        migrate(connection)
    except sqlite3.DatabaseError as error:
        raise FtcloudError(
            f"the database cannot be used: {error}",
            where=str(path),
            fix="free disk space, or restore the file from a backup: models and job folders are untouched",
        ) from error
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Two first commands at once both switch; SQLite lets one of them wait without its busy handler."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Write as one whole. IMMEDIATE: the write lock is taken at once, never upgraded to in the middle."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the numbered files of `migrations/` that this database has not seen, each in a transaction."""
    applied = _version(connection)
    scripts = _scripts()
    if applied >= len(scripts):
        _refuse_newer(applied, len(scripts))
        return
    with transaction(connection):
        for number in range(_version(connection), len(scripts)):
            for statement in _statements(scripts[number].read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(applied: int, known: int) -> None:
    if applied > known:
        raise FtcloudError(
            f"the database is of a newer ftcloud (schema {applied}, this one knows {known})",
            fix="upgrade ftcloud: pip install -U ftcloud",
        )


def _scripts() -> list[Path]:
    return sorted(MIGRATIONS.glob("*.sql"))


def _statements(script: str) -> Iterator[str]:
    """Split at the semicolons that end a statement; `executescript` would commit in the middle."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
