"""The ledger on a node's disk: one file of checksummed records, one sync per change.

The first record is the header. A change is one record, written and synced before the next one is
begun, so that a crash can tear the last record only, which nobody was told of. Anything else that
doesn't add up is damage, and refused, since going on without the highest term would unfence old
leaders. At the first save of a life, after any failed write, and every now and then, the file is
replaced by one that says the same in short.
"""

from __future__ import annotations

import logging
import struct
import zlib

import msgspec

from skep.domain.base import ClusterId, NodeId, decode, encode
from skep.env import Disk, File, Rejected
from skep.worker.core.ledger import LEDGER_FORMAT, Change, Ledger, LedgerHeader

log = logging.getLogger(__name__)

PATH = "ledger"
# Length of the record, its checksum, and a checksum of these two: a length that lies would make all
# that follows look like one torn record.
_FRAME = struct.Struct("<III")
_CHECKED_BYTES = 8
# Below this, shortening isn't worth its two syncs.
SHORTEN_ABOVE_BYTES = 256 * 1024
# The file may hold this many times what it says: few rewrites, and a quick start.
SHORTEN_FACTOR = 4


class Journal:
    """The ledger of one node. `open` it once per incarnation; one `save` at a time."""

    def __init__(self, disk: Disk, header: LedgerHeader) -> None:
        self._disk = disk
        self._header = header
        self._file: File | None = None
        self._short_size = 0
        self.ledger = Ledger()

    @classmethod
    def open(cls, disk: Disk, cluster_id: ClusterId, node_id: NodeId) -> Journal:
        """Read what there is. Writes nothing: an agent must come up on a full disk, too.

        Raises Rejected for what must not be used.
        """
        header = LedgerHeader(format=LEDGER_FORMAT, cluster_id=cluster_id, node_id=node_id)
        journal = cls(disk, header)
        data = disk.read(PATH)
        if data is None:
            return journal
        records, end = _split(data)
        journal._load(records)
        if end < len(data):
            log.warning("ledger torn=%d bytes are ignored", len(data) - end)
        return journal

    async def save(self, change: Change) -> None:
        """Make a change durable. Raises OSError; then none of it counts as saved."""
        if self._file is None:
            # The first save of this life, or the last write failed half-way. What we read may
            # have been in the kernel's memory only: a sync that failed under an earlier life
            # leaves pages that read well and are never written. So nothing is added to it.
            after = Ledger()
            after.apply(self.ledger.whole())
            after.apply(change)
            await self._replace(after)
            return
        try:
            self._file.append(_frame(encode(change)))
            await self._file.sync()
        except OSError:
            self.close()
            raise
        self.ledger.apply(change)
        limit = max(SHORTEN_ABOVE_BYTES, SHORTEN_FACTOR * self._short_size)
        if self._file is not None and self._file.size() > limit:
            await self._shorten()

    def close(self) -> None:
        """Give the file back; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _shorten(self) -> None:
        self.close()
        await self._replace(self.ledger)

    async def _replace(self, ledger: Ledger) -> None:
        data = _frame(encode(self._header)) + _frame(encode(ledger.whole()))
        await self._disk.replace(PATH, data)
        self.ledger = ledger
        self._short_size = len(data)
        self._file = self._disk.open(PATH)

    def _load(self, records: list[bytes]) -> None:
        if not records:
            raise _damaged("it has no header")
        try:
            header = decode(LedgerHeader, records[0])
            changes = [decode(Change, record) for record in records[1:]]
        except msgspec.DecodeError as error:
            raise _damaged(str(error)) from None
        if not 1 <= header.format <= LEDGER_FORMAT:
            raise Rejected(
                f"the ledger has format {header.format}, this release reads {LEDGER_FORMAT}"
            )
        if (header.cluster_id, header.node_id) != (self._header.cluster_id, self._header.node_id):
            raise Rejected(
                f"the folder belongs to node {header.node_id} of cluster {header.cluster_id}; "
                "every node needs a folder of its own"
            )
        for change in changes:
            self.ledger.apply(change)


def _frame(payload: bytes) -> bytes:
    head = _FRAME.pack(len(payload), zlib.crc32(payload), 0)[:_CHECKED_BYTES]
    return head + zlib.crc32(head).to_bytes(4, "little") + payload


def _split(data: bytes) -> tuple[list[bytes], int]:
    """The sound records, and where they end. Raises Rejected unless the rest is a torn record."""
    records: list[bytes] = []
    at = 0
    # Zeros to the end: the file had grown, but nothing was written there yet.
    while any(data[at : at + _FRAME.size]) and at + _FRAME.size <= len(data):
        length, checksum, head_checksum = _FRAME.unpack_from(data, at)
        begin = at + _FRAME.size
        end = begin + length
        if zlib.crc32(data[at : at + _CHECKED_BYTES]) != head_checksum:
            end = begin  # Then its length says nothing, and nothing may follow.
        elif zlib.crc32(data[begin:end]) == checksum and end <= len(data):
            records.append(data[begin:end])
            at = end
            continue
        if any(data[end:]):
            raise _damaged(f"the record at byte {at} is broken, and others follow")
        return records, at
    if any(data[at + _FRAME.size :]):
        raise _damaged(f"nothing is at byte {at}, and something follows")
    return records, at


def _damaged(why: str) -> Rejected:
    return Rejected(
        f"the ledger is damaged: {why}. Remove the node from the cluster, move its folder away, "
        "and let it join anew"
    )
