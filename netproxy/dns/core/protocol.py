"""What the control process says to the DNS process, and the answers.

A frame is a length (4 bytes, big endian) and one msgpack map with a `type`. Each request has one
answer, in order. Hello, Welcome and End are the same in every format, so that processes of two
releases understand each other at least so far. Everything is level-triggered: a control process
that has just come says all it wants (`is_whole`), and only what differs is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from skep.domain.base import Struct
from skep.netproxy.core.steps import changed
from skep.netproxy.dns.core.resolv import DNS_PORT
from skep.netproxy.dns.core.zones import NetworkChange, NetworkZone, Scope

FORMAT = 1
LENGTH_BYTES = 4
# The names of 10,000 services with ten tasks each are about 3 MB. One frame, so that nobody ever
# sees half of a change.
FRAME_LIMIT_BYTES = 64 << 20


class Hello(Struct, frozen=True, tag=True):
    """The first request; answered by Welcome."""

    format: int


class SetNetworks(Struct, frozen=True, kw_only=True, tag=True):
    """Change names; answered by Applied. `is_whole`: networks that are not named go.

    `version` is the control process's own, and only repeated in Status.
    """

    version: int
    changed: tuple[NetworkChange, ...] = ()
    removed: tuple[str, ...] = ()
    is_whole: bool = False


class Listen(Struct, frozen=True, kw_only=True):
    """A scope, and where it is answered: at `address` and `port`, over UDP and TCP.

    `namespace`: the file of a network namespace; None is the process's own. Port 0 takes a free
    one, which Status tells.
    """

    scope: Scope
    address: str
    port: int = DNS_PORT
    namespace: str | None = None


class SetScopes(Struct, frozen=True, kw_only=True, tag=True):
    """Open and close; answered by Applied. `is_whole`: scopes that are not named are closed.

    A scope's sockets are left alone as long as its place is the same. Closing matters: an open
    socket keeps the namespace of a dead task alive, and every device in it.
    """

    listen: tuple[Listen, ...] = ()
    unlisten: tuple[str, ...] = ()
    is_whole: bool = False


class Ask(Struct, frozen=True, kw_only=True, tag=True):
    """What would this scope be told about a name? Answered by Told; for tests and a doctor."""

    scope_id: str
    name: str


class GetStatus(Struct, frozen=True, tag=True):
    """Answered by Status."""


class End(Struct, frozen=True, tag=True):
    """Close everything and exit; answered by the end of the connection."""


class Welcome(Struct, frozen=True, tag=True):
    """Who is here. Other formats than our own are told End."""

    format: int
    pid: int


class ScopeError(Struct, frozen=True):
    """A scope that can't be answered, and why. The control process tries again."""

    scope_id: str
    why: str


class Applied(Struct, frozen=True, kw_only=True, tag=True):
    """Everything but `errors` is in force. `touched`: records or sockets that were changed."""

    touched: int = 0
    errors: tuple[ScopeError, ...] = ()


class Told(Struct, frozen=True, kw_only=True, tag=True):
    """`outcome` is "found", "unknown" or "forward" (it is asked for outside)."""

    outcome: str
    addresses: tuple[str, ...] = ()


class ScopeStatus(Struct, frozen=True, kw_only=True):
    """A scope that is answered; `port` is the real one."""

    scope_id: str
    address: str
    port: int
    namespace: str | None = None
    queries: int = 0


class Status(Struct, frozen=True, kw_only=True, tag=True):
    """What the process holds and has done; `counts` are queries by what became of them."""

    pid: int
    version: int
    networks: int
    records: int
    scopes: tuple[ScopeStatus, ...]
    counts: tuple[tuple[str, int], ...]
    outstanding: int
    resolvers: tuple[str, ...]


class Refused(Struct, frozen=True, tag=True):
    """The request made no sense; nothing more is done on this connection."""

    why: str


Request = Hello | SetNetworks | SetScopes | Ask | GetStatus | End
Response = Welcome | Applied | Told | Status | Refused
S = TypeVar("S", bound=Struct)


class ProtocolBroken(Exception):
    """The other side sent what is no frame of this protocol."""


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_responses: msgspec.msgpack.Decoder[Response] = msgspec.msgpack.Decoder(Response)


def encode(message: Request | Response) -> bytes:
    """A frame. Raises ProtocolBroken where it would be too long."""
    body = _encoder.encode(message)
    if len(body) > FRAME_LIMIT_BYTES:
        raise ProtocolBroken(f"a frame of {len(body)} bytes; the limit is {FRAME_LIMIT_BYTES}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_length(prefix: bytes) -> int:
    """How many bytes follow. Raises ProtocolBroken."""
    length = int.from_bytes(prefix[:LENGTH_BYTES], "big")
    if not 0 < length <= FRAME_LIMIT_BYTES:
        raise ProtocolBroken(f"a frame of {length} bytes; the limit is {FRAME_LIMIT_BYTES}")
    return length


def take_frame(buffer: bytearray) -> bytes | None:
    """Take one whole frame's body from the front; None while it isn't all there.

    Raises ProtocolBroken.
    """
    if len(buffer) < LENGTH_BYTES:
        return None
    end = LENGTH_BYTES + read_length(bytes(buffer[:LENGTH_BYTES]))
    if len(buffer) < end:
        return None
    body = bytes(buffer[LENGTH_BYTES:end])
    del buffer[:end]
    return body


def decode_request(body: bytes) -> Request:
    """A request. Raises ProtocolBroken."""
    try:
        return _requests.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolBroken(f"no request: {error}") from None


def decode_response(body: bytes) -> Response:
    """A response. Raises ProtocolBroken."""
    try:
        return _responses.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolBroken(f"no response: {error}") from None


# --------------------------------------------------------------------------------- differences


def whole(zone: NetworkZone) -> NetworkChange:
    """Everything of one network."""
    return NetworkChange(
        network_id=zone.network_id,
        name=zone.name,
        subnets=zone.subnets,
        changed=tuple(zone.records.values()),
        is_whole=True,
    )


def network_changes(
    before: Mapping[str, NetworkZone], after: Mapping[str, NetworkZone]
) -> tuple[tuple[NetworkChange, ...], tuple[str, ...]]:
    """What leads from one set of networks (by id) to another: changes, and ids that go."""
    changes = []
    for network_id, zone in after.items():
        old = before.get(network_id)
        if old is None:
            changes.append(whole(zone))
        elif (difference := _difference(old, zone)) is not None:
            changes.append(difference)
    return tuple(changes), tuple(key for key in before if key not in after)


def _difference(old: NetworkZone, new: NetworkZone) -> NetworkChange | None:
    records, removed = [], []
    for key in changed(old.records, new.records):
        record = new.records.get(key)
        if record is None:
            removed.append(key)
        elif record != old.records.get(key):
            records.append(record)
    if not records and not removed and (new.name, new.subnets) == (old.name, old.subnets):
        return None
    return NetworkChange(
        network_id=new.network_id,
        name=new.name,
        subnets=new.subnets,
        changed=tuple(records),
        removed=tuple(removed),
    )


def scope_changes(
    before: Mapping[str, Listen], after: Mapping[str, Listen]
) -> tuple[tuple[Listen, ...], tuple[str, ...]]:
    """What leads from one set of scopes (by id) to another: to listen, and to close."""
    changed = tuple(listen for key, listen in after.items() if before.get(key) != listen)
    return changed, tuple(key for key in before if key not in after)
