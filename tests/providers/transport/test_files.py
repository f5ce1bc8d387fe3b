"""Folders come whole or not at all, also when they go while they are copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from providers.transport import files
from providers.transport.files import link_tree, mirror_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two whole folders of three files, and one that is being written."""
    folder = tmp_path / "source"
    for name in ("step-1", "step-2", ".writing-step-3"):
        (folder / name).mkdir(parents=True)
        for file in ("a", "b", "c"):
            (folder / name / file).write_text(name)
    return folder


def contents(folder: Path) -> dict[str, list[str]]:
    return {entry.name: sorted(file.name for file in entry.iterdir()) for entry in sorted(folder.iterdir())}


WHOLE = ["a", "b", "c"]


def test_a_folder_that_goes_before_its_files_are_listed_is_passed_over(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(folder: Path, aside: Path) -> None:
        if folder.name == "step-1":
            folder.rename(source / ".pruned")
        link_tree(folder, aside)

    monkeypatch.setattr(files, "link_tree", too_late)
    mirror_tree(source, tmp_path / "kept")
    assert contents(tmp_path / "kept") == {"step-2": WHOLE}


@pytest.mark.parametrize("linked", [0, 1, 2])
def test_a_folder_that_goes_while_its_files_are_copied_is_passed_over(
    linked: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.hardlink_to, []

    def pruned_meanwhile(self: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == linked + 1:
            target.parent.rename(source / ".pruned")
            shutil.rmtree(source / ".pruned")
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", pruned_meanwhile)
    mirror_tree(source, tmp_path / "kept")
    (left,) = contents(tmp_path / "kept").values()
    assert left == WHOLE


def test_killed_at_any_file_there_are_whole_folders_and_the_old_ones_are_still_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    (kept / "step-0").mkdir(parents=True)
    real = Path.hardlink_to
    for count in range(6):
        calls: list[Path] = []

        def killed(self: Path, target: Path, calls: list[Path] = calls, count: int = count) -> None:
            calls.append(target)
            if len(calls) > count:
                raise KeyboardInterrupt
            real(self, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "hardlink_to", killed)
            mirror_tree(source, kept)
        found = {name: inside for name, inside in contents(kept).items() if not name.startswith(".")}
        assert found.pop("step-0") == []
        assert all(inside == WHOLE for inside in found.values())
        shutil.rmtree(kept / "step-1", ignore_errors=True)
        shutil.rmtree(kept / "step-2", ignore_errors=True)
    mirror_tree(source, kept)
    assert contents(kept) == {"step-1": WHOLE, "step-2": WHOLE}


def test_an_empty_source_takes_nothing_away(tmp_path: Path) -> None:
    """A machine that has not begun to write checkpoints says nothing about those that are kept."""
    (tmp_path / "source").mkdir()
    (tmp_path / "kept" / "step-1").mkdir(parents=True)
    mirror_tree(tmp_path / "source", tmp_path / "kept")
    assert contents(tmp_path / "kept") == {"step-1": []}
