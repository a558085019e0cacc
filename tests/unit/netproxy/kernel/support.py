"""Nodes of a lab with their link layers, and what their tasks can do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from skep.netproxy.kernel.adapters import messages, netns
from skep.netproxy.kernel.adapters.links import UNTRIED, Links, Wanted, clean
from skep.netproxy.kernel.adapters.netlink import Netlink
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.adapters.tasks import TaskNamespace
from skep.netproxy.kernel.adapters.wireguard import Encryption
from skep.netproxy.kernel.core.links import Network, Peer, TaskLink
from skep.netproxy.kernel.core.tunnel import Tunnel
from tests.support.netns import Lab, run_in

T = TypeVar("T")

DEADLINE_S = 10.0
NO_ANSWER_S = 0.3  # how long is waited for what must not come
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def do(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def network(name: str, vni: int, subnet: str = "10.0.1.0/24", *, internal: bool = True) -> Network:
    return Network(name, vni, subnet, is_internal=internal)


def link(name: str, address: str, interface: str = "eth0") -> TaskLink:
    return TaskLink(name, address, 24, interface)


class Node:
    """One node, whose networks and peers a test may change and `apply`."""

    def __init__(self, lab: Lab, name: str, folder: Path, encryption: Encryption = UNTRIED) -> None:
        self.lab = lab
        self.name = name
        self.address = lab.address(name)
        self.place = HostPlace(
            f"{lab.name}-{name}", self.address, folder=folder, namespace=lab.path(name)
        )
        self.encryption = encryption
        self.links: Links = do(Links.open(self.place, encryption))
        self.networks: list[Network] = []
        self.peers: dict[str, list[Peer]] = {}
        self.tunnel: Tunnel | None = None
        self.tasks: dict[str, TaskNamespace] = {}
        self.attached: dict[str, Sequence[TaskLink]] = {}

    def apply(self) -> tuple[str, ...]:
        return do(self.links.apply(self.networks, self.peers, self.tunnel))

    def differences(self) -> tuple[str, ...]:
        wanted = Wanted(self.networks, self.peers, self.attached, self.tunnel)
        return do(self.links.differences(wanted))

    def attach(self, task_id: str, *links: TaskLink) -> Path:
        namespace = do(self.links.attach(task_id, links))
        self.tasks[task_id] = namespace
        self.attached[task_id] = links
        return Path(namespace.path)

    def restart(self) -> None:
        """As when the process had been killed and started again."""
        do(self.links.close())
        self.links = do(Links.open(self.place, self.encryption))

    def remove(self) -> None:
        do(self.links.close())
        do(clean(self.place))

    def interfaces(self) -> set[str]:
        """What is in the node's own namespace."""
        return interfaces(self.place.namespace or netns.OWN)

    def sandbox(self) -> set[str]:
        return interfaces(self.place.sandbox)


@contextlib.contextmanager
def running(machine: Lab, folder: Path) -> Iterator[list[Node]]:
    """The link layers of all nodes of a lab, and at the end nothing of them."""
    made: list[Node] = []
    try:
        made.extend(Node(machine, name, folder) for name in machine.nodes)
        yield made
    finally:
        for node in made:
            node.remove()


def connect(nodes: Sequence[Node], networks: Sequence[Network], tasks: dict[str, str]) -> None:
    """Have all networks on all nodes, with tasks on each: `tasks` are "network address": node."""
    for node in nodes:
        node.networks = list(networks)
        node.peers = {}
        for place, where in tasks.items():
            name, address = place.split()
            vtep = next(other.address for other in nodes if other.name == where)
            node.peers.setdefault(name, []).append(Peer(address, vtep))
        assert node.apply() == ()


def interfaces(namespace: Path) -> set[str]:
    def look() -> set[str]:
        netlink = Netlink()
        try:
            return {record.name for record in messages.links(netlink)}
        finally:
            netlink.close()

    return run_in(namespace, look)


def ping(
    namespace: Path, address: str, size: int = 56, within_s: float = DEADLINE_S
) -> float | None:
    """Seconds until the answer to an ICMP echo with so many bytes that may not be fragmented;
    None where there is none. Raises OSError where it can't be sent."""

    def send_and_wait() -> float | None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            payload = bytes(range(256)) * (size // 256 + 1)
            request = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + payload[:size]
            request = request[:2] + struct.pack("!H", checksum(request)) + request[4:]
            started = time.monotonic()
            sock.sendto(request, (address, 0))
            while (left_s := started + within_s - time.monotonic()) > 0:
                sock.settimeout(left_s)
                try:
                    answer, (sender, _) = sock.recvfrom(65536)
                except TimeoutError:
                    return None
                if sender == address and answer[20] == 0 and len(answer) == 28 + size:
                    return time.monotonic() - started
            return None

    return run_in(namespace, send_and_wait)


def checksum(data: bytes) -> int:
    """That of IP and ICMP headers."""
    padded = data + b"\0" * (len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f"!{len(padded) // 2}H", padded)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def serve(namespace: Path, address: str, port: int = 80) -> socket.socket:
    """A listening socket of a task; what it accepts has a deadline."""
    server = run_in(namespace, socket.create_server, (address, port))
    server.settimeout(DEADLINE_S)
    return server


def dial(namespace: Path, address: str, port: int = 80) -> socket.socket:
    return run_in(namespace, socket.create_connection, (address, port), DEADLINE_S)


def exchange(client: socket.socket, accepted: socket.socket, text: bytes) -> None:
    """Both ways over an open connection."""
    accepted.settimeout(DEADLINE_S)
    client.sendall(text)
    assert accepted.recv(100) == text
    accepted.sendall(text.upper())
    assert client.recv(100) == text.upper()
