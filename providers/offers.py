"""Offers: what can be rented, at which price, right now or by the embedded catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """What the caller wants to rent; None means any."""

    gpu: str | None = None
    min_gpus: int = 0
    region: str | None = None
    spot: bool | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One rentable thing at one price; spot and on demand are two offers."""

    provider: str
    instance_type: str
    region: str
    gpu: str
    """Name as in the catalogue; "cpu" where there is none."""
    gpu_count: int
    memory_gib: float
    """Of one GPU; the machine's RAM where there is no GPU."""
    price_usd_per_hour: float
    """Everything that is rented, all GPUs."""
    spot: bool = False
