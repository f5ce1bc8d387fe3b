"""Copying folders on one machine: whole or not at all, file by file, safe to repeat."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path


def copy_tree(source: Path, dest: Path, *, only: tuple[str, ...] = ()) -> None:
    """Copy the files of `source` (with one of the endings `only`, where given) into `dest`."""
    for file, target in _pairs(source, dest):
        if (not only or file.suffix in only) and not _same(file, target):
            _replace(target, partial(shutil.copy2, file))


def link_tree(source: Path, dest: Path, *, last: str = "") -> None:
    """Make `dest` hold the files of `source` without a second copy on disk where the system allows it.

    Only for files that nobody changes in place: checkpoints and outputs are written once. The file `last`,
    at the top, comes after all others: a manifest that is there says that the rest is.
    """
    for file, target in sorted(_pairs(source, dest), key=lambda pair: pair[0] == source / last):
        if not _same(file, target):
            _replace(target, partial(_link, file))


def mirror_tree(source: Path, dest: Path) -> None:
    """`link_tree` for a folder of whole sub-folders that come and go: adds the new, drops the dropped.

    A sub-folder appears in `dest` in one piece, and must disappear so from `source`: by a rename. The old are
    dropped last, so that there is always one.
    """
    dest.mkdir(parents=True, exist_ok=True)
    whole = [entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    for entry in whole:
        if not (dest / entry.name).exists():
            aside = dest / f".{entry.name}"
            shutil.rmtree(aside, ignore_errors=True)
            try:
                link_tree(entry, aside)
                aside.replace(dest / entry.name)
            except FileNotFoundError:  # it went under our eyes, perhaps before its files were listed
                shutil.rmtree(aside, ignore_errors=True)
    for entry in list(dest.iterdir()):
        if whole and entry.name not in {kept.name for kept in whole}:
            shutil.rmtree(entry, ignore_errors=True)


def _pairs(source: Path, dest: Path) -> Iterator[tuple[Path, Path]]:
    for file in sorted(source.rglob("*")):
        if file.is_file() and not file.is_symlink():
            target = dest / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            yield file, target


def _same(file: Path, target: Path) -> bool:
    """Whether an earlier call has brought it already: the very file, or its size and time-stamp."""
    if not target.exists():
        return False
    here, there = file.stat(), target.stat()
    if os.path.samestat(here, there):
        return True
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def _link(file: Path, aside: Path) -> None:
    try:
        aside.hardlink_to(file)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(file, aside)


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    aside = target.with_name(f".{target.name}.aside")
    aside.unlink(missing_ok=True)
    write(aside)
    aside.replace(target)
