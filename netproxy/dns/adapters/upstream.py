"""Asking other name servers, from the node's own network namespace.

Sockets are this process's own, so that a task's query leaves by the node's routes, and never by an
overlay. Each attempt has a fresh one: the kernel gives it a random port, and being connected it
hears nobody but the server that was asked.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from skep.netproxy.dns.adapters.loop import Loop, Timer
from skep.netproxy.dns.adapters.stream import Stream
from skep.netproxy.dns.core import wire
from skep.netproxy.dns.core.forward import (
    Asked,
    DeadlineReached,
    Dropped,
    Effect,
    Failed,
    Finished,
    Forwarding,
    Heard,
    Send,
    SetDeadline,
)
from skep.netproxy.dns.core.resolv import Resolver, resolvers, usable
from skep.netproxy.dns.core.wire import BadQuery, Query

log = logging.getLogger(__name__)

# A longer file is no resolv.conf.
RESOLV_CONF_LIMIT_BYTES = 64 << 10


class ResolvConf:
    """The node's own name servers, read again whenever the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._resolvers: tuple[Resolver, ...] = ()

    def resolvers(self) -> tuple[Resolver, ...]:
        """As the file says now; none where it can't be read."""
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                with self._path.open("rb") as file:
                    text = file.read(RESOLV_CONF_LIMIT_BYTES).decode("utf-8", "replace")
                self._resolvers, self._seen = resolvers(text), seen
                shown = ",".join(f"[{host}]:{port}" for host, port in self._resolvers)
                log.info("file=%s resolvers=%s", self._path, shown)
        except OSError as error:
            if self._resolvers:
                log.warning("file=%s why=%r", self._path, str(error))
            self._resolvers, self._seen = (), None
        return self._resolvers


@dataclass(slots=True)
class _Exchange:
    """One query that was passed on: who waits for it, and what is open for it."""

    reply: Callable[[bytes], None]
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    deadline: Timer | None = None


class Upstream:
    """Passes queries on and hands the answers back. `own`: where we listen ourselves."""

    def __init__(self, loop: Loop, resolv_conf: ResolvConf) -> None:
        self._loop = loop
        self._resolv_conf = resolv_conf
        self.own: frozenset[tuple[str, int]] = frozenset()
        self._core = Forwarding(random.SystemRandom())
        self._exchanges: dict[int, _Exchange] = {}
        self._keys = itertools.count()

    @property
    def outstanding(self) -> int:
        """Queries that wait for an answer."""
        return self._core.outstanding

    def resolvers(self) -> tuple[Resolver, ...]:
        """Who is asked at present."""
        return usable(self._resolv_conf.resolvers(), self.own)

    def new_key(self) -> int:
        """A key for `ask`, never used before."""
        return next(self._keys)

    def ask(self, key: int, what: tuple[str, Query, bool], reply: Callable[[bytes], None]) -> None:
        """Pass on `what`: scope, query, whether it came over UDP. `reply` is called once, with
        the answer for the client, unless the key is dropped before."""
        scope_id, query, is_udp = what
        self._exchanges[key] = _Exchange(reply)
        asked = Asked(self._loop.now(), key, scope_id, query, is_udp, self.resolvers())
        self._perform(self._core.step(asked))

    def drop(self, key: int) -> None:
        """Nobody waits for this answer any more; a key that is done with is fine."""
        self._core.step(Dropped(key))
        self._close(key)

    def close(self) -> None:
        """Drop everything."""
        for key in tuple(self._exchanges):
            self.drop(key)

    def _perform(self, effects: list[Effect]) -> None:
        # A loop, since a socket that fails at once leads to further effects.
        while effects:
            effect = effects.pop(0)
            match effect:
                case Send():
                    effects += self._send(effect)
                case SetDeadline(key, at):
                    self._set_deadline(key, at)
                case Finished(key, answer):
                    exchange = self._close(key)
                    if exchange is not None:
                        exchange.reply(answer)

    def _set_deadline(self, key: int, at: float) -> None:
        exchange = self._exchanges.get(key)
        if exchange is None:
            return
        if exchange.deadline is not None:
            exchange.deadline.cancel()

        def reached() -> None:
            self._perform(self._core.step(DeadlineReached(self._loop.now(), key)))

        exchange.deadline = self._loop.call_at(at, reached)

    def _close(self, key: int) -> _Exchange | None:
        exchange = self._exchanges.pop(key, None)
        if exchange is not None:
            if exchange.deadline is not None:
                exchange.deadline.cancel()
            for number in tuple(exchange.sockets):
                self._close_udp(exchange, number)
            for stream in exchange.streams.values():
                stream.close()
        return exchange

    def _close_udp(self, exchange: _Exchange, attempt: int) -> None:
        asking = exchange.sockets.pop(attempt, None)
        if asking is not None:
            self._loop.unwatch(asking.fileno())
            asking.close()

    def _send(self, send: Send) -> list[Effect]:
        exchange = self._exchanges[send.key]
        kind = socket.SOCK_STREAM if send.is_tcp else socket.SOCK_DGRAM
        try:
            asking = _connect(send.resolver, kind)
        except OSError as error:
            log.debug("resolver=%s why=%r", send.resolver, str(error))
            return self._failed(send)
        if send.is_tcp:
            self._send_stream(send, asking)
            return []
        exchange.sockets[send.attempt] = asking
        self._loop.watch(asking.fileno(), functools.partial(self._answered, send))
        try:
            asking.send(send.message)
        except OSError:
            self._close_udp(exchange, send.attempt)
            return self._failed(send)
        return []

    def _failed(self, send: Send) -> list[Effect]:
        return self._core.step(Failed(self._loop.now(), send.key, send.attempt))

    def _answered(self, send: Send, _: int) -> None:
        exchange = self._exchanges[send.key]
        try:
            message = exchange.sockets[send.attempt].recv(wire.MESSAGE_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # Nobody listens there: the kernel tells, as the socket is connected.
            self._close_udp(exchange, send.attempt)
            self._perform(self._failed(send))
            return
        heard = Heard(self._loop.now(), send.key, send.attempt, message)
        self._perform(self._core.step(heard))

    def _send_stream(self, send: Send, connecting: socket.socket) -> None:
        def received(buffer: bytearray) -> None:
            with contextlib.suppress(BadQuery):
                for message in wire.unframe(buffer, wire.MESSAGE_LIMIT_BYTES):
                    heard = Heard(self._loop.now(), send.key, send.attempt, message)
                    self._perform(self._core.step(heard))

        def ended() -> None:
            self._perform(self._failed(send))

        stream = Stream(self._loop, connecting, received, ended)
        self._exchanges[send.key].streams[send.attempt] = stream
        stream.write(wire.frame(send.message))


def _connect(resolver: Resolver, kind: socket.SocketKind) -> socket.socket:
    """A socket that hears only this resolver; TCP may still be connecting. Raises OSError."""
    host, _, zone = resolver.host.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connecting = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        address: tuple[str, int] | tuple[str, int, int, int] = (host, resolver.port)
        if zone:
            index = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
            address = (host, resolver.port, 0, index)
        with contextlib.suppress(BlockingIOError):
            connecting.connect(address)
    except BaseException:
        connecting.close()
        raise
    return connecting
