"""Our trainer, by the phases of a real job: `job.prepare` and `train`."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import LoraLayer

from benchmarks.throughput.setting import DATA_FILE, Outcome, Setting
from trainer_image.trainer import job, model, render
from trainer_image.trainer.batches import Example
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.run import StopSignal
from trainer_image.trainer.train import resume, train


@dataclass(frozen=True, slots=True)
class Ours:
    name: str = "ftcloud"
    peft_forward: bool = False
    """PEFT's own forward pass of a LoRA layer instead of that of `trainer_image/trainer/lora.py`."""

    def train(self, setting: Setting, rows: Sequence[Example]) -> Outcome:
        workdir = setting.workspace / "ours"
        _write(rows, workdir)
        spec = setting.spec()
        data = job.Data(render.Split(list(rows), rows=len(rows)), render.Split(), [])
        tokenizer = model.load_tokenizer(spec.model)
        ready = job.Job(spec, workdir, tokenizer, data, Reporter(io.StringIO()))
        run = job.prepare(ready, setting.load(), StopSignal())
        if self.peft_forward:
            _forget_our_forward(run.model)
        state = resume(run)
        began = time.perf_counter()
        train(run, state)
        seconds = time.perf_counter() - began
        shutil.rmtree(workdir)
        return Outcome(seconds, state.tokens, state.step, run.model)


def _write(rows: Sequence[Example], workdir: Any) -> None:
    """The file that a run takes its fingerprint from."""
    (workdir / "data").mkdir(parents=True)
    lines = (json.dumps({"ids": list(row.ids), "target": list(row.target)}) + "\n" for row in rows)
    (workdir / "data" / DATA_FILE).write_text("".join(lines), encoding="utf-8")


def _forget_our_forward(trained: Any) -> None:
    """Our forward pass lies on the instances; without it the class's own is found again."""
    for module in trained.modules():
        if isinstance(module, LoraLayer):
            del module.forward
