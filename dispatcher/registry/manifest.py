"""What a trainer's output must be before it becomes a version: exactly what its manifest says, and safe.

The files come from a machine that we do not own, and they will be loaded by people who trust the
registry. So nothing is kept that could lead out of the folder or be executed when loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dispatcher.registry.tensors import check_tensors
from dispatcher.registry.version import FileRecord
from trainer_image.trainer.errors import FtcloudError

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
OURS = frozenset({MANIFEST, RECIPE})
"""Files of a version's folder that no manifest lists: the manifest itself, and what the registry adds."""

ALLOWED = frozenset({".safetensors", ".json", ".jsonl", ".txt", ".md", ".model", ".jinja"})
"""Endings of files that are data to whoever loads them; `.bin`, `.pt` and `.py` would be code."""


def check_output(folder: Path) -> tuple[FileRecord, ...]:
    """The files of a trainer's output, each verified: path, kind, size, SHA-256, whole tensors.

    Raises FtcloudError for the first that is wrong, missing, or not in the manifest.
    """
    records = read_manifest(folder / MANIFEST)
    found = dict(plain_files(folder))
    if missing := sorted(record.path for record in records if record.path not in found):
        raise _refused(folder, f"{missing[0]!r} is in the manifest but not there")
    if unlisted := sorted(found.keys() - {record.path for record in records} - OURS):
        raise _refused(folder, f"{unlisted[0]!r} is not in the manifest")
    for record in records:
        if (problem := difference(found[record.path], record)) is not None:
            raise _refused(folder, problem)
        if record.path.endswith(".safetensors"):
            check_tensors(found[record.path])
    if not any(record.path.endswith(".safetensors") for record in records):
        raise _refused(folder, "it holds no weights (.safetensors)")
    return records


def read_manifest(file: Path) -> tuple[FileRecord, ...]:
    """Parse `manifest.json`: {"files": [{"path", "bytes", "sha256"}]}; refuses paths that are not inside."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        records = tuple(_record(entry) for entry in raw["files"])
    except FileNotFoundError as error:
        raise _refused(file.parent, "it has no manifest: the trainer did not finish") from error
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(file.parent, f"its manifest does not parse: {error}") from error
    if len({record.path for record in records}) != len(records):
        raise _refused(file.parent, "its manifest names a file twice")
    for record in records:
        if (why := _why_unsafe(record.path)) is not None:
            raise _refused(file.parent, f"{record.path!r} {why}")
    return tuple(sorted(records, key=lambda record: record.path))


def plain_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `folder` by its relative path; a link or a device anywhere is refused."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_symlink():
            raise _refused(folder, f"{entry.name!r} is a link")
        if entry.is_dir():
            yield from ((f"{entry.name}/{inner}", file) for inner, file in plain_files(path))
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield entry.name, path
        else:
            raise _refused(folder, f"{entry.name!r} is not a plain file")


def difference(file: Path, record: FileRecord) -> str | None:
    """How a file differs from its record, or None; the size first, which costs nothing."""
    if (size := file.stat().st_size) != record.bytes:
        return f"{record.path!r} has {size} bytes instead of {record.bytes}"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if digest == record.sha256 else f"the content of {record.path!r} changed (SHA-256)"


def _record(entry: dict[str, object]) -> FileRecord:
    path, size, digest = entry["path"], entry["bytes"], entry["sha256"]
    if not (isinstance(path, str) and type(size) is int and isinstance(digest, str)):
        raise TypeError("a file is not {path: text, bytes: number, sha256: text}")
    return FileRecord(path, size, digest.lower())


def _why_unsafe(path: str) -> str | None:
    parts = path.split("/")
    if path in OURS:
        return "is not the trainer's to name"
    if "\\" in path or "\0" in path or ":" in path or PurePosixPath(path).is_absolute():
        return "is not a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the folder"
    if PurePosixPath(path).suffix not in ALLOWED:
        return f"is of a kind that is not kept (only {', '.join(sorted(ALLOWED))})"
    return None


def _refused(folder: Path, why: str) -> FtcloudError:
    return FtcloudError(
        f"this output cannot be registered: {why}",
        where=str(folder),
        fix="fetch it again with `ftcloud pull`; if it stays so, run the job again",
    )
