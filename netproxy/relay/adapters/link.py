"""Moves the bytes of one connection between two sockets.

Sockets are read into one buffer that the whole process shares and written at once, so that a
connection that flows holds no memory of its own. Only what a slow reader does not take is kept, at
most one chunk per direction, and nothing more is read meanwhile: TCP makes the sender wait.

Both sockets are watched edge-triggered and never taken out: an event while a side must not be read
is remembered by not being needed, since whoever lets it be read again reads until nothing is left.
So a hang-up is never taken for the end of what can still be read.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from skep.domain.base import TaskId
from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.adapters.loop import (
    ENDED,
    FAILED,
    WATCH_BOTH,
    WATCH_READING,
    WRITABLE,
    Loop,
)
from skep.netproxy.relay.adapters.splice import Conduit, Conduits
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.counts import Counts
from skep.netproxy.relay.core.pipe import (
    CHUNK_BYTES,
    CLIENT,
    CLOSE,
    END_WRITING,
    READ,
    SIDE_NAMES,
    TASK,
    Pipe,
)

_DONT_WAIT = sockets.DONT_WAIT
# For what an end is known to follow: the kernel keeps it back for the moment until that has been
# passed on, and both travel in one packet.
_MORE_FOLLOWS = _DONT_WAIT | int(socket.MSG_MORE)
# In one turn of the loop, so that a connection that never pauses doesn't starve the others.
CHUNKS_PER_TURN = 4
# A direction is bulk when it has moved a mebibyte in pieces of this size or larger.
BULK_CHUNK_BYTES = 64 * 1024
BULK_CHUNKS = 16


class End:
    """One of the two sockets."""

    __slots__ = (
        "bit", "bulk_chunks", "conduit", "fd", "is_hung_up", "link", "other", "side", "socket",
        "watches_writing",
    )  # fmt: skip

    other: End

    def __init__(self, link: Link, side: int, of: socket.SocketType) -> None:
        self.link: Link | None = link
        self.side = side
        self.bit = 1 << side
        self.socket = of
        self.fd = of.fileno()
        self.is_hung_up = False
        self.watches_writing = False
        self.bulk_chunks = 0
        self.conduit: Conduit | None = None  # what is read here goes by it

    def on_event(self, events: int) -> None:
        """Something has happened to this socket."""
        link = self.link
        if link is None:
            return
        if events & WRITABLE and link.pipe.deaf & self.other.bit:
            link.flush(self)
        if events & ~WRITABLE and self.link is not None:
            if events & ENDED:
                self.is_hung_up = True
                if events & FAILED and link.pipe.has_ended(self.side):
                    link.broken(self)
                    return
            self.pump()

    def pump(self) -> None:
        """Read what there is and send it to the other side."""
        link = self.link
        if link is None or link.pipe.deaf & self.bit:
            return
        if self.conduit is not None:
            self._pump_bulk(link, self.conduit)
            return
        buffer, receive, send = link.buffer, self.socket.recv_into, self.other.socket.send
        for _ in range(CHUNKS_PER_TURN):
            try:
                count = receive(buffer, 0, _DONT_WAIT)
            except BlockingIOError:
                self._has_nothing()
                return
            except OSError:
                link.broken(self)
                return
            if not count:
                link.ended(self)
                return
            link.received[self.side] += count
            try:
                sent = send(buffer[:count], _MORE_FOLLOWS if self.is_hung_up else _DONT_WAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                link.broken(self.other)
                return
            if sent < count:
                link.stuck(self.other, bytes(buffer[sent:count]))
                return
            # A read that leaves the buffer unfilled has emptied the socket, and what comes later
            # is told by an event of its own; but an end that is known of is behind the data.
            if count >= BULK_CHUNK_BYTES and self._is_bulk(link):
                break
            if count < CHUNK_BYTES and not self.is_hung_up:
                return
        link.loop.soon(self.pump)

    def _has_nothing(self) -> None:
        """Nor an end. If one was told of, that was another socket's, which had this number."""
        if self.is_hung_up:
            self.is_hung_up = False
            sockets.push(self.other.socket)

    def _is_bulk(self, link: Link) -> bool:
        """One more large piece has come; after so many, what comes is no longer looked at."""
        self.bulk_chunks += 1
        if self.bulk_chunks < BULK_CHUNKS:
            return False
        self.bulk_chunks = 0
        self.conduit = link.conduits.take()
        if self.conduit is None:
            return False
        # A splice has no say of its own whether to wait for a socket.
        self.socket.setblocking(False)
        self.other.socket.setblocking(False)
        return True

    def _pump_bulk(self, link: Link, conduit: Conduit) -> None:
        other = self.other
        for _ in range(CHUNKS_PER_TURN):
            try:
                count = conduit.fill(self.fd)
            except BlockingIOError:
                self._has_nothing()
                return
            except OSError:
                link.broken(self)
                return
            if not count:
                link.ended(self)
                return
            link.received[self.side] += count
            try:
                is_drained = conduit.drain(other.fd)
            except OSError:
                link.broken(other)
                return
            if not is_drained:
                link.held(other)
                return
        link.loop.soon(self.pump)


def close_by_reset(connected: socket.SocketType) -> None:
    """Close with RST, as all sockets of the relay are set to from the start."""
    connected.close()


class Shared:
    """What all connections of a process have in common. `on_end` is called with each link whose
    sockets have been closed."""

    __slots__ = ("buffer", "conduits", "loop", "on_end")

    def __init__(self, loop: Loop, on_end: Callable[[Link], None]) -> None:
        self.loop = loop
        self.conduits = Conduits()
        self.buffer = memoryview(bytearray(CHUNK_BYTES))
        self.on_end = on_end


class Link:
    """Relays between two connected sockets, which it owns from now on. `task_id` is to be released
    in `balancer` when it has ended."""

    __slots__ = (
        "_has_keepalive", "_on_end", "balancer", "buffer", "client", "conduits", "counts", "loop",
        "pipe", "received", "task", "task_id",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        client: socket.SocketType,
        task: socket.SocketType,
        counts: Counts,
        held: tuple[Balancer, TaskId],
    ) -> None:
        self.loop = shared.loop
        self.buffer = shared.buffer
        self.conduits = shared.conduits
        self._on_end = shared.on_end
        self._has_keepalive = False
        self.pipe = Pipe()
        self.counts = counts
        self.received = counts.received
        self.balancer, self.task_id = held
        self.client = End(self, CLIENT, client)
        self.task = End(self, TASK, task)
        self.client.other, self.task.other = self.task, self.client

    def start(self, first: bytes, *, is_watched: bool) -> None:
        """Send `first` to the task, then relay. `is_watched`: the task's socket is known to the
        loop already, for both directions."""
        client, task = self.client, self.task
        self.loop.attach(client.fd, client.on_event, WATCH_READING)
        if is_watched:
            task.watches_writing = True
            # What came with the connection was told to whoever made it; an end is told once more.
            self.loop.hand_over(task.fd, task.on_event)
            self.loop.modify(task.fd, WATCH_BOTH)
        else:
            self.loop.attach(task.fd, task.on_event, WATCH_READING)
        if first:
            self._send_first(first)
        # Mostly the client has spoken already, while it was being connected.
        client.pump()

    def go_on(self, events: int, rest: bytes) -> None:
        """Relay between a client that is known to the loop, and was told of `events`, and a task
        that has been sent all but `rest` of what the client has said."""
        client, task = self.client, self.task
        self.loop.hand_over(client.fd, client.on_event)
        self.loop.attach(task.fd, task.on_event, WATCH_READING)
        if rest:
            self.stuck(task, rest)
        if events:
            client.on_event(events)

    def flush(self, to: End) -> None:
        """Send what waits for `to`, and go on reading once it is gone."""
        waiting = self.pipe.waiting(to.side)
        if waiting is None:
            self._flush_held(to)
            return
        try:
            sent = to.socket.send(waiting, _DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            self.broken(to)
            return
        if self.pipe.sent(to.side, sent) == READ:
            to.other.pump()

    def stuck(self, to: End, rest: bytes) -> None:
        """`to` did not take `rest`."""
        self.pipe.stuck(to.side, rest)
        self._watch_writing(to)

    def held(self, to: End) -> None:
        """`to` did not take all that its conduit holds."""
        self.pipe.held(to.side)
        self._watch_writing(to)

    def buffered_bytes(self) -> int:
        """What this connection holds, pipes included."""
        conduits = (self.client.conduit, self.task.conduit)
        return self.pipe.buffered_bytes() + sum(each.held for each in conduits if each is not None)

    def ended(self, source: End) -> None:
        """`source` has sent all it will ever send."""
        step = self.pipe.ended(source.side)
        if step == END_WRITING:
            # It may be gone already, which its next read or write will tell.
            with contextlib.suppress(OSError):
                source.other.socket.shutdown(socket.SHUT_WR)
        elif step == CLOSE:
            self._close(sockets.close_orderly)

    def broken(self, end: End) -> None:
        """The socket of `end` has failed: nobody may take this for an orderly end."""
        self.counts.failed(f"{SIDE_NAMES[end.side]}_reset")
        self.reset()

    def reset(self) -> None:
        """Cut both sides."""
        self.pipe.broken()
        self._close(close_by_reset)

    def keep_alive(self) -> None:
        """From now on notice a task or node that is gone without a word."""
        if not self._has_keepalive:
            self._has_keepalive = True
            sockets.set_keepalive(self.task.socket)

    def _flush_held(self, to: End) -> None:
        # An event may be late: what it is about may be gone.
        conduit = to.other.conduit
        if conduit is None or not self.pipe.is_held(to.side):
            return
        try:
            is_drained = conduit.drain(to.fd)
        except OSError:
            self.broken(to)
            return
        if is_drained and self.pipe.passed(to.side) == READ:
            to.other.pump()

    def _watch_writing(self, to: End) -> None:
        if not to.watches_writing:
            to.watches_writing = True
            self.loop.modify(to.fd, WATCH_BOTH)

    def _send_first(self, first: bytes) -> None:
        try:
            sent = self.task.socket.send(first, _DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # Its next read will tell.
        if sent < len(first):
            self.stuck(self.task, first[sent:])

    def _close(self, close: Callable[[socket.SocketType], None]) -> None:
        for end in (self.client, self.task):
            end.link = None
            self.loop.forget(end.fd)
            close(end.socket)
            if end.conduit is not None:
                self.conduits.give_back(end.conduit)
                end.conduit = None
        del self.client.other, self.task.other  # no cycles: they would wait for the collector
        self._on_end(self)
