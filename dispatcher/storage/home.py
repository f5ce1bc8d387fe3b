"""The folder that holds everything ftcloud keeps, and the paths in it.

HOME/
  ftcloud.db              jobs, attempts, events, model versions (SQLite)
  jobs/JOB/               recipe.yaml, spec.json, data/, log.txt, output/ as it was pulled
  local/ATTEMPT/          the work directory of an attempt that runs on this machine
  models/NAME/VERSION/    adapter/, merged/, evaluation/, recipe.yaml, manifest.json
  cache/                  what can be made again
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainer_image.trainer.errors import FtcloudError

ENVIRONMENT_VARIABLE = "FTCLOUD_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @property
    def database(self) -> Path:
        return self.path / "ftcloud.db"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def local(self) -> Path:
        return self.path / "local"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def job(self, job_id: str) -> Path:
        return self.path / "jobs" / job_id


def home_path() -> Path:
    """`FTCLOUD_HOME`, else the platform's folder for a user's data."""
    if override := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(override).expanduser().absolute()
    import platformdirs  # 10 ms that a set FTCLOUD_HOME does not need

    return platformdirs.user_data_path("ftcloud")


def open_home() -> Home:
    """The home, created where it is missing and private to this user; an error if it cannot be written."""
    path = home_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, "it is not writable")
    return Home(path)


def _unusable(path: Path, why: str) -> FtcloudError:
    return FtcloudError(
        f"cannot keep anything in ftcloud's home: {why}",
        where=str(path),
        fix=f"make the folder writable, or point {ENVIRONMENT_VARIABLE} at another one",
    )
