"""Cutting bytes into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skep.worker.engine.core.lines import (
    PIECE_BYTES,
    Line,
    Splitter,
    read_position,
    write_position,
)


@given(
    st.lists(st.sampled_from((b"a", b"bc\n", b"\n", b"", b"d\ne")), max_size=30), st.integers(0, 9)
)
def test_how_bytes_come_does_not_matter(parts: list[bytes], at: int) -> None:
    whole = b"".join(parts)
    splitter = Splitter(at)
    found: list[Line] = []
    for part in parts:
        found += splitter.take(splitter.at, part)
    found += splitter.rest()
    assert found == Splitter(at).take(at, whole) + (
        [Line(at + len(whole), whole.rpartition(b"\n")[2])]
        if not whole.endswith(b"\n") and whole
        else []
    )
    ending = b"\n" if whole.endswith(b"\n") else b""
    assert b"\n".join(line.text for line in found) + ending == whole


def test_a_long_line_comes_in_pieces_and_one_that_just_fits_does_not() -> None:
    fits = b"x" * PIECE_BYTES + b"\n"
    assert [len(line.text) for line in Splitter(0).take(0, fits)] == [PIECE_BYTES]
    splitter = Splitter(0)
    long = b"x" * (2 * PIECE_BYTES + 10)
    assert [line.end for line in splitter.take(0, long)] == [PIECE_BYTES, 2 * PIECE_BYTES]
    assert splitter.take(len(long), b"y\n") == [Line(len(long) + 2, b"x" * 10 + b"y")]


def test_what_waits_is_a_line_when_bytes_after_it_are_lost() -> None:
    splitter = Splitter(0)
    assert splitter.take(0, b"abc") == []
    assert splitter.take(10, b"de\nf") == [Line(3, b"abc"), Line(13, b"de")]
    assert splitter.rest() == [Line(14, b"f")]


def test_positions_are_handed_back_as_they_were() -> None:
    assert read_position(write_position((0, 17))) == (0, 17)
    for text in ("", "1", ".", "1.", "-1.2", "1.2.3", "a.b", "9" * 30 + "." + "9" * 30):
        assert read_position(text) is None
