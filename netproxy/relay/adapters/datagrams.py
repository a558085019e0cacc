"""Relays datagrams, on the loop of a relay worker.

Each flow has a socket of its own, connected to its task or, for a task on another node, to the mesh
port of that node's netproxy. So the kernel tells answers and refusals of different flows apart.
With several workers, whose sockets share a port, the kernel picks one by both ends' addresses: a
flow stays with one worker on either node, and an answer comes to the worker that asked.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Mapping

from skep.domain.base import replace
from skep.netproxy.relay.adapters.udp import Client, ListenerSocket, SockAddr
from skep.netproxy.relay.adapters.upstreams import (
    READS_PER_TURN,
    DatagramPlace,
    Lookup,
    Loop,
    Timer,
    Upstreams,
    Way,
    World,
)
from skep.netproxy.relay.core.counts import NO_SERVICE, AllCounts
from skep.netproxy.relay.core.datagrams import Kept
from skep.netproxy.relay.core.mesh import (
    DatagramHeader,
    DatagramKind,
    MeshRefused,
    encode_datagram_header,
    parse_datagram,
)
from skep.netproxy.relay.core.protocol import Key

INGRESS, MESH = "ingress_udp", "mesh_udp"
"""Ways in, as they are counted."""
BUFFER_BYTES = 65_536  # more than any datagram has
# Looking for idle flows more often would only find them one by one.
SWEEP_PERIOD_S = 1.0
HEADERS_KEPT = 4096


class Datagrams:
    """All listeners for datagrams of one worker, and its socket at the node's mesh port."""

    def __init__(self, loop: Loop, place: DatagramPlace, lookup: Lookup, counts: AllCounts) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        self._loop = loop
        self._world = World(loop, place, lookup, counts, buffer, Kept(), self._arm)
        self._listeners: dict[Key, _Listener] = {}
        self._mesh: _MeshPort | None = None
        self._sweep: Timer | None = None

    def configure(self, listeners: Mapping[Key, socket.socket], mesh: socket.socket | None) -> None:
        """Listen on these bound sockets, which are closed by this class from now on, and on none
        but these. A listener with the same socket as before keeps its flows."""
        for key, listener in tuple(self._listeners.items()):
            if listeners.get(key) is not listener.socket:
                self._listeners.pop(key).close()
        for key, bound in listeners.items():
            if key not in self._listeners:
                self._listeners[key] = _Listener(self._world, key, bound)
        if self._mesh is not None and self._mesh.socket is not mesh:
            self._mesh.close()
            self._mesh = None
        if mesh is not None and self._mesh is None:
            self._mesh = _MeshPort(self._world, mesh)

    def tables_changed(self) -> None:
        """Must be called in the same turn as the change: from then on no datagram goes to a task
        that is not named any more."""
        for each in self._ways():
            each.retire()

    @property
    def flow_count(self) -> int:
        """Flows of all listeners, and of the mesh port."""
        return sum(len(each) for each in self._ways())

    def buffered_bytes(self) -> int:
        """What is held in memory for all of them."""
        return self._world.buffer.nbytes + self._world.kept.size_bytes

    def close(self) -> None:
        """End everything. Idempotent."""
        self.configure({}, None)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def check_invariants(self) -> None:
        """Called by tests."""
        self._world.kept.check_invariants()
        for each in self._ways():
            each.check_invariants()

    def _ways(self) -> list[Upstreams[Client] | Upstreams[_MeshKey]]:
        ways: list[Upstreams[Client] | Upstreams[_MeshKey]] = []
        ways.extend(listener.upstreams for listener in self._listeners.values())
        if self._mesh is not None:
            ways.append(self._mesh.upstreams)
        return ways

    def _arm(self) -> None:
        """See to it that idle flows end."""
        if self._sweep is None:
            expiries = [at for each in self._ways() if (at := each.next_expiry()) is not None]
            if expiries:
                delay_s = max(min(expiries) - self._loop.now(), SWEEP_PERIOD_S)
                self._sweep = self._loop.call_later(delay_s, self._end_idle)

    def _end_idle(self) -> None:
        self._sweep = None
        for each in self._ways():
            each.end_idle()
        self._arm()


class _Listener:
    """One published port: clients on one side, tasks on the other."""

    def __init__(self, world: World, key: Key, bound: socket.socket) -> None:
        self.socket = bound
        self._world = world
        self._listening = ListenerSocket(bound)
        self.upstreams: Upstreams[Client] = Upstreams(
            world,
            Way(
                INGRESS,
                lambda _: world.lookup.at(key),
                lambda client: client.shown,
                lambda client, payload: self._listening.send(payload, client),
                lambda _, __: None,  # a router would send ICMP; a socket can't
            ),
        )
        world.loop.watch(bound.fileno(), self._readable)

    def close(self) -> None:
        self._world.loop.unwatch(self.socket.fileno())
        self._listening.close()
        self.upstreams.close()

    def _readable(self) -> None:
        for _ in range(READS_PER_TURN):
            try:
                count, client = self._listening.receive_into(self._world.buffer)
            except OSError:
                return  # nothing left, or nothing that a client could be told
            self.upstreams.deliver(client, self._world.buffer[:count])


# An origin's socket, and the header of what it sends, the same for all of a flow.
_MeshKey = tuple[SockAddr, DatagramHeader]


class _MeshPort:
    """Datagrams from other nodes' netproxies, to tasks on this one."""

    def __init__(self, world: World, bound: socket.socket) -> None:
        bound.setblocking(False)
        self.socket = bound
        self._world = world
        self.upstreams: Upstreams[_MeshKey] = Upstreams(
            world,
            Way(
                MESH,
                lambda key: world.lookup.here(key[1].service_id, key[1].port, key[1].task_id),
                lambda key: key[1].client,
                functools.partial(self._answer, DatagramKind.FROM_TASK),
                self._give_back,
            ),
        )
        world.loop.watch(bound.fileno(), self._readable)

    def close(self) -> None:
        self._world.loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.upstreams.close()

    def _readable(self) -> None:
        for _ in range(READS_PER_TURN):
            try:
                count, origin = self.socket.recvfrom_into(self._world.buffer)
            except OSError:
                return
            data = self._world.buffer[:count]
            try:
                header, payload = parse_datagram(data, self._world.place.cluster_id)
            except MeshRefused as refusal:
                # Never answered: whoever sent it may not be who it seems to be from.
                self._count(refusal.status.name.lower())
                continue
            if header.kind is DatagramKind.TO_TASK:
                self.upstreams.deliver((origin, header), memoryview(payload))
            else:
                self._count("malformed")

    def _answer(self, kind: DatagramKind, key: _MeshKey, payload: memoryview) -> None:
        origin, header = key
        self.socket.sendmsg((_answer_head(header, kind), payload), (), 0, origin)

    def _give_back(self, key: _MeshKey, payload: memoryview) -> None:
        try:
            self._answer(DatagramKind.REFUSED, key, payload)
        except OSError:
            self._count("origin_unreachable")

    def _count(self, kind: str) -> None:
        self._world.counts.of(NO_SERVICE, MESH).failed(kind)


@functools.lru_cache(maxsize=HEADERS_KEPT)
def _answer_head(header: DatagramHeader, kind: DatagramKind) -> bytes:
    return encode_datagram_header(replace(header, kind=kind))
