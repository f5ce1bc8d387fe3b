"""`python -m trainer_image.trainer WORKDIR`: train what WORKDIR/spec.json says, or go on with it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Read once, when torch and tokenizers are loaded, so they stand before every import that may load them.
# Waiting threads sleep instead of spinning: beside other work on the machine that is several times faster.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}


def main() -> int:
    """Returns the exit code, see `errors.ExitCode`."""
    parser = argparse.ArgumentParser(prog="python -m trainer_image.trainer", description=__doc__)
    parser.add_argument("workdir", type=Path, help="holds spec.json and data/; output/ is written into it")
    workdir = parser.parse_args().workdir
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    from trainer_image.trainer.run import run

    return int(run(workdir))


if __name__ == "__main__":
    sys.exit(main())
