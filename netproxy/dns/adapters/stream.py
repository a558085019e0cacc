"""A connected socket with buffers both ways, for DNS over TCP and for the control connection."""

from __future__ import annotations

import socket
from collections.abc import Callable

from skep.netproxy.dns.adapters.loop import READABLE, WRITABLE, Loop

CHUNK_BYTES = 256 << 10


class Stream:
    """Calls `on_data` with what has come and was not taken yet, and `on_end` once, when the other
    side has closed or the connection has failed. After `close` it calls nobody."""

    def __init__(
        self,
        loop: Loop,
        connected: socket.socket,
        on_data: Callable[[bytearray], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._on_data = on_data
        self._on_end = on_end
        self._received = bytearray()
        self._to_send = bytearray()
        self._is_ending = False
        connected.setblocking(False)
        loop.watch(connected.fileno(), self._ready)

    @property
    def unsent_bytes(self) -> int:
        """What the other side has not taken yet."""
        return len(self._to_send)

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed on this side."""
        return self._socket.fileno() >= 0

    def write(self, data: bytes) -> None:
        """Send, now or when there is room. While there is none, nothing is read."""
        if not self.is_open:
            return
        self._to_send += data
        self._send()

    def end(self) -> None:
        """Close once everything is sent."""
        self._is_ending = True
        if not self._to_send:
            self.close()

    def close(self) -> None:
        """Close at once; idempotent."""
        if self.is_open:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()

    def _ready(self, events: int) -> None:
        if self._to_send:
            self._send()
        elif events & ~WRITABLE:
            self._receive()
        else:
            self._watch()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._fail()
        elif not self._is_ending:
            self._received += data
            self._on_data(self._received)

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._to_send)
        except (BlockingIOError, InterruptedError):
            sent = 0  # no room, or still connecting
        except OSError:
            self._fail()
            return
        del self._to_send[:sent]
        if self._is_ending and not self._to_send:
            self.close()
        else:
            self._watch()

    def _watch(self) -> None:
        events = WRITABLE if self._to_send else READABLE
        self._loop.watch(self._socket.fileno(), self._ready, events)

    def _fail(self) -> None:
        if self.is_open:
            self.close()
            self._on_end()
