"""The listening sockets of the relay, which outlive its workers.

The netproxy itself opens them, passes them on and keeps them, so that what waits in the queue of a
worker that dies is served by the next one. Each worker has a socket of its own on every address,
and the kernel spreads the clients over them (SO_REUSEPORT): by both ends' addresses, so that all
datagrams of one client go to one worker.

That option must not let others share a port without a word. So the first socket of an address is
bound without it, which fails if anybody listens there, another netproxy included; it is set for the
others to come. And the sockets are given to a user that nobody is, where we may do that, since
Linux lets only sockets of one user share a port: another server of ours that asks for SO_REUSEPORT
is then refused, too.
"""

from __future__ import annotations

import contextlib
import os
import socket

from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.core.protocol import UDP, Key

# No user or service has it: beyond what distributions, user namespaces and NFS hand out.
OWNER_UID = 4_294_000_001


class Listening:
    """All of a netproxy's listening sockets, `count` on each address."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sockets: dict[Key, tuple[socket.socket, ...]] = {}

    @property
    def addresses(self) -> tuple[Key, ...]:
        """What is listened on."""
        return tuple(self._sockets)

    def open(self, address: Key) -> None:
        """Listen there. Raises OSError."""
        opened: list[socket.socket] = []
        try:
            for number in range(self._count):
                opened.append(_bound(address, is_first=number == 0))
                if number == 0 and self._count > 1:
                    opened[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for each in opened:
                if address.protocol != UDP:
                    each.listen(sockets.BACKLOG)
        except BaseException:
            for each in opened:
                each.close()
            raise
        self._sockets[address] = tuple(opened)

    def of(self, number: int, address: Key) -> socket.socket:
        """The socket of worker `number` there."""
        return self._sockets[address][number]

    def close(self, address: Key) -> None:
        """Keep it no longer; workers have their own copies to close."""
        for each in self._sockets.pop(address):
            each.close()


def _bound(address: Key, *, is_first: bool) -> socket.socket:
    is_ipv6, is_udp = ":" in address.host, address.protocol == UDP
    listener = socket.socket(
        socket.AF_INET6 if is_ipv6 else socket.AF_INET,
        socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM,
    )
    try:
        listener.setblocking(False)
        # Not for everybody, and in a user namespace it is no user at all.
        with contextlib.suppress(OSError):
            os.fchown(listener.fileno(), OWNER_UID, -1)
        if not is_udp:  # where it would let others take the port as well
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sockets.set_inherited(listener)
        if not is_first:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if is_ipv6:
            # "::" is for IPv6 alone: an address of each family has a listener of its own.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address.address)
    except BaseException:
        listener.close()
        raise
    return listener
