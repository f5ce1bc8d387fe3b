"""The trainer, killed between writing and renaming a checkpoint.

    python -m tests.prove.dying_trainer STEP WORKDIR

The first checkpoint of step STEP or later is written and flushed; in the moment in which it would be
renamed into its place, the process kills itself by SIGKILL. An audit hook sees that moment, so the
trainer's code is what everybody runs.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys


def main() -> None:
    first_step = int(sys.argv.pop(1))

    def die(event: str, args: tuple[object, ...]) -> None:
        if event == "os.rename":
            aside = re.search(r"/checkpoints/\.writing-step-(\d+)$", str(args[0]))
            if aside and int(aside[1]) >= first_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    runpy.run_module("trainer_image.trainer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
