"""Commands and snapshots: the bytes that Raft carries, and what they do to the tables.

A command is a list of whole objects to write and of ids to remove, with the wall time at which
the leader proposed it. Applying is deterministic and can't fail: whoever built the command has
checked it. Every object written gets the commit index as its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from skep.domain.base import SECOND_NS, Struct
from skep.domain.control import WatchAction
from skep.domain.objects import Object, Request
from skep.manager.store.core.tables import KINDS, TABLES, Tables

FORMAT = 1

# A bigger command would hold up heartbeats behind it on the wire; who has more to write splits
# the work where it may be split.
COMMAND_CHANGES_LIMIT = 1000
# Raft's own limit is 1.5 MiB; the rest is for what stands around the changes.
COMMAND_BYTES_LIMIT = 1535 * 1024

# Answers kept for clients that retry: far longer than any client tries.
REQUESTS_LIMIT = 10_000
REQUESTS_AGE_LIMIT_NS = 3600 * SECOND_NS
# As many are kept however old they look: a leader's clock that jumps ahead must not forget at once
# all that clients may still be retrying.
REQUESTS_FLOOR = 1_000


class WireChange(Struct, frozen=True, kw_only=True):
    """One object as it is to be, or (no `data`) not to be any more."""

    kind: str
    id: str
    data: msgspec.Raw = msgspec.Raw()


# What stands around one change's id and data: the names of its three fields, its kind, lengths.
CHANGE_FRAME_BYTES = 48


class Command(Struct, frozen=True, kw_only=True):
    """What one Raft entry holds."""

    format: int
    wall_ns: int
    changes: tuple[WireChange, ...]


class Snapshot(Struct, frozen=True, kw_only=True):
    """Every table at one version."""

    format: int
    version: int
    wall_ns: int
    rows: tuple[WireChange, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit did to one object. `row` is as written, or as it last was."""

    version: int
    action: WatchAction
    row: Object
    old: Object | None


_command_decoder = msgspec.msgpack.Decoder(Command)
_encoder = msgspec.msgpack.Encoder()
_row_decoders = {name: msgspec.msgpack.Decoder(kind) for name, kind in TABLES.items()}


def encode_row(row: Object) -> WireChange:
    """The change that writes `row`."""
    return WireChange(kind=KINDS[type(row)], id=row.id, data=msgspec.Raw(_encoder.encode(row)))


def wire_size(change: WireChange) -> int:
    """How many bytes a change adds to a command, at most."""
    return len(change.id.encode()) + len(memoryview(change.data)) + CHANGE_FRAME_BYTES


def encode_command(wall_ns: int, changes: Sequence[WireChange]) -> bytes:
    """The bytes of one command."""
    return _encoder.encode(Command(format=FORMAT, wall_ns=wall_ns, changes=tuple(changes)))


class Database:
    """The tables, the version they are at, and how commands change them."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.version = 0
        self.wall_ns = 0

    def apply(self, index: int, data: bytes) -> list[Change]:
        """Apply the command committed at `index`; returns what it changed, in its order."""
        assert index > self.version, (index, self.version)
        command = _command_decoder.decode(data)
        self.version = index
        # Stamps never go back, even where a new leader's clock is behind the old one's.
        self.wall_ns = max(self.wall_ns, command.wall_ns)
        changes = []
        for wire in command.changes:
            change = self._write(wire) if wire.data else self._remove(wire)
            if change is not None:
                changes.append(change)
        self._trim_requests()
        return changes

    def snapshot(self) -> bytes:
        """Everything, as bytes."""
        rows = tuple(encode_row(row) for kind in KINDS for row in self.tables.all(kind))
        return _encoder.encode(
            Snapshot(format=FORMAT, version=self.version, wall_ns=self.wall_ns, rows=rows)
        )

    def restore(self, index: int, data: bytes) -> None:
        """Replace everything by a snapshot taken at `index`."""
        snapshot = msgspec.msgpack.decode(data, type=Snapshot)
        self.tables = Tables()
        for wire in snapshot.rows:
            self.tables.put(_row_decoders[wire.kind].decode(wire.data))
        self.version = max(index, snapshot.version)
        self.wall_ns = snapshot.wall_ns

    def _write(self, wire: WireChange) -> Change:
        row = _row_decoders[wire.kind].decode(wire.data)
        old = self.tables.get(type(row), row.id)
        row = msgspec.structs.replace(
            row,
            version=self.version,
            created_ns=self.wall_ns if old is None else old.created_ns,
            updated_ns=self.wall_ns,
        )
        self.tables.put(row)
        action = WatchAction.CREATE if old is None else WatchAction.UPDATE
        return Change(self.version, action, row, old)

    def _remove(self, wire: WireChange) -> Change | None:
        kind = TABLES[wire.kind]
        old = self.tables.get(kind, wire.id)
        if old is None:
            return None
        self.tables.remove(kind, wire.id)
        return Change(self.version, WatchAction.REMOVE, old, old)

    def _trim_requests(self) -> None:
        while (oldest := self.tables.oldest(Request)) is not None:
            count = self.tables.count(Request)
            is_old = oldest.created_ns < self.wall_ns - REQUESTS_AGE_LIMIT_NS
            if count <= REQUESTS_FLOOR or (not is_old and count <= REQUESTS_LIMIT):
                return
            self.tables.remove(Request, oldest.id)
