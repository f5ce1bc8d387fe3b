"""The folders of model versions: put in place whole, taken away whole, leftovers of a crash swept up.

HOME/models/
  .lock                 held while a version is put in place or taken away
  .incoming-JOB-ATTEMPT being filled
  NAME/VERSION/         whole, as it appears by one rename
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.registry.manifest import MANIFEST
from providers.transport.files import link_tree

INCOMING = ".incoming-"
TRASH = ".trash-"


class Place:
    """The folder `HOME/models`, changed by one process at a time."""

    def __init__(self, models: Path) -> None:
        self._models = models

    def folder(self, name: str, version: int) -> Path:
        return self._models / name / str(version)

    def highest(self, name: str) -> int:
        """The highest number of a folder, known to the database or not: a restored one may be older."""
        folders = self._models.glob(f"{name}/*")
        return max((int(entry.name) for entry in folders if entry.name.isdigit()), default=0)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer. The system drops the lock of a killed process, so what it left can be swept here."""
        self._models.mkdir(parents=True, exist_ok=True)
        with (self._models / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in (*self._models.glob(f"{INCOMING}*"), *self._models.glob(f"{TRASH}*")):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def bring(self, files: Path, job: str, attempt: int) -> Path:
        """A folder aside with the content of `files`, hard-linked where the file system allows, else copied.

        Linked and not moved: the job's own folder stays whole, for `pull` and for whoever reads the answers
        there, and the weights are still on the disk once.
        """
        aside = self._models / f"{INCOMING}{job}-{attempt}"
        link_tree(files, aside)
        return aside

    def settle(self, aside: Path, name: str, version: int) -> None:
        """Let the version appear, in one step and durably."""
        self.discard(name, version)  # what somebody left of it after deleting files by hand
        folder = self.folder(name, version)
        folder.parent.mkdir(exist_ok=True)
        for path, _, _ in os.walk(aside):
            _flush(Path(path))
        aside.rename(folder)
        _flush(folder.parent)
        _flush(self._models)

    def discard(self, name: str, version: int) -> None:
        """Take a version's folder away in one step, then free its space. Nothing there is fine."""
        folder = self.folder(name, version)
        trash = self._models / f"{TRASH}{name}-{version}"
        if folder.exists():
            folder.rename(trash)
            shutil.rmtree(trash)
        if folder.parent.exists() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def is_whole(self, name: str, version: int) -> bool:
        return (self.folder(name, version) / MANIFEST).exists()


def _flush(folder: Path) -> None:
    """Make renames and new names in a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
