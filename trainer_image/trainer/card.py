"""The model card: README.md of an adapter or of a merged model, with the front matter that hubs read.

Everything that a user wrote goes through a YAML encoder, and stands in Markdown as code, so that no name
and no path can end the front matter, open a heading or become a link.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer_image.trainer.spec import TrainSpec

LICENSE = re.compile(r"^licen[sc]e:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE | re.IGNORECASE)
METHODS = {
    "full": "all weights were trained",
    "lora": "LoRA adapters (Hu et al. 2021) on the frozen base",
    "qlora": "LoRA adapters on the base in 4 bits (NF4, double quantisation; Dettmers et al. 2023)",
}
LABEL_LINES = {
    "score": "right answers",
    "standard_error": "standard error",
    "valid_json": "valid JSON",
    "fields": "right fields",
    "eval_loss": "validation loss [nats/token]",
}


def write(path: Path, spec: TrainSpec, result: Mapping[str, Any]) -> None:
    """Write the card to `path`, whole or not at all. `result` is the content of result.json."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(render(spec, result, adapter=path.parent.name == "adapter"), "utf-8", "replace")
    aside.replace(path)


def render(spec: TrainSpec, result: Mapping[str, Any], *, adapter: bool) -> str:
    """The card's text: of the adapter, or of the model that loads by itself."""
    metrics: Mapping[str, Any] = result.get("metrics") or {}
    sections = [
        f"# {_code(spec.labels.get('recipe') or _last_part(spec.model.name))}",
        f"Fine-tuned by ftcloud from {_code(spec.model.name)}"
        + (f", revision {_code(spec.model.revision)}" if spec.model.revision else "")
        + f": {METHODS[spec.method]}.",
        "## Use\n\n" + _usage(spec, adapter=adapter),
        "## Scores\n\n" + _scores(spec, metrics),
        "## Training\n\n" + _table(_training(spec, metrics)),
        "## Data\n\n" + _table(_data(spec)),
        "## Environment\n\n" + _table((result.get("environment") or {}).items()),
    ]
    return _front_matter(spec, adapter=adapter) + "\n" + "\n\n".join(sections) + "\n"


def _front_matter(spec: TrainSpec, *, adapter: bool) -> str:
    fields: dict[str, Any] = {
        "base_model": spec.model.name,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ftcloud", spec.method],
    }
    if license_ := base_license(Path(spec.model.path)):
        fields["license"] = license_
    lines = (f"{key}: {_yaml(value)}" for key, value in fields.items())
    return "---\n" + "\n".join(lines) + "\n---\n"


def _yaml(value: Any) -> str:
    """On one line, texts in double quotes: a line of a text that reads `---` would end the front matter."""
    return yaml.safe_dump(value, default_style='"', default_flow_style=True, width=math.inf).strip()


def base_license(folder: Path) -> str | None:
    """The licence that the base folder's own README states in its front matter; None where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if not text.startswith("---\n"):
        return None
    found = LICENSE.search(text[: text.find("\n---", 4) + 1])
    return found[1].strip("'\"") if found else None


def _usage(spec: TrainSpec, *, adapter: bool) -> str:
    if adapter:
        base = f"{json.dumps(spec.model.name)}"
        revision = f", revision={json.dumps(spec.model.revision)}" if spec.model.revision else ""
        quantised = ", quantization_config=nf4" if spec.method == "qlora" else ""
        code = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({base}{revision}{quantised})",
            'model = PeftModel.from_pretrained(base, ".")',
            f"tokenizer = AutoTokenizer.from_pretrained({base}{revision})",
        ]
        if quantised:
            code[1] = "from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig"
            code[2:3] = [
                "import torch",
                "",
                "# The adapter was trained on the 4-bit base and fits no other.",
                "nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4',",
                "    bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)",
            ]
    else:
        code = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained(".")',
            'tokenizer = AutoTokenizer.from_pretrained(".")',
        ]
    return "```python\n" + "\n".join(code) + "\n```"


def _scores(spec: TrainSpec, metrics: Mapping[str, Any]) -> str:
    base, tuned = metrics.get("base") or {}, metrics.get("tuned") or {}
    if "score" not in tuned:
        return f"Not scored on test rows. Validation loss: {_number(metrics.get('eval_loss'))} nats/token."
    lines = ["| | base | tuned |", "|---|---|---|"]
    for key, words in LABEL_LINES.items():
        if base.get(key) is not None or tuned.get(key) is not None:
            lines.append(f"| {words} | {_number(base.get(key))} | {_number(tuned.get(key))} |")
    means = {
        "json": "the parsed JSON equals the expected object",
        "exact": "the text equals the expected text",
    }
    rule = means.get(spec.evaluate.metric, "")
    return f"{tuned.get('rows')} test rows, greedy; an answer is right where {rule}.\n\n" + "\n".join(lines)


def _training(spec: TrainSpec, metrics: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    loop, optim, lora = spec.loop, spec.optim, spec.lora
    yield "method", spec.method
    if lora:
        yield "rank, alpha, dropout", f"{lora.rank}, {lora.alpha}, {lora.dropout}"
        yield "target modules", ", ".join(lora.target_modules)
    yield "precision", spec.model.precision
    yield "optimizer", optim.optimizer
    yield "learning rate, scheduler", f"{optim.learning_rate:g}, {optim.scheduler}"
    yield "warm-up ratio, weight decay", f"{optim.warmup_ratio:g}, {optim.weight_decay:g}"
    yield "rows in a step", f"{loop.micro_batch} × {loop.grad_accum}"
    yield "epochs", f"{loop.epochs:g}" if loop.max_steps is None else f"{loop.max_steps} steps"
    yield "sequence length", spec.data.seq_len
    yield "seed", loop.seed
    yield "tokens trained on", metrics.get("tokens")
    yield "training loss [nats/token]", _number(metrics.get("train_loss"))


def _data(spec: TrainSpec) -> Iterable[tuple[str, Any]]:
    yield "format", spec.data.format
    yield "loss on", spec.data.loss_on
    yield from sorted(spec.labels.items())


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {_code(key)} | {_code(value)} |" for key, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---|", *lines])


def _code(value: Any) -> str:
    """Text as Markdown code on one line; what would end it, or a table's cell, is replaced."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "¦")
    return f"`{text or '-'}`"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
