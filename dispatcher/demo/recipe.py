"""The demo as a user would have it: a folder with data and a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from dispatcher.demo.orders import Rows, write

# Every field that is not here has the default that any recipe has.
TEMPLATE: Final = """\
# ftcloud's demo: teach a small model to turn order e-mails into JSON.
# Run it again by hand with: ftcloud launch recipe.yaml --provider local
name: demo-orders
model: {model}
data: data

method: lora
rank: 16
alpha: 32
dropout: 0.0          # one pass over the rows: nothing is learned by heart
target_modules: all-linear

epochs: 1
micro_batch: 8
grad_accum: 1         # {steps} small steps teach more than a few large ones
learning_rate: 5e-4   # higher than the default: a small model, few steps
scheduler: linear
weight_decay: 0.0
seq_len: 192
log_every: 1
seed: {seed}

metric: json          # right is an answer whose parsed object equals the expected one
test_rows: {test_rows}
max_new_tokens: 44
"""


def write_demo(folder: Path, model: Path, seed: int, rows: Rows | None = None) -> Path:
    """Write `data/` and `recipe.yaml` into `folder` and return the recipe's path.

    `model` is the folder that `demo_model` returned. Equal arguments give equal bytes.
    """
    rows = rows or Rows()
    write(folder / "data", seed, rows)
    recipe = folder / "recipe.yaml"
    text = TEMPLATE.format(
        model=json.dumps(str(model.resolve())),  # a JSON string is a YAML string, whatever the path holds
        seed=seed,
        steps=-(-rows.train // 8),
        test_rows=rows.test,
    )
    recipe.write_text(text, encoding="utf-8")
    return recipe
