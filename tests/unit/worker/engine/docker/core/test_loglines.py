"""Frames of a log stream, and lines made of them, from wherever a reader stood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import SECOND_NS
from skep.domain.control import LogStream
from skep.env import Fatal
from skep.worker.engine.core.lines import PIECE_BYTES
from skep.worker.engine.docker.core.frames import CUT_BYTES, Frames, Message, TerminalFrames
from skep.worker.engine.docker.core.loglines import DISORDER_NS, LogLines, Mark
from skep.worker.engine.docker.core.times import parse_time_ns

PART = "x" * CUT_BYTES
OUT, ERR = LogStream.STDOUT, LogStream.STDERR
# 2026-01-01T00:00:00Z
EPOCH_NS = 1_767_225_600 * SECOND_NS


def stamp(ns: int) -> bytes:
    seconds, rest = divmod(ns, SECOND_NS)
    assert seconds < 60
    return f"2026-01-01T00:00:{seconds:02}.{rest:09}Z ".encode()


def said(ns: int, text: str, stream: LogStream = OUT) -> Message:
    return stream, stamp(ns) + text.encode()


def frame(message: Message) -> bytes:
    stream, data = message
    number = 1 if stream is OUT else 2
    return bytes([number, 0, 0, 0]) + len(data).to_bytes(4) + data


# --------------------------------------------------------------------------------------- frames


@given(
    st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=40)), max_size=8),
    st.lists(st.integers(1, 30), max_size=30),
)
def test_frames_come_back_however_they_are_cut(messages: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(frame, messages))
    frames = Frames()
    found: list[Message] = []
    for cut in cuts:
        found += frames.take(data[:cut])
        data = data[cut:]
    assert found + frames.take(data) == messages


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x01\0\0\0\xff\xff\xff\xff"])
def test_what_has_no_frames_is_refused(data: bytes) -> None:
    with pytest.raises(Fatal):
        Frames().take(data)


def test_the_engines_own_frames_are_left_out() -> None:
    assert Frames().take(b"\x03\0\0\0\0\0\0\x01x" + frame((ERR, b"y\n"))) == [(ERR, b"y\n")]


@given(st.lists(st.integers(1, 20_000), max_size=20))
def test_a_terminals_messages_are_found_by_their_ends_and_their_times(cuts: list[int]) -> None:
    messages = [
        stamp(1) + b"short\r\n",
        stamp(2) + b"\r\n",
        # As a driver keeps a line of 33,000 characters.
        stamp(3) + PART.encode(),
        stamp(3) + PART.encode(),
        stamp(4) + b"rest\r\n",
        # As one that leaves out the end of what is left.
        stamp(5) + PART.encode(),
        stamp(5) + b"rest\r",
        stamp(6) + b"2026-01-01T00:00:00Z is a time\r\n",
        stamp(7) + b"last",
    ]
    data = b"".join(messages)
    frames = TerminalFrames()
    found: list[Message] = []
    for cut in cuts:
        found += frames.take(data[:cut])
        data = data[cut:]
    found += frames.take(data) + frames.rest()
    plain = [each.rstrip(b"\r\n") for each in messages]
    assert found == [(OUT, each if each.endswith(b"xxx") else each + b"\n") for each in plain]


# ---------------------------------------------------------------------------------------- lines


def lines_after(mark: Mark, *messages: Message, is_final: bool = True) -> list[str]:
    lines = LogLines(mark)
    lines.read_anew()
    for message in messages:
        lines.take(message)
    lines.finish(is_final=is_final)
    return texts(lines)


def texts(lines: LogLines) -> list[str]:
    found = []
    while lines.ready:
        found.append(lines.pop().text.decode())
    return found


def test_lines_have_their_times_and_streams() -> None:
    lines = LogLines(Mark())
    lines.take(said(5, "one\n"))
    lines.take(said(7, "two\n", ERR))
    found = [lines.pop(), lines.pop()]
    assert [(line.time_ns - EPOCH_NS, line.stream, line.text) for line in found] == [
        (5, OUT, b"one"),
        (7, ERR, b"two"),
    ]
    assert lines.mark == Mark(EPOCH_NS + 7, 1)


def test_the_pieces_of_a_line_become_one_again() -> None:
    messages = [said(1, PART), said(2, "X\n", ERR), said(3, PART), said(4, "c\n")]
    assert lines_after(Mark(), *messages) == ["X", f"{PART}{PART}c"]
    # As a driver that leaves out the end of what was cut.
    messages = [said(1, PART), said(1, "c"), said(2, "d\n")]
    assert lines_after(Mark(), *messages) == [f"{PART}c", "d"]


def test_an_end_completes_what_waits_only_if_nothing_can_follow() -> None:
    assert lines_after(Mark(), said(1, PART)) == [PART]
    assert lines_after(Mark(), said(1, PART), is_final=False) == []


def test_a_line_without_end_comes_in_pieces() -> None:
    lines = LogLines(Mark())
    for number in range(9):
        lines.take(said(number, PART))
    assert [len(text) for text in texts(lines)] == [PIECE_BYTES, PIECE_BYTES]
    lines.take(said(10, "end\n"))
    assert texts(lines) == [f"{PART}end"]
    # As a driver that cuts nothing keeps it.
    huge = "y" * (2 * PIECE_BYTES + 5)
    assert [len(text) for text in lines_after(Mark(), said(1, huge + "\n"))] == [
        PIECE_BYTES,
        PIECE_BYTES,
        5,
    ]


# Two streams are stamped and then queue: 40 was kept before 30, and two have the same time.
KEPT = [
    said(10, "a\n"),
    said(20, "b\n"),
    said(20, "c\n", ERR),
    said(40, "d\n"),
    said(30, "e\n", ERR),
    said(50, "f\n"),
    said(2 * DISORDER_NS, "g\n"),
    said(2 * DISORDER_NS + 1, "h\n"),
]


@pytest.mark.parametrize("read", range(len(KEPT) + 1))
def test_a_reader_goes_on_exactly_where_another_stood(read: int) -> None:
    first = LogLines(Mark())
    for message in KEPT:
        first.take(message)
    before = [first.pop().text for _ in range(read)]
    # The engine sends what is not older than this.
    since = first.mark.since_ns
    sent = [each for each in KEPT if (parse_time_ns(each[1].split()[0].decode()) or 0) >= since]
    after = lines_after(first.mark, *sent)
    assert [text.decode() for text in before] + after == list("abcdefgh")


def test_where_the_last_message_was_rotated_away_all_younger_ones_are_new() -> None:
    mark = Mark(EPOCH_NS + 20, 2)
    assert lines_after(mark, said(15, "old\n"), said(30, "e\n"), said(50, "f\n")) == ["e", "f"]
    # Also in a stream that doesn't end: once nothing can be late any more.
    lines = LogLines(mark)
    lines.read_anew()
    lines.take(said(30, "e\n"))
    assert not lines.ready
    lines.take(said(30 + DISORDER_NS, "f\n"))
    assert texts(lines) == ["e", "f"]


def test_a_mark_before_all_messages_of_its_time() -> None:
    assert lines_after(Mark(EPOCH_NS + 20), *KEPT[:4]) == ["b", "c", "d"]


def test_a_stream_that_begins_anew_repeats_and_loses_nothing() -> None:
    messages = [said(1, PART), said(2, "one\n", ERR), said(3, "half\n"), said(4, "two\n", ERR)]
    lines = LogLines(Mark())
    for message in messages[:2]:
        lines.take(message)
    assert lines.pop().text == b"one"
    lines.finish(is_final=False)
    lines.read_anew()
    for message in messages:
        lines.take(message)
    # The first half was before the mark, and waits for its second one.
    assert texts(lines) == [f"{PART}half", "two"]


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_line(data: bytes) -> None:
    lines = LogLines(Mark())
    lines.take((OUT, data))
    lines.finish(is_final=True)
    while lines.ready:
        lines.pop()
