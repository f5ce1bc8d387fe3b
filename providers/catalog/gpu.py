"""A GPU model, as its datasheet and its users describe it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Of one GPU. Peaks are dense, in TFLOP/s; None where the card has no such unit or nobody says."""

    name: str
    """Lower case with dashes: a100-80gb-sxm."""
    aliases: tuple[str, ...]
    vendor: str
    architecture: str
    capability: str
    """CUDA compute capability (8.0), or AMD's gfx name."""
    memory_gib: float
    """Nominal."""
    usable_gib: float
    """What torch can allocate on an empty card, CUDA context included."""
    usable_is_measured: bool
    """False where `usable_gib` was recalled or taken from a sister card."""
    bandwidth_gb_s: float
    """Of its memory; GB are 1e9 bytes."""
    bf16_tflops: float | None
    fp16_tflops: float | None
    tf32_tflops: float | None
    fp8_tflops: float | None
    fp32_tflops: float
    nvlink_gb_s: float
    """Both directions together, to its peers; 0 without."""
    link: str
    """nvlink, pcie, ... as machines with several of them usually have it."""
    pcie_generation: int
    flash_attention: int
    """The newest generation of flash attention that runs; 0 for none."""
    source: str
