"""Makes the connection to a task: directly when it is on this node, by the mesh when it isn't.

There is no other way out of the relay, so that this file is where it is seen that a task of another
node is never connected to: its address is not even looked at.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from dataclasses import dataclass

from skep.domain.address import Address, parse_address, show_address
from skep.domain.base import ClusterId
from skep.env import Env
from skep.netproxy.adapters import sockets
from skep.netproxy.core.dial import (
    Attempt,
    Connected,
    Dial,
    Established,
    Event,
    GivenUp,
    Refused,
    Requested,
    Withdrawn,
)
from skep.netproxy.core.mesh import MeshHeader, MeshStatus, encode_header, read_status
from skep.netproxy.core.routes import Candidate, Route
from skep.netproxy.core.tables import Entry, Tables

# Parsing addresses anew would be a tenth of what a connection costs.
SOURCES_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Reached:
    """A connected task; release the candidate in its balancer afterwards."""

    candidate: Candidate
    socket: socket.socket


class Connector:
    """All outgoing connections of one relay."""

    def __init__(self, env: Env, cluster_id: ClusterId, task_source: str, mesh_source: str) -> None:
        self._env = env
        self._loop = asyncio.get_running_loop()
        self._cluster_id = cluster_id
        self._task_source = task_source
        self._mesh_source = mesh_source
        self._attempts: dict[asyncio.Task[socket.socket], tuple[Route, Candidate]] = {}

    async def reach(self, entry: Entry, client: Address) -> Reached | GivenUp:
        """A task behind `entry`; tries one after the other."""
        dial = Dial(entry.balancer)
        event: Event = Requested(self._env.now())
        connected: socket.socket | None = None
        try:
            while True:
                match dial.step(event):
                    case Attempt(candidate, within_s):
                        connected, event = await self._try(entry, candidate, within_s, client)
                    case Established(candidate):
                        assert connected is not None
                        return Reached(candidate, connected)
                    case GivenUp() as given_up:
                        return given_up
        finally:
            dial.abandon()

    def withdraw(self, tables: Tables) -> None:
        """End every attempt under way that the tables don't name any more; the clients are
        connected elsewhere."""
        for attempt, (route, candidate) in tuple(self._attempts.items()):
            if not tables.names(route.service_id, route.target, candidate):
                attempt.cancel()

    async def _try(
        self, entry: Entry, candidate: Candidate, within_s: float, client: Address
    ) -> tuple[socket.socket | None, Event]:
        try:
            connected = await self._connect(entry.route, candidate, within_s, client)
        except TimeoutError:
            return None, Refused(self._env.now(), f"no answer in {within_s:.1f} s")
        except OSError as error:
            return None, Refused(self._env.now(), error.strerror or str(error))
        if connected is None:
            return None, Withdrawn(self._env.now())
        return connected, Connected(self._env.now())

    async def _connect(
        self, route: Route, candidate: Candidate, within_s: float, client: Address
    ) -> socket.socket | None:
        """None: withdrawn. Raises OSError, TimeoutError."""
        if candidate.mesh_address is None:
            address, source, header = (candidate.address, route.target), self._task_source, b""
        else:
            address, source = parse_address(candidate.mesh_address), self._mesh_source
            header = self._header(route, candidate, client)
        connecting, is_connected = sockets.begin_connect(address, _source_for(address[0], source))
        if is_connected and not header:
            return connecting
        attempt = self._env.spawn(
            "attempt", self._finish(connecting, None if is_connected else address, header)
        )
        self._attempts[attempt] = (route, candidate)
        try:
            await asyncio.wait((attempt,), timeout=within_s)
        except asyncio.CancelledError:
            if not attempt.cancel() and not attempt.cancelled() and not attempt.exception():
                attempt.result().close()
            raise
        finally:
            del self._attempts[attempt]
        if not attempt.done():
            attempt.cancel()
            raise TimeoutError
        return None if attempt.cancelled() else attempt.result()

    def _header(self, route: Route, candidate: Candidate, client: Address) -> bytes:
        return encode_header(
            MeshHeader(
                cluster_id=self._cluster_id,
                service_id=route.service_id,
                port=route.target,
                task_id=candidate.task_id,
                client=show_address(client),
            )
        )

    async def _finish(
        self, connecting: socket.socket, address: Address | None, header: bytes
    ) -> socket.socket:
        """Wait until it is connected (to `address`, unless it is already), and for the owner's
        answer to the header."""
        try:
            if address is not None:
                await self._loop.sock_connect(connecting, address)
            if header:
                await self._loop.sock_sendall(connecting, header)
                status = read_status(await self._loop.sock_recv(connecting, 1))
                if status is not MeshStatus.CONNECTED:
                    raise ConnectionRefusedError(f"the owner says {status.name.lower()}")
        except BaseException:
            connecting.close()
            raise
        return connecting


@functools.lru_cache(maxsize=SOURCES_KEPT)
def _source_for(host: str, source: str) -> str | None:
    """Connections come from this node's own address, so that a task (and a test) can tell which
    netproxy they are from; but loopback and the world outside don't mix."""
    mixes = ipaddress.ip_address(source).is_loopback != ipaddress.ip_address(host).is_loopback
    return None if mixes or ":" in source or ":" in host else source
