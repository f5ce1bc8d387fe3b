"""Reading a safetensors header without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.registry.tensors import check_tensors
from tests.factories.outputs import safetensors_bytes
from trainer_image.trainer.errors import FtcloudError


def file_of(header: object, data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin], "data_offsets": [begin, end]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(sizes=st.lists(st.integers(0, 40), max_size=6), data=st.data())
def test_tensors_that_cover_the_file_pass_and_any_cut_or_addition_fails(
    sizes: list[int], data: st.DataObject, tmp_path: Path
) -> None:
    header, position = {}, 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = entry(position, position + size)
        position += size
    whole = file_of(dict(data.draw(st.permutations(list(header.items())))), bytes(position))
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole)
    check_tensors(file)
    for other in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        file.write_bytes(other)
        with pytest.raises(FtcloudError, match="damaged weights"):
            check_tensors(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        (1 << 62).to_bytes(8, "little"),
        file_of([], b""),
        file_of({"t": 1}, b""),
        file_of({"t": {"dtype": "U8", "shape": [1]}}, b"\0"),
        file_of({"t": entry(0, 4), "u": entry(2, 6)}, bytes(6)),
        file_of({"t": entry(1, 4)}, bytes(4)),
        file_of({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        file_of({"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, b""),
        file_of({"t": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}, bytes(16)),
        (10).to_bytes(8, "little") + b"\xff" * 10,
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_what_is_no_whole_file_is_named_with_its_place(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(FtcloudError, match="damaged weights") as caught:
        check_tensors(file)
    assert caught.value.where == str(file)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors_bytes())
    check_tensors(file)
