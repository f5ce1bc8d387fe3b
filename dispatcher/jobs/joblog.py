"""The log of a job on this side: bytes as they arrive, and the progress lines among them.

A file's size is the cursor: what is in it has arrived, what is not will be asked for. So a crash at
any point neither loses a line nor repeats one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainer_image.trainer.progress import Progress, parse

CHUNK_BYTES = 1 << 20
LINE_BYTES = 64 << 10
"""A longer line is cut where it is shown."""


def append_from(path: Path, fetch: Callable[[int, int], bytes]) -> None:
    """Append to `path` all that `fetch(offset, limit)` has beyond its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        while chunk := fetch(log.tell(), CHUNK_BYTES):
            log.write(chunk)
            log.flush()


def progress_since(path: Path, parsed: int) -> tuple[list[Progress], int]:
    """The progress lines after byte `parsed`, and the byte after the last whole line."""
    try:
        with path.open("rb") as log:
            log.seek(parsed)
            data = log.read()
    except FileNotFoundError:
        return [], parsed
    whole = data[: data.rfind(b"\n") + 1]
    found = (parse(line.decode("utf-8", errors="replace")) for line in whole.splitlines())
    return [progress for progress in found if progress is not None], parsed + len(whole)


@dataclass(slots=True)
class Follower:
    """Yields the lines that have been added to the logs of a job since the last call."""

    folder: Path
    """Holds 1.txt, 2.txt … one an attempt."""
    _offsets: dict[str, int] = field(default_factory=dict)

    def lines(self, *, to_the_end: bool = False) -> Iterator[str]:
        """New whole lines, oldest attempt first; with `to_the_end` also a last line without its newline."""
        for path in sorted(self.folder.glob("*.txt"), key=lambda path: int(path.stem)):
            offset = self._offsets.get(path.name, 0)
            with path.open("rb") as log:
                log.seek(offset)
                for line in log:
                    if not line.endswith(b"\n") and not to_the_end:
                        break
                    offset += len(line)
                    yield line[:LINE_BYTES].decode("utf-8", errors="replace").rstrip("\r\n")
            self._offsets[path.name] = offset

    def skip(self) -> None:
        """Go to the end of what is there."""
        for path in self.folder.glob("*.txt"):
            self._offsets[path.name] = path.stat().st_size
