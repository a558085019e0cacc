"""What netproxies say to each other before they relay: a header one way, one byte back.

    origin -> owner   magic "SKPM", version (1 byte), length (2 bytes), MeshHeader (msgpack map)
    owner -> origin   one byte, a MeshStatus

Client data follows only after CONNECTED, so that an origin that is refused can try another task.
A new field of the header needs no new version; a new meaning does.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from skep.domain.base import ClusterId, ServiceId, Struct, TaskId
from skep.netproxy.relay.core.protocol import Address, ProxyVersion

MAGIC = b"SKPM"
VERSION = 1
_PREFIX = struct.Struct("!4sBH")
PREFIX_BYTES = _PREFIX.size
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
    assert len(prefix) == PREFIX_BYTES
    magic, version, length = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise MeshRefused(MeshStatus.MALFORMED, f"starts with {magic!r}")
    if version != VERSION:
        raise MeshRefused(MeshStatus.UNKNOWN_VERSION, f"mesh version {version}, not {VERSION}")
    if not 0 < length <= HEADER_LIMIT_BYTES:
        raise MeshRefused(MeshStatus.MALFORMED, f"a header of {length} bytes")
    return int(length)


def read_body(body: bytes, cluster_id: ClusterId) -> MeshHeader:
    """The header in `body`. Raises MeshRefused, also for another cluster's."""
    try:
        header = msgspec.msgpack.decode(body, type=MeshHeader)
    except msgspec.DecodeError as error:
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
