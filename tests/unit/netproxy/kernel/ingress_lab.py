"""A cluster as the ingress sees it: nodes, a client outside, and tasks on a flat ingress network.

The nodes are n1, n2 and n3 of a `Lab`, and n4 is the client. The ingress network is one bridge;
each node has its `ingress` there (10.255.0.<node>), and so has each task (10.255.0.<node><count>),
which is tied to its node by a gateway subnet (172.31.<node>.0/24) as well, where its default route
leads.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from skep.netproxy.kernel.core.names import mac_of
from skep.netproxy.kernel.core.sources import SourceRoute, TaskLink
from tests.support.netns import FOLDER, Lab, lab, run_in

NODES = ("n1", "n2", "n3")
CLIENT = "n4"
INTERFACE = "ingress"
OVERLAYS = ("10.255.0.0/24",)
DEADLINE_S = 10.0
BY_RESET = struct.pack("ii", 1, 0)


def let_bridges_alone() -> None:
    """The machine's rules are not asked for bridged frames; see `Lab`."""
    for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        path.write_text("0")


def be_strict_about_sources() -> None:
    """As many distributions are: drop what comes from where its source wouldn't be sent to."""
    for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        path.write_text("1")


class Answerer:
    """A task's program: tells everyone its own name and the address that it sees them at."""

    def __init__(self, name: str, namespace: Path, port: int) -> None:
        self._name = name
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        run_in(namespace, self._open, port)
        self._thread = threading.Thread(target=self._serve, name=f"answerer {name}")
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    def _open(self, port: int) -> None:
        listener = socket.create_server(("0.0.0.0", port), backlog=1024)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("0.0.0.0", port))
        for opened, handle in ((listener, self._accept), (datagrams, self._answer)):
            opened.setblocking(False)
            self._selector.register(opened, selectors.EVENT_READ, handle)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(BlockingIOError):
                    key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connected, _ = listener.accept()
        self._selector.register(connected, selectors.EVENT_READ, self._talk)

    def _talk(self, connected: socket.socket) -> None:
        try:
            if connected.recv(100):
                connected.send(f"{self._name} {connected.getpeername()[0]}".encode())
                return
        except OSError:
            pass
        self._selector.unregister(connected)
        connected.close()

    def _answer(self, datagrams: socket.socket) -> None:
        _, peer = datagrams.recvfrom(100)
        datagrams.sendto(f"{self._name} {peer[0]}".encode(), peer)


class IngressLab:
    """See above. What is made here goes with the lab."""

    def __init__(self, made: Lab) -> None:
        self.lab = made
        self.addresses: dict[str, str] = {}
        self._answerers: list[Answerer] = []
        self._overlay = f"{made.name}-overlay"

    def make(self) -> None:
        self._ip("netns", "add", self._overlay)
        self._ip("-n", self._overlay, "link", "add", "br0", "type", "bridge")
        self.lab.command(
            FOLDER / self._overlay,
            "sh",
            "-c",
            "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; :",
        )
        self._ip("-n", self._overlay, "link", "set", "br0", "up")
        for number, node in enumerate(NODES, 1):
            self._link(self.lab.path(node), f"10.255.0.{number}")
            run_in(self.lab.path(node), be_strict_about_sources)

    def routes(self, *nodes: str) -> tuple[SourceRoute, ...]:
        """Those nodes, as connections come in by them; all where none is named."""
        numbers = (NODES.index(node) + 1 for node in nodes or NODES)
        return tuple(SourceRoute(number, f"10.255.0.{number}") for number in numbers)

    def node(self, node: str) -> str:
        """The file of a node's namespace."""
        return str(self.lab.path(node))

    def path(self, task: str) -> Path:
        """The file of a task's namespace."""
        return FOLDER / f"{self.lab.name}-{task}"

    def tasks(self, *tasks: str) -> dict[str, TaskLink]:
        """The namespaces of tasks, as the ingress is given them."""
        return {str(self.path(task)): self._task_link(self.addresses[task]) for task in tasks}

    def _task_link(self, address: str) -> TaskLink:
        # The first digit of the last number is the node's.
        return TaskLink(INTERFACE, address, address[:-1])

    def add_task(self, task: str, node: str, port: int = 80) -> str:
        """A task that answers at `port`; its address on the ingress network."""
        number = NODES.index(node) + 1
        count = sum(1 for a in self.addresses.values() if a.startswith(f"10.255.0.{number}"))
        address = f"10.255.0.{number}{count}"
        self._ip("netns", "add", self.path(task).name)
        self._ip("-n", self.path(task).name, "link", "set", "lo", "up")
        self._link(self.path(task), address)
        self._ip(
            *("-n", self.path(node).name, "link", "add", f"g{task}", "up", "type", "veth"),
            *("peer", "gateway", "netns", self.path(task).name),
        )
        ours, theirs = f"172.31.{number}{count}.1", f"172.31.{number}{count}.2"
        self._ip("-n", self.path(node).name, "addr", "add", f"{ours}/24", "dev", f"g{task}")
        self._ip("-n", self.path(task).name, "addr", "add", f"{theirs}/24", "dev", "gateway")
        self._ip("-n", self.path(task).name, "link", "set", "gateway", "up")
        self._ip("-n", self.path(task).name, "route", "add", "default", "via", ours)
        run_in(self.path(task), be_strict_about_sources)
        self.addresses[task] = address
        self._answerers.append(Answerer(task, self.path(task), port))
        return address

    def gateways(self, task: str) -> tuple[str, ...]:
        """The subnet of the task's link to its node."""
        return (f"172.31.{self.addresses[task].rpartition('.')[2]}.0/24",)

    def close(self) -> None:
        for answerer in self._answerers:
            answerer.close()

    def _link(self, namespace: Path, address: str) -> None:
        """An interface on the ingress network."""
        port = f"i{address.rpartition('.')[2]}"
        self._ip(
            *("-n", self._overlay, "link", "add", port, "master", "br0", "up", "type", "veth"),
            *("peer", INTERFACE, "address", mac_of(address), "netns", namespace.name),
        )
        self._ip("-n", namespace.name, "addr", "add", f"{address}/24", "dev", INTERFACE)
        self._ip("-n", namespace.name, "link", "set", INTERFACE, "up")

    def _ip(self, *arguments: str) -> None:
        self.lab.command(Path("/proc/self/ns/net"), "ip", *arguments)


@contextlib.contextmanager
def ingress_lab() -> Iterator[IngressLab]:
    """Nodes and a client, removed at the end."""
    with lab(nodes=4) as made:
        of_ingress = IngressLab(made)
        try:
            of_ingress.make()
            yield of_ingress
        finally:
            of_ingress.close()


def ask(namespace: Path, address: str, port: int, count: int = 1) -> collections.Counter[str]:
    """What TCP connections from there are answered, or which errors they have."""

    def work() -> collections.Counter[str]:
        return collections.Counter(answer_of(address, port) for _ in range(count))

    return run_in(namespace, work)


def answer_of(address: str, port: int, timeout_s: float = 2.0) -> str:
    """The answer to one connection of the calling thread's, or the error that it has."""
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as connected:
            # Closed by a reset, so that thousands of old connections don't fill up all ports.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BY_RESET)
            connected.send(b"?")
            return connected.recv(100).decode() or "closed"
    except OSError as error:
        return repr(error)


def datagram_socket(namespace: Path, address: str, port: int) -> socket.socket:
    """A UDP socket there, connected to that address."""

    def work() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(2.0)
        made.connect((address, port))
        return made

    return run_in(namespace, work)


def exchange(connected: socket.socket) -> str:
    """What it is answered, or the error that it has."""
    try:
        connected.send(b"?")
        return connected.recv(100).decode() or "closed"
    except OSError as error:
        return repr(error)


def eventually(check: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


class Load:
    """Threads that connect all the time, until it is left; a context manager.

    `seen` counts the names that answered, `errors` the rest.
    """

    def __init__(self, namespace: Path, address: str, port: int, threads: int = 1) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=run_in, args=(namespace, self._work, address, port))
            for _ in range(threads)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def total(self) -> int:
        return self.seen.total() + self.errors.total()

    def _work(self, address: str, port: int) -> None:
        while not self._end.is_set():
            answer = answer_of(address, port)
            if "(" in answer:
                self.errors[answer] += 1
            else:
                self.seen[answer.split()[0]] += 1
