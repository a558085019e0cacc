"""Clients that have been accepted and are about to be connected.

Most clients speak first, and at once. Where their first bytes are at hand, a task is connected in
fewer steps: the packet that ends TCP's handshake carries them, and its being taken tells that the
task is connected. So a client is given two turns of the loop to speak: next to nothing while there
is little to do, and as long as everybody waits while there is much. After one, a third more were
still silent. Those that say nothing, since they are to hear something first or are far away, are
connected then as well.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.adapters.loop import ENDED, WATCH_READING, Loop
from skep.netproxy.relay.core.protocol import Address, Key

# As much as any fresh socket takes at once; whoever says more is mostly about to say much more.
FIRST_BYTES = 4096


class Arrival:
    """A client, which is known to the loop. `events` is what it was told of and is not dealt with
    yet."""

    __slots__ = ("accepted_at", "address", "client", "events", "peer")

    def __init__(
        self, address: Key, client: socket.SocketType, peer: Address, accepted_at: float
    ) -> None:
        self.address = address
        self.client = client
        self.peer = peer
        self.accepted_at = accepted_at
        self.events = 0

    def read(self) -> bytes:
        """The first that it says, if it has spoken. Raises OSError, where the client is gone."""
        if not self.events:
            return b""
        try:
            first = self.client.recv(FIRST_BYTES, sockets.DONT_WAIT)
        except BlockingIOError:
            return b""
        if len(first) < FIRST_BYTES:
            self.events &= ENDED
        return first


class Arrivals:
    """Has each one served when it has spoken, and the silent ones after two turns of the loop."""

    def __init__(self, loop: Loop, serve: Callable[[Arrival], None]) -> None:
        self._loop = loop
        self._serve = serve
        self._silent: dict[int, Arrival] = {}
        self._are_awaited = False

    def __len__(self) -> int:
        """Those that are not served yet."""
        return len(self._silent)

    def add(self, address: Key, client: socket.SocketType, peer: Address) -> None:
        """This one has been accepted; call it after a turn's events, see `Loop.soon`."""
        loop, fd = self._loop, client.fileno()
        if not self._are_awaited:
            self._are_awaited = True
            loop.soon(self._wait_once_more)
        self._silent[fd] = Arrival(address, client, peer, loop.now())
        loop.attach(fd, partial(self._event, fd), WATCH_READING)

    def cut(self) -> None:
        """Close them all, by resets."""
        for fd, arrival in self._silent.items():
            self._loop.forget(fd)
            arrival.client.close()
        self._silent.clear()

    def _event(self, fd: int, events: int) -> None:
        arrival = self._silent.pop(fd)
        arrival.events = events
        self._serve(arrival)

    def _wait_once_more(self) -> None:
        self._are_awaited = False
        self._loop.soon(partial(self._serve_silent, tuple(self._silent)))

    def _serve_silent(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            arrival = self._silent.pop(fd, None)
            if arrival is not None:
                self._serve(arrival)
