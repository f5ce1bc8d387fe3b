"""What a machine can do, as far as a training job cares. Needs no torch.

The numbers decide precision and micro-batch before anything starts, so they come from the operating
system and from `nvidia-smi`, never from importing a framework.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
NVIDIA_SMI_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_gib: float
    capability: tuple[int, int]
    """CUDA compute capability; bf16 needs (8, 0)."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine. `fast_bf16` says whether the CPU multiplies bf16 faster than fp32."""

    cpu: str
    cores: int
    ram_gib: float
    fast_bf16: bool
    gpus: tuple[Gpu, ...] = ()

    def describe(self) -> str:
        if self.gpus:
            first = self.gpus[0]
            return f"{len(self.gpus)} × {first.name} ({first.memory_gib:.0f} GiB)"
        return f"{self.cores} CPU cores, {self.ram_gib:.0f} GiB RAM" + (
            ", fast bf16" if self.fast_bf16 else ""
        )


def detect() -> Hardware:
    """Look at this machine."""
    import psutil  # here, like the others below: what only names a `Hardware` starts without them

    name, flags = _cpu()
    return Hardware(
        cpu=name,
        cores=_usable_cores(),
        ram_gib=psutil.virtual_memory().total / GIB,
        fast_bf16=bool({"amx_bf16", "avx512_bf16"} & flags),
        gpus=_gpus(),
    )


def _usable_cores() -> int:
    """Physical cores that this process may run on: a container often sees fewer than the host has."""
    import psutil

    try:
        allowed = len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and instruction-set flags; the flags are empty where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not cpuinfo.exists():
        return platform.processor() or platform.machine(), frozenset()
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", ""))
    return facts.get("model name", platform.machine()), frozenset(flags.split())


def _gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs by `nvidia-smi`; none where it is absent or does not answer."""
    import shutil
    import subprocess

    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ()
    query = [smi, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return ()
    return tuple(_gpu(line) for line in answer.stdout.splitlines() if line.count(",") == 2)


def _gpu(line: str) -> Gpu:
    name, mib, capability = (part.strip() for part in line.split(","))
    major, _, minor = capability.partition(".")
    return Gpu(name, float(mib) / 1024, (int(major), int(minor or 0)))
