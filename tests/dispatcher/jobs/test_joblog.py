"""The log on this side: no byte lost, none repeated, however it is cut into pieces."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.jobs.joblog import Follower, append_from, progress_since

LINES = st.lists(st.sampled_from(['{"ftcloud": "train", "step": 1}', "text", "", "é" * 40]), max_size=20)


@given(data=st.binary(max_size=400), sizes=st.lists(st.integers(1, 50), min_size=1))
def test_however_it_arrives_the_log_equals_what_was_written(data: bytes, sizes: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "logs" / "1.txt"
        for end in [*sizes, len(data)]:  # the remote file grows, the connection drops, again and again
            append_from(log, lambda offset, limit, end=end: data[offset : min(end, offset + limit)])  # type: ignore[misc]
        assert log.read_bytes() == data


@given(lines=LINES, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_progress_is_read_once_however_the_log_is_cut(lines: list[str], cuts: list[int]) -> None:
    import tempfile

    data = "".join(line + "\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as folder:
        log, parsed, found = Path(folder) / "1.txt", 0, 0
        for cut in [*sorted(cuts), len(data)]:
            log.write_bytes(data[:cut])
            progress, parsed = progress_since(log, parsed)
            found += len(progress)
        assert found == sum(line.startswith("{") for line in lines)


def test_a_follower_goes_through_the_attempts_in_order_and_waits_for_whole_lines(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    (tmp_path / "10.txt").write_text("third\n")
    (tmp_path / "2.txt").write_text("first\nsec")
    assert list(follower.lines()) == ["first", "third"]
    with (tmp_path / "2.txt").open("a") as log:
        log.write("ond\n")
    assert list(follower.lines()) == ["second"]
    assert list(follower.lines()) == []


def test_a_flood_in_one_line_is_cut_and_the_next_line_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(b"x" * 1_000_000 + b"\nnext\n")
    flood, after = Follower(tmp_path).lines()
    assert (len(flood), after) == (64 << 10, "next")
