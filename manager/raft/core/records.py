"""The journal's format: checksummed records, and what a crash may have done to the last of them.

A record is a header and a body. The header holds where its batch began: the journal writes a
batch only after the one before is durable, so a damaged record that is followed by a sound one of
a later batch was durable once, and damage to it is corruption, never accepted. Damage within the
last batch is what a crash leaves of an unfinished write, and is cut off: nothing was promised.
The checksum covers the place in the file too, so that a record copied into another's data
(a manager's journal stored as a config, say) is not taken for one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from skep.env import Fatal
from skep.manager.raft.core.log import Log, LogEntry

FORMAT = 1
OLDEST_FORMAT = 1

_MAGIC = b"\xf5SKj"
# magic, checksum of all that follows and of the record's place, length of the body, batch start
_HEADER = struct.Struct("<4sIIQ")
_CHECKED = struct.Struct("<QIQ")
# A command of 1.5 MiB and its names; a longer length is damage.
_BODY_LIMIT_BYTES = 8 * 1024 * 1024


class JournalCorrupt(Fatal):
    """The journal is damaged where it was durable, or is not this node's. Nothing was changed."""


class Record(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of all records."""


class Opened(Record, frozen=True, tag="opened"):
    """First in every journal: its format and whose it is."""

    format: int
    cluster: str
    raft_id: int


class HardState(Record, frozen=True, tag="hard_state"):
    """The term, and whom this node voted for in it."""

    term: int
    voted_for: int | None


class Appended(Record, frozen=True, tag="appended"):
    """The next entry."""

    index: int
    term: int
    command: bytes


class Truncated(Record, frozen=True, tag="truncated"):
    """The entry at `index` and all after it are gone."""

    index: int


class Reset(Record, frozen=True, tag="reset"):
    """All entries are gone; the log goes on behind (index, term), which a snapshot holds."""

    index: int
    term: int


AnyRecord = Opened | HardState | Appended | Truncated | Reset

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyRecord)


def encode_body(record: AnyRecord) -> bytes:
    """A record's body; its header is known only when it is written."""
    return _encoder.encode(record)


def encode_batch(bodies: Iterable[bytes], start: int) -> bytes:
    """One batch, to be written at offset `start` of the file."""
    parts: list[bytes] = []
    offset = start
    for body in bodies:
        assert len(body) <= _BODY_LIMIT_BYTES, len(body)
        parts.append(_HEADER.pack(_MAGIC, _checksum(offset, body, start), len(body), start))
        parts.append(body)
        offset += _HEADER.size + len(body)
    return b"".join(parts)


def snapshot_of(log: Log, opened: Opened, term: int, voted_for: int | None) -> bytes:
    """A whole new journal that says what a long one says.

    It is replaced as a whole, so no crash leaves a part of it. The last record is a batch of its
    own, for then damage to any other is known to be corruption.
    """
    records: list[AnyRecord] = [opened, Reset(log.first_index, log.first_term)]
    records += [Appended(e.index, e.term, e.command) for e in log.entries[1:]]
    whole = encode_batch(map(encode_body, records), 0)
    return whole + encode_batch([encode_body(HardState(term, voted_for))], len(whole))


@dataclass(slots=True)
class Replayed:
    """What a journal says. Bytes from `size` on are an unfinished write, to be cut off."""

    log: Log
    term: int
    voted_for: int | None
    size: int
    opened: Opened | None


def replay(data: bytes) -> Replayed:
    """Read a whole journal. Raises JournalCorrupt."""
    result = Replayed(Log(), 0, None, 0, None)
    while result.size < len(data):
        found = _record_at(data, result.size)
        if found is None:
            _check_only_last_batch_damaged(data, result.size)
            break
        body, _, end = found
        try:
            _apply(result, _decoder.decode(body))
        except (msgspec.DecodeError, AssertionError) as error:
            raise JournalCorrupt(
                f"the journal's record at byte {result.size} makes no sense: {error}"
            ) from error
        result.size = end
    return result


def check_owner(opened: Opened | None, cluster: str, raft_id: int) -> None:
    """Refuse another node's journal, or one of a newer program. Raises JournalCorrupt."""
    if opened is None:
        return
    if not OLDEST_FORMAT <= opened.format <= FORMAT:
        raise JournalCorrupt(f"the journal has format {opened.format}; this program reads {FORMAT}")
    if (opened.cluster, opened.raft_id) != (cluster, raft_id):
        raise JournalCorrupt(
            f"the journal belongs to node {opened.raft_id} of cluster {opened.cluster!r},"
            f" not to node {raft_id} of cluster {cluster!r}"
        )


def _checksum(offset: int, body: bytes, start: int) -> int:
    return zlib.crc32(body, zlib.crc32(_CHECKED.pack(offset, len(body), start)))


def _record_at(data: bytes, offset: int) -> tuple[bytes, int, int] | None:
    """Body, start of the batch and end of the record at `offset`, or None where none is sound."""
    if offset + _HEADER.size > len(data):
        return None
    magic, checksum, length, start = _HEADER.unpack_from(data, offset)
    end = offset + _HEADER.size + length
    if magic != _MAGIC or length > _BODY_LIMIT_BYTES or end > len(data):
        return None
    body = data[offset + _HEADER.size : end]
    return (body, start, end) if _checksum(offset, body, start) == checksum else None


def _check_only_last_batch_damaged(data: bytes, damaged: int) -> None:
    """Raise JournalCorrupt if a sound record follows whose batch began after the damage."""
    offset = data.find(_MAGIC, damaged + 1)
    while offset >= 0:
        found = _record_at(data, offset)
        if found is not None and found[1] > damaged:
            raise JournalCorrupt(
                f"the journal is damaged at byte {damaged}, and sound again at byte {offset}: this"
                " is not the trace of a crash, so entries that others rely on may be missing."
                " Remove this manager from the cluster and join it anew."
            )
        offset = data.find(_MAGIC, offset + 1)


def _apply(result: Replayed, record: AnyRecord) -> None:
    match record:
        case Opened():
            assert result.opened is None, "a second beginning"
            result.opened = record
        case HardState(term, voted_for):
            assert term >= result.term, f"term {term} after {result.term}"
            result.term, result.voted_for = term, voted_for
        case Appended(index, term, command):
            result.log.add(LogEntry(command, index, term))
        case Truncated(index):
            result.log.truncate(index)
        case Reset(index, term):
            result.log.reset(index, term)
    assert result.opened is not None, "no beginning"
