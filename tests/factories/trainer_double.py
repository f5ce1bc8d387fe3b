"""A trainer that does what a script says, for tests of what carries it: real processes, no torch.

The script is the `script` list of spec.json, one verb a step:

    say TEXT            print a line
    make PATH           write an empty file in the work directory
    wait PATH           wait until a file of the work directory exists
    stubborn            ignore SIGTERM from now on
    exit CODE           end; without it the double ends with 0
    kill SIGNAL         end by a signal to itself
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer_image.trainer import warden

MAIN = """
import json, os, signal, sys, time
from pathlib import Path

workdir = Path(sys.argv[1])
script = json.loads((workdir / "spec.json").read_text())["script"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
for verb, *words in script:
    if verb == "say":
        print(words[0], flush=True)
    elif verb == "make":
        (workdir / words[0]).parent.mkdir(parents=True, exist_ok=True)
        (workdir / words[0]).touch()
    elif verb == "wait":
        while not (workdir / words[0]).exists():
            time.sleep(0.01)
    elif verb == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif verb == "exit":
        sys.exit(words[0])
    elif verb == "kill":
        os.kill(os.getpid(), words[0])
"""


def make_trainer_double(folder: Path) -> Path:
    """A package `trainer_image` with the real warden and a scripted trainer."""
    package = folder / "trainer_image"
    (package / "trainer").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "trainer" / "__init__.py").touch()
    shutil.copy(warden.__file__, package / "trainer" / "warden.py")
    (package / "trainer" / "__main__.py").write_text(MAIN, encoding="utf-8")
    return package


def script(*steps: Sequence[object]) -> str:
    """The text of a spec.json for the double."""
    return json.dumps({"script": steps})
