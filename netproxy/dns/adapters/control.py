"""The control socket: whoever may open it says what is answered.

It is a unix socket of mode 0600; the kernel lets only its owner and root connect. When the control
process goes, whatever it has said stays in force.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

from skep.netproxy.dns.adapters.loop import Loop
from skep.netproxy.dns.adapters.server import Server
from skep.netproxy.dns.adapters.stream import Stream
from skep.netproxy.dns.adapters.upstream import Upstream
from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import (
    Applied,
    Ask,
    End,
    GetStatus,
    Hello,
    ProtocolBroken,
    Refused,
    Request,
    Response,
    ScopeError,
    SetNetworks,
    SetScopes,
    Status,
    Told,
    Welcome,
)
from skep.netproxy.dns.core.zones import Names, Outcome

log = logging.getLogger(__name__)

# One control process, the next one, and some people with doctors.
CONNECTIONS_LIMIT = 16


def listen(path: Path) -> socket.socket:
    """The socket, in place of one that a dead process has left. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        # The mode is set by the mask: a moment in which others might connect is one too many.
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS_LIMIT)
    except BaseException:
        listener.close()
        raise
    return listener


class Control:
    """Carries requests out, one after the other."""

    def __init__(self, loop: Loop, names: Names, server: Server, upstream: Upstream) -> None:
        self._loop = loop
        self._names = names
        self._server = server
        self._upstream = upstream
        self._peers: set[_Peer] = set()

    def serve(self, listener: socket.socket) -> None:
        """Accept from now on."""

        def acceptable(_: int) -> None:
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                if len(self._peers) >= CONNECTIONS_LIMIT:
                    client.close()
                else:
                    self._peers.add(_Peer(self, self._loop, client))

        self._loop.watch(listener.fileno(), acceptable)

    def close(self) -> None:
        """Close every connection."""
        for peer in tuple(self._peers):
            peer.close()

    def gone(self, peer: _Peer) -> None:
        """A connection is over."""
        self._peers.discard(peer)

    def answer(self, request: Request) -> Response | None:
        """Carry out; None ends the process."""
        match request:
            case Hello(format):
                log.info("control=connected format=%d", format)
                return Welcome(protocol.FORMAT, os.getpid())
            case SetNetworks():
                return self._set_networks(request)
            case SetScopes():
                return self._server.apply(request)
            case Ask():
                return self._ask(request)
            case GetStatus():
                return self._status()
            case End():
                log.info("control=end")
                self._loop.stop()
                return None

    def _set_networks(self, request: SetNetworks) -> Response:
        try:
            touched = self._names.change_networks(
                request.version, request.changed, request.removed, request.is_whole
            )
        except ValueError as error:
            return Refused(f"version {request.version}: {error}")
        return Applied(touched=touched)

    def _ask(self, request: Ask) -> Response:
        view = self._names.views.get(request.scope_id)
        if view is None:
            return Applied(errors=(ScopeError(request.scope_id, "there is no such scope"),))
        outcome, entry = self._names.find(view, request.name.lower().removesuffix("."))
        if outcome is Outcome.FORWARD and not self._upstream.resolvers():
            log.warning("scope=%s name=%r why='no resolver'", request.scope_id, request.name)
        return Told(
            outcome=outcome.value, addresses=entry.record.addresses if entry is not None else ()
        )

    def _status(self) -> Status:
        return Status(
            pid=os.getpid(),
            version=self._names.version,
            networks=len(self._names.zones),
            records=sum(len(zone.entries) for zone in self._names.zones.values()),
            scopes=self._server.statuses(),
            counts=tuple(sorted(self._server.answerer.counts.items())),
            outstanding=self._upstream.outstanding,
            resolvers=tuple(f"[{host}]:{port}" for host, port in self._upstream.resolvers()),
        )


class _Peer:
    """One control connection."""

    def __init__(self, control: Control, loop: Loop, client: socket.socket) -> None:
        self._control = control
        self._stream = Stream(loop, client, self._received, self.close)

    def close(self) -> None:
        """Idempotent."""
        self._stream.close()
        self._control.gone(self)

    def _received(self, buffer: bytearray) -> None:
        try:
            while self._stream.is_open and (body := protocol.take_frame(buffer)) is not None:
                response = self._control.answer(protocol.decode_request(body))
                if response is None:
                    return
                self._stream.write(protocol.encode(response))
        except ProtocolBroken as error:
            log.warning("control=refused why=%r", str(error))
            self._stream.write(protocol.encode(Refused(str(error))))
            self._stream.end()
            self._control.gone(self)
