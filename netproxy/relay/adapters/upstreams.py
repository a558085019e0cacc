"""The flows of one way in, and the socket that each has to its task.

A task on another node is only ever reached by way of that node's mesh address, with a header before
each datagram. A socket is connected, so that the kernel passes on no stranger's datagrams and tells
of refusals (ICMP); such a refusal shows at the next call on the socket, whatever that is.

Nothing waits in here: what a socket doesn't take at once is dropped and counted, as a router does.
Every loss is counted by its kind in `Counts.errors`.
"""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

from skep.domain.base import ClusterId, ServiceId, TaskId, replace
from skep.netproxy.relay.adapters import udp
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.counts import NO_SERVICE, AllCounts, Counts
from skep.netproxy.relay.core.datagrams import FLOW_LIMIT, Flow, Flows, Kept
from skep.netproxy.relay.core.mesh import (
    DatagramHeader,
    DatagramKind,
    MeshRefused,
    encode_datagram_header,
    parse_datagram,
)
from skep.netproxy.relay.core.pipe import CLIENT, TASK
from skep.netproxy.relay.core.protocol import Candidate, Key
from skep.netproxy.relay.core.tables import Entry

# Read per turn of the loop from one socket, so that a flood to one port starves no other.
READS_PER_TURN = 64
# Sockets that can't even be made, as where there is no route, before the datagram is given up.
TRIES = 3

K = TypeVar("K", bound=Hashable)


class Timer(Protocol):
    """One call to come."""

    def cancel(self) -> None:
        """Don't call; idempotent."""


class Loop(Protocol):
    """What is needed of a worker's loop. It watches by level: what is left unread is told again."""

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        """Call whenever there is something to read, or an error."""

    def unwatch(self, fd: int) -> None:
        """Before the file is closed."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Timer:
        """Call once."""


class Lookup(Protocol):
    """The worker's tables."""

    def at(self, key: Key) -> Entry | None:
        """What is behind a listener."""

    def here(self, service_id: ServiceId, target: int, task_id: TaskId | None) -> Entry | None:
        """The task of that service on this node; None where there is none."""


class DatagramPlace(NamedTuple):
    """Where this relay stands: its cluster, and the node's own addresses that tasks and other
    nodes see datagrams come from."""

    cluster_id: ClusterId
    task_source: str
    mesh_source: str
    flow_limit: int = FLOW_LIMIT


class World(NamedTuple):
    """What all ways in share."""

    loop: Loop
    place: DatagramPlace
    lookup: Lookup
    counts: AllCounts
    buffer: memoryview
    kept: Kept
    on_open: Callable[[], None]


class Way(NamedTuple, Generic[K]):
    """What differs between clients at a listener and netproxies at the mesh port."""

    name: str
    find: Callable[[K], Entry | None]
    client: Callable[[K], str]
    answer: Callable[[K, memoryview], None]  # raises OSError
    give_back: Callable[[K, memoryview], None]  # what could not be delivered


class _Upstream(NamedTuple):
    """The other end of a flow. `header`: what it is sent under, where that is by the mesh."""

    socket: socket.socket
    counts: Counts
    header: DatagramHeader | None
    head: bytes


class Upstreams(Generic[K]):
    """The flows of one way in, and their sockets."""

    def __init__(self, world: World, way: Way[K]) -> None:
        self._world = world
        self._way = way
        self._flows: Flows[K] = Flows(world.place.flow_limit)
        self._upstreams: dict[Flow[K], _Upstream] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def deliver(self, key: K, payload: memoryview) -> None:
        """One datagram, from a client to its task."""
        flow = self._flows.find(self._world.loop.now(), key) or self._open(key, ())
        if flow is None:
            self._lose(key, payload, "no_task")
            return
        self._upstreams[flow].counts.received[CLIENT] += len(payload)
        self._send(flow, payload, is_retried=False)

    def retire(self) -> None:
        """See `Flows.retire`."""
        # By balancer: thousands of flows have one, and it has perhaps thousands of candidates.
        named: dict[Balancer, frozenset[Candidate]] = {}

        def is_named(flow: Flow[K]) -> bool:
            entry = self._way.find(flow.key)
            if entry is None:
                return False
            if entry.balancer not in named:
                named[entry.balancer] = frozenset(entry.balancer.candidates)
            return flow.candidate in named[entry.balancer]

        self._flows.retire(is_named)

    def next_expiry(self) -> float | None:
        """See `Flows.next_expiry`."""
        return self._flows.next_expiry()

    def end_idle(self) -> None:
        """End the flows that have been idle for too long."""
        for flow in self._flows.expired(self._world.loop.now()):
            self._end(flow)

    def close(self) -> None:
        """End all flows."""
        for flow in self._flows.all():
            self._end(flow)

    def check_invariants(self) -> None:
        """Called by tests."""
        self._flows.check_invariants()
        assert set(self._flows.all()) == set(self._upstreams)

    def _open(self, key: K, tried: tuple[TaskId, ...]) -> Flow[K] | None:
        entry = self._way.find(key)
        if entry is None or not entry.balancer.candidates:
            return None
        if self._flows.is_full:
            self._evict()
        flow = self._flows.open(self._world.loop.now(), key, entry, tried)
        if flow is None:
            return None
        counts = self._world.counts.of(entry.listener.service_name, self._way.name)
        try:
            self._upstreams[flow] = upstream = self._connect(flow, counts)
        except OSError as error:
            return self._not_connected(flow, tried, counts, error)
        counts.connections += 1
        counts.active += 1
        self._world.loop.watch(upstream.socket.fileno(), functools.partial(self._readable, flow))
        self._world.on_open()
        return flow

    def _connect(self, flow: Flow[K], counts: Counts) -> _Upstream:
        listener, candidate, place = flow.entry.listener, flow.candidate, self._world.place
        if candidate.mesh_address is None:
            connected = udp.connect((candidate.address, listener.target), place.task_source)
            return _Upstream(connected, counts, None, b"")
        header = DatagramHeader(
            kind=DatagramKind.TO_TASK,
            cluster_id=place.cluster_id,
            service_id=listener.service_id,
            port=listener.target,
            task_id=candidate.task_id,
            client=self._way.client(flow.key),
        )
        connected = udp.connect(candidate.mesh_address, place.mesh_source)
        return _Upstream(connected, counts, header, encode_datagram_header(header))

    def _not_connected(
        self, flow: Flow[K], tried: tuple[TaskId, ...], counts: Counts, error: OSError
    ) -> Flow[K] | None:
        counts.failed("no_socket")
        if error.errno in udp.GONE and len(tried) + 1 < TRIES:
            counts.ejections += self._flows.refuse(self._world.loop.now(), flow)
            return self._open(flow.key, (*tried, flow.candidate.task_id))
        self._flows.end(flow)
        if len(self._flows):
            self._evict()  # mostly there are no more files, and the next client needs one
        return None

    def _send(self, flow: Flow[K], payload: memoryview, is_retried: bool) -> None:
        upstream = self._upstreams[flow]
        try:
            if upstream.head:
                upstream.socket.sendmsg((upstream.head, payload))
            else:
                upstream.socket.send(payload)
        except OSError as error:
            if error.errno in udp.GONE:
                if error.errno != errno.ECONNREFUSED:
                    self._world.kept.take(flow)
                # ICMP's word is of the datagram before this one, which hasn't been sent.
                self._refused(flow)
                self._send_elsewhere(flow, payload, is_retried)
            else:
                upstream.counts.failed(_loss(error))
            return
        flow.is_retried = is_retried
        self._world.kept.put(flow, bytes(payload))

    def _refused(self, flow: Flow[K], returned: memoryview | None = None) -> None:
        """The task takes nothing: neither what was sent last, nor `returned`."""
        kept = self._world.kept.take(flow)
        counts = self._upstreams[flow].counts
        counts.failed("task_refused")
        counts.ejections += self._flows.refuse(self._world.loop.now(), flow)
        self._close(flow)
        if returned is None and kept is not None:
            returned = memoryview(kept)
        if returned is not None:
            self._send_elsewhere(flow, returned, flow.is_retried)

    def _send_elsewhere(self, flow: Flow[K], payload: memoryview, is_retried: bool) -> None:
        """What `flow`, which has ended, was to carry."""
        other = None
        if not is_retried:
            now, tried = self._world.loop.now(), (flow.candidate.task_id,)
            other = self._flows.find(now, flow.key) or self._open(flow.key, tried)
        if other is None:
            self._lose(flow.key, payload, "undeliverable")
        else:
            self._send(other, payload, is_retried=True)

    def _lose(self, key: K, payload: memoryview, kind: str) -> None:
        entry = self._way.find(key)
        name = NO_SERVICE if entry is None else entry.listener.service_name
        self._world.counts.of(name, self._way.name).failed(kind)
        self._way.give_back(key, payload)

    def _readable(self, flow: Flow[K]) -> None:
        upstream = self._upstreams.get(flow)
        if upstream is None:
            return  # ended in this turn of the loop
        buffer = self._world.buffer
        for _ in range(READS_PER_TURN):
            try:
                count = upstream.socket.recv_into(buffer)
            except OSError as error:
                if error.errno in udp.GONE:
                    self._refused(flow)
                return
            payload = buffer[:count]
            if upstream.header is not None:
                kind, payload = self._unwrap(upstream.header, payload)
                if kind is DatagramKind.REFUSED:
                    self._refused(flow, payload)
                    return
                if kind is not DatagramKind.FROM_TASK:
                    upstream.counts.failed("malformed")
                    continue
            self._answered(flow, upstream, payload)

    def _unwrap(
        self, sent: DatagramHeader, data: memoryview
    ) -> tuple[DatagramKind | None, memoryview]:
        """What another node's netproxy says to what was `sent`; None: nothing that makes sense."""
        try:
            header, payload = parse_datagram(data, sent.cluster_id)
        except MeshRefused:
            return None, data
        is_about_this = replace(header, kind=sent.kind) == sent
        return header.kind if is_about_this else None, memoryview(payload)

    def _answered(self, flow: Flow[K], upstream: _Upstream, payload: memoryview) -> None:
        self._flows.answered(self._world.loop.now(), flow)
        self._world.kept.take(flow)
        upstream.counts.received[TASK] += len(payload)
        try:
            self._way.answer(flow.key, payload)
        except OSError as error:
            upstream.counts.failed(_loss(error))

    def _evict(self) -> None:
        flow = self._flows.oldest()
        self._upstreams[flow].counts.failed("evicted")
        self._end(flow)

    def _end(self, flow: Flow[K]) -> None:
        self._world.kept.take(flow)
        self._flows.end(flow)
        self._close(flow)

    def _close(self, flow: Flow[K]) -> None:
        upstream = self._upstreams.pop(flow)
        self._world.loop.unwatch(upstream.socket.fileno())
        upstream.socket.close()
        upstream.counts.active -= 1


def _loss(error: OSError) -> str:
    if error.errno == errno.EMSGSIZE:
        return "too_large"
    return "too_fast" if error.errno in (errno.EAGAIN, errno.ENOBUFS) else "unreachable"
