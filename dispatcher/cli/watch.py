"""Watching a job: its moves and its log as they come, with a progress bar on a terminal.

All of it goes to stderr; stdout is for the result.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from dispatcher.cli.command import session
from dispatcher.cli.output import visible
from dispatcher.jobs.job import JobFolder
from dispatcher.jobs.joblog import Follower
from dispatcher.jobs.progress_text import describe, duration, number
from dispatcher.jobs.store import JobStore
from trainer_image.trainer.progress import Progress, parse

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SHOWN_MOVES = frozenset({"moved", "noted"})


class Watcher:
    """Shows what is new at each `tick`. Use as a context manager: it owns the line with the bar."""

    def __init__(self, store: JobStore, job_id: str, folder: JobFolder, *, from_now: bool = False) -> None:
        self._store = store
        self._job_id = job_id
        self._follower = Follower(folder.path / "logs")
        self._last_event = 0
        self._bar = _Bar() if sys.stderr.isatty() and not session().quiet else None
        if from_now:
            self._follower.skip()
            self._last_event = max((event.id for event in store.events(job_id)), default=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Give the bar's line back: a question can be read only where nothing repaints it."""
        if self._bar:
            self._bar.close()

    def tick(self) -> None:
        """Show events and log lines that came since the last call."""
        for event in self._store.events(self._job_id, self._last_event):
            self._last_event = event.id
            if event.kind in SHOWN_MOVES:
                self._print(f"{event.state}{': ' + event.message if event.message else ''}", dim=True)
        for line in self._follower.lines():
            progress = parse(line)
            if progress is not None:
                self._show(progress)
            elif session().verbose:
                self._print(line, dim=True)

    def _show(self, progress: Progress) -> None:
        if self._bar and self._bar.moved(progress):
            return
        if progress.kind not in ("done", "error"):  # the command itself ends with these
            self._print("  " + describe(progress), yellow=progress.kind == "warning")

    def _print(self, text: str, *, dim: bool = False, yellow: bool = False) -> None:
        if session().quiet:
            return
        if self._bar:
            self._bar.print(visible(text), dim=dim, yellow=yellow)
        else:
            click.secho(visible(text), err=True, dim=dim or None, fg="yellow" if yellow else None)


class _Bar:
    """A bar on the last line of the terminal for the phase that counts: training, or scoring."""

    def __init__(self) -> None:
        self._rich: Bar | None = None
        self._key = ""
        self._task: Any = None

    def moved(self, progress: Progress) -> bool:
        """Whether the bar has shown it, so that no line is needed."""
        values = progress.values
        if progress.kind == "train":
            words = (
                f"loss {number(values.get('loss'), '.3f')}  "
                f"{number(values.get('tokens_per_s'), ',.0f')} tokens/s  "
                f"{duration(values.get('eta_s'))} left"
            )
            self._move("training", values.get("step"), values.get("steps"), words)
            return True
        if progress.kind == "test":
            words = f"{number(values.get('correct'), ',')} right"
            self._move(f"scoring {values.get('model')}", values.get("done"), values.get("rows"), words)
            return True
        if progress.kind in ("phase", "done", "error"):
            self.close()
        return False

    def _move(self, what: str, done: Any, total: Any, words: str) -> None:
        if not isinstance(done, int | float) or not isinstance(total, int | float):
            return
        if self._rich is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Rich

            # No markup: what the trainer says must not be read as colours or links.
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}", markup=False),
            )
            self._rich = Rich(*columns, console=Console(stderr=True), transient=True)
            self._rich.start()
        if self._key != what:
            if self._task is not None:
                self._rich.remove_task(self._task)
            self._task, self._key = self._rich.add_task(visible(what), total=total, words=""), what
        self._rich.update(self._task, completed=done, total=total, words=visible(words))

    def print(self, text: str, *, dim: bool, yellow: bool) -> None:
        if self._rich is None:
            click.secho(text, err=True, dim=dim or None, fg="yellow" if yellow else None)
        else:
            style = "yellow" if yellow else "dim" if dim else None
            self._rich.console.print(text, style=style, markup=False, highlight=False)

    def close(self) -> None:
        if self._rich is not None:
            self._rich.stop()
        self._rich, self._task, self._key = None, None, ""
