"""A cloud in memory that keeps books: what is alive, what was ever alive at once, what was asked of it.

It stands for a provider of rented machines in the engine's tests, and misbehaves by a plan: a list of
named faults, each used up once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from providers.errors import NoCapacity, OutcomeUnknown, ProviderDown
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
from tests.factories.outputs import make_output
from trainer_image.trainer.hardware import Hardware

FAULTS = (
    "no capacity",  # of submit
    "submit is down",
    "answer lost",  # made, but the caller does not hear of it
    "boot is slow",
    "observe fails",  # unknown
    "stage is slow",
    "preempted",  # while training
    "machine gone",
    "pull is slow",
    "stop is slow",
    "trainer fails",
)
CAN = Capabilities(
    spot=True,
    ends_itself="none",
    billing_step_s=60,
    billing_minimum_s=0,
    stop_keeps_billing=False,
    tags=True,
    regions=("north",),
    poll_s=0.0,
)
LOG = b'hello\n{"ftcloud": "checkpoint", "step": 1, "path": "checkpoints/step-1"}\nbye\n'
LAST_WORDS = b'{"ftcloud": "error", "what": "out of memory", "where": "RAM", "fix": "lower it", "code": 1}\n'
"""Of a trainer that fails: written just before it ends."""


@dataclass
class Machine:
    attempt: str
    job: str
    staged: bool = False
    looks: int = 0
    ended: Observation | None = None
    """How the trainer ended, where the machine is still there."""
    gone: bool = False


@dataclass
class Cloud:
    """See `providers.protocol.Provider`."""

    faults: list[str] = field(default_factory=list)
    runs_for: int = 2
    """Looks that find the trainer running before it succeeds."""
    machines: dict[str, Machine] = field(default_factory=dict)
    created: int = 0
    most_alive_for_a_job: int = 0
    log: bytes = LOG
    name: str = "cloud"
    can: Capabilities = CAN

    def check(self) -> None:
        pass

    def hardware(self, offer: Offer) -> Hardware:
        return Hardware("cpu", 8, 64.0, fast_bf16=False)

    def offers(self, query: Query) -> Iterable[Offer]:
        return [make_offer()]

    def prepare(self, attempt: Attempt) -> Request:
        return Request(attempt, {"name": attempt.tag})

    def submit(self, request: Request) -> Ref:
        attempt = request.attempt
        if self._fault("no capacity"):
            raise NoCapacity("nothing is free")
        if self._fault("submit is down"):
            raise ProviderDown("503")
        if attempt.id not in self.machines:
            self.created += 1
            self.machines[attempt.id] = Machine(attempt.id, attempt.job)
        alive = sum(m.job == attempt.job and not m.gone for m in self.machines.values())
        self.most_alive_for_a_job = max(self.most_alive_for_a_job, alive)
        if self._fault("answer lost"):
            raise OutcomeUnknown("the connection was cut")
        return Ref(attempt.id)

    def stage(self, request: Request, ref: Ref) -> bool:
        if self._fault("stage is slow"):
            return False
        self.machines[ref.id].staged = True
        return True

    def observe(self, refs: Sequence[Ref]) -> dict[Ref, Observation]:
        return {ref: self._look(ref) for ref in refs}

    def _look(self, ref: Ref) -> Observation:
        if self._fault("observe fails"):
            return Observation(Phase.UNKNOWN, "time-out")
        machine = self.machines.get(ref.id)
        if machine is None or machine.gone:
            return Observation(Phase.GONE, "not in the list")
        if not machine.staged:
            return Observation(Phase.PENDING if self._fault("boot is slow") else Phase.READY)
        if self._fault("machine gone"):
            machine.gone = True
            return Observation(Phase.GONE, "not in the list")
        if machine.ended is None and self._fault("preempted"):
            machine.ended = Observation(Phase.PREEMPTED, "taken back")
        if machine.ended is None and self._fault("trainer fails"):
            self.log += LAST_WORDS
            machine.ended = Observation(Phase.FAILED, "exit code 1")
        if machine.ended is not None:
            return machine.ended
        machine.looks += 1
        return Observation(Phase.RUNNING if machine.looks < self.runs_for else Phase.SUCCEEDED)

    def logs(self, ref: Ref, offset: int, limit: int) -> bytes:
        return self.log[offset : offset + limit] if self.machines[ref.id].staged else b""

    def pull(self, ref: Ref, what: PullKind, dest: Path) -> bool:
        if self._fault("pull is slow"):
            return False
        if what == "output":
            make_output(dest)
            (dest / "result.json").write_text(json.dumps({"metrics": {}, "attempt": ref.id}), "utf-8")
        return True

    def stop(self, ref: Ref) -> Stop:
        if ref.id in self.machines:
            if self._fault("stop is slow"):
                return Stop.STOPPING
            self.machines[ref.id].gone = True
        return Stop.STOPPED

    def owned(self) -> list[Owned]:
        return [
            Owned(Ref(name), "store", name) for name, machine in self.machines.items() if not machine.gone
        ]

    def alive(self) -> list[str]:
        return [name for name, machine in self.machines.items() if not machine.gone]

    def _fault(self, name: str) -> bool:
        if name in self.faults:
            self.faults.remove(name)
            return True
        return False


def make_offer(price: float = 1.0, instance_type: str = "gpu-1") -> Offer:
    return Offer("cloud", instance_type, "north", "A100", 1, 80.0, price)
