"""The frames that managers send each other: typed, versioned, bounded. Never pickle.

Structs are encoded as maps by field name, so that a field can be added with a default and an older
reader skips it. Whatever can't be decoded is refused whole, and the link with it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from skep.env import Rejected

VERSION = 1
OLDEST_VERSION = 1

# An append carries up to 2 MiB of commands plus the one that crosses that line (1.5 MiB).
FRAME_LIMIT_BYTES = 4 * 1024 * 1024
# Bounds what the field names of many tiny entries can add to a frame.
ENTRIES_LIMIT = 4096

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class FrameInvalid(Rejected):
    """A peer sent something that is not a frame of ours."""


class Frame(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=False):
    """Base of all frames."""


class Hello(Frame, frozen=True, tag="hello"):
    """First on every link, both ways: who speaks, and for which cluster."""

    version: Number
    cluster: str
    raft_id: Number


class Refused(Frame, frozen=True, tag="refused"):
    """The answer to a wrong hello, for the other side's log."""

    why: str


class Ping(Frame, frozen=True, tag="ping"):
    """Nothing to say, but alive."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of an append; its index follows from its place."""

    term: Number
    command: bytes


class Append(Frame, frozen=True, tag="append"):
    """AppendEntries: `entries` follow the entry (prev_index, prev_term)."""

    term: Number
    commit: Number
    prev_index: Number
    prev_term: Number
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_LIMIT)]


class Heartbeat(Frame, frozen=True, tag="heartbeat"):
    """The leader lives; says nothing about the log (its follower is waiting for a snapshot)."""

    term: Number


class AppendAnswer(Frame, frozen=True, tag="append_answer"):
    """Answer to Append and Heartbeat.

    `matched`: everything before `next_index` is here and durable, as the leader of `term` has it.
    `reset`: go on from `next_index`. Neither: only a sign of life.
    """

    term: Number
    next_index: Number
    matched: bool
    reset: bool


class VoteRequest(Frame, frozen=True, tag="vote_request"):
    """RequestVote; with `pre`, only the question whether one would be granted."""

    term: Number
    last_index: Number
    last_term: Number
    pre: bool


class VoteAnswer(Frame, frozen=True, tag="vote_answer"):
    """The vote is given. There is no answer that denies one."""

    term: Number
    pre: bool


class HigherTerm(Frame, frozen=True, tag="higher_term"):
    """Whatever you asked was of a term that is over."""

    term: Number


class TimeoutNow(Frame, frozen=True, tag="timeout_now"):
    """The leader is leaving: take over without waiting."""

    term: Number


class ReadProbe(Frame, frozen=True, tag="read_probe"):
    """ReadIndex: am I still the leader of `term`?"""

    term: Number
    round: Number


class ReadAnswer(Frame, frozen=True, tag="read_answer"):
    """ReadIndex: yes, as far as I know."""

    term: Number
    round: Number


class SnapshotChunk(Frame, frozen=True, tag="snapshot_chunk"):
    """A piece of the snapshot (index, index_term), which has `size` bytes with checksum `crc`."""

    term: Number
    index: Number
    index_term: Number
    size: Number
    crc: Number
    offset: Number
    data: bytes


class SnapshotAnswer(Frame, frozen=True, tag="snapshot_answer"):
    """`installed`: everything up to `index` is here and durable. Else: start over."""

    term: Number
    index: Number
    installed: bool


AnyFrame = (
    Hello
    | Refused
    | Ping
    | Append
    | Heartbeat
    | AppendAnswer
    | VoteRequest
    | VoteAnswer
    | HigherTerm
    | TimeoutNow
    | ReadProbe
    | ReadAnswer
    | SnapshotChunk
    | SnapshotAnswer
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyFrame)


def encode(frame: AnyFrame) -> bytes:
    """The bytes of a frame."""
    data = _encoder.encode(frame)
    assert len(data) <= FRAME_LIMIT_BYTES, f"{type(frame).__name__} of {len(data)} bytes"
    return data


def decode(data: bytes) -> AnyFrame:
    """The frame of some bytes. Raises FrameInvalid."""
    if len(data) > FRAME_LIMIT_BYTES:
        raise FrameInvalid(f"a frame of {len(data)} bytes; the limit is {FRAME_LIMIT_BYTES}")
    try:
        frame: AnyFrame = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FrameInvalid(f"not a frame: {error}") from error
    return frame


def check_hello(frame: AnyFrame, cluster: str, expected: frozenset[int]) -> int:
    """The raft id of a peer that may speak. Raises FrameInvalid with the reason why it may not."""
    if isinstance(frame, Refused):
        raise FrameInvalid(f"the other side refused: {frame.why}")
    if not isinstance(frame, Hello):
        raise FrameInvalid(f"expected a hello, got {type(frame).__name__}")
    if not OLDEST_VERSION <= frame.version <= VERSION:
        raise FrameInvalid(f"speaks version {frame.version} of the Raft protocol, not {VERSION}")
    if frame.cluster != cluster:
        raise FrameInvalid(f"belongs to cluster {frame.cluster!r}, not {cluster!r}")
    if frame.raft_id not in expected:
        raise FrameInvalid(f"raft id {frame.raft_id} is not expected here")
    return frame.raft_id
