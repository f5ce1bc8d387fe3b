"""Progress lines in words, for terminals and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer_image.trainer.progress import Progress

PHASES = {
    "load": "loading the model",
    "base": "scoring the base model",
    "train": "training",
    "merge": "merging the adapter and checking the merged model",
    "test": "scoring the tuned model",
    "save": "saving",
}


def describe(progress: Progress) -> str:
    """One line in words. Values come from a machine, so none is trusted to be there or of its type."""
    return _WORDS.get(progress.kind, _other)(progress.values)


def number(value: Any, form: str = ".4g") -> str:
    """A figure, or a dash where there is none."""
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def duration(seconds: Any) -> str:
    """1:02:03, or 4:05."""
    if not isinstance(seconds, int | float):
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _phase(v: dict[str, Any]) -> str:
    return PHASES.get(str(v.get("phase")), str(v.get("phase")))


def _start(v: dict[str, Any]) -> str:
    rows: Any = v.get("rows")
    rows = rows if isinstance(rows, dict) else {}
    share = v.get("share")
    percent = f"{100 * share:.2f} %" if isinstance(share, float | int) else "-"
    line = (
        f"{number(v.get('trainable'), ',')} of {number(v.get('total'), ',')} parameters train ({percent}); "
        f"{number(rows.get('train'), ',')} rows, {number(v.get('tokens'), ',')} tokens an epoch, "
        f"{number(v.get('steps'), ',')} steps; {v.get('precision')} on {v.get('device')}"
    )
    resumed = v.get("resumed_step")
    return line + (f"; resumed after step {number(resumed, ',')}" if resumed else "")


def _train(v: dict[str, Any]) -> str:
    return (
        f"step {number(v.get('step'), ',')}/{number(v.get('steps'), ',')}  "
        f"epoch {number(v.get('epoch'), '.2f')}  "
        f"loss {number(v.get('loss'), '.4f')}  lr {number(v.get('lr'), '.2e')}  "
        f"{number(v.get('tokens_per_s'), ',.0f')} tokens/s  peak {number(v.get('peak_gib'), '.1f')} GiB  "
        f"{duration(v.get('eta_s'))} left"
    )


def _eval(v: dict[str, Any]) -> str:
    best = "  (best so far)" if v.get("best") else ""
    return f"step {number(v.get('step'), ',')}  validation loss {number(v.get('eval_loss'), '.4f')}{best}"


def _test(v: dict[str, Any]) -> str:
    return (
        f"{v.get('model')} model: {number(v.get('correct'), ',')} right of "
        f"{number(v.get('done'), ',')} (of {number(v.get('rows'), ',')} rows)"
    )


def _merge(v: dict[str, Any]) -> str:
    agree = v.get("agree")
    percent = f"{100 * agree:.1f} %" if isinstance(agree, float | int) else "-"
    return (
        f"merged in {v.get('dtype')}: mean KL {number(v.get('mean_kl'), '.2g')} nats a token, "
        f"{percent} of top tokens equal"
    )


def _checkpoint(v: dict[str, Any]) -> str:
    return f"checkpoint at step {number(v.get('step'), ',')}"


def _warning(v: dict[str, Any]) -> str:
    return f"warning: {v.get('message')}"


def _error(v: dict[str, Any]) -> str:
    return f"error: {v.get('what')}"


def _other(v: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in v.items() if key != "time")


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "phase": _phase,
    "start": _start,
    "train": _train,
    "eval": _eval,
    "test": _test,
    "merge": _merge,
    "checkpoint": _checkpoint,
    "warning": _warning,
    "error": _error,
    "done": lambda _: "done",
}
