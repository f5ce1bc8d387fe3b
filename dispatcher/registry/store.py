"""The registry: the only module that knows the tables of models and aliases.

**Order of a registration.** The files are checked and brought aside, then the row is committed, then one
rename lets the folder appear. The row comes first because it is what reserves the number, and because it
knows its job and attempt: whoever is killed between the two, the next call for the same attempt finds the
row, sees no folder, and brings the files again from the job's folder, which is never emptied. The other way
round, a folder without a row would hold files that nothing refers to and that nobody dares to delete.

**Order of a removal.** Aliases and row first, in one transaction, then the folder: what is gone from the
table cannot be resolved any more, and what a kill leaves on disk is found by its row's `removed_at`.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from dispatcher.registry.manifest import OURS, RECIPE, check_output, difference, plain_files
from dispatcher.registry.place import Place
from dispatcher.registry.reference import Reference, nearest, parse_reference
from dispatcher.registry.version import MERGED, Candidate, FileRecord, ModelVersion, check_alias
from dispatcher.storage.database import connect, transaction
from dispatcher.storage.home import Home
from trainer_image.trainer.errors import FtcloudError, UsageError


class ModelRegistry:
    """One connection; one thread. `clock` gives seconds since 1970 and is replaced in tests."""

    def __init__(
        self, connection: sqlite3.Connection, home: Home, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = connection
        self._place = Place(home.models)
        self._clock = clock

    @classmethod
    def open(cls, home: Home) -> Self:
        return cls(connect(home.database), home)

    def close(self) -> None:
        self._db.close()

    # Registering

    def register(self, candidate: Candidate, files: Path) -> ModelVersion:
        """Make `files`, a trainer's output folder, the next version of the candidate's name.

        Safe to repeat and to kill anywhere: for one job and attempt there is ever one version, also after
        its removal. `files` stays as it is. Raises FtcloudError where the files are not what their manifest
        says, or of a kind that is not kept.
        """
        try:
            with self._place.locked():
                return self._register(candidate, files)
        except OSError as error:
            raise FtcloudError(
                f"the model could not be put into the registry: {error.strerror or error}",
                where=str(error.filename or files),
                fix=f"free disk space or mend the folder's permissions, then: ftcloud resume {candidate.job}",
            ) from error

    def _register(self, candidate: Candidate, files: Path) -> ModelVersion:
        self._sweep()
        version = self._of_attempt(candidate.job, candidate.attempt)
        if version is not None and (version.removed_at is not None or self.has_files(version)):
            return version
        records = check_output(files)
        if version is not None and version.files != records:
            raise FtcloudError(
                f"the files are not those that {version.reference} was made of", where=str(files)
            )
        aside = self._place.bring(files, candidate.job, candidate.attempt)
        _write_recipe(aside, candidate)
        version = version or self._insert(candidate, records)
        self._place.settle(aside, version.name, version.version)
        return version

    def _of_attempt(self, job: str, attempt: int) -> ModelVersion | None:
        found = self._select("WHERE job = ? AND attempt = ?", (job, attempt))
        return found[0] if found else None

    def _insert(self, candidate: Candidate, files: Sequence[FileRecord]) -> ModelVersion:
        columns = dataclasses.asdict(candidate)
        for document in ("recipe", "metrics", "environment"):
            columns[document] = json.dumps(columns[document])
        columns["created_at"] = self._clock()
        columns["files"] = json.dumps([dataclasses.asdict(file) for file in files])
        with transaction(self._db):
            columns["version"] = 1 + max(self._highest(candidate.name), self._place.highest(candidate.name))
            names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
            self._db.execute(f"INSERT INTO models ({names}) VALUES ({marks})", columns)
        return self._version(candidate.name, columns["version"])

    def _highest(self, name: str) -> int:
        row = self._db.execute("SELECT max(version) FROM models WHERE name = ?", (name,)).fetchone()
        return int(row[0] or 0)

    # Reading

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All that are not removed, newest first; of one name where given."""
        order = "ORDER BY created_at DESC, version DESC"
        if name is None:
            return self._select(f"WHERE removed_at IS NULL {order}", ())
        return self._select(f"WHERE removed_at IS NULL AND name = ? {order}", (name,))

    def find(self, reference: str | Reference) -> ModelVersion:
        """The version that `NAME`, `NAME:VERSION` or `NAME@ALIAS` means; UsageError with the nearest name."""
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        named = self.versions(wanted.name)
        if not named:
            raise UsageError(f"there is no model {wanted.name!r}", fix=nearest(wanted.name, self._names()))
        if wanted.version is not None:
            fitting = [version for version in named if version.version == wanted.version]
            known = [str(version.version) for version in named]
        elif wanted.alias is not None:
            fitting = [version for version in named if wanted.alias in version.aliases]
            known = [alias for version in named for alias in version.aliases]
        else:
            return max(named, key=lambda version: version.version)
        if not fitting:
            missing = f"version {wanted.version}" if wanted.version else f"alias {wanted.alias!r}"
            raise UsageError(
                f"{wanted.name!r} has no {missing}", fix=nearest(str(wanted.version or wanted.alias), known)
            )
        return fitting[0]

    def has_files(self, version: ModelVersion) -> bool:
        return self._place.is_whole(version.name, version.version)

    def path(self, reference: str) -> Path:
        """The folder of the merged model, which transformers loads without ftcloud."""
        version = self.find(reference)
        self._require_files(version)
        folder = version.folder / MERGED
        if not (folder / "config.json").exists():
            raise FtcloudError(
                f"{version.reference} has no merged model, as its recipe did not ask for one",
                where=str(version.folder),
                fix="its adapter is there; to have both, launch again without `merge: false`",
            )
        return folder

    def damage(self, version: ModelVersion) -> list[str]:
        """What is wrong with the files on disk against the checksums of the day they were registered."""
        self._require_files(version)
        found = dict(plain_files(version.folder))
        records = {record.path: record for record in version.files}
        problems = [f"{path!r} is missing" for path in sorted(records.keys() - found.keys())]
        problems += [f"{path!r} was added" for path in sorted(found.keys() - records.keys() - OURS)]
        for path in sorted(records.keys() & found.keys()):
            if (problem := difference(found[path], records[path])) is not None:
                problems.append(problem)
        return problems

    def _require_files(self, version: ModelVersion) -> None:
        if not self.has_files(version):
            raise FtcloudError(
                f"the files of {version.reference} are not there",
                where=str(version.folder),
                fix=f"if its registration was cut short, `ftcloud resume {version.job}` ends it;"
                f" if they were deleted by hand: ftcloud models remove {version.reference} --force",
            )

    def _names(self) -> list[str]:
        rows = self._db.execute("SELECT DISTINCT name FROM models WHERE removed_at IS NULL ORDER BY name")
        return [row["name"] for row in rows]

    def _version(self, name: str, version: int) -> ModelVersion:
        return self._select("WHERE name = ? AND version = ?", (name, version))[0]

    def _select(self, where: str, values: Sequence[str | int]) -> list[ModelVersion]:
        aliases: dict[tuple[str, int], list[str]] = {}
        for row in self._db.execute("SELECT name, version, alias FROM aliases ORDER BY alias"):
            aliases.setdefault((row["name"], row["version"]), []).append(row["alias"])
        rows = self._db.execute(f"SELECT * FROM models {where}", values).fetchall()
        return [self._from_row(row, aliases.get((row["name"], row["version"]), [])) for row in rows]

    def _from_row(self, row: sqlite3.Row, aliases: Sequence[str]) -> ModelVersion:
        columns = dict(row)
        for document in ("recipe", "metrics", "environment"):
            columns[document] = json.loads(columns[document])
        columns["files"] = tuple(FileRecord(**file) for file in json.loads(columns["files"]))
        folder = self._place.folder(row["name"], row["version"])
        return ModelVersion(**columns, folder=folder, aliases=tuple(aliases))

    # Changing

    def set_alias(self, reference: str, alias: str) -> ModelVersion:
        """Let `alias` point at this version and at no other of its name; repeated, it changes nothing."""
        check_alias(alias)
        version = self.find(reference)
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO aliases (name, alias, version) VALUES (?, ?, ?)"
                " ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version",
                (version.name, alias, version.version),
            )
        return self._version(version.name, version.version)

    def remove_alias(self, name: str, alias: str) -> ModelVersion:
        """Take an alias away; the version stays."""
        version = self.find(Reference(name, alias=check_alias(alias)))
        with transaction(self._db):
            self._db.execute("DELETE FROM aliases WHERE name = ? AND alias = ?", (name, alias))
        return self._version(version.name, version.version)

    def remove(self, reference: str, *, force: bool = False) -> ModelVersion:
        """Delete a version's files and aliases; its number is not given again.

        A version that an alias points at is somebody's: UsageError unless `force`.
        """
        with self._place.locked():
            self._sweep()
            version = self.find(reference)
            if version.aliases and not force:
                raise UsageError(
                    f"{version.reference} is {' and '.join('@' + alias for alias in version.aliases)}",
                    fix="let the alias point at another version first, or say --force",
                )
            with transaction(self._db):
                key = (version.name, version.version)
                self._db.execute("DELETE FROM aliases WHERE name = ? AND version = ?", key)
                self._db.execute(
                    "UPDATE models SET removed_at = ? WHERE name = ? AND version = ?", (self._clock(), *key)
                )
            self._place.discard(version.name, version.version)
        return version

    def _sweep(self) -> None:
        """Take away the folders of versions whose removal was cut short."""
        for row in self._db.execute(
            "SELECT name, version FROM models WHERE removed_at IS NOT NULL"
        ).fetchall():
            self._place.discard(row["name"], row["version"])


def _write_recipe(folder: Path, candidate: Candidate) -> None:
    """Beside the weights, so that the folder tells what it is without the database."""
    import yaml  # 20 ms that reading the registry does not need

    text = yaml.safe_dump(dict(candidate.recipe), sort_keys=False, allow_unicode=True)
    (folder / RECIPE).unlink(missing_ok=True)  # it may be linked to the job's own
    (folder / RECIPE).write_text(f"# {candidate.name}, job {candidate.job}\n{text}", encoding="utf-8")
