"""Which providers there are: the entry points of the group `ftcloud.providers`.

A provider's class is called with the folder that it may keep things in. One that cannot be imported
is a named warning and never takes the others down.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from pathlib import Path

from providers.protocol import Provider
from trainer_image.trainer.errors import FtcloudError, UsageError

GROUP = "ftcloud.providers"


def provider_names() -> list[str]:
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_provider(name: str, home: Path) -> Provider:
    """The provider called `name`, keeping what it keeps in `home/NAME`."""
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            try:
                provider: Provider = entry.load()(home / name)
            except Exception as error:
                raise FtcloudError(
                    f"the provider's plug-in is broken: {error}",
                    where=f"{name} ({entry.value})",
                    fix="reinstall or remove the package that brings it",
                ) from error
            return provider
    near = difflib.get_close_matches(name, provider_names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown provider {name!r}", fix=f"{hint}there are: {', '.join(provider_names())}")
