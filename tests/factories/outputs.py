"""A trainer's output folder, small and whole, without training: what the registry takes in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dispatcher.registry.version import Candidate


def safetensors_bytes(
    values: bytes = b"\0" * 16, *, shape: tuple[int, ...] = (2, 2), dtype: str = "F32"
) -> bytes:
    """One tensor, `weight`, in the file format's plain layout."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "weight": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(values)]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + values


def write_manifest(folder: Path) -> None:
    files = [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    ]
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


def make_output(folder: Path, *, merged: bool = True) -> Path:
    """`adapter/`, `merged/`, `evaluation/`, `result.json`, `manifest.json`."""
    contents = {
        "adapter/adapter_model.safetensors": safetensors_bytes(),
        "adapter/adapter_config.json": b"{}",
        "adapter/README.md": b"# card\n",
        "evaluation/tuned.jsonl": b'{"prompt": "a", "expected": "b", "answer": "b", "correct": true}\n',
        "result.json": b"{}",
    }
    if merged:
        contents["merged/config.json"] = b"{}"
        contents["merged/model.safetensors"] = safetensors_bytes(b"\1" * 16)
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder)
    return folder


def make_candidate(
    name: str = "orders", job: str = "job-1", attempt: int = 1, score: float = 0.5
) -> Candidate:
    return Candidate(
        name=name,
        job=job,
        attempt=attempt,
        base_model="SmolLM2-135M-Instruct",
        base_revision=None,
        method="lora",
        recipe={"method": "lora", "lora": {"rank": 16, "alpha": 32}, "epochs": 3},
        data_fingerprint="sha256:1234",
        metrics={
            "train_loss": 0.5,
            "tuned": {"score": score, "rows": 100},
            "base": {"score": 0.0, "rows": 100},
        },
        environment={"python": "3.11.7", "torch": "2.13.0"},
        cost_usd=0.25,
    )
