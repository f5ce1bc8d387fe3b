"""Is a `.safetensors` file whole? Read from its header alone, without torch or the library.

Format: 8 bytes, little-endian length N; N bytes of JSON {name: {dtype, shape, data_offsets [begin, end]}};
then the data, which the offsets cover without hole or overlap
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from trainer_image.trainer.errors import FtcloudError

MAX_HEADER_BYTES = 100_000_000
"""The format's own bound, against a header that fills the memory."""

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


def check_tensors(file: Path) -> None:
    """Raise FtcloudError where the header is not readable or its tensors do not fill the file exactly."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise _broken(file, "its header is cut or not a header")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        spans = sorted(_span(name, entry) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(file, f"its header does not parse: {error}") from error
    position = 0
    for begin, end, name in spans:
        if begin != position or end < begin:
            raise _broken(file, f"the bytes of tensor {name!r} do not follow the one before")
        position = end
    if position != size - 8 - length:
        raise _broken(
            file, f"it holds {size - 8 - length} bytes of tensors where its header names {position}"
        )


def _span(name: str, entry: dict[str, object]) -> tuple[int, int, str]:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise ValueError(f"shape or offsets of {name!r} are not lists")
    if not all(type(number) is int and number >= 0 for number in [*shape, *offsets]):
        raise ValueError(f"shape or offsets of {name!r} are not whole numbers")
    begin, end = offsets
    item_bytes = ITEM_BYTES.get(str(dtype))  # a dtype younger than this table is taken at its word
    if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
        raise ValueError(f"{name!r} is {dtype} {shape} in {end - begin} bytes")
    return begin, end, name


def _broken(file: Path, why: str) -> FtcloudError:
    return FtcloudError(
        f"damaged weights: {why}", where=str(file), fix="fetch the job's files again: ftcloud pull"
    )
