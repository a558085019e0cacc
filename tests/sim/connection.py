"""One connection between two simulated processes: two ends, and frames in flight between them.

It behaves as TCP under gRPC does: ordered, at most once, with a window. A cut link holds frames up
until it heals or until one side gives up; sides give up each for itself, so that one may believe in
a connection that the other has long forgotten (half-open), until it sends or its keepalive ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from skep.env import CallError, StreamBroken
from tests.sim.loop import Owner


class IncarnationDead(BaseException):
    """A dead process's code reached for the world. Not an Exception: nothing may swallow it."""


@dataclass(frozen=True)
class Goodbye:
    """The last thing in a direction: a clean end, or the handler's error for the caller."""

    error: CallError | None = None


class Weather(Protocol):
    """What a connection asks of the network."""

    def now(self) -> float: ...

    def delay_s(self, source: str, target: str) -> float:
        """How long the next frame takes."""
        ...

    def is_cut(self, source: str, target: str) -> bool: ...

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back, whatever becomes of the processes."""
        ...

    def keepalive_s(self) -> float:
        """How long a side that hears nothing believes in its connection."""
        ...

    def note(self, text: str) -> None: ...

    def ended(self, connection: Connection) -> None: ...


class _Flight:
    """One direction: frames that were sent and have not arrived."""

    def __init__(self, connection: Connection, source: End, target: End) -> None:
        self.connection = connection
        self._weather = connection.weather
        self.source = source
        self.target = target
        self._last_arrival = 0.0
        self._stuck: deque[bytes | Goodbye] = deque()
        self.unread = 0

    def push(self, item: bytes | Goodbye) -> None:
        delay_s = self._weather.delay_s(self.source.machine, self.target.machine)
        # Never the same moment twice, or the loop's dice would put frames out of order.
        arrival = max(self._weather.now() + delay_s, self._last_arrival + 1e-6)
        self._last_arrival = arrival
        self.unread += 1
        size = len(item) if isinstance(item, bytes) else "goodbye"
        self._weather.note(f"{self.connection.name} {self.source.name} sends {size} +{delay_s:.6f}")
        self._weather.after(arrival - self._weather.now(), lambda: self._arrive(item))

    def healed(self) -> None:
        """The link is back: what was stuck starts again, in order."""
        stuck, self._stuck = self._stuck, deque()
        for item in stuck:
            self.unread -= 1
            self.push(item)

    def _arrive(self, item: bytes | Goodbye) -> None:
        if self._stuck or self._weather.is_cut(self.source.machine, self.target.machine):
            self._stuck.append(item)
        elif self.target.is_gone:
            # The other side has no such connection: it answers with a reset.
            rtt_s = self._weather.delay_s(self.target.machine, self.source.machine)
            self._weather.after(rtt_s, lambda: self.source.fail("reset by the other side"))
        else:
            self.target.arrived(item)


class End:
    """One side of a connection; implements `skep.env.Stream`."""

    def __init__(self, name: str, machine: str, owner: Owner, peer: str) -> None:
        self.name = name
        self.machine = machine
        self.owner = owner
        self.incoming: _Flight
        self.outgoing: _Flight
        self.window = 1
        self.is_server = False
        self.has_received = False
        self.on_lost: Callable[[], None] | None = None
        self._peer = peer
        self._inbox: deque[bytes] = deque()
        self._goodbye: Goodbye | None = None
        self._broken: str | None = None
        self._is_closed = False
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def is_gone(self) -> bool:
        """Whether this side knows nothing of the connection any more."""
        return self._is_closed or self._broken is not None or self.owner.is_dead

    async def send(self, frame: bytes) -> None:
        self._must_live()
        assert isinstance(frame, bytes), type(frame)
        while not self._is_over() and self.outgoing.unread >= self.window:
            await self._changed()
        if self._goodbye is not None and self._goodbye.error is not None:
            raise self._goodbye.error
        if self._is_over():
            raise StreamBroken(self._broken or f"{self._peer}: the stream is closed")
        self.outgoing.push(frame)

    async def receive(self) -> bytes | None:
        self._must_live()
        while True:
            if self._broken is not None:
                raise StreamBroken(self._broken)
            if self._inbox:
                frame = self._inbox.popleft()
                self.incoming.unread -= 1
                self.outgoing.target.wake()
                return frame
            if self._goodbye is not None and self._goodbye.error is not None:
                raise self._goodbye.error
            if self._goodbye is not None:
                return None
            if self._is_closed:
                raise StreamBroken(f"{self._peer}: closed here")
            await self._changed()

    async def close(self) -> None:
        self._must_live()
        # As in gRPC: at the serving side, the handler's return is what closes the stream.
        if not self.is_server:
            self.say_goodbye(Goodbye())

    def say_goodbye(self, goodbye: Goodbye) -> None:
        """Close both directions, after what was already sent."""
        if not self.is_gone:
            self._is_closed = True
            self.outgoing.push(goodbye)
            self._forget()
            self.wake()

    def fail(self, why: str) -> None:
        """This side learns that the connection is broken."""
        if not self.is_gone:
            self._broken = f"{self._peer}: {why}"
            self._inbox.clear()
            self._forget()
            self.wake()
            if self.on_lost is not None:
                self.on_lost()

    def arrived(self, item: bytes | Goodbye) -> None:
        """The network has brought something."""
        self.has_received = True
        if isinstance(item, Goodbye):
            self._goodbye = item
            if self.on_lost is not None:
                self.on_lost()
        else:
            self._inbox.append(item)
        self.wake()

    def wake(self) -> None:
        """Something has changed for whoever waits in send or receive."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _is_over(self) -> bool:
        return self._is_closed or self._broken is not None or self._goodbye is not None

    def _must_live(self) -> None:
        if self.owner.is_dead:
            raise IncarnationDead(self.owner.name)

    def _forget(self) -> None:
        self.outgoing.connection.weather.ended(self.outgoing.connection)

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.Future()
        self._waiters.append(waiter)
        await waiter
        self._must_live()


class Connection:
    """Two ends and what flies between them."""

    def __init__(self, name: str, weather: Weather, client: End, server: End, window: int) -> None:
        self.name = name
        self.weather = weather
        self.client = client
        self.server = server
        server.is_server = True
        there, back = _Flight(self, client, server), _Flight(self, server, client)
        client.outgoing = server.incoming = there
        server.outgoing = client.incoming = back
        client.window = server.window = window

    @property
    def ends(self) -> tuple[End, End]:
        """The client's and the server's end."""
        return self.client, self.server

    @property
    def is_over(self) -> bool:
        """Whether neither side knows of it."""
        return self.client.is_gone and self.server.is_gone

    def joins(self, a: str, b: str) -> bool:
        """Whether it goes between these two machines."""
        return {self.client.machine, self.server.machine} == {a, b}

    def healed(self) -> None:
        """A link is back: send again what was stuck on it."""
        self.client.outgoing.healed()
        self.server.outgoing.healed()
