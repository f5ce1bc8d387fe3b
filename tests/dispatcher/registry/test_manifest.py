"""What is not exactly what its manifest says, or could harm whoever loads it, does not come in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.registry.manifest import check_output
from tests.factories.outputs import safetensors_bytes, write_manifest
from trainer_image.trainer.errors import FtcloudError


def edit_manifest(output: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    manifest = output / "manifest.json"
    content = json.loads(manifest.read_text())
    change(content["files"])
    manifest.write_text(json.dumps(content))


def add(output: Path, path: str, content: bytes) -> None:
    (output / path).write_bytes(content)
    write_manifest(output)


def test_a_whole_output_gives_a_record_of_every_file(output: Path) -> None:
    records = check_output(output)
    assert [record.path for record in records] == sorted(record.path for record in records)
    assert {record.path for record in records} == {
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd.txt",
        "../x.json",
        "merged/../../x.json",
        "merged//x.json",
        "",
        ".",
        "C:x.json",
        "a\\b.json",
    ],
)
def test_a_path_that_leads_out_is_refused(path: str, output: Path) -> None:
    edit_manifest(output, lambda files: files.append({"path": path, "bytes": 1, "sha256": "0"}))
    with pytest.raises(FtcloudError, match=r"relative path|leads out|of a kind"):
        check_output(output)


@pytest.mark.parametrize(
    "name", ["merged/pytorch_model.bin", "merged/model.pt", "merged/x.py", "merged/x.so", "x"]
)
def test_a_file_that_could_be_code_is_refused(name: str, output: Path) -> None:
    add(output, name, b"x")
    with pytest.raises(FtcloudError, match="of a kind that is not kept"):
        check_output(output)


def test_a_link_is_refused_even_where_it_points_inside(output: Path) -> None:
    (output / "merged" / "more.json").symlink_to(output / "result.json")
    with pytest.raises(FtcloudError, match=r"'more\.json' is a link"):
        check_output(output)


def test_a_linked_folder_is_refused(output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (output / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FtcloudError, match="'more' is a link"):
        check_output(output)


def test_a_pipe_is_refused_before_anyone_reads_it(output: Path) -> None:
    os.mkfifo(output / "pipe.json")
    with pytest.raises(FtcloudError, match="not a plain file"):
        check_output(output)


def test_a_file_that_the_manifest_does_not_list_is_refused(output: Path) -> None:
    (output / "merged" / "extra.json").write_text("{}")
    with pytest.raises(FtcloudError, match=r"'merged/extra\.json' is not in the manifest"):
        check_output(output)


def test_a_missing_file_is_refused(output: Path) -> None:
    (output / "result.json").unlink()
    with pytest.raises(FtcloudError, match=r"'result\.json' is in the manifest but not there"):
        check_output(output)


def test_a_file_of_another_size_or_content_is_refused(output: Path) -> None:
    (output / "result.json").write_text("[]")
    with pytest.raises(FtcloudError, match=r"content of 'result\.json' changed"):
        check_output(output)
    (output / "result.json").write_text("{} ")
    with pytest.raises(FtcloudError, match=r"'result\.json' has 3 bytes instead of 2"):
        check_output(output)


def test_weights_that_are_cut_are_refused_though_their_checksum_fits(output: Path) -> None:
    add(output, "merged/model.safetensors", safetensors_bytes()[:-1])
    with pytest.raises(FtcloudError, match="damaged weights"):
        check_output(output)


def test_an_output_without_weights_is_refused(output: Path) -> None:
    for weights in output.rglob("*.safetensors"):
        weights.unlink()
    write_manifest(output)
    with pytest.raises(FtcloudError, match="it holds no weights"):
        check_output(output)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": [1]}', '{"files": [{"path": "a.json"}]}', "\xff"]
)
def test_a_manifest_that_does_not_parse_is_refused(text: str, output: Path) -> None:
    (output / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FtcloudError, match="its manifest does not parse"):
        check_output(output)


def test_an_output_without_a_manifest_is_refused(output: Path) -> None:
    (output / "manifest.json").unlink()
    with pytest.raises(FtcloudError, match="the trainer did not finish"):
        check_output(output)


def test_a_file_named_twice_is_refused(output: Path) -> None:
    edit_manifest(output, lambda files: files.append(files[0]))
    with pytest.raises(FtcloudError, match="names a file twice"):
        check_output(output)
