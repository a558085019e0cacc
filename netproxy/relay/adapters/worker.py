"""One relay worker: accepts, connects, relays, and does what the netproxy tells it.

Everything that a new connection is decided by is replaced at once, when an Apply has come. Attempts
under way to a task that is not named any more are ended in that same moment, and their clients
connected elsewhere. So when its Applied leaves, no new connection can reach a removed task.

Open connections are never cut by an update, not even when their service is removed: their tasks are
told to end by then, and an answer that is under way is theirs to finish. They end with their task.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial

from skep.domain.base import TaskId
from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.adapters.arrivals import Arrival, Arrivals
from skep.netproxy.relay.adapters.call import Call
from skep.netproxy.relay.adapters.datagrams import Datagrams
from skep.netproxy.relay.adapters.link import Link, Shared
from skep.netproxy.relay.adapters.loop import READABLE, Loop
from skep.netproxy.relay.adapters.upstreams import DatagramPlace
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.counts import NO_SERVICE, AllCounts, Counts
from skep.netproxy.relay.core.dial import Dial
from skep.netproxy.relay.core.head import proxy_codec
from skep.netproxy.relay.core.mesh import MeshHeader, MeshRefused, MeshStatus, show_address
from skep.netproxy.relay.core.pipe import CLIENT
from skep.netproxy.relay.core.protocol import UDP, Address, Applied, Apply, Key, Report, Start
from skep.netproxy.relay.core.tables import Entry, Tables

log = logging.getLogger("skep.netproxy.relay")

# Accepted per turn of the loop, so that a flood of clients doesn't starve open connections.
ACCEPTS_PER_TURN = 64
# After an accept that failed for want of files or memory; the clients wait in the kernel.
ACCEPT_PAUSE_S = 0.1
# Clients that hammer on a service without tasks must not fill the log: one line per service and
# kind of failure in this time; the metrics count them all.
NOTE_PERIOD_S = 1.0
NOTE_LIMIT = 1024
# Connections to tasks get their keepalive when they have lived for about this long, which is in
# time, since its first probe would be due after a minute; most are gone by then.
KEEPALIVE_PERIOD_S = sockets.KEEPALIVE_IDLE_S / 4

_Serve = Callable[[socket.SocketType, Address], None]


class Worker:
    """See `skep.netproxy.relay.core.protocol` for what it does."""

    def __init__(self, loop: Loop, place: Start) -> None:
        self.loop = loop
        self.place = place
        self.waiting: set[Call] = set()
        self._tables = Tables()
        self._counts = AllCounts()
        self._links: set[Link] = set()
        self._shared = Shared(loop, self._ended)
        self._arrivals = Arrivals(loop, self._serve)
        self._opened: dict[Key, socket.socket] = {}
        self._watched: set[Key] = set()
        datagram_place = DatagramPlace(place.cluster_id, place.task_source, place.mesh[0])
        self._datagrams = Datagrams(loop, datagram_place, self._tables, self._counts)
        self._noted_at: dict[tuple[str, str], float] = {}
        loop.call_later(KEEPALIVE_PERIOD_S, self._keep_alive)

    # --------------------------------------------------------------- what the netproxy tells it

    def opened(self, address: Key, listener: socket.socket) -> None:
        """This socket listens there; it is left alone until the next Apply."""
        before = self._opened.get(address)
        if before is not None:
            self._close_listener(address)
        self._opened[address] = listener

    def apply(self, wanted: Apply) -> Applied:
        """Put it in force, whole and at once."""
        self._tables.update(wanted.changed, wanted.removed)
        if any(each.sends_proxy or each.accepts_proxy for each in wanted.changed):
            proxy_codec()  # Loading it takes longer than a client should wait.
        for address in wanted.removed:
            if address.address != self.place.mesh:
                self._close_listener(address)
        for call in tuple(self.waiting):
            self._withdraw(call)
        self._counts.forget(self._tables.service_names())
        for address, listener in self._opened.items():
            if address.protocol != UDP and address not in self._watched:
                self._watched.add(address)
                self._watch(address, listener)
        self._take_datagrams()
        if wanted.changed or wanted.removed:
            self._datagrams.tables_changed()
        return Applied(number=wanted.number)

    def drain(self) -> None:
        """Accept nothing more."""
        for address in tuple(self._opened):
            self._close_listener(address)
        self._datagrams.close()

    def report(self) -> Report:
        """What has changed since the last time."""
        buffered = self._shared.buffer.nbytes
        buffered += sum(link.buffered_bytes() for link in self._links)
        buffered += self._datagrams.buffered_bytes()
        return Report(
            counts=self._counts.changed(),
            forgotten=self._counts.forgotten(),
            connections=self._connection_count(),
            buffered_bytes=buffered,
        )

    def cut(self) -> None:
        """End everything that is open, by resets."""
        self.drain()
        self._arrivals.cut()
        for call in tuple(self.waiting):
            call.cut()
        for link in tuple(self._links):
            link.reset()

    def _withdraw(self, call: Call) -> None:
        # A withdrawal before this one may have ended it.
        if call not in self.waiting or not call.is_dialling():
            return
        listener, candidate = call.entry.listener, call.dial.candidate
        if candidate is not None and not self._tables.names(
            listener.service_id, listener.target, candidate
        ):
            call.withdraw()

    # ------------------------------------------------------------------------------- accepting

    def _watch(self, address: Key, listener: socket.socket) -> None:
        is_mesh = address.address == self.place.mesh
        serve: _Serve = self._serve_mesh if is_mesh else partial(self._accepted, address)
        accept = partial(self._accept, address, listener, serve)
        # After the events of the turn, so that those who are connected come first.
        self.loop.attach(listener.fileno(), lambda _: self.loop.soon(accept), READABLE)

    def _close_listener(self, address: Key) -> None:
        listener = self._opened.pop(address, None)
        if listener is not None and address.protocol != UDP:
            self._watched.discard(address)
            # The netproxy has this file too, so that closing it doesn't take it out of epoll.
            self.loop.unwatch(listener.fileno())
            listener.close()

    def _take_datagrams(self) -> None:
        """Those of removed listeners are closed by this."""
        bound = {key: each for key, each in self._opened.items() if key.protocol == UDP}
        mesh = bound.pop(Key(*self.place.mesh, UDP), None)
        self._datagrams.configure(bound, mesh)

    def _accept(self, address: Key, listener: socket.socket, serve: _Serve) -> None:
        if self._opened.get(address) is not listener:
            return  # closed in this turn
        accept = sockets.accept
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, peer = accept(listener)
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause_accepting(address, listener, error)
                return
            serve(client, peer)

    def _pause_accepting(self, address: Key, listener: socket.socket, error: OSError) -> None:
        log.error("listener=%s accepting=paused why=%r", show_address(address.address), str(error))
        self.loop.unwatch(listener.fileno())

        def go_on() -> None:
            if self._opened.get(address) is listener:
                self._watch(address, listener)

        self.loop.call_later(ACCEPT_PAUSE_S, go_on)

    def _accepted(self, address: Key, client: socket.SocketType, peer: Address) -> None:
        entry = self._tables.at(address)
        if entry is not None and entry.is_plain:
            self._arrivals.add(address, client, peer)
        elif entry is not None and (counts := self._admit(entry)) is not None:
            Call(self, client, peer, counts).serve(entry)
        else:
            client.close()

    def _serve(self, arrival: Arrival) -> None:
        client = arrival.client
        entry = self._tables.at(arrival.address)
        if entry is None or not entry.is_plain:
            # It was another listener's when it came.
            self.loop.unwatch(client.fileno())
            self._accepted(arrival.address, client, arrival.peer)
            return
        counts = self._admit(entry)
        if counts is None:
            self.loop.forget(client.fileno())
            client.close()
            return
        try:
            first = arrival.read()
        except OSError:
            counts.active -= 1
            counts.failed("client_reset")
            self.loop.forget(client.fileno())
            client.close()
            return
        counts.received[CLIENT] += len(first)
        self._connect(arrival, entry, counts, first)

    def _connect(self, arrival: Arrival, entry: Entry, counts: Counts, first: bytes) -> None:
        # The common way, with nothing to wait for, does without a Call: it is a tenth of the time
        # that a connection takes.
        client, task = arrival.client, None
        dial = Dial(entry.balancer)
        step, candidate = dial.begin(arrival.accepted_at), dial.candidate
        if candidate is not None and candidate.mesh_address is None:
            to = candidate.address, entry.listener.target
            try:
                task, sent = self._begin_connect(to, first)
            except OSError as error:
                step = dial.refused(self.loop.now(), error.strerror or str(error))
            else:
                if sent is not None:
                    dial.connected()
                    counts.connected(self.loop.now() - arrival.accepted_at)
                    link = self._relay(client, task, counts, (entry.balancer, candidate.task_id))
                    link.go_on(arrival.events, first[sent:])
                    return
        self.loop.unwatch(client.fileno())
        call = Call(self, client, arrival.peer, counts)
        if task is not None:
            call.wait_for(entry, dial, task, first)
        else:
            call.go_on(entry, dial, step, first)

    def _begin_connect(self, to: Address, first: bytes) -> tuple[socket.SocketType, int | None]:
        if first:
            return sockets.connect_with(to, self.place.task_source, first)
        task, is_connected = sockets.begin_connect(to, self.place.task_source)
        return task, 0 if is_connected else None

    def _serve_mesh(self, client: socket.SocketType, peer: Address) -> None:
        counts = self._counts.of(NO_SERVICE, "mesh")
        if self._is_full(counts):
            sockets.answer_and_close(client, bytes((MeshStatus.BUSY,)))
            return
        counts.active += 1  # until it is known whose it is
        Call(self, client, peer, counts).serve_mesh()

    def _admit(self, entry: Entry) -> Counts | None:
        counts = self._counts.of(entry.listener.service_name, "ingress")
        if self._is_full(counts):
            return None
        counts.connections += 1
        counts.active += 1
        return counts

    def _is_full(self, counts: Counts) -> bool:
        if self._connection_count() < self.place.connection_limit:
            return False
        counts.failed("too_many")
        return True

    def _connection_count(self) -> int:
        return len(self._links) + len(self.waiting) + len(self._arrivals)

    # ------------------------------------------------------------------ what calls ask and tell

    def here(self, header: MeshHeader) -> tuple[Entry, Counts]:
        """See `Office.here`."""
        entry = self._tables.here(header.service_id, header.port, header.task_id)
        if entry is None:
            raise MeshRefused(MeshStatus.UNKNOWN_TASK, f"task {header.task_id}")
        self._counts.of(NO_SERVICE, "mesh").active -= 1
        counts = self._counts.of(entry.listener.service_name, "mesh")
        counts.connections += 1
        counts.active += 1
        return entry, counts

    def relay(self, call: Call, first: bytes) -> None:
        """See `Office.relay`."""
        candidate, task, counts = call.dial.candidate, call.task, call.counts
        assert candidate is not None
        assert task is not None
        counts.connected(self.loop.now() - call.accepted_at)
        held = call.entry.balancer, candidate.task_id
        link = self._relay(call.client, task, counts, held)
        link.start(first, is_watched=call.is_task_watched)

    def _relay(
        self,
        client: socket.SocketType,
        task: socket.SocketType,
        counts: Counts,
        held: tuple[Balancer, TaskId],
    ) -> Link:
        link = Link(self._shared, client, task, counts, held)
        self._links.add(link)
        return link

    def failed(self, call: Call, kind: str, why: str) -> None:
        """See `Office.failed`."""
        counts = call.counts
        counts.active -= 1
        counts.failed(kind)
        key, now = (counts.service_name, kind), self.loop.now()
        if now - self._noted_at.get(key, -NOTE_PERIOD_S) < NOTE_PERIOD_S:
            return
        if len(self._noted_at) >= NOTE_LIMIT:
            self._noted_at.clear()
        self._noted_at[key] = now
        log.warning(
            "connect=failed service=%s way=%s from=%s kind=%s why=%r",
            counts.service_name or "-",
            counts.way,
            show_address(call.peer),
            kind,
            why,
        )

    def _ended(self, link: Link) -> None:
        self._links.discard(link)
        link.counts.active -= 1
        link.balancer.release(link.task_id)

    def _keep_alive(self) -> None:
        for link in self._links:
            link.keep_alive()
        self.loop.call_later(KEEPALIVE_PERIOD_S, self._keep_alive)
