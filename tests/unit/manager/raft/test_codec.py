"""Frames: what goes out comes in, and nothing else does."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from skep.manager.raft.core import codec

FRAMES: tuple[codec.AnyFrame, ...] = (
    codec.Hello(1, "c", 2**62),
    codec.Refused("why"),
    codec.Ping(),
    codec.Append(3, 2, 1, 0, (codec.Entry(1, b"x"), codec.Entry(3, b""))),
    codec.Heartbeat(3),
    codec.AppendAnswer(3, 9, matched=True, reset=False),
    codec.VoteRequest(3, 2, 1, pre=True),
    codec.VoteAnswer(3, pre=False),
    codec.HigherTerm(4),
    codec.TimeoutNow(4),
    codec.ReadProbe(4, 1),
    codec.ReadAnswer(4, 1),
    codec.SnapshotChunk(4, 9, 3, 5, 77, 0, b"hello"),
    codec.SnapshotAnswer(4, 9, installed=True),
)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_every_frame_comes_back(frame: codec.AnyFrame) -> None:
    assert codec.decode(codec.encode(frame)) == frame


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_every_truncation_is_refused(frame: codec.AnyFrame) -> None:
    data = codec.encode(frame)
    for size in range(len(data)):
        with pytest.raises(codec.FrameInvalid):
            codec.decode(data[:size])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 5_000,
        pickle.dumps({"kind": "ping"}),
        msgspec.msgpack.encode({"kind": "no such"}),
        msgspec.msgpack.encode({"kind": "heartbeat", "term": -1}),
        msgspec.msgpack.encode({"kind": "heartbeat", "term": 2**63}),
        msgspec.msgpack.encode({"kind": "heartbeat", "term": "1"}),
        msgspec.msgpack.encode({"kind": "heartbeat"}),
        codec.encode(codec.Ping()) + b"x",
    ],
    ids=range(10),
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(codec.FrameInvalid):
        codec.decode(data)


def test_a_newer_peer_may_add_fields() -> None:
    data = msgspec.msgpack.encode({"kind": "heartbeat", "term": 3, "mood": "good"})
    assert codec.decode(data) == codec.Heartbeat(3)


def test_sizes_are_bounded() -> None:
    with pytest.raises(codec.FrameInvalid, match="the limit is"):
        codec.decode(bytes(codec.FRAME_LIMIT_BYTES + 1))
    entries = [{"term": 1, "command": b""}] * (codec.ENTRIES_LIMIT + 1)
    with pytest.raises(codec.FrameInvalid):
        codec.decode(
            msgspec.msgpack.encode(
                {
                    "kind": "append",
                    "term": 1,
                    "commit": 1,
                    "prev_index": 1,
                    "prev_term": 1,
                    "entries": entries,
                }
            )
        )


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (codec.Hello(1, "other", 7), "belongs to cluster 'other'"),
        (codec.Hello(1, "c", 8), "raft id 8 is not expected"),
        (codec.Hello(2, "c", 7), "speaks version 2"),
        (codec.Hello(0, "c", 7), "speaks version 0"),
        (codec.Ping(), "expected a hello"),
        (codec.Refused("go away"), "go away"),
    ],
)
def test_a_wrong_hello_is_refused_with_the_reason(frame: codec.AnyFrame, why: str) -> None:
    with pytest.raises(codec.FrameInvalid, match=why):
        codec.check_hello(frame, "c", frozenset({7}))


def test_a_right_hello_names_the_peer() -> None:
    assert codec.check_hello(codec.Hello(1, "c", 7), "c", frozenset({7, 8})) == 7
