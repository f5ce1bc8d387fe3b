"""One job, in the order it happens: load, base, train, merge, test, save.

Everything that can be refused is refused before the first step. Each phase leaves whole files or none, so
after a kill the same command goes on: base scores are kept, training resumes from its newest checkpoint,
and what is cheap (merge, test) is done again. `manifest.json`, written last, says that the job is done.

This file loads without torch: reading the spec and refusing it must not take seconds.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from trainer_image.trainer.errors import ExitCode, FtcloudError
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.spec import TrainSpec


class Preempted(BaseException):
    """Asked to stop. What was reached is on the disk; the same command goes on from there."""


class StopSignal:
    """SIGTERM: ends a phase that can simply be repeated at once, and training after the running step."""

    def __init__(self) -> None:
        self.asked = False
        self.training = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if not self.training:
            raise Preempted


def run(workdir: Path, reporter: Reporter | None = None) -> ExitCode:
    """Do the job in `workdir`, or what is left of it. Errors are reported, never raised."""
    reporter = reporter or Reporter()
    if (workdir / "output" / "manifest.json").exists():
        _tell(f"{workdir} is finished already")
        return ExitCode.SUCCEEDED
    stop = StopSignal()
    stop.install()
    try:
        spec = _read_spec(workdir)

        from trainer_image.trainer import job

        job.do(spec, workdir, reporter, stop)
    except Preempted:
        _tell("stopped as asked; run the same command to go on")
        return ExitCode.PREEMPTED
    except Exception as error:
        known = error if isinstance(error, FtcloudError) else _explain(error, workdir)
        if known is None:
            traceback.print_exc()
            known = FtcloudError(f"{type(error).__name__}: {error}")
        reporter.say("error", what=known.what, where=known.where, fix=known.fix, code=int(known.exit_code))
        _tell(f"error: {known}")
        return known.exit_code
    return ExitCode.SUCCEEDED


def _read_spec(workdir: Path) -> TrainSpec:
    try:
        return TrainSpec.read(workdir / "spec.json")
    except OSError as error:
        raise FtcloudError(f"cannot be read: {error.strerror}", where=str(workdir / "spec.json")) from error


def _explain(error: Exception, workdir: Path) -> FtcloudError | None:
    """What the machine ran out of, where it is that; None for a defect of ours."""
    text = str(error).lower()
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "no space left" in text:
        return FtcloudError(
            "the disk is full", where=str(workdir), fix="free disk space and resume; what was whole is kept"
        )
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or "can't allocate memory" in text:
        return FtcloudError(
            "out of memory",
            where="GPU" if "cuda" in text else "RAM",
            fix="lower micro_batch and raise grad_accum by the same factor, turn on grad_ckpt, "
            "lower seq_len, or use qlora",
        )
    return None


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201
