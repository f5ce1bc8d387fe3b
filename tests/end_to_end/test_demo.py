"""`ftcloud demo`, with a model that cannot learn the task in the place of the one that can."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from dispatcher.demo import orders
from dispatcher.demo.model import SMOLLM2
from tests.factories.command import Ftcloud
from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model

pytestmark = pytest.mark.torch


def test_the_demo_fails_where_the_fine_tune_has_shown_nothing(ftcloud: Ftcloud) -> None:
    texts = [f"{order.email} {order.answer()}" for order in islice(orders.training_orders(1), 200)]
    model = ftcloud.home / "cache" / "models" / SMOLLM2.name
    save_tiny_model(model, CHAT_TEMPLATE, corpus=texts, vocab=1000)
    done = ftcloud.run("demo", "--folder", ftcloud.here / "demo")
    assert done.returncode == 1
    assert "the gain is below 2 standard errors" in done.stderr
    assert "gain: +0.0 points, standard error" in done.stdout
    (job,) = ftcloud.json("jobs")
    assert (job["state"], job["model_version"]) == ("succeeded", "demo-orders:1")
    rows = {
        name: [json.loads(line) for line in path.read_text().splitlines()]
        for name in ("base", "tuned")
        for path in ftcloud.home.glob(f"jobs/*/output/evaluation/{name}.jsonl")
    }
    assert len(rows["base"]) == len(rows["tuned"]) == 100
    assert {"prompt", "expected", "answer"} < set(rows["base"][0])
