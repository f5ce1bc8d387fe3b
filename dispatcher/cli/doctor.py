"""`ftcloud doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click

from dispatcher.cli.command import FtCommand, json_option
from dispatcher.cli.output import print_json, visible
from dispatcher.cli.state import opened
from dispatcher.storage.home import home_path, open_home
from providers.errors import ProviderError
from providers.local import PYTHON_VARIABLE, require_trainer
from trainer_image.trainer.errors import ExitCode, FtcloudError
from trainer_image.trainer.hardware import GIB, detect

ROOMY_GIB = 5.0
"""Below this much free disk even a small model's job may not fit."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    ok: bool
    message: str
    fix: str = ""


@click.command(cls=FtCommand)
@json_option
def doctor(as_json: bool) -> ExitCode:
    """Check what this machine needs to work: Python, home, disk, database, trainer, hardware.

    Exits 1 when something is missing, and says what to do about it.

    \b
    Example:
      ftcloud doctor
    """
    checks: list[Callable[[], Finding]] = [_python, _home, _disk, _database, _trainer, _hardware]
    findings = [_guarded(check) for check in checks]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = click.style("ok ", fg="green") if finding.ok else click.style("no ", fg="red")
            click.echo(f"{mark} {finding.check:<9} {visible(finding.message)}")
            if finding.fix and not finding.ok:
                click.echo(f"              fix: {visible(finding.fix)}")
    return ExitCode.SUCCEEDED if all(finding.ok for finding in findings) else ExitCode.FAILED


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A check that fails is a finding, and the next ones still run."""
    try:
        return check()
    except FtcloudError as error:
        where = f" ({error.where})" if error.where else ""
        return Finding(
            check.__name__.removeprefix("_"), ok=False, message=f"{error.what}{where}", fix=error.fix
        )


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", ok, words, "use Python 3.11, 3.12 or 3.13")


def _home() -> Finding:
    return Finding("home", ok=True, message=str(open_home().path))


def _disk() -> Finding:
    folder = home_path()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / GIB
    fix = "free disk space, or point FTCLOUD_HOME at a bigger disk"
    return Finding("disk", free >= ROOMY_GIB, f"{free:.1f} GiB free", fix)


def _database() -> Finding:
    with opened() as (_, store):
        words = f"SQLite {sqlite3.sqlite_version}, store {store.store_id}, {len(store.jobs())} jobs"
    return Finding("database", ok=True, message=words)


def _trainer() -> Finding:
    try:
        require_trainer()
    except ProviderError as error:
        return Finding("trainer", ok=False, message=error.what, fix=error.fix)
    where = os.environ.get(PYTHON_VARIABLE)
    if where:
        return Finding("trainer", ok=True, message=f"torch, transformers, peft in {where}")
    four_bit = (
        "" if importlib.util.find_spec("bitsandbytes") else "; no bitsandbytes: qlora will not run here"
    )
    from importlib.metadata import version

    found = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return Finding("trainer", ok=True, message=found + four_bit)


def _hardware() -> Finding:
    return Finding("hardware", ok=True, message=detect().describe())
