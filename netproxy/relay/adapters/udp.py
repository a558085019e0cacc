"""The socket calls for datagrams, all non-blocking."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, NamedTuple

from skep.netproxy.relay.core.protocol import Address

# A sockaddr as Python has it: (host, port), for IPv6 also the flow and the scope.
SockAddr = tuple[Any, ...]
Ancillary = tuple[tuple[int, int, bytes], ...]

# What says that nobody takes datagrams there: ICMP's word, or that of the routing table.
GONE = frozenset(
    (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EPERM)
)
# Python has no names for these of Linux.
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_INFO4, _INFO6 = struct.Struct("=i4s4s"), struct.Struct("=16si")
_ANCILLARY_BYTES = 128


class Client(NamedTuple):
    """Who sent a datagram, and what an answer must be sent with so that it comes from the address
    that the datagram was for; () where the socket has only one."""

    address: SockAddr
    answer_with: Ancillary

    @property
    def shown(self) -> str:
        """For people and for headers; IPv4 clients of a socket for both as what they are."""
        host, port = self.address[0].partition("%")[0], self.address[1]
        host = host.removeprefix("::ffff:") if "." in host else host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ListenerSocket:
    """A bound socket, and who it gets datagrams from. Closes it."""

    def __init__(self, bound: socket.socket) -> None:
        bound.setblocking(False)
        self.socket = bound
        # A socket for all addresses would answer from whichever the route prefers, which the
        # client takes for a stranger's; so it is asked for each datagram whom that was for.
        self._is_for_all = bound.getsockname()[0] in ("0.0.0.0", "::")
        if self._is_for_all:
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            else:
                bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def fileno(self) -> int:
        """Of the socket; -1 once closed."""
        return self.socket.fileno()

    def receive_into(self, buffer: memoryview) -> tuple[int, Client]:
        """The next datagram's size and sender. Raises OSError, BlockingIOError when there is
        none."""
        if not self._is_for_all:
            count, address = self.socket.recvfrom_into(buffer)
            return count, Client(address, ())
        count, ancillary, _, address = self.socket.recvmsg_into((buffer,), _ANCILLARY_BYTES)
        return count, Client(address, _answer_with(ancillary))

    def send(self, payload: memoryview, client: Client) -> None:
        """Raises OSError."""
        if client.answer_with:
            self.socket.sendmsg((payload,), client.answer_with, 0, client.address)
        else:
            self.socket.sendto(payload, client.address)

    def close(self) -> None:
        """Idempotent."""
        self.socket.close()


def connect(address: Address, source: str) -> socket.socket:
    """A socket that takes datagrams from `address` alone, and learns of ICMP's refusals. It comes
    from this node's own address `source` where that can be. Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    connected = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connected.setblocking(False)
        if _reaches(source, address[0]):
            connected.bind((source, 0))
        connected.connect(address)
    except BaseException:
        connected.close()
        raise
    return connected


def _answer_with(ancillary: list[tuple[int, int, bytes]]) -> Ancillary:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, _, local = _INFO4.unpack_from(data)
            return ((level, kind, _INFO4.pack(0, local, bytes(4))),)
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            local, interface = _INFO6.unpack_from(data)
            # Only a link-local address means nothing without its interface; an IPv4 client's
            # answer may well leave by another one.
            is_link_local = local[0] == 0xFE and local[1] & 0xC0 == 0x80
            return ((level, kind, _INFO6.pack(local, interface if is_link_local else 0)),)
    return ()


def _reaches(source: str, host: str) -> bool:
    """Loopback and the world outside don't mix, and neither do the two families."""
    return (":" in source, _is_loopback(source)) == (":" in host, _is_loopback(host))


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"
