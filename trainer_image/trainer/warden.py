"""The warden: a small parent that starts the trainer, outlives every caller, and records how it ended.

    python -m trainer_image.trainer.warden start WORKDIR [--slot FILE]   idempotent; returns at once
    python -m trainer_image.trainer.warden status WORKDIR                one JSON object
    python -m trainer_image.trainer.warden stop WORKDIR                  SIGTERM, then SIGKILL after the grace

Whether it is alive is told by a lock, not by a process id: `alive.lock` is held, through an inherited
file descriptor, by the warden and by the trainer, so the kernel frees it exactly when the last of them
is gone, however they went. It needs the standard library only; the machine side is POSIX.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

STOP_GRACE_S = 60.0
"""From the first stop to SIGKILL: long enough to finish a step and write a checkpoint."""
SLOT_POLL_S = 0.2
LOCK_RETRIES = 50

Phase = Literal["absent", "waiting", "running", "ended", "lost"]


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of the trainer in a work directory."""

    phase: Phase
    """absent: never started; waiting: for the slot; lost: died without a word (SIGKILL, reboot)."""
    exit_code: int | None = None
    """Of the trainer once ended; negative: the signal that killed it."""
    group: int | None = None
    """Process group of warden and trainer; valid while waiting or running."""
    slot_holder: str = ""
    """Work directory of the trainer that is waited for."""


def start(workdir: Path, slot: Path | None = None) -> None:
    """Start the trainer of `workdir` in a session of its own, unless it runs or has ended already."""
    lock = _open_lock(workdir / "alive.lock")
    try:
        if not _take(lock) or _read(workdir).phase == "ended":
            return
        # No word of an earlier warden may outlive it: from here on, lock held and no state means starting.
        (workdir / "state.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "trainer_image.trainer.warden", "watch", str(workdir)]
        with (workdir / "log.txt").open("ab") as log:
            subprocess.Popen(
                [*command, "--lock", str(lock), *(["--slot", str(slot)] if slot else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)


def status(workdir: Path) -> Status:
    """The truth at this moment; safe to call from any process at any time."""
    told = _read(workdir)
    if told.phase == "ended" or not (workdir / "alive.lock").exists():
        return told
    lock = _open_lock(workdir / "alive.lock")
    try:
        alive = not _take(lock, shared=True)
    finally:
        os.close(lock)
    if alive:
        return told if told.phase != "absent" else Status("waiting")
    told = _read(workdir)  # it may have ended between the two looks
    return told if told.phase in ("ended", "absent") else Status("lost")


def stop(workdir: Path) -> Status:
    """Ask for the end, or after the grace enforce it; call again until the phase says so."""
    now = status(workdir)
    if now.phase not in ("waiting", "running") or now.group is None:
        return now
    asked = workdir / "stop-asked"
    first = not asked.exists()
    if first:
        asked.touch()
    overdue = time.time() - asked.stat().st_mtime > STOP_GRACE_S
    if first or overdue:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(now.group, signal.SIGKILL if overdue else signal.SIGTERM)
    return now


def watch(workdir: Path, lock: int, slot: Path | None) -> int:
    """The warden itself: wait for the slot, run the trainer, write down how it ended."""
    stopping = False
    trainer: subprocess.Popen[bytes] | None = None

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        # The trainer is in this process group and gets the signal itself; the warden only has to stay.
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, on_term)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    held = [lock]
    if slot is not None:
        slot_lock = _open_lock(slot)
        while not _take(slot_lock):
            waiting = Status("waiting", group=os.getpgrp(), slot_holder=_text(slot_lock))
            if waiting != _read(workdir):
                _write(workdir, waiting)
            if stopping:
                _write(workdir, Status("ended", exit_code=-signal.SIGTERM))
                return 0
            time.sleep(SLOT_POLL_S)
        os.ftruncate(slot_lock, 0)
        os.pwrite(slot_lock, str(workdir).encode(), 0)
        held.append(slot_lock)
    if stopping:
        _write(workdir, Status("ended", exit_code=-signal.SIGTERM))
        return 0
    trainer = subprocess.Popen(
        [sys.executable, "-m", "trainer_image.trainer", str(workdir)], stdin=subprocess.DEVNULL, pass_fds=held
    )
    _write(workdir, Status("running", group=os.getpgrp()))
    _write(workdir, Status("ended", exit_code=trainer.wait()))
    return 0


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(lock: int, *, shared: bool = False) -> bool:
    """Whether the lock could be had. A look by `status` holds it for microseconds, so a taker tries again."""
    for _ in range(1 if shared else LOCK_RETRIES):
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0 if shared else 0.002)
        else:
            return True
    return False


def _text(lock: int) -> str:
    return os.pread(lock, 4096, 0).decode(errors="replace")


def _read(workdir: Path) -> Status:
    try:
        return Status(**json.loads((workdir / "state.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Status("absent")


def _write(workdir: Path, status: Status) -> None:
    """Atomically, and on disk before the lock is free: an exit code must survive a power cut."""
    aside = workdir / "state.json.new"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(asdict(status), file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(workdir / "state.json")


def main() -> int:
    parser = argparse.ArgumentParser(description="Start, watch and stop the trainer of a work directory.")
    parser.add_argument("verb", choices=("start", "status", "stop", "watch"))
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--slot", type=Path, help="file whose lock only one trainer of this machine holds")
    parser.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.verb == "watch":
        return watch(args.workdir, args.lock, args.slot)
    if args.verb == "start":
        start(args.workdir, args.slot)
        return 0
    told = stop(args.workdir) if args.verb == "stop" else status(args.workdir)
    sys.stdout.write(json.dumps(asdict(told)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
