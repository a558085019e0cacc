"""Moves the bytes of one connection, on any event loop that can watch sockets.

Sockets are read into one buffer that the whole process shares and written at once, so that a
connection that flows holds no memory of its own. Only what a slow reader does not take is kept, at
most one chunk per direction, and nothing more is read meanwhile: TCP makes the sender wait. This,
and being the same on asyncio's loop and on uvloop's, is why there are no asyncio transports here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from skep.netproxy.adapters import sockets
from skep.netproxy.adapters.traffic import ServiceTraffic
from skep.netproxy.core.pipe import (
    CHUNK_BYTES,
    OTHER,
    Action,
    Broken,
    Close,
    Do,
    Ended,
    Event,
    Pipe,
    Sent,
    Side,
    Stuck,
)

_LATER = (BlockingIOError, InterruptedError)


def make_buffer() -> memoryview:
    """The buffer that all pumps of a process share."""
    return memoryview(bytearray(CHUNK_BYTES))


class Pump:
    """Relays between two connected sockets, which it owns from now on."""

    __slots__ = ("_buffer", "_loop", "_on_end", "_pipe", "_sockets", "_traffic", "_writing")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ends: dict[Side, socket.socket],
        traffic: ServiceTraffic,
        buffer: memoryview,
        on_end: Callable[[Pump], None],
    ) -> None:
        self._loop = loop
        self._sockets = ends
        self._traffic = traffic
        self._buffer = buffer
        self._on_end = on_end
        self._pipe = Pipe()
        self._writing: set[Side] = set()

    def start(self) -> None:
        """Begin to relay."""
        for side in Side:
            self._do(Do(Action.START_READING, side))
        # What the client has to say is mostly here already; this saves a turn of the loop.
        self._readable(Side.CLIENT)

    def reset(self) -> None:
        """Cut both sides. Idempotent."""
        if not self._pipe.is_closed:
            self._step(Broken(Side.CLIENT))

    def buffered_bytes(self) -> int:
        """What this connection holds in memory."""
        return self._pipe.buffered_bytes()

    def _readable(self, source: Side) -> None:
        sink = OTHER[source]
        try:
            count = self._sockets[source].recv_into(self._buffer)
        except _LATER:
            return
        except OSError:
            self._break(source)
            return
        if not count:
            self._step(Ended(source))
            return
        self._traffic.received[source] += count
        data = self._buffer[:count]
        try:
            sent = self._sockets[sink].send(data)
        except _LATER:
            sent = 0
        except OSError:
            self._break(sink)
            return
        if sent < count:
            self._step(Stuck(sink, bytes(data[sent:])))

    def _writable(self, sink: Side) -> None:
        try:
            sent = self._sockets[sink].send(self._pipe.waiting(sink))
        except _LATER:
            return
        except OSError:
            self._break(sink)
            return
        self._step(Sent(sink, sent))

    def _break(self, side: Side) -> None:
        self._traffic.errors[f"{side.label}_reset"] += 1
        self._step(Broken(side))

    def _step(self, event: Event) -> None:
        for effect in self._pipe.step(event):
            if isinstance(effect, Do):
                self._do(effect)
            else:
                self._close(effect)

    def _do(self, effect: Do) -> None:
        end = self._sockets[effect.side]
        match effect.action:
            case Action.START_READING:
                self._loop.add_reader(end.fileno(), self._readable, effect.side)
            case Action.STOP_READING:
                self._loop.remove_reader(end.fileno())
            case Action.START_WRITING:
                self._writing.add(effect.side)
                self._loop.add_writer(end.fileno(), self._writable, effect.side)
            case Action.STOP_WRITING:
                self._writing.discard(effect.side)
                self._loop.remove_writer(end.fileno())
            case Action.END_WRITING:
                # It may be gone already, which its next read or write will tell.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_WR)

    def _close(self, effect: Close) -> None:
        for side, end in self._sockets.items():
            self._loop.remove_reader(end.fileno())
            if side in self._writing:
                self._loop.remove_writer(end.fileno())
            if effect.is_reset:
                sockets.close_by_reset(end)
            else:
                sockets.close_orderly(end)
        self._on_end(self)
