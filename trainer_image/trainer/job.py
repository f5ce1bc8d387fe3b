"""The phases of a job, in the order they happen; `run` calls `do` and reports what it raises."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import peft
import torch
import transformers

from trainer_image.trainer import attention, card, model, render
from trainer_image.trainer.batches import plan_steps
from trainer_image.trainer.checkpoint import CheckpointFolder, check_space
from trainer_image.trainer.evaluate import score
from trainer_image.trainer.hardware import detect
from trainer_image.trainer.loss import TokenLoss
from trainer_image.trainer.merge import merge_and_verify
from trainer_image.trainer.optim import Optimizer
from trainer_image.trainer.progress import Reporter
from trainer_image.trainer.run import StopSignal
from trainer_image.trainer.scores import Scores, gain, read_rows
from trainer_image.trainer.spec import TrainSpec
from trainer_image.trainer.train import Run, TrainState, peak_gib, resume, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, slots=True)
class Data:
    """The splits, ready to train on and to score with."""

    train: render.Split
    validation: render.Split
    """Empty where there is none."""
    prompts: list[tuple[str, str]]
    """Prompt and expected answer of the test rows to score; empty where nothing is scored."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every phase needs."""

    spec: TrainSpec
    workdir: Path
    tokenizer: Tokenizer
    data: Data
    reporter: Reporter

    @property
    def output(self) -> Path:
        return self.workdir / "output"

    def warn(self, message: str) -> None:
        self.reporter.say("warning", message=message)


def do(spec: TrainSpec, workdir: Path, reporter: Reporter, stop: StopSignal) -> None:
    """All phases of the job. Raises FtcloudError, Preempted, or what the machine runs out of."""
    _quiet()
    reporter.say("phase", phase="load")
    tokenizer = model.load_tokenizer(spec.model)
    job = Job(spec, workdir, tokenizer, load_data(spec, workdir / "data", tokenizer, reporter), reporter)
    base = model.load_base(spec)

    reporter.say("phase", phase="base")
    base_scores = _score(job, base, "base")

    reporter.say("phase", phase="train")
    stop.training = True
    run = prepare(job, base, stop)
    state = resume(run)
    _say_start(job, run, state)
    train(run, state)
    stop.training = False

    reporter.say("phase", phase="merge")
    final, merge_report = _merge(job, run.model)

    reporter.say("phase", phase="test")
    tuned_scores = _score(job, final, "tuned")

    reporter.say("phase", phase="save")
    result = _result(job, run, state, base_scores, tuned_scores) | {"merge": merge_report}
    _save(job, run.model, result)
    reporter.say("done", **result)


def load_data(spec: TrainSpec, folder: Path, tokenizer: Tokenizer, reporter: Reporter) -> Data:
    """Read and tokenise the splits; what was lost on the way is said as warnings."""

    def encoded(name: str, file: str) -> render.Split:
        split = render.encode_file(folder / file, tokenizer, spec.data)
        for warning in split.warnings(name):
            reporter.say("warning", message=warning)
        return split

    train = encoded("training", spec.data.train)
    validation = encoded("validation", spec.data.validation) if spec.data.validation else render.Split()
    prompts: list[tuple[str, str]] = []
    if spec.data.test and spec.evaluate.metric != "none":
        prompts = list(render.prompts_of_file(folder / spec.data.test, tokenizer, spec.data))
    return Data(train, validation, prompts[: spec.evaluate.rows])


def prepare(job: Job, base: PreTrainedModel, stop: StopSignal) -> Run:
    """Everything that the loop needs, checked: the way of packing, the optimizer, room for checkpoints."""
    spec, data = job.spec, job.data
    isolation = attention.Isolation.PADDED
    if spec.data.packing:
        isolation = attention.choose_isolation(base, spec.model.attention)
        if isolation is attention.Isolation.PADDED:
            job.warn("rows are padded, not packed: in this model packed documents would see each other")
    trained = model.prepare(base, spec)
    optimizer = Optimizer(trained, spec.optim)
    folder = job.workdir / "checkpoints"
    check_space(folder, optimizer.weights(), spec.loop.keep_checkpoints + 1)
    return Run(
        loop=spec.loop,
        plan=plan_steps(len(data.train.examples), spec.loop),
        model=trained,
        loss=TokenLoss.of(trained, base, isolation),
        optimizer=optimizer,
        train=data.train.examples,
        validation=data.validation.examples,
        pad_id=job.tokenizer.pad_token_id,
        checkpoints=CheckpointFolder(folder, fingerprint(spec, job.workdir / "data"), job.warn),
        reporter=job.reporter,
        asked_to_stop=lambda: stop.asked,
    )


def fingerprint(spec: TrainSpec, folder: Path) -> str:
    """What a checkpoint must agree with to be resumed: all that changes what is learned, and the data.

    Where the model lies, how often something is logged or saved, and how a global batch is laid out in
    micro-batches may differ: another machine may go on with the run.
    """
    chosen = dataclasses.asdict(spec)
    loop = chosen["loop"]
    loop["global_batch"] = loop["micro_batch"] * loop["grad_accum"]
    free = {
        "model": ("path", "attention"),
        "data": ("test", "packing"),
        "loop": ("micro_batch", "grad_accum", "grad_ckpt", "log_every", "save_every", "keep_checkpoints"),
    }
    for section, names in free.items():
        for name in names:
            del chosen[section][name]
    for name in ("labels", "evaluate", "merge", "version"):
        del chosen[name]
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
    for file in filter(None, (spec.data.train, spec.data.validation)):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()


def _say_start(job: Job, run: Run, state: TrainState) -> None:
    parameters = model.count_parameters(run.model)
    data = job.data
    rows = {"train": data.train.rows, "validation": data.validation.rows, "test": len(data.prompts)}
    job.reporter.say(
        "start",
        trainable=parameters.trainable,
        total=parameters.total,
        share=parameters.share,
        rows=rows,
        dropped_rows=data.train.dropped,
        tokens=data.train.tokens,
        loss_tokens=data.train.loss_tokens,
        steps=run.plan.steps,
        precision=job.spec.model.precision,
        device=_device(run.model),
        packing=run.packing,
        resumed_step=state.step,
    )


def _score(job: Job, scored: PreTrainedModel, name: Literal["base", "tuned"]) -> dict[str, Any]:
    """Scores on the test prompts, `{}` where nothing is scored; the base's are kept over a resume."""
    prompts, metric = job.data.prompts, job.spec.evaluate.metric
    out = _scored_rows(job, name)
    if not prompts:
        return {}
    if name == "base" and out.exists():
        kept = Scores.from_file(out, metric)
        if kept.rows == len(prompts):
            return kept.as_dict()
    reporter, spec = job.reporter, job.spec.evaluate
    return score(scored, job.tokenizer, prompts, spec, out=out, reporter=reporter, name=name).as_dict()


def _scored_rows(job: Job, name: Literal["base", "tuned"]) -> Path:
    return job.output / "evaluation" / f"{name}.jsonl"


def _merge(job: Job, trained: PreTrainedModel) -> tuple[PreTrainedModel, dict[str, Any] | None]:
    """The merged model, or the trained one where merging is turned off; `full` is always written."""
    if not job.spec.merge and job.spec.method != "full":
        return trained, None
    report, merged = merge_and_verify(
        trained,
        job.tokenizer,
        job.spec,
        rows=job.data.validation.examples or job.data.train.examples,
        folder=job.output / "merged",
        reporter=job.reporter,
    )
    return merged, report.as_dict()


def _result(
    job: Job, run: Run, state: TrainState, base: dict[str, Any], tuned: dict[str, Any]
) -> dict[str, Any]:
    """The content of result.json, but for `merge`."""
    scored = [read_rows(_scored_rows(job, name)) for name in ("base", "tuned")] if base else None
    if run.validation:
        base = {"eval_loss": state.base_eval_loss} | base
        tuned = {"eval_loss": state.eval_loss} | tuned
    metrics = {
        "train_loss": state.train_loss,
        "eval_loss": state.eval_loss,
        "base": base or None,
        "tuned": tuned or None,
        "gain": gain(*scored).as_dict() if scored else None,
        "tokens": state.tokens,
        "tokens_per_s": round(state.tokens / state.seconds, 1) if state.seconds else None,
        "peak_gib": round(peak_gib(), 3),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
    }
    parameters = model.count_parameters(run.model)
    return {
        "metrics": metrics,
        "trainable": parameters.trainable,
        "total": parameters.total,
        "share": parameters.share,
        "stopped_early": state.stopped_early,
        "best_step": state.best_step,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "device": _device(run.model),
        },
    }


def _save(job: Job, trained: PreTrainedModel, result: dict[str, Any]) -> None:
    """Adapter, model cards, result.json and, last of all, the manifest that says the job is done."""
    output = job.output
    if job.spec.method != "full":
        # The name that the user knows the base by; where it lay on this machine means nothing elsewhere.
        trained.peft_config["default"].base_model_name_or_path = job.spec.model.name
        trained.save_pretrained(output / "adapter", save_embedding_layers=False)
    for folder in (output / "adapter", output / "merged"):
        if folder.is_dir():
            card.write(folder / "README.md", job.spec, result)
    _write_json(output / "result.json", result)
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = [
        {"path": path.relative_to(output).as_posix(), "bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    ]
    _write_json(output / "manifest.json", {"files": entries, "finished_at": round(time.time(), 3)})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    """Whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def _device(trained: PreTrainedModel) -> str:
    if trained.device.type == "cuda":
        return torch.cuda.get_device_name(trained.device)
    return detect().cpu


def _quiet() -> None:
    """Our progress lines are the log; bars and advice of the libraries would flood it."""
    warnings.simplefilter("ignore", FutureWarning)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
