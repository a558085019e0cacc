"""The scopes that are answered: their sockets, and the queries that come to them."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from skep.netproxy.dns.adapters.loop import Loop, Timer
from skep.netproxy.dns.adapters.places import Sockets, namespace_at, open_all
from skep.netproxy.dns.adapters.stream import Stream
from skep.netproxy.dns.adapters.upstream import Upstream
from skep.netproxy.dns.core import wire
from skep.netproxy.dns.core.answer import Answerer
from skep.netproxy.dns.core.protocol import (
    Applied,
    Listen,
    ScopeError,
    ScopeStatus,
    SetScopes,
)
from skep.netproxy.dns.core.wire import BadQuery, Query
from skep.netproxy.dns.core.zones import Names, View

log = logging.getLogger(__name__)

# Received per turn of the loop and scope, so that a flood in one starves no other.
BATCH = 64
ACCEPTS_PER_TURN = 16
# TCP is for long answers: a few at a time are plenty, and each is a file of this process.
SCOPE_CONNECTIONS_LIMIT = 64
CONNECTIONS_LIMIT = 512
CONNECTION_IDLE_S = 10.0
# Queries that one connection may have under way, and answers that it may leave unread.
PIPELINE_LIMIT = 32
UNSENT_LIMIT_BYTES = 4 * wire.MESSAGE_LIMIT_BYTES


class Server:
    """All scopes of this process."""

    def __init__(self, loop: Loop, names: Names, upstream: Upstream) -> None:
        self._loop = loop
        self._names = names
        self._upstream = upstream
        self.answerer = Answerer(names)
        self._served: dict[str, _Served] = {}
        self.connections: Counter[str] = Counter()  # of TCP, by scope

    def apply(self, request: SetScopes) -> Applied:
        """Open, close, change; sockets of scopes that stay where they are, are left alone."""
        wanted = {listen.scope.scope_id: listen for listen in request.listen}
        gone = set(request.unlisten) - set(wanted)
        if request.is_whole:
            gone = set(self._served) - set(wanted)
        moved = {key for key, listen in wanted.items() if self._is_elsewhere(listen)}
        to_close = [key for key in gone | moved if key in self._served]
        for key in to_close:
            self._close(key)
        errors = []
        for key in gone:
            self._names.drop_scope(key)
        to_open = []
        for key, listen in wanted.items():
            try:
                self._names.put_scope(listen.scope)
            except ValueError as error:
                errors.append(ScopeError(key, str(error)))
                continue
            if key not in self._served:
                to_open.append(listen)
            else:
                self._served[key].listen = listen
        for is_ours in (True, False):
            batch = [listen for listen in to_open if (listen.namespace is None) is is_ours]
            errors += self._open(batch)
        self._upstream.own = frozenset(
            place for served in self._served.values() if (place := served.place_here) is not None
        )
        return Applied(touched=len(to_close) + len(to_open), errors=tuple(errors))

    def _is_elsewhere(self, listen: Listen) -> bool:
        served = self._served.get(listen.scope.scope_id)
        if served is None:
            return False
        held = served.listen
        if (held.address, held.port, held.namespace) != (
            listen.address,
            listen.port,
            listen.namespace,
        ):
            return True
        if listen.namespace is None:
            return False
        # The same path may stand for another namespace by now; one without a file is closed
        # only when control says so.
        return namespace_at(listen.namespace) not in (None, served.sockets.namespace)

    def _open(self, batch: list[Listen]) -> list[ScopeError]:
        errors = []
        for listen, opened in zip(batch, open_all(batch), strict=True):
            scope_id = listen.scope.scope_id
            if isinstance(opened, OSError):
                # Control hears of it, logs it once, and tries again every second.
                log.debug("scope=%s state=failed why=%r", scope_id, str(opened))
                errors.append(ScopeError(scope_id, f"{listen.address}:{listen.port}: {opened}"))
                continue
            view = self._names.views[scope_id]
            self._served[scope_id] = _Served(self, listen, opened, view)
            log.info(
                "scope=%s state=listening address=%s namespace=%s",
                scope_id,
                self._served[scope_id].shown_place,
                listen.namespace,
            )
        return errors

    def _close(self, scope_id: str) -> None:
        self._served.pop(scope_id).close()
        log.info("scope=%s state=closed", scope_id)

    def close(self) -> None:
        """Close every scope."""
        for scope_id in tuple(self._served):
            self._close(scope_id)

    def statuses(self) -> tuple[ScopeStatus, ...]:
        """What is answered where."""
        return tuple(served.status() for _, served in sorted(self._served.items()))

    # What a scope's sockets need.

    @property
    def loop(self) -> Loop:
        """The process's loop."""
        return self._loop

    @property
    def upstream(self) -> Upstream:
        """Where to ask for other names."""
        return self._upstream


class _Served:
    """One scope that is answered."""

    def __init__(self, server: Server, listen: Listen, sockets: Sockets, view: View) -> None:
        self.listen = listen
        self.sockets = sockets
        self._server = server
        self._view = view
        self._connections: set[_Connection] = set()
        server.loop.watch(sockets.udp.fileno(), self._receivable)
        server.loop.watch(sockets.tcp.fileno(), self._acceptable)

    @property
    def place_here(self) -> tuple[str, int] | None:
        """Where it listens, if that is in this process's own namespace."""
        if self.listen.namespace is not None:
            return None
        host, port = self.sockets.udp.getsockname()[:2]
        return host, port

    @property
    def shown_place(self) -> str:
        """Its address, for logs."""
        host, port = self.sockets.udp.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def scope_id(self) -> str:
        """Whose this is."""
        return self._view.scope.scope_id

    def status(self) -> ScopeStatus:
        """For a person or a doctor."""
        host, port = self.sockets.udp.getsockname()[:2]
        return ScopeStatus(
            scope_id=self.scope_id,
            address=host,
            port=port,
            namespace=self.listen.namespace,
            queries=self._view.queries,
        )

    def close(self) -> None:
        """Close sockets and connections: nothing may keep the namespace."""
        for each in (self.sockets.udp, self.sockets.tcp):
            self._server.loop.unwatch(each.fileno())
        self.sockets.close()
        for connection in tuple(self._connections):
            connection.close()

    def _receivable(self, _: int) -> None:
        udp, view = self.sockets.udp, self._view
        respond = self._server.answerer.respond
        for _ in range(BATCH):
            try:
                data, client = udp.recvfrom(wire.QUERY_LIMIT_BYTES + 1)
            except OSError:
                return  # there are no more; or an error that an earlier answer met
            answer = respond(view, data, is_udp=True)
            if isinstance(answer, bytes):
                self._send(client, answer)
            elif answer is not None:
                upstream = self._server.upstream
                reply = functools.partial(self._send, client)
                upstream.ask(upstream.new_key(), (self.scope_id, answer, True), reply)

    def _send(self, client: Any, answer: bytes) -> None:
        # A client that is gone, or a full buffer: it will ask again. So for a closed socket.
        with contextlib.suppress(OSError):
            self.sockets.udp.sendto(answer, client)

    def _acceptable(self, _: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _ = self.sockets.tcp.accept()
            except OSError:
                return
            counts = self._server.connections
            if len(self._connections) >= SCOPE_CONNECTIONS_LIMIT or (
                counts.total() >= CONNECTIONS_LIMIT
            ):
                client.close()
                continue
            self._connections.add(_Connection(self._server, self._view, client, self._gone))
            counts[self.scope_id] += 1

    def _gone(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            counts = self._server.connections
            counts[self.scope_id] -= 1
            if not counts[self.scope_id]:
                del counts[self.scope_id]


class _Connection:
    """DNS over one TCP connection."""

    def __init__(
        self,
        server: Server,
        view: View,
        client: socket.socket,
        gone: Callable[[_Connection], None],
    ) -> None:
        self._server = server
        self._view = view
        self._gone = gone
        self._forwarded: set[int] = set()
        self._stream = Stream(server.loop, client, self._received, self.close)
        self._idle: Timer = self._idle_timer()

    def _idle_timer(self) -> Timer:
        return self._server.loop.call_at(self._server.loop.now() + CONNECTION_IDLE_S, self.close)

    def close(self) -> None:
        """Idempotent."""
        self._idle.cancel()
        self._stream.close()
        for key in self._forwarded:
            self._server.upstream.drop(key)
        self._forwarded.clear()
        self._gone(self)

    def _received(self, buffer: bytearray) -> None:
        self._idle.cancel()
        self._idle = self._idle_timer()
        try:
            messages = wire.unframe(buffer, wire.QUERY_LIMIT_BYTES)
        except BadQuery:
            self.close()
            return
        for message in messages:
            answer = self._server.answerer.respond(self._view, message, is_udp=False)
            if isinstance(answer, bytes):
                self._stream.write(wire.frame(answer))
            elif answer is not None:
                self._forward(answer)
            is_greedy = (
                self._stream.unsent_bytes > UNSENT_LIMIT_BYTES
                or len(self._forwarded) > PIPELINE_LIMIT
            )
            if is_greedy or not self._stream.is_open:
                self.close()
                return

    def _forward(self, query: Query) -> None:
        upstream = self._server.upstream
        key = upstream.new_key()
        self._forwarded.add(key)

        def reply(answer: bytes) -> None:
            self._forwarded.discard(key)
            self._stream.write(wire.frame(answer))

        upstream.ask(key, (self._view.scope.scope_id, query, False), reply)
