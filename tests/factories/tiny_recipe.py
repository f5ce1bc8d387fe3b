"""A recipe file with its data, for a job of a few seconds on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path


def write_tiny_recipe(folder: Path, model: Path) -> Path:
    """`folder` with three splits and a recipe that trains on them for ten steps; returns the recipe."""
    data = folder / "data"
    data.mkdir()
    for split, start, count in (("train", 0, 40), ("validation", 100, 20), ("test", 200, 20)):
        rows = [
            {"instruction": f"order {i}", "output": f"lamp {i % 10}"} for i in range(start, start + count)
        ]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: tiny-orders\nmodel: {json.dumps(str(model))}\ndata: data\nmethod: lora\nepochs: 2\n"
        "micro_batch: 4\ngrad_accum: 2\nlog_every: 1\nmax_new_tokens: 4\nseq_len: 64\n"
    )
    return path
