"""What netproxies say to each other: before they relay a stream, and around each datagram.

For a stream, a header one way and one byte back. Client data follows only after CONNECTED, so that
an origin that is refused can try another task:

    origin -> owner   magic "SKPM", version (1 byte), length (2 bytes), MeshHeader (msgpack map)
    owner -> origin   one byte, a MeshStatus

A datagram carries all that it needs itself, both ways, and comes back whole when it is refused:

    either way        magic "SKPD", version (1 byte), length (2 bytes), DatagramHeader (msgpack
                      map), the client's or the task's datagram

A new field of a header needs no new version; a new meaning does.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from skep.domain.base import ClusterId, ServiceId, Struct, TaskId
from skep.netproxy.relay.core.protocol import Address, ProxyVersion

MAGIC = b"SKPM"
VERSION = 1
# msgspec's own error, and those of text that is no text and of arrays a thousand deep.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
DATAGRAM_MAGIC = b"SKPD"
DATAGRAM_VERSION = 1
_PREFIX = struct.Struct("!4sBH")
PREFIX_BYTES = _PREFIX.size
Bytes = bytes | memoryview
# Ids are 25 characters and addresses at most 47; the rest is room for fields to come.
HEADER_LIMIT_BYTES = 1024
# An origin sends its header at once; one that doesn't is no netproxy.
HEADER_DEADLINE_S = 5.0


class MeshStatus(enum.IntEnum):
    """The owner's answer; the numbers are the wire's."""

    CONNECTED = 1
    REFUSED = 2  # the task did not take the connection
    UNKNOWN_TASK = 3  # not, or no longer, a healthy task of that service on this node
    WRONG_CLUSTER = 4
    UNKNOWN_VERSION = 5
    MALFORMED = 6
    BUSY = 7  # too many connections


class MeshHeader(Struct, frozen=True, kw_only=True):
    """Which task is meant. `task_id` None: any of the service's on the owner's node.

    `client` connected to `server` (addresses as text, "" where unknown); `proxy` is the version of
    the PROXY header by which the owner tells the task so, "" for none.
    """

    cluster_id: ClusterId
    service_id: ServiceId
    port: int
    task_id: TaskId | None = None
    client: str = ""
    server: str = ""
    proxy: ProxyVersion = ""


class MeshRefused(Exception):
    """The header can't be served; `status` is the answer."""

    def __init__(self, status: MeshStatus, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def encode_header(header: MeshHeader) -> bytes:
    """The header as it travels."""
    body = msgspec.msgpack.encode(header)
    assert len(body) <= HEADER_LIMIT_BYTES, header
    return _PREFIX.pack(MAGIC, VERSION, len(body)) + body


def read_prefix(prefix: bytes) -> int:
    """How many bytes follow the prefix. Raises MeshRefused."""
    return _read_prefix(prefix, MAGIC, VERSION)


def read_body(body: bytes, cluster_id: ClusterId) -> MeshHeader:
    """The header in `body`. Raises MeshRefused, also for another cluster's."""
    try:
        header = msgspec.msgpack.decode(body, type=MeshHeader)
    except _UNREADABLE as error:
        raise MeshRefused(MeshStatus.MALFORMED, str(error)) from None
    if header.cluster_id != cluster_id:
        raise MeshRefused(MeshStatus.WRONG_CLUSTER, f"cluster {header.cluster_id!r}")
    return header


def read_status(data: bytes) -> MeshStatus:
    """The owner's answer; b"" (it closed without one) counts as refused."""
    try:
        return MeshStatus(data[0]) if data else MeshStatus.REFUSED
    except ValueError:
        return MeshStatus.MALFORMED


def show_address(address: Address) -> str:
    """The text of an address in a header."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_address(text: str) -> Address | None:
    """What `show_address` wrote; None where there is none."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


class DatagramKind(enum.Enum):
    """Which way a datagram goes, and what became of it."""

    TO_TASK = "to_task"
    FROM_TASK = "from_task"
    REFUSED = "refused"  # to the task, and now back: it can't be delivered there


class DatagramHeader(Struct, frozen=True, kw_only=True):
    """Whose datagram follows. An answer has the header of what it answers, but for its kind: owners
    keep flows by it, and the origin knows it again."""

    kind: DatagramKind
    cluster_id: ClusterId
    service_id: ServiceId
    port: int
    task_id: TaskId
    client: str


def encode_datagram_header(header: DatagramHeader) -> bytes:
    """What stands before the client's or the task's bytes: the same for all of a flow."""
    body = msgspec.msgpack.encode(header)
    assert len(body) <= HEADER_LIMIT_BYTES, header
    return _PREFIX.pack(DATAGRAM_MAGIC, DATAGRAM_VERSION, len(body)) + body


def encode_datagram(header: DatagramHeader, payload: Bytes) -> bytes:
    """A datagram as it travels between nodes."""
    return encode_datagram_header(header) + payload


def parse_datagram(data: Bytes, cluster_id: ClusterId) -> tuple[DatagramHeader, Bytes]:
    """The header, and what follows it: a part of `data`, not a copy where that is a memoryview.
    Raises MeshRefused, also for another cluster's."""
    if len(data) < PREFIX_BYTES:
        raise MeshRefused(MeshStatus.MALFORMED, f"a datagram of {len(data)} bytes")
    end = PREFIX_BYTES + _read_prefix(data[:PREFIX_BYTES], DATAGRAM_MAGIC, DATAGRAM_VERSION)
    if len(data) < end:
        raise MeshRefused(MeshStatus.MALFORMED, f"{len(data)} bytes of a header of {end}")
    try:
        header = _DATAGRAM_HEADER.decode(data[PREFIX_BYTES:end])
    except _UNREADABLE as error:
        raise MeshRefused(MeshStatus.MALFORMED, str(error)) from None
    if header.cluster_id != cluster_id:
        raise MeshRefused(MeshStatus.WRONG_CLUSTER, f"cluster {header.cluster_id!r}")
    return header, data[end:]


# Made once: this is done for every datagram.
_DATAGRAM_HEADER = msgspec.msgpack.Decoder(DatagramHeader)


def _read_prefix(prefix: Bytes, expected_magic: bytes, expected_version: int) -> int:
    assert len(prefix) == PREFIX_BYTES
    magic, version, length = _PREFIX.unpack(prefix)
    if magic != expected_magic:
        raise MeshRefused(MeshStatus.MALFORMED, f"starts with {magic!r}")
    if version != expected_version:
        why = f"mesh version {version}, not {expected_version}"
        raise MeshRefused(MeshStatus.UNKNOWN_VERSION, why)
    if not 0 < length <= HEADER_LIMIT_BYTES:
        raise MeshRefused(MeshStatus.MALFORMED, f"a header of {length} bytes")
    return int(length)
