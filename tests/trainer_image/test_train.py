"""The loop: a run that is stopped or killed and resumed is, bit for bit, the run that was not."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factories.workdirs import replaced
from trainer_image.trainer import job, model, train
from trainer_image.trainer.checkpoint import Checkpoint, CheckpointFolder
from trainer_image.trainer.errors import FtcloudError, UsageError
from trainer_image.trainer.progress import Progress, Reporter, parse
from trainer_image.trainer.run import Preempted, StopSignal
from trainer_image.trainer.spec import TrainSpec

pytestmark = pytest.mark.torch

MakeWorkdir = Callable[..., Path]


class Killed(BaseException):
    """Stands for the end of the process: nothing of the loop catches it."""


class Session:
    """One process's worth of training in a work directory; ends as the real one would, or is killed."""

    def __init__(self, workdir: Path) -> None:
        self.stream = io.StringIO()
        self.stop = StopSignal()
        reporter = Reporter(self.stream)
        spec = TrainSpec.read(workdir / "spec.json")
        tokenizer = model.load_tokenizer(spec.model)
        data = job.load_data(spec, workdir / "data", tokenizer, reporter)
        base = model.load_base(spec)
        self.run = job.prepare(job.Job(spec, workdir, tokenizer, data, reporter), base, self.stop)
        self.state = train.resume(self.run)
        self.resumed = self.state.step

    def go(self) -> Session:
        train.train(self.run, self.state)
        return self

    @property
    def lines(self) -> list[Progress]:
        return [line for line in map(parse, self.stream.getvalue().splitlines()) if line]

    def losses(self) -> dict[int, str]:
        """The exact training loss of each step."""
        return {line.values["step"]: line.values["loss"].hex() for line in self.lines if line.kind == "train"}

    def evals(self) -> dict[int, str]:
        return {
            line.values["step"]: line.values["eval_loss"].hex() for line in self.lines if line.kind == "eval"
        }

    def weights(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.run.optimizer.weights().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()


class DyingFolder(CheckpointFolder):
    """Is killed while saving at a step: before the write, or between writing and renaming."""

    def __init__(self, real: CheckpointFolder, step: int, *, before_rename: bool) -> None:
        super().__init__(real.root, real._fingerprint, real._warn)
        self.step, self.before_rename = step, before_rename

    def save(self, checkpoint: Checkpoint) -> Path:
        if checkpoint.step != self.step:
            return super().save(checkpoint)
        if self.before_rename:
            aside = self.root / f".writing-{self.path(self.step).name}"
            aside.mkdir(parents=True)
            self._write(aside, checkpoint)
        raise Killed


def killed_at(workdir: Path, step: int, *, before_rename: bool = False, saving: bool = True) -> Session:
    """Train until killed: while the checkpoint of `step` is written, or in the middle of step `step`."""
    session = Session(workdir)
    if saving:
        folder = DyingFolder(session.run.checkpoints, step, before_rename=before_rename)
        object.__setattr__(session.run, "checkpoints", folder)
    else:
        backward = session.run.optimizer.backward

        def dying(loss: torch.Tensor) -> None:
            backward(loss)
            if session.state.step == step:
                raise Killed

        session.run.optimizer.backward = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        session.go()
    return session


LAYOUTS: dict[str, dict[str, Any]] = {
    "packed": {},
    "padded": {"data__packing": False},
    "full": {"method": "full", "optim__learning_rate": 1e-3},
    "qlora": {"method": "qlora"},
    "bf16 masters": {"model__precision": "bf16"},
    "8-bit moments": {"optim__optimizer": "adamw_8bit"},
    "checkpointed": {"loop__grad_ckpt": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_three_times_it_is_bit_for_bit_the_run_that_was_not(
    layout: str, make_workdir: MakeWorkdir
) -> None:
    """Dropout, accumulation and shuffling on; killed in epochs 1, 2 and 3, once between write and rename."""
    settings = {"loop__epochs": 3.0, "loop__save_every": 2, "loop__micro_batch": 3} | LAYOUTS[layout]
    straight = Session(make_workdir("straight", validation=5, **settings)).go()
    workdir = make_workdir("killed", validation=5, **settings)
    sessions = [
        killed_at(workdir, 3, saving=False),
        killed_at(workdir, 6, before_rename=True),
        killed_at(workdir, 9, saving=False),
        Session(workdir).go(),
    ]
    assert [session.resumed for session in sessions] == [0, 2, 4, 8]
    losses = {step: loss for session in sessions for step, loss in session.losses().items()}
    evals = {step: loss for session in sessions for step, loss in session.evals().items()}
    assert len(losses) == 12  # four steps of three micro-batches an epoch, the last one smaller
    assert losses == straight.losses()
    assert evals == straight.evals()
    assert sessions[-1].weights() == straight.weights()
    for session in sessions[1:]:  # what was done twice came out the same the second time
        assert session.losses().items() <= straight.losses().items()


def test_the_seed_changes_order_and_dropout(make_workdir: MakeWorkdir) -> None:
    runs = [Session(make_workdir(f"seed{seed}", loop__seed=seed, loop__max_steps=2)).go() for seed in (1, 2)]
    assert runs[0].losses() != runs[1].losses()


def test_dropout_is_another_in_every_micro_batch(make_workdir: MakeWorkdir) -> None:
    seeds = {train._dropout_seed(7, step, micro) for step in range(50) for micro in range(50)}
    assert len(seeds) == 2500


@pytest.mark.parametrize("other", [{"loop__micro_batch": 1, "loop__grad_accum": 8}, {"data__packing": False}])
def test_another_worker_layout_may_go_on_with_the_run(
    other: dict[str, Any], make_workdir: MakeWorkdir
) -> None:
    settings = {"lora__dropout": 0.0, "loop__save_every": 2}
    straight = Session(make_workdir("straight", **settings)).go()
    workdir = make_workdir("moved", **settings)
    killed_at(workdir, 3, saving=False)
    spec = TrainSpec.read(workdir / "spec.json")
    (workdir / "spec.json").write_text(replaced(spec, **other).to_json())
    moved = Session(workdir).go()
    assert moved.resumed == 2
    for step, loss in moved.losses().items():
        assert float.fromhex(loss) == pytest.approx(float.fromhex(straight.losses()[step]), rel=1e-4)


@pytest.mark.parametrize("change", [{"optim__learning_rate": 0.5}, {"lora__rank": 2}, {"loop__seed": 8}])
def test_a_changed_recipe_cannot_resume(change: dict[str, Any], make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir(loop__max_steps=2)
    Session(workdir).go()
    spec = TrainSpec.read(workdir / "spec.json")
    (workdir / "spec.json").write_text(replaced(spec, **change).to_json())
    with pytest.raises(UsageError, match="other settings or other data"):
        Session(workdir)


def test_changed_data_cannot_resume(make_workdir: MakeWorkdir) -> None:
    workdir = make_workdir(loop__max_steps=2)
    Session(workdir).go()
    file = workdir / "data" / "train.jsonl"
    file.write_text(file.read_text().replace("lamp", "lamb"))
    with pytest.raises(UsageError, match="other settings or other data"):
        Session(workdir)


def test_asked_to_stop_it_finishes_the_step_saves_and_can_go_on(make_workdir: MakeWorkdir) -> None:
    straight = Session(make_workdir("straight")).go()
    workdir = make_workdir("stopped")
    first = Session(workdir)
    backward = first.run.optimizer.backward

    def stopping(loss: torch.Tensor) -> None:
        first.stop.asked = first.state.step == 4
        backward(loss)

    first.run.optimizer.backward = stopping  # type: ignore[method-assign]
    with pytest.raises(Preempted):
        first.go()
    second = Session(workdir)
    assert second.resumed == 5
    second.go()
    assert first.losses() | second.losses() == straight.losses()
    assert second.weights() == straight.weights()


def test_asked_to_stop_while_validating_it_validates_after_the_resume(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Session(make_workdir("straight", validation=6)).go()
    workdir = make_workdir("stopped", validation=6)
    first = Session(workdir)
    real = train.validation_loss

    def asked_during(run: train.Run) -> float | None:
        first.stop.asked = first.state.step == 3
        return real(run)

    with monkeypatch.context() as patch:
        patch.setattr(train, "validation_loss", asked_during)
        with pytest.raises(Preempted):
            first.go()
    assert 3 not in first.evals()
    second = Session(workdir).go()
    assert second.resumed == 3
    assert first.evals() | second.evals() == straight.evals()


def worse_and_worse(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    values: Iterator[float] = iter(losses)
    monkeypatch.setattr(train, "validation_loss", lambda _: next(values))


def test_the_best_validation_gives_the_final_weights(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_and_worse(monkeypatch, [9.0, 5.0, 4.0, 6.0, 7.0])
    settings = {"loop__epochs": 4.0, "loop__keep_checkpoints": 1, "validation": 4}
    session = Session(make_workdir("best", **settings)).go()
    assert (session.state.best_step, session.state.best_loss, session.state.eval_loss) == (6, 4.0, 4.0)
    assert session.state.base_eval_loss == 9.0
    assert session.run.checkpoints.steps() == [6, 12]
    best = session.run.checkpoints.load(6).weights
    assert all(torch.equal(best[name], tensor) for name, tensor in session.run.optimizer.weights().items())


def test_the_best_is_kept_even_where_nothing_else_is_saved(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_and_worse(monkeypatch, [9.0, 4.0, 5.0])
    session = Session(make_workdir(validation=4, loop__save_every="never")).go()
    assert session.run.checkpoints.steps() == [3]
    best = session.run.checkpoints.load(3).weights
    assert all(torch.equal(best[name], tensor) for name, tensor in session.run.optimizer.weights().items())


def test_a_lost_best_checkpoint_is_said_and_the_last_weights_are_taken(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_and_worse(monkeypatch, [9.0, 4.0, 5.0])
    session = Session(make_workdir(validation=4))
    damage = session.run.checkpoints.path(3) / "checkpoint.json"
    real = session.run.checkpoints.save

    def save_and_lose(checkpoint: Checkpoint) -> Path:
        path = real(checkpoint)
        if checkpoint.step == 6:
            damage.unlink()
        return path

    session.run.checkpoints.save = save_and_lose  # type: ignore[method-assign]
    session.go()
    (said,) = [line.values["message"] for line in session.lines if line.kind == "warning"]
    assert "the best checkpoint is lost" in said
    assert session.weights() == Session(make_workdir("plain")).go().weights()


def test_early_stopping_counts_validations_without_a_better_loss(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_and_worse(monkeypatch, [9.0, 5.0, 6.0, 4.0, 4.0, 4.5, 1.0])
    workdir = make_workdir(validation=4, loop__epochs=9.0, loop__early_stopping=2)
    session = Session(workdir).go()
    assert (session.state.step, session.state.best_step, session.state.stopped_early) == (15, 9, True)
    again = Session(workdir).go()  # stays stopped
    assert (again.state.step, again.losses()) == (15, {})


def test_a_validation_before_the_checkpoint_is_not_counted_again_after_it(
    make_workdir: MakeWorkdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse_and_worse(monkeypatch, [9.0, 5.0, 6.0, 4.0])
    workdir = make_workdir(validation=4, loop__epochs=3.0, loop__early_stopping=2)
    killed_at(workdir, 7, saving=False)  # after the worse validation of step 6 and its checkpoint
    session = Session(workdir).go()
    assert (session.resumed, session.state.step, session.state.best_step) == (6, 9, 9)
    assert not session.state.stopped_early


def test_a_diverged_run_ends_with_the_step_and_what_to_do(make_workdir: MakeWorkdir) -> None:
    session = Session(make_workdir())
    with torch.no_grad():
        next(iter(session.run.optimizer.weights().values())).fill_(float("nan"))
        session.run.optimizer.load_weights(session.run.optimizer.weights())
    with pytest.raises(FtcloudError, match="step 1: the loss is nan") as caught:
        session.go()
    assert "learning rate" in caught.value.fix
    assert session.run.checkpoints.steps() == []


def test_the_reported_loss_is_the_mean_over_the_last_window(make_workdir: MakeWorkdir) -> None:
    every = Session(make_workdir("every")).go()
    windows = Session(make_workdir("windows", loop__log_every=4)).go()
    assert sorted(windows.losses()) == [4, 6]
    tokens = [sum(every.run.train[i].loss_tokens for i in every.run.plan.rows_of(step)) for step in (4, 5)]
    losses = [float.fromhex(every.losses()[step]) for step in (5, 6)]
    mean = sum(n * loss for n, loss in zip(tokens, losses, strict=True)) / sum(tokens)
    assert windows.state.train_loss == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"loop__save_every": "never"}, []),
        ({"loop__save_every": 4}, [4, 6]),
        ({"loop__save_every": "epoch"}, [3, 6]),
        ({"loop__save_every": 1, "loop__keep_checkpoints": 3}, [4, 5, 6]),
    ],
)
def test_checkpoints_are_kept_as_asked(
    changes: dict[str, Any], steps: list[int], make_workdir: MakeWorkdir
) -> None:
    assert Session(make_workdir(**changes)).go().run.checkpoints.steps() == steps


@pytest.mark.parametrize(
    ("cadence", "steps"), [("epoch", [0, 3, 6]), (2, [0, 2, 4, 6]), (4, [0, 4, 6]), ("never", [0, 6])]
)
def test_validation_is_done_as_often_as_asked_and_at_both_ends(
    cadence: Any, steps: list[int], make_workdir: MakeWorkdir
) -> None:
    assert sorted(Session(make_workdir(validation=3, loop__eval_every=cadence)).go().evals()) == steps


def test_training_learns(make_workdir: MakeWorkdir) -> None:
    session = Session(make_workdir(validation=6, loop__epochs=8.0, optim__learning_rate=0.02)).go()
    assert session.state.eval_loss is not None
    assert session.state.base_eval_loss is not None
    assert session.state.eval_loss < 0.7 * session.state.base_eval_loss


def test_every_line_is_json_and_counts_up(make_workdir: MakeWorkdir) -> None:
    session = Session(make_workdir(validation=3)).go()
    for line in session.stream.getvalue().splitlines():
        assert "ftcloud" in json.loads(line)
    trained = [line.values for line in session.lines if line.kind == "train"]
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5, 6]
    assert trained[-1]["tokens"] == 2 * sum(len(example.ids) for example in session.run.train)
    assert trained[-1]["eta_s"] == 0
    assert 0.1 < trained[-1]["peak_gib"] < 10
