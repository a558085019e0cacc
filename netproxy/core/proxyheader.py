"""The PROXY protocol: how a client's address is told to whoever takes the connection from a relay.

The source is HAProxy's specification (doc/proxy-protocol.txt, sections 2.1 and 2.2): version 1 is a
line of text, version 2 is binary.

    v1   "PROXY TCP4 <source> <destination> <source port> <destination port>" or "PROXY UNKNOWN",
         and the end of the line, \\r\\n
    v2   signature (12), version and command (1), family and transport (1), length (2), then as many
         bytes: both addresses, both ports, and TLVs, which are passed over

A header comes before anything else that a connection carries, and whoever reads one must expect
one: bytes that are no header are refused, never passed on as data.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import TYPE_CHECKING, Literal

from skep.domain.base import Struct

if TYPE_CHECKING:
    # It brings an event loop with it, which relay workers do without.
    from skep.domain.address import Address

ProxyVersion = Literal["v1", "v2"]

# The longest line that the specification knows: UNKNOWN with two full IPv6 addresses.
V1_LIMIT_BYTES = 107
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# A header must fit into a segment, and 536 bytes are what every TCP takes; the fixed part and the
# longest addresses (of UNIX sockets) are 232 of them, the rest is for TLVs.
V2_LIMIT_BYTES = 536

_V1_START = b"PROXY "
_V1_UNKNOWN = b"PROXY UNKNOWN\r\n"
# Everything that a line may begin with, up to where it is no longer fixed.
_V1_STARTS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", _V1_UNKNOWN)
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)

_V2_FIXED = struct.Struct("!12sBBH")
_V2_VERSION = 0x20
_LOCAL, _PROXY = 0x0, 0x1
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_INET, _INET6, _UNIX = 0x1, 0x2, 0x3
_LAST_TRANSPORT = 0x2  # 0 unspecified, 1 stream, 2 datagrams
_V2_ADDRESSES = {_INET: struct.Struct("!4s4sHH"), _INET6: struct.Struct("!16s16sHH")}
_V2_UNIX_BYTES = 216

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyHeaderError(Exception):
    """These bytes can't be, or become, a header that is served; `why` is for the log."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Parsed(Struct, frozen=True, kw_only=True):
    """A whole header, and its `length` in bytes. The addresses are those of the client and of what
    it connected to; None where the sender doesn't say (UNKNOWN, LOCAL, a UNIX socket), and then the
    connection's own count."""

    source: Address | None
    destination: Address | None
    length: int


def encode(version: ProxyVersion, source: Address, destination: Address) -> bytes:
    """The header for a stream from `source` to `destination`.

    Addresses of two families, or that are no IP addresses, are not told: UNKNOWN in version 1,
    LOCAL in version 2, which a receiver must accept, where it may refuse PROXY with an unknown
    family. An IPv4 client of a socket for both families counts as what it is.
    """
    ips = _ip(source[0]), _ip(destination[0])
    ports = source[1], destination[1]
    is_told = type(ips[0]) is type(ips[1]) and None not in ips
    if version == "v1":
        return _encode_v1(ips, ports) if is_told else _V1_UNKNOWN
    if not is_told:
        return _V2_FIXED.pack(V2_SIGNATURE, _V2_VERSION | _LOCAL, _UNSPEC, 0)
    return _encode_v2(ips, ports)


def parse(data: bytes) -> Parsed | None:
    """The header that `data` begins with; None where it takes more bytes to tell.

    Raises ProxyHeaderError as soon as no further bytes can make it one.
    """
    if data[: len(V2_SIGNATURE)] == V2_SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _parse_v1(data)
    raise ProxyHeaderError(f"starts with {data[:16]!r}, which is no PROXY header")


def _encode_v1(ips: tuple[_Ip | None, ...], ports: tuple[int, int]) -> bytes:
    family = "TCP4" if isinstance(ips[0], ipaddress.IPv4Address) else "TCP6"
    return f"PROXY {family} {ips[0]} {ips[1]} {ports[0]} {ports[1]}\r\n".encode("ascii")


def _encode_v2(ips: tuple[_Ip | None, ...], ports: tuple[int, int]) -> bytes:
    is_ipv4 = isinstance(ips[0], ipaddress.IPv4Address)
    layout = _V2_ADDRESSES[_INET if is_ipv4 else _INET6]
    packed = [ip.packed for ip in ips if ip is not None]
    fixed = _V2_FIXED.pack(
        V2_SIGNATURE, _V2_VERSION | _PROXY, _TCP4 if is_ipv4 else _TCP6, layout.size
    )
    return fixed + layout.pack(*packed, *ports)


def _ip(text: str) -> _Ip | None:
    """Without the zone of a link-local address, which means nothing elsewhere."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _parse_v1(data: bytes) -> Parsed | None:
    if not any(data[: len(start)] == start[: len(data)] for start in _V1_STARTS):
        raise ProxyHeaderError(f"neither TCP4 nor TCP6 nor UNKNOWN: {data[:V1_LIMIT_BYTES]!r}")
    line, end, _ = data[:V1_LIMIT_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= V1_LIMIT_BYTES:
            raise ProxyHeaderError(f"no end of the line within {V1_LIMIT_BYTES} bytes")
        return None
    length = len(line) + len(end)
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Parsed(source=None, destination=None, length=length)
    if len(words) != 6:
        raise ProxyHeaderError(f"not two addresses and two ports, one space between: {line!r}")
    _, family, source, destination, source_port, destination_port = words
    return Parsed(
        source=(_v1_ip(family, source), _v1_port(source_port)),
        destination=(_v1_ip(family, destination), _v1_port(destination_port)),
        length=length,
    )


def _v1_ip(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(ipaddress.IPv4Address(text))
        if "%" not in text:
            return str(ipaddress.IPv6Address(text))
    except ValueError:
        pass
    raise ProxyHeaderError(f"{text!r} is not an address of {family}")


def _v1_port(text: str) -> int:
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise ProxyHeaderError(f"{text!r} is not a port")
    return int(text)


def _parse_v2(data: bytes) -> Parsed | None:
    _check_v2_start(data)
    if len(data) < _V2_FIXED.size:
        return None
    _, command, family, following = _V2_FIXED.unpack_from(data)
    if _V2_FIXED.size + following > V2_LIMIT_BYTES:
        raise ProxyHeaderError(f"{following} more bytes, {V2_LIMIT_BYTES} are the limit in all")
    layout = _V2_ADDRESSES.get(family >> 4)
    is_told = command & 0xF == _PROXY and layout is not None and family & 0xF != 0
    needed = 0
    if is_told and layout is not None:
        needed = layout.size
    elif command & 0xF == _PROXY and family >> 4 == _UNIX and family & 0xF != 0:
        needed = _V2_UNIX_BYTES
    if following < needed:
        raise ProxyHeaderError(f"{following} bytes don't hold the addresses, which take {needed}")
    length = _V2_FIXED.size + following
    if len(data) < length:
        return None
    if not is_told or layout is None:
        return Parsed(source=None, destination=None, length=length)
    source, destination, *ports = layout.unpack_from(data, _V2_FIXED.size)
    return Parsed(
        source=(str(ipaddress.ip_address(source)), ports[0]),
        destination=(str(ipaddress.ip_address(destination)), ports[1]),
        length=length,
    )


def _check_v2_start(data: bytes) -> None:
    """Refuse what the two bytes behind the signature rule out, as soon as they are there."""
    at = len(V2_SIGNATURE)
    if len(data) <= at:
        return
    version, command = data[at] & 0xF0, data[at] & 0xF
    if version != _V2_VERSION or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"version {version >> 4}, command {command}")
    # The family of LOCAL is to be ignored, whatever it is.
    if command == _PROXY and len(data) > at + 1:
        family, transport = data[at + 1] >> 4, data[at + 1] & 0xF
        if family > _UNIX or transport > _LAST_TRANSPORT:
            raise ProxyHeaderError(f"family {family}, transport {transport}")
