"""Snapshots as bytes: the file on disk, and the pieces in which one travels.

Nothing is replaced before every piece has come in order and the checksum of the whole is right.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from skep.env import Fatal
from skep.manager.raft.core.codec import SnapshotChunk

_MAGIC = b"SKEPSNP1"
# magic (with the format's version), checksum of all that follows, index, term
_HEADER = struct.Struct("<8sIQQ")
_CHECKED_FROM = 12


class SnapshotCorrupt(Fatal):
    """The snapshot on disk is damaged. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after the entry `index`, which has the given term."""

    index: int
    term: int
    state: bytes = field(repr=False)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The file."""
    header = _HEADER.pack(_MAGIC, 0, snapshot.index, snapshot.term)
    checksum = zlib.crc32(snapshot.state, zlib.crc32(header[_CHECKED_FROM:]))
    header = _HEADER.pack(_MAGIC, checksum, snapshot.index, snapshot.term)
    return header + snapshot.state


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot in a file. Raises SnapshotCorrupt."""
    if len(data) < _HEADER.size:
        raise SnapshotCorrupt(f"the snapshot has only {len(data)} bytes")
    magic, checksum, index, term = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise SnapshotCorrupt("the snapshot file doesn't begin as one of this format")
    if zlib.crc32(memoryview(data)[_CHECKED_FROM:]) != checksum:
        raise SnapshotCorrupt(
            "the snapshot's checksum is wrong: the file is damaged."
            " Remove this manager from the cluster and join it anew."
        )
    return Snapshot(index, term, data[_HEADER.size :])


def chunks(snapshot: Snapshot, leader_term: int, chunk_bytes: int) -> Iterator[SnapshotChunk]:
    """The pieces of a snapshot, in order; an empty state is one empty piece."""
    state, crc = snapshot.state, zlib.crc32(snapshot.state)
    for offset in range(0, max(len(state), 1), chunk_bytes):
        yield SnapshotChunk(
            term=leader_term,
            index=snapshot.index,
            index_term=snapshot.term,
            size=len(state),
            crc=crc,
            offset=offset,
            data=state[offset : offset + chunk_bytes],
        )


@dataclass(slots=True)
class Assembly:
    """Puts one leader's pieces together."""

    limit_bytes: int
    _head: tuple[int, int, int, int, int] | None = None
    _parts: list[bytes] = field(default_factory=list)
    _received: int = 0

    def add(self, sender: int, chunk: SnapshotChunk) -> Snapshot | str | None:
        """The whole snapshot once it is complete and sound; a string says why it never will be."""
        head = (sender, chunk.index, chunk.index_term, chunk.size, chunk.crc)
        if chunk.offset == 0:
            self.clear()
            self._head = head
        if head != self._head or chunk.offset != self._received:
            self.clear()
            return f"a piece at {chunk.offset} that doesn't follow the one before"
        if chunk.size > self.limit_bytes or self._received + len(chunk.data) > chunk.size:
            self.clear()
            return f"{chunk.size} bytes; the limit is {self.limit_bytes}"
        self._parts.append(chunk.data)
        self._received += len(chunk.data)
        if self._received < chunk.size:
            return None
        state = b"".join(self._parts)
        self.clear()
        if zlib.crc32(state) != chunk.crc:
            return "the checksum of the whole is wrong"
        return Snapshot(chunk.index, chunk.index_term, state)

    def clear(self) -> None:
        """Forget what has come."""
        self._head, self._parts, self._received = None, [], 0
