"""A client on its way to a task: reads what it must say first, and connects it.

There is no other way out of the relay, so that this file is where it is seen that a task of another
node is never connected to: its address is not even looked at.
"""

from __future__ import annotations

import socket
from typing import Protocol

from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.adapters.loop import READABLE, WATCH_BOTH, Loop, Timer
from skep.netproxy.relay.core.counts import Counts
from skep.netproxy.relay.core.dial import ASK, CONNECT, FLOW, GIVE_UP, Dial
from skep.netproxy.relay.core.head import (
    HEAD_DEADLINE_S,
    Head,
    HeadRefused,
    MeshHead,
    ProxyHead,
    proxy_header,
)
from skep.netproxy.relay.core.mesh import (
    MeshHeader,
    MeshRefused,
    MeshStatus,
    encode_header,
    read_address,
    read_status,
    show_address,
)
from skep.netproxy.relay.core.protocol import Address, Candidate, ProxyVersion, Start
from skep.netproxy.relay.core.tables import Entry

_WAIT = 0
_CONNECTED = bytes((MeshStatus.CONNECTED,))


class Office(Protocol):
    """What a call needs of its worker."""

    loop: Loop
    place: Start
    waiting: set[Call]

    def here(self, header: MeshHeader) -> tuple[Entry, Counts]:
        """What a mesh header names. Raises MeshRefused."""
        ...

    def relay(self, call: Call, first: bytes) -> None:
        """It is connected: `call.task` is open."""
        ...

    def failed(self, call: Call, kind: str, why: str) -> None:
        """It came to nothing. Whoever calls this closes the client."""
        ...


class Call:
    """From the accepted client to a `Link`, or to nothing. Owns its sockets until then."""

    __slots__ = (
        "_head", "_office", "_proxy", "_rest", "_timer", "accepted_at", "client", "counts", "dial",
        "entry", "is_task_watched", "is_to_us", "peer", "server", "source", "task",
    )  # fmt: skip

    dial: Dial
    entry: Entry

    def __init__(
        self, office: Office, client: socket.SocketType, peer: Address, counts: Counts
    ) -> None:
        self._office = office
        self._head: Head | None = None
        self._proxy: ProxyVersion = ""
        self._rest = b""
        self._timer: Timer | None = None
        self.accepted_at = office.loop.now()
        self.client = client
        self.counts = counts
        self.is_task_watched = False
        self.is_to_us = False  # by the mesh, and from another netproxy that waits for an answer
        self.peer = peer
        self.source: Address | None = peer  # of the client, as far as it is known
        self.server: Address | None = None  # what it connected to, where somebody must be told
        self.task: socket.SocketType | None = None

    def serve(self, entry: Entry) -> None:
        """Connect it to one of these tasks."""
        self.entry = entry
        listener = entry.listener
        self._proxy = listener.sends_proxy
        if listener.accepts_proxy:
            self._read(ProxyHead())
        else:
            self._dial()

    def go_on(self, entry: Entry, dial: Dial, step: int, first: bytes) -> None:
        """Go on with a dial that is under way; `first` is for the task."""
        self.entry, self.dial, self._rest = entry, dial, first
        self._go_on(step)

    def wait_for(self, entry: Entry, dial: Dial, task: socket.SocketType, first: bytes) -> None:
        """Go on with a dial whose first attempt is under way; `first` is for the task."""
        self.entry, self.dial, self.task, self._rest = entry, dial, task, first
        self._wait_for_task(task)

    def serve_mesh(self) -> None:
        """Connect another netproxy to the task that it will name."""
        self.is_to_us = True
        self._read(MeshHead(self._office.place.cluster_id))

    def is_dialling(self) -> bool:
        """Whether an attempt is under way."""
        return self._head is None

    def withdraw(self) -> None:
        """The present candidate is no longer one: on to the next."""
        self._drop_task()
        self._go_on(self.dial.withdrawn(self._office.loop.now()))

    def cut(self) -> None:
        """End it, wherever it stands."""
        if self._head is None:
            self._drop_task()
            self.dial.abandon()
        self._fail("cut", "the netproxy stops", None)

    # ------------------------------------------------------------------------ what it says first

    def _read(self, head: Head) -> None:
        self._head = head
        self._office.waiting.add(self)
        self._timer = self._office.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)
        self._office.loop.attach(self.client.fileno(), self._client_readable, READABLE)

    def _client_readable(self, _: int) -> None:
        head = self._head
        assert head is not None
        try:
            data = self.client.recv(head.wants_bytes, sockets.DONT_WAIT)
            if not data:
                raise ConnectionResetError("closed before a whole header")
            is_whole = head.take(data)
        except BlockingIOError:
            return
        except MeshRefused as refusal:
            self._fail(refusal.status.name.lower(), refusal.why, bytes((refusal.status,)))
            return
        except (HeadRefused, OSError) as error:
            self._fail("no_header", str(error), None)
            return
        if is_whole:
            self._end_waiting()
            self._office.loop.unwatch(self.client.fileno())
            self._head = None
            self._read_whole(head)

    def _head_is_late(self) -> None:
        self._fail("no_header", f"no whole header in {HEAD_DEADLINE_S:g} s", None)

    def _read_whole(self, head: Head) -> None:
        if isinstance(head, ProxyHead):
            self._rest = head.rest
            self.source = head.source or self.peer
            self.server = head.destination
            self._dial()
            return
        header = head.header
        assert header is not None
        try:
            self.entry, self.counts = self._office.here(header)
        except MeshRefused as refusal:
            self._fail(refusal.status.name.lower(), refusal.why, bytes((refusal.status,)))
            return
        self._proxy = header.proxy
        self.source, self.server = read_address(header.client), read_address(header.server)
        self._dial()

    # ------------------------------------------------------------------------------- connecting

    def _dial(self) -> None:
        self.dial = Dial(self.entry.balancer)
        self._go_on(self.dial.begin(self._office.loop.now()))

    def _go_on(self, step: int) -> None:
        while step == CONNECT:
            step = self._connect()
        if step == FLOW:
            self._flow()
        elif step == GIVE_UP:
            self.counts.ejections += self.dial.ejections
            refused = bytes((MeshStatus.REFUSED,)) if self.is_to_us else None
            self._fail(self.dial.kind, self.dial.why(), refused)

    def _connect(self) -> int:
        place = self._office.place
        candidate = self._candidate()
        if candidate.mesh_address is None:
            address, source = (candidate.address, self.entry.listener.target), place.task_source
        else:
            address, source = candidate.mesh_address, place.mesh[0]
        try:
            self.task, is_connected = sockets.begin_connect(address, source)
        except OSError as error:
            return self.dial.refused(self._office.loop.now(), error.strerror or str(error))
        if is_connected and candidate.mesh_address is None:
            return self.dial.connected()
        self._wait_for_task(self.task)
        return self._ask() if is_connected and self.dial.connected() == ASK else _WAIT

    def _wait_for_task(self, task: socket.SocketType) -> None:
        self.is_task_watched = True
        self._office.waiting.add(self)
        self._timer = self._office.loop.call_later(self.dial.within_s, self._attempt_is_late)
        self._office.loop.attach(task.fileno(), self._task_event, WATCH_BOTH)

    def _ask(self) -> int:
        """Send the owner the header. A fresh socket has room for it."""
        assert self.task is not None
        try:
            self.task.send(encode_header(self._header()), sockets.DONT_WAIT)
        except OSError as error:
            return self._refused(error.strerror or str(error))
        return _WAIT

    def _task_event(self, _: int) -> None:
        if self.task is None or self not in self._office.waiting:
            return
        candidate = self._candidate()
        try:
            if not self.dial.is_asking:
                address = candidate.mesh_address or (candidate.address, self._port())
                if not sockets.is_connected(self.task, address):
                    return
                step = self.dial.connected()
                if step == FLOW:
                    self._end_waiting()
                self._go_on(self._ask() if step == ASK else step)
                return
            status = read_status(self.task.recv(1, sockets.DONT_WAIT))
        except BlockingIOError:
            return
        except OSError as error:
            self._go_on(self._refused(error.strerror or str(error)))
            return
        if status is MeshStatus.CONNECTED:
            self._end_waiting()
            self._go_on(self.dial.accepted())
        else:
            self._go_on(self._refused(f"the owner says {status.name.lower()}"))

    def _attempt_is_late(self) -> None:
        self._go_on(self._refused(f"no answer in {self.dial.within_s:.1f} s"))

    def _refused(self, why: str) -> int:
        self._drop_task()
        return self.dial.refused(self._office.loop.now(), why)

    def _candidate(self) -> Candidate:
        assert self.dial.candidate is not None
        return self.dial.candidate

    def _port(self) -> int:
        return self.entry.listener.target

    def _header(self) -> MeshHeader:
        listener = self.entry.listener
        server = self._server() if listener.sends_proxy else None
        return MeshHeader(
            cluster_id=self._office.place.cluster_id,
            service_id=listener.service_id,
            port=listener.target,
            task_id=self._candidate().task_id,
            client=show_address(self.source or self.peer),
            server="" if server is None else show_address(server),
            proxy=listener.sends_proxy,
        )

    def _server(self) -> Address:
        if self.server is None:
            self.server = self.client.getsockname()[:2]
        return self.server

    def _flow(self) -> None:
        first = self._rest
        if self.is_to_us:
            try:
                self.client.send(_CONNECTED, sockets.DONT_WAIT)
            except OSError as error:
                # The origin did not wait for the answer.
                self.entry.balancer.release(self._candidate().task_id)
                self._drop_task()
                self._fail("client_reset", str(error), None)
                return
        if self._proxy and self._candidate().mesh_address is None:
            source = self.source or self.peer
            first = proxy_header(self._proxy, source, self._server()) + first
        self.counts.ejections += self.dial.ejections
        self._office.relay(self, first)

    # ---------------------------------------------------------------------------------- ending

    def _end_waiting(self) -> None:
        self._office.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_task(self) -> None:
        self._end_waiting()
        if self.task is not None:
            if self.is_task_watched:
                self._office.loop.forget(self.task.fileno())
            self.task.close()
            self.task, self.is_task_watched = None, False

    def _fail(self, kind: str, why: str, answer: bytes | None) -> None:
        self._end_waiting()
        self._office.loop.forget(self.client.fileno())
        self._office.failed(self, kind, why)
        if answer is None:
            self.client.close()
        else:
            sockets.answer_and_close(self.client, answer)
