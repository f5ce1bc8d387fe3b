"""The built wheel, installed in a clean environment, runs a job: nothing is found only in the checkout.

The trainer's stack is lent by the environment that runs this test, through a line in a `.pth` file: Python
does not read the `.pth` files of a folder that it got from one, so the checkout itself stays invisible.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.factories.tiny_model import CHAT_TEMPLATE, save_tiny_model

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ftcloud", "dispatcher", "providers", "trainer_image", "templates")
RECIPE = """\
name: from-wheel
model: {model}
data: {data}
method: lora
rank: 4
alpha: 8
epochs: 1
micro_batch: 4
grad_accum: 1
seq_len: 128
"""


def output_of(*command: object, cwd: Path) -> str:
    """Standard output; a failure shows all that was printed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel and its base dependencies, beside a lent torch."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    output_of(*pip, "wheel", ROOT, "--no-deps", "--wheel-dir", folder / "dist", cwd=folder)
    output_of(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = (folder / "dist").glob("ftcloud-*.whl")
    output_of(*pip, "--python", python, "install", wheel, cwd=folder)
    site = output_of(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    (Path(site.strip()) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_everything_of_ours_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    program = f"import importlib\nfor n in {PACKAGES}: print(importlib.import_module(n).__path__[0])"
    places = output_of(installed / "python", "-c", program, cwd=tmp_path).splitlines()
    assert len(places) == len(PACKAGES)
    for place in places:
        assert Path(place).is_relative_to(installed.parent), f"{place} is not from the wheel"


def test_a_job_runs_from_the_wheel_and_its_model_loads(installed: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", CHAT_TEMPLATE)
    data = tmp_path / "data"
    data.mkdir()
    for split, rows in (("train", range(16)), ("validation", range(16, 20))):
        lines = [json.dumps({"instruction": f"order {n} lamps", "output": f"lamps {n}"}) for n in rows]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=model, data=data))

    command = (installed / "ftcloud", "launch", "recipe.yaml", "--provider", "local", "--yes", "--json")
    document = json.loads(output_of(*command, cwd=tmp_path))
    assert document["state"] == "succeeded"
    assert document["model_version"] == "from-wheel:1"
    assert document["cost_usd"] == 0.0

    path = output_of(installed / "ftcloud", "models", "path", "from-wheel", cwd=tmp_path).strip()
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(path).num_parameters() > 0
