"""Real UDP sockets on one small loop, whose clock can be moved on."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

from skep.domain.base import ClusterId, ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.adapters.datagrams import BUFFER_BYTES, Datagrams
from skep.netproxy.relay.adapters.upstreams import DatagramPlace
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.counts import AllCounts
from skep.netproxy.relay.core.protocol import UDP, Address, Candidate, Count, Key, Listener
from skep.netproxy.relay.core.tables import Entry

CLUSTER = ClusterId("cluster")
SERVICE = ServiceId("id-dns")
TARGET = 15353
DEADLINE_S = 10.0
WEB = Key("127.0.0.1", 53, UDP)

_numbers = itertools.count(1)


def fresh_host() -> str:
    """A loopback address that nothing else uses."""
    number = next(_numbers)
    block, page = 224 + os.getpid() % 28, (os.getpid() // 28 * 2 + number // 250) % 256
    return f"127.{block}.{page}.{number % 250 + 1}"


class Timer:
    def __init__(self, at: float, fn: Callable[[], None]) -> None:
        self.at = at
        self.fn = fn
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class EpollLoop:
    """What a relay worker's loop offers, driven by hand."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._offset_s = 0.0

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        assert fd not in self._watched
        self._epoll.register(fd, select.EPOLLIN)
        self._watched[fd] = on_readable

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._epoll.unregister(fd)

    def now(self) -> float:
        return time.monotonic() + self._offset_s

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Timer:
        timer = Timer(self.now() + delay_s, fn)
        self._timers.append(timer)
        return timer

    def turn(self, wait_s: float = 0.0) -> bool:
        """One turn; whether there was anything to do."""
        events = self._epoll.poll(wait_s)
        # As of now: what one of them closes is told nevertheless, which must do no harm.
        for on_readable in [self._watched[fd] for fd, _ in events]:
            on_readable()
        due = [timer for timer in self._timers if timer.at <= self.now()]
        for timer in due:
            self._timers.remove(timer)
            if not timer.is_cancelled:
                timer.fn()
        return bool(events) or bool(due)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until it holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, "it never came true"
            self.turn(0.005)

    def settle(self) -> None:
        """Turn until nothing is left to do. On loopback, what was sent is there at once."""
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        self._offset_s += seconds
        self.settle()

    def close(self) -> None:
        assert not self._watched, self._watched
        self._epoll.close()


def bound(host: str, port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((host, port))
    return made


class Task:
    """Answers each datagram with its name and what it got."""

    def __init__(self, world: World, name: str, host: str, port: int = TARGET) -> None:
        self.name = name
        self.host = host
        self.seen: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self.is_silent = False
        self._loop = world.loop
        self.socket = bound(host, port)
        self._loop.watch(self.socket.fileno(), self._readable)

    def _readable(self) -> None:
        data, peer = self.socket.recvfrom(65536)
        self.seen.append(data)
        self.peers.append(peer[:2])
        if not self.is_silent:
            self.socket.sendto(self.name.encode() + b":" + data, peer)

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.unwatch(self.socket.fileno())
            self.socket.close()


class Client:
    def __init__(self, world: World, to: tuple[str, int], host: str | None = None) -> None:
        self._loop = world.loop
        self.socket = bound(host or ("::1" if ":" in to[0] else "127.0.0.1"))
        self.to = to

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.to)

    def receive(self) -> bytes:
        """The next answer, which must come from where this client sends to."""
        got: list[tuple[bytes, tuple[str, int]]] = []

        def arrived() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(self.socket.recvfrom(65536))
            return bool(got)

        self._loop.until(arrived)
        data, peer = got[0]
        assert peer[:2] == self.to
        return data

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.receive()

    def hears_nothing(self) -> bool:
        self._loop.settle()
        try:
            self.socket.recv(65536)
        except BlockingIOError:
            return True
        return False


class Tables:
    """What a worker looks things up in."""

    def __init__(self) -> None:
        self.listeners: dict[Key, Entry] = {}
        self.local: dict[TaskId, Candidate] = {}

    def at(self, key: Key) -> Entry | None:
        return self.listeners.get(key)

    def here(self, service_id: ServiceId, target: int, task_id: TaskId | None) -> Entry | None:
        candidate = self.local.get(task_id) if task_id is not None else None
        if candidate is None or (service_id, target) != (SERVICE, TARGET):
            return None
        return entry((candidate,))


def entry(candidates: tuple[Candidate, ...]) -> Entry:
    listener = Listener(
        host="127.0.0.1",
        port=53,
        protocol=UDP,
        service_id=SERVICE,
        service_name="dns",
        target=TARGET,
        balance=Balance.ROUND_ROBIN,
        candidates=candidates,
    )
    return Entry(listener, Balancer(Balance.ROUND_ROBIN, candidates))


class Node:
    """One node's relay for datagrams, listening at `ingress` and at its mesh port."""

    def __init__(
        self,
        world: World,
        host: str | None = None,
        listen: str | None = None,
        cluster_id: ClusterId = CLUSTER,
        flow_limit: int = 64,
    ) -> None:
        self.host = host or fresh_host()
        self.tables = Tables()
        self.counts = AllCounts()
        self._seen: dict[tuple[str, str], Count] = {}
        place = DatagramPlace(cluster_id, self.host, self.host, flow_limit)
        self.datagrams = Datagrams(world.loop, place, self.tables, self.counts)
        self.listener = bound(listen or self.host)
        self.mesh = bound(self.host)
        self.ingress: tuple[str, int] = self.listener.getsockname()[:2]
        self.datagrams.configure({WEB: self.listener}, self.mesh)

    @property
    def mesh_address(self) -> Address:
        host, port = self.mesh.getsockname()[:2]
        return host, port

    def serve(self, *candidates: Candidate) -> None:
        """Put these behind the listener, as one turn of the loop does."""
        before = self.tables.listeners.get(WEB)
        if before is None:
            self.tables.listeners[WEB] = entry(candidates)
        else:
            before.balancer.update(Balance.ROUND_ROBIN, candidates)
        self.tables.local = {c.task_id: c for c in candidates if c.mesh_address is None}
        self.datagrams.tables_changed()

    def seen(self) -> list[Count]:
        """Everything that was counted."""
        for count in self.counts.changed():
            self._seen[count.service_name, count.way] = count
        return list(self._seen.values())

    def errors(self) -> Counter[str]:
        """Every loss, by its kind."""
        total: Counter[str] = Counter()
        for count in self.seen():
            total += Counter(count.errors)
        return total


class World:
    """A loop, and everything on it."""

    def __init__(self) -> None:
        self.loop = EpollLoop()
        self.nodes: list[Node] = []
        self.tasks: list[Task] = []
        self.clients: list[Client] = []

    def node(
        self,
        host: str | None = None,
        listen: str | None = None,
        cluster_id: ClusterId = CLUSTER,
        flow_limit: int = 64,
    ) -> Node:
        self.nodes.append(Node(self, host, listen, cluster_id, flow_limit))
        return self.nodes[-1]

    def task(self, name: str, host: str | None = None) -> Task:
        self.tasks.append(Task(self, name, host or fresh_host()))
        return self.tasks[-1]

    def client(self, to: tuple[str, int], host: str | None = None) -> Client:
        self.clients.append(Client(self, to, host))
        return self.clients[-1]


def here(task: Task) -> Candidate:
    return Candidate(task_id=TaskId(task.name), address=task.host)


def there(task: Task, node: Node) -> Candidate:
    return Candidate(task_id=TaskId(task.name), address=task.host, mesh_address=node.mesh_address)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Afterwards nothing may be left: no socket, no flow, no timer that does anything."""
    made = World()
    yield made
    made.loop.settle()
    for node in made.nodes:
        node.datagrams.check_invariants()
        node.datagrams.close()
        assert node.datagrams.flow_count == 0
        assert node.datagrams.buffered_bytes() == BUFFER_BYTES
        assert all(each.active == 0 for each in node.seen())
        for balancer in (each.balancer for each in node.tables.listeners.values()):
            balancer.check_invariants()
            assert not any(balancer.active(TaskId(task.name)) for task in made.tasks)
    for task in made.tasks:
        task.close()
    for client in made.clients:
        client.socket.close()
    made.loop.close()
