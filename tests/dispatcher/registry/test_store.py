"""Registering, finding, naming and removing model versions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from dispatcher.registry.store import ModelRegistry
from dispatcher.storage.home import Home
from tests.factories.outputs import make_candidate, make_output
from trainer_image.trainer.errors import FtcloudError, UsageError


def test_a_registered_model_keeps_its_lineage_and_its_files(registry: ModelRegistry, output: Path) -> None:
    candidate = make_candidate()
    made = registry.register(candidate, output)
    found = registry.find("orders:1")
    assert found == made
    for field in (
        "job",
        "attempt",
        "base_model",
        "method",
        "data_fingerprint",
        "metrics",
        "environment",
        "cost_usd",
    ):
        assert getattr(found, field) == getattr(candidate, field)
    assert found.recipe == candidate.recipe
    assert {file.path for file in found.files} >= {"merged/model.safetensors", "evaluation/tuned.jsonl"}
    assert registry.path("orders") == found.folder / "merged"
    assert yaml.safe_load((found.folder / "recipe.yaml").read_text()) == candidate.recipe
    assert registry.damage(found) == []


def test_the_jobs_own_folder_stays_whole_and_the_weights_are_on_disk_once(
    registry: ModelRegistry, output: Path
) -> None:
    before = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    made = registry.register(make_candidate(), output)
    assert {
        path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()
    } == before
    assert (output / "merged/model.safetensors").samefile(made.folder / "merged/model.safetensors")


def test_a_repeated_registration_finds_the_first(registry: ModelRegistry, output: Path) -> None:
    first = registry.register(make_candidate(), output)
    shutil.rmtree(output)  # a repeated call needs nothing of it
    assert registry.register(make_candidate(), output) == first
    assert len(registry.versions()) == 1


def test_files_that_are_not_what_their_manifest_says_do_not_become_a_version(
    registry: ModelRegistry, home: Home, output: Path
) -> None:
    (output / "result.json").write_text("[]")
    with pytest.raises(FtcloudError, match=r"content of 'result\.json' changed"):
        registry.register(make_candidate(), output)
    assert registry.versions() == []
    assert [entry.name for entry in home.models.iterdir()] == [".lock"]


def test_a_version_is_flushed_before_it_appears_and_its_name_after(
    registry: ModelRegistry, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("flush"), real_sync(handle))[1])
    monkeypatch.setattr(Path, "rename", lambda a, b: (events.append("rename"), real_rename(a, b))[1])
    registry.register(make_candidate(), output)
    # Its four folders; then the folder of its name, and the one above that.
    assert events == ["flush"] * 4 + ["rename"] + ["flush"] * 2


def test_each_attempt_that_ended_well_is_the_next_version_of_its_name(
    registry: ModelRegistry, output: Path
) -> None:
    numbers = [registry.register(make_candidate(job=f"job-{n}"), output).version for n in range(3)]
    other = registry.register(make_candidate(name="other", job="job-9"), output)
    assert numbers == [1, 2, 3]
    assert other.version == 1
    assert registry.find("orders").version == 3
    assert registry.find("orders@latest").version == 3


def test_files_deleted_by_hand_are_brought_again_by_the_same_registration(
    registry: ModelRegistry, output: Path
) -> None:
    made = registry.register(make_candidate(), output)
    (made.folder / "manifest.json").unlink()
    with pytest.raises(FtcloudError, match="the files of orders:1 are not there"):
        registry.path("orders:1")
    assert registry.register(make_candidate(), output) == made
    assert registry.damage(made) == []


def test_an_interrupted_registration_is_not_ended_with_other_files(
    registry: ModelRegistry, output: Path, tmp_path: Path
) -> None:
    made = registry.register(make_candidate(), output)
    shutil.rmtree(made.folder)
    with pytest.raises(FtcloudError, match="not those that orders:1 was made of"):
        registry.register(make_candidate(), make_output(tmp_path / "changed", merged=False))


def test_a_number_is_not_given_again_after_a_removal(registry: ModelRegistry, output: Path) -> None:
    registry.register(make_candidate(job="job-1"), output)
    removed = registry.remove(registry.register(make_candidate(job="job-2"), output).reference)
    assert not removed.folder.exists()
    assert [version.version for version in registry.versions()] == [1]
    assert registry.register(make_candidate(job="job-3"), output).version == 3


def test_a_registration_repeated_after_the_removal_brings_nothing_back(
    registry: ModelRegistry, output: Path
) -> None:
    folder = registry.register(make_candidate(), output).folder
    registry.remove("orders:1")
    assert registry.register(make_candidate(), output).removed_at is not None
    assert registry.versions() == []
    assert not folder.exists()
    with pytest.raises(UsageError, match="there is no model 'orders'"):
        registry.find("orders:1")


def test_a_number_that_only_a_folder_has_is_not_given_to_another_model(
    registry: ModelRegistry, home: Home, output: Path
) -> None:
    (home.models / "orders" / "7").mkdir(parents=True)  # a database restored from an older backup
    assert registry.register(make_candidate(), output).version == 8


def test_an_alias_moves_from_version_to_version(registry: ModelRegistry, output: Path) -> None:
    for n in range(2):
        registry.register(make_candidate(job=f"job-{n}"), output)
    registry.set_alias("orders:1", "production")
    registry.set_alias("orders:1", "production")
    assert registry.find("orders@production").version == 1
    moved = registry.set_alias("orders:2", "production")
    assert moved.aliases == ("production",)
    assert registry.find("orders:1").aliases == ()
    assert registry.remove_alias("orders", "production").aliases == ()
    with pytest.raises(UsageError, match="no alias 'production'"):
        registry.find("orders@production")


@pytest.mark.parametrize("alias", ["latest", "3", "Prod", "a b", "", "../x"])
def test_an_alias_that_would_be_read_as_something_else_is_refused(
    alias: str, registry: ModelRegistry, output: Path
) -> None:
    registry.register(make_candidate(), output)
    with pytest.raises(UsageError):
        registry.set_alias("orders:1", alias)


def test_a_version_with_an_alias_is_removed_only_by_force(registry: ModelRegistry, output: Path) -> None:
    registry.register(make_candidate(), output)
    registry.set_alias("orders", "production")
    with pytest.raises(UsageError, match="orders:1 is @production"):
        registry.remove("orders:1")
    assert registry.find("orders@production").folder.exists()
    registry.remove("orders:1", force=True)
    assert registry.versions() == []


def test_damage_names_each_file_that_is_not_as_it_was_registered(
    registry: ModelRegistry, output: Path
) -> None:
    made = registry.register(make_candidate(), output)
    (made.folder / "merged/config.json").unlink()
    (made.folder / "extra.txt").write_text("x")
    weights = made.folder / "merged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    assert registry.damage(made) == [
        "'merged/config.json' is missing",
        "'extra.txt' was added",
        "the content of 'merged/model.safetensors' changed (SHA-256)",
    ]


def test_a_version_without_a_merged_model_says_so(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.register(make_candidate(), make_output(tmp_path / "output", merged=False))
    with pytest.raises(FtcloudError, match="orders:1 has no merged model"):
        registry.path("orders")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("order", "there is no model 'order'\n  fix: did you mean orders?"),
        ("orders:2", "'orders' has no version 2\n  fix: there is 1"),
        ("orders@prod", "'orders' has no alias 'prod'\n  fix: did you mean production?"),
    ],
)
def test_an_unknown_reference_is_answered_with_the_nearest(
    reference: str, message: str, registry: ModelRegistry, output: Path
) -> None:
    registry.register(make_candidate(), output)
    registry.set_alias("orders:1", "production")
    with pytest.raises(UsageError) as caught:
        registry.find(reference)
    assert str(caught.value) == message


def test_a_folder_that_cannot_be_made_is_one_message_and_the_next_call_goes_on(
    registry: ModelRegistry, home: Home, output: Path
) -> None:
    home.models.mkdir()
    (home.models / "orders").write_text("in the way")
    with pytest.raises(
        FtcloudError, match=r"could not be put into the registry: (File exists|Not a directory)"
    ):
        registry.register(make_candidate(), output)
    (home.models / "orders").unlink()
    assert registry.register(make_candidate(), output).version == 1
