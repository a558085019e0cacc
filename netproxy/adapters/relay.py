"""The relay: a data plane in user space, for published TCP ports. Needs no privileges.

Everything that a new connection is decided by is replaced at once, without a turn of the loop in
between, when the managers' word is applied. Attempts under way to a task that is not named any more
are ended in that same moment, and their clients connected elsewhere. So when `apply` returns, no
new connection can reach a removed task, which is what the acknowledged version promises.

Open connections are never cut by an update, not even when their service is removed: their tasks are
told to end by then, and an answer that is under way is theirs to finish. They end with their task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from skep.domain.address import Address, show_address
from skep.domain.base import ClusterId, NodeId
from skep.env import Env
from skep.netproxy.adapters import sockets
from skep.netproxy.adapters.connector import Connector, Reached
from skep.netproxy.adapters.listener import Acceptor
from skep.netproxy.adapters.pump import Pump, make_buffer
from skep.netproxy.adapters.traffic import ServiceTraffic, Traffic
from skep.netproxy.core.dial import GivenUp
from skep.netproxy.core.mesh import (
    HEADER_DEADLINE_S,
    PREFIX_BYTES,
    MeshHeader,
    MeshRefused,
    MeshStatus,
    read_body,
    read_prefix,
)
from skep.netproxy.core.pipe import Side
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.tables import Entry, Tables
from skep.netproxy.dataplane import Observed

log = logging.getLogger(__name__)

_Work = Coroutine[None, None, None]
# What belongs to no service is counted under this name.
NO_SERVICE = ""
# Clients that hammer on a service without tasks must not fill the log: one line per service and
# kind of failure in this time; the metrics count them all.
NOTE_PERIOD_S = 1.0
NOTE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a relay stands. `connection_limit` is for both ways in together; each connection
    takes two files."""

    cluster_id: ClusterId
    node_id: NodeId
    ingress_host: str
    mesh: Address
    connection_limit: int


class Relay:
    """See `skep.netproxy.dataplane.Dataplane`. Must be made on its loop."""

    def __init__(self, env: Env, place: Place, traffic: Traffic) -> None:
        self._env = env
        self._place = place
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._tables = Tables()
        self._connector = Connector(env, place.cluster_id, place.ingress_host, place.mesh[0])
        self._acceptors: dict[Address, Acceptor] = {}
        self._buffer = make_buffer()
        self._dials: set[asyncio.Task[None]] = set()
        self._pumps: set[Pump] = set()
        self._noted_at: dict[tuple[str, str], float] = {}
        self._is_closing = False

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`. There is no await in here, and must be none."""
        self._tables.update(desired)
        self._connector.withdraw(self._tables)
        self._traffic.forget(self._tables.service_names())
        return self._listen()

    def observed(self) -> Observed:
        """See `Dataplane.observed`."""
        return Observed(
            version=self._tables.version,
            listeners=tuple(sorted(show_address(a.address) for a in self._acceptors.values())),
            connections=len(self._pumps) + len(self._dials),
        )

    @property
    def listener_count(self) -> int:
        """Open listeners; may be read from another thread."""
        return len(self._acceptors)

    def buffered_bytes(self) -> int:
        """What all connections together hold in memory."""
        return self._buffer.nbytes + sum(pump.buffered_bytes() for pump in self._pumps)

    async def close(self, drain_s: float) -> None:
        """See `Dataplane.close`."""
        self._is_closing = True
        for acceptor in self._acceptors.values():
            acceptor.close()
        self._acceptors.clear()
        until = self._env.now() + drain_s
        while (self._pumps or self._dials) and self._env.now() < until:
            await self._env.clock.sleep(0.01)
        for dial in tuple(self._dials):
            dial.cancel()
        if self._dials:
            await asyncio.wait(self._dials)
        for pump in tuple(self._pumps):
            pump.reset()

    def _listen(self) -> tuple[str, ...]:
        wanted: dict[Address, tuple[str, Callable[[socket.socket, Address], None]]] = {
            self._place.mesh: ("mesh", self._mesh_client)
        }
        errors = []
        for port, service_name in self._tables.ports().items():
            address = (self._place.ingress_host, port)
            if address in wanted:
                errors.append(f"{service_name}: port {port}: it is this node's mesh port")
            else:
                wanted[address] = (service_name, partial(self._ingress_client, port))
        for address in self._acceptors.keys() - wanted.keys():
            self._acceptors.pop(address).close()
            log.info("listener=%s state=closed", show_address(address))
        for address, (name, on_client) in wanted.items():
            if address in self._acceptors or self._is_closing:
                continue
            try:
                self._acceptors[address] = Acceptor(self._loop, address, on_client)
            except OSError as error:
                errors.append(f"{name}: port {address[1]}: {error.strerror or error}")
            else:
                log.info("listener=%s state=open for=%s", show_address(address), name)
        return tuple(errors)

    def _ingress_client(self, port: int, client: socket.socket, peer: Address) -> None:
        entry = self._tables.published(port)
        if entry is None:
            sockets.close_by_reset(client)
            return
        traffic = self._traffic.of(entry.route.service_name, "ingress")
        if self._is_full(traffic):
            sockets.close_by_reset(client)
            return
        self._start(self._serve_ingress(entry, client, peer, traffic))

    def _mesh_client(self, client: socket.socket, peer: Address) -> None:
        if self._is_full(self._traffic.of(NO_SERVICE, "mesh")):
            sockets.answer_and_close(client, bytes((MeshStatus.BUSY,)))
            return
        self._start(self._serve_mesh(client, peer))

    def _is_full(self, traffic: ServiceTraffic) -> bool:
        if len(self._pumps) + len(self._dials) < self._place.connection_limit:
            return False
        traffic.errors["too_many"] += 1
        return True

    def _start(self, work: _Work) -> None:
        dial = self._env.spawn("dial", work)
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _serve_ingress(
        self, entry: Entry, client: socket.socket, peer: Address, traffic: ServiceTraffic
    ) -> None:
        name = entry.route.service_name
        traffic.connections += 1
        traffic.active += 1
        is_relayed = False
        try:
            reached = await self._connector.reach(entry, peer)
            if isinstance(reached, GivenUp):
                self._note(name, "ingress", reached.kind, peer, reached.why)
                return
            is_relayed = True
        finally:
            if not is_relayed:
                traffic.active -= 1
                sockets.close_by_reset(client)
        self._relay(entry, client, reached, traffic)

    async def _serve_mesh(self, client: socket.socket, peer: Address) -> None:
        is_answered = False
        try:
            header = await self._env.clock.within(HEADER_DEADLINE_S, self._header(client))
            entry = self._tables.here(header.service_id, header.port, header.task_id)
            if entry is None:
                raise MeshRefused(MeshStatus.UNKNOWN_TASK, f"task {header.task_id}")
            is_answered = True
            await self._serve_named(entry, client, peer)
        except MeshRefused as refusal:
            self._note(NO_SERVICE, "mesh", refusal.status.name.lower(), peer, refusal.why)
            sockets.answer_and_close(client, bytes((refusal.status,)))
        except (OSError, TimeoutError) as error:
            self._note(NO_SERVICE, "mesh", "no_header", peer, str(error))
        finally:
            if not is_answered:
                client.close()

    async def _header(self, client: socket.socket) -> MeshHeader:
        prefix = await sockets.receive_exactly(self._loop, client, PREFIX_BYTES)
        body = await sockets.receive_exactly(self._loop, client, read_prefix(prefix))
        return read_body(body, self._place.cluster_id)

    async def _serve_named(self, entry: Entry, client: socket.socket, peer: Address) -> None:
        """Connect a netproxy to a task here, answer it, and relay. Takes over `client`."""
        name = entry.route.service_name
        traffic = self._traffic.of(name, "mesh")
        traffic.connections += 1
        traffic.active += 1
        reached: Reached | GivenUp | None = None
        is_relayed = False
        try:
            reached = await self._connector.reach(entry, peer)
            if isinstance(reached, GivenUp):
                self._note(name, "mesh", reached.kind, peer, reached.why)
                sockets.answer_and_close(client, bytes((MeshStatus.REFUSED,)))
                return
            client.send(bytes((MeshStatus.CONNECTED,)))
            is_relayed = True
        except OSError:
            traffic.errors["client_reset"] += 1  # the origin did not wait for the answer
        finally:
            if not is_relayed:
                traffic.active -= 1
                sockets.close_by_reset(client)
                if isinstance(reached, Reached):
                    entry.balancer.release(reached.candidate.task_id)
                    sockets.close_by_reset(reached.socket)
        if isinstance(reached, Reached) and is_relayed:
            self._relay(entry, client, reached, traffic)

    def _note(self, service_name: str, way: str, kind: str, peer: Address, why: str) -> None:
        self._traffic.of(service_name, way).errors[kind] += 1
        now = self._env.now()
        if now - self._noted_at.get((service_name, kind), -NOTE_PERIOD_S) < NOTE_PERIOD_S:
            return
        if len(self._noted_at) >= NOTE_LIMIT:
            self._noted_at.clear()
        self._noted_at[(service_name, kind)] = now
        log.warning(
            "connect=failed service=%s way=%s from=%s kind=%s why=%r",
            service_name or "-",
            way,
            show_address(peer),
            kind,
            why,
        )

    def _relay(
        self, entry: Entry, client: socket.socket, reached: Reached, traffic: ServiceTraffic
    ) -> None:
        def ended(pump: Pump) -> None:
            self._pumps.discard(pump)
            entry.balancer.release(reached.candidate.task_id)
            traffic.active -= 1

        ends = {Side.CLIENT: client, Side.TASK: reached.socket}
        pump = Pump(self._loop, ends, traffic, self._buffer, ended)
        self._pumps.add(pump)
        pump.start()
