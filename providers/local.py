"""`local`: this machine as a provider. No account, no price, the same path as any other.

An attempt is a folder, `HOME/local/ATTEMPT`, and a process group that outlives the command that
started it. One trainer at a time has the machine: a second one waits for the first (the warden's
slot), because two fine-tunes that share a CPU or a GPU are slower, or dead, together.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from providers.errors import InvalidRequest, NotFound
from providers.offers import Offer, Query
from providers.protocol import (
    Attempt,
    Capabilities,
    Observation,
    Owned,
    Phase,
    PullKind,
    Ref,
    Request,
    Stop,
)
from providers.transport.files import copy_tree, link_tree, mirror_tree
from trainer_image.trainer import warden
from trainer_image.trainer.errors import ExitCode
from trainer_image.trainer.hardware import Hardware, detect

PYTHON_VARIABLE = "FTCLOUD_LOCAL_PYTHON"
"""An interpreter that has the trainer's stack, where this one does not."""
TRAINER_SOURCE = Path(warden.__file__).parent.parent
ENVIRONMENT = {
    # Spinning OpenMP threads starve whatever else runs on a laptop; waiting ones cost nothing.
    "OMP_WAIT_POLICY": "passive",
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",  # the code that travelled, never what lies in the folder we were called from
    "TOKENIZERS_PARALLELISM": "false",
}


class LocalProvider:
    """See `providers.protocol.Provider` for what each method promises."""

    name = "local"
    can = Capabilities(
        spot=False,
        ends_itself="confirmed",
        billing_step_s=1,
        billing_minimum_s=0,
        stop_keeps_billing=False,
        tags=True,
        regions=("here",),
        poll_s=0.5,
    )

    def __init__(self, folder: Path, trainer: Path = TRAINER_SOURCE) -> None:
        """`folder` holds one work directory an attempt; `trainer` is the package that travels there."""
        self._folder = folder
        self._trainer = trainer

    def check(self) -> None:
        require_trainer()

    def hardware(self, offer: Offer) -> Hardware:  # noqa: ARG002 - there is one machine
        return detect()

    def offers(self, query: Query) -> Iterable[Offer]:
        here = detect()
        gpu = here.gpus[0] if here.gpus else None
        offer = Offer(
            provider=self.name,
            instance_type="this-machine",
            region="here",
            gpu=gpu.name if gpu else "cpu",
            gpu_count=len(here.gpus),
            memory_gib=gpu.memory_gib if gpu else here.ram_gib,
            price_usd_per_hour=0.0,
        )
        if query.spot or offer.gpu_count < query.min_gpus or query.gpu not in (None, offer.gpu):
            return []
        return [offer]

    def prepare(self, attempt: Attempt) -> Request:
        workdir = self._workdir(attempt.id)
        warden_module = "trainer_image.trainer.warden"
        command = [_python(), "-m", warden_module, "start", str(workdir), "--slot", str(self._slot)]
        return Request(attempt, {"workdir": str(workdir), "command": command, "environment": ENVIRONMENT})

    def submit(self, request: Request) -> Ref:
        self.check()
        workdir = self._workdir(request.attempt.id)
        workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (workdir / "tag").write_text(request.attempt.tag, encoding="utf-8")
        return Ref(request.attempt.id)

    def stage(self, request: Request, ref: Ref) -> bool:
        workdir, cargo = self._existing(ref), request.attempt.cargo
        if warden.status(workdir).phase != "absent":
            return True
        # The code travels as it does to any machine, so that editing it here changes no running job.
        copy_tree(self._trainer, workdir / "code" / TRAINER_SOURCE.name, only=(".py", ".j2"))
        copy_tree(cargo.data, workdir / "data")
        if cargo.checkpoints.is_dir():
            link_tree(cargo.checkpoints, workdir / "checkpoints")
        (workdir / "spec.json").write_text(cargo.spec, encoding="utf-8")
        command = request.body["command"]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(workdir / "code")}
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode != 0:
            words = started.stderr.strip()
            raise InvalidRequest(f"the trainer could not be started: {words}", where=command[0])
        return True

    def observe(self, refs: Sequence[Ref]) -> dict[Ref, Observation]:
        return {ref: self._look(self._workdir(ref.id)) for ref in refs}

    def _look(self, workdir: Path) -> Observation:
        if not workdir.is_dir():
            return Observation(Phase.GONE, f"its folder {workdir} is gone")
        told = warden.status(workdir)
        if told.phase == "absent":
            return Observation(Phase.READY)
        if told.phase == "waiting":
            other = Path(told.slot_holder).name.rpartition("-")[0]
            return Observation(Phase.PENDING, f"this machine is training job {other}" if other else "")
        if told.phase == "running":
            return Observation(Phase.RUNNING)
        if told.phase == "lost":
            return Observation(Phase.FAILED, "the trainer died without a word (killed, or a reboot)")
        return _ended(told.exit_code if told.exit_code is not None else ExitCode.FAILED)

    def logs(self, ref: Ref, offset: int, limit: int) -> bytes:
        try:
            with (self._workdir(ref.id) / "log.txt").open("rb") as log:
                log.seek(offset)
                return log.read(limit)
        except FileNotFoundError:
            return b""

    def pull(self, ref: Ref, what: PullKind, dest: Path) -> bool:
        source = self._existing(ref) / what
        if not source.is_dir():
            return True
        if what == "checkpoints":
            mirror_tree(source, dest)
        else:
            link_tree(source, dest, last="manifest.json")
        return True

    def stop(self, ref: Ref) -> Stop:
        workdir = self._workdir(ref.id)
        if not workdir.is_dir():
            return Stop.STOPPED
        if warden.stop(workdir).phase in ("waiting", "running"):
            return Stop.STOPPING
        shutil.rmtree(workdir)
        return Stop.STOPPED

    def owned(self) -> list[Owned]:
        if not self._folder.is_dir():
            return []
        found = []
        for tag in self._folder.glob("*/tag"):
            _, store, attempt = tag.read_text(encoding="utf-8").split("-", 2)
            found.append(Owned(Ref(attempt), store, attempt))
        return found

    @property
    def _slot(self) -> Path:
        return self._folder / "slot.lock"

    def _workdir(self, attempt: str) -> Path:
        return self._folder / attempt

    def _existing(self, ref: Ref) -> Path:
        workdir = self._workdir(ref.id)
        if not workdir.is_dir():
            raise NotFound("the attempt's folder is gone", where=str(workdir))
        return workdir


def require_trainer() -> None:
    """Raise unless the interpreter that would train has the trainer's stack."""
    if PYTHON_VARIABLE in os.environ:
        probe = [_python(), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('peft') is None)"]
        try:
            present = subprocess.run(probe, capture_output=True, check=False).returncode == 0
        except OSError:
            present = False
    else:
        present = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))
    if not present:
        raise InvalidRequest(
            "this Python cannot train: torch, transformers or peft is missing",
            where=_python(),
            fix=f"pip install 'ftcloud[train]', or point {PYTHON_VARIABLE} at a Python that has them",
        )


def _python() -> str:
    return os.environ.get(PYTHON_VARIABLE, sys.executable)


def _ended(exit_code: int) -> Observation:
    if exit_code == ExitCode.SUCCEEDED:
        return Observation(Phase.SUCCEEDED)
    if exit_code == ExitCode.PREEMPTED:
        return Observation(Phase.PREEMPTED, "the trainer was asked to stop and wrote a checkpoint")
    if exit_code < 0:
        hint = " (out of memory?)" if exit_code == -9 else ""
        return Observation(Phase.FAILED, f"the trainer was killed by signal {-exit_code}{hint}")
    return Observation(Phase.FAILED, f"the trainer ended with exit code {exit_code}")
