"""Start-up of the command line against an empty Python, in seconds of wall time.

    .venv/bin/python benchmarks/cli_startup.py [--rounds 10]

The commands take turns, so that a busy moment of the machine hits all alike; the median of each is compared
with that of `python -c pass`. Target: at most 0.15 s above it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dispatcher.jobs.moves import Cause
from dispatcher.jobs.store import JobStore
from dispatcher.storage.home import Home
from providers.offers import Offer

TARGET_S = 0.15
JOBS = 200
WARM_UP_ROUNDS = 2


def environment(user: Path) -> dict[str, str]:
    """Of a user whose ftcloud lies at the platform's usual place: finding it is part of the start-up."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("FTCLOUD_HOME", "XDG_DATA_HOME")
    }
    return kept | {"HOME": str(user)}


def fill(user: Path, jobs: int) -> None:
    """A home with jobs that are over; nobody carries them on."""
    find = [sys.executable, "-c", "from dispatcher.storage.home import open_home; print(open_home().path)"]
    answer = subprocess.run(find, env=environment(user), capture_output=True, text=True, check=True)
    home = Home(Path(answer.stdout.strip()))
    offer = Offer("local", "this-machine", "here", "cpu", 0, 8.0, 0.0)
    store = JobStore.open(home.database)
    for number in range(jobs):
        job = store.add(f"job-{number:04}", f"orders-{number % 7}", {"method": "lora"}, "{}", [offer])
        lease = store.take(job.id)
        assert lease is not None
        store.move(lease, Cause.CANCELLED)
        store.release(lease)
    store.close()


def seconds(command: list[str], user: Path) -> float:
    of_user = environment(user)
    began = time.perf_counter()
    subprocess.run(command, env=of_user, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="time the start-up of the command line")
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        fill(empty, 0)
        fill(full, JOBS)
        ftcloud = str(Path(sys.executable).with_name("ftcloud"))
        commands: dict[str, tuple[list[str], Path]] = {
            "python -c pass": ([sys.executable, "-c", "pass"], empty),
            "ftcloud --help": ([ftcloud, "--help"], empty),
            "ftcloud --version": ([ftcloud, "--version"], empty),
            "ftcloud jobs, empty home": ([ftcloud, "jobs"], empty),
            f"ftcloud jobs, {JOBS} jobs": ([ftcloud, "jobs"], full),
            "ftcloud models, empty home": ([ftcloud, "models"], empty),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(WARM_UP_ROUNDS + rounds):
            for name, (command, user) in commands.items():
                taken = seconds(command, user)
                if number >= WARM_UP_ROUNDS:
                    times[name].append(taken)
    report({name: statistics.median(taken) for name, taken in times.items()}, rounds)


def report(medians: dict[str, float], rounds: int) -> None:
    empty_python = medians["python -c pass"]
    print(f"median of {rounds}, interleaved; target: at most {TARGET_S} s above `python -c pass`")
    print(f"{'command':<28} {'median s':>9} {'above s':>9} {'ratio':>6}")
    for name, median in medians.items():
        above = median - empty_python
        missed = "  above the target" if above > TARGET_S else ""
        print(f"{name:<28} {median:>9.3f} {above:>9.3f} {median / empty_python:>6.1f}{missed}")


if __name__ == "__main__":
    main()
