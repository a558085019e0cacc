"""The kernel's planes beside the same path without them.

Virtual addresses: two tasks on one network of one node, so that the path is the shortest there can
be, and the price the plainest. Direct is another client there, which no rule or program knows of.

Published ports: a client outside, the node that it asks, VXLAN, and the task on another node.
Direct is a second pair of nodes without a rule, where one routes what is for the task.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.net import load
from bench.net.figures import BULK, KEPT, NEW, Aims, BadOutput, Reading, compare, skipped
from bench.net.load import BULK_PORT, WEB_PORT, Target, programs, start_servers
from bench.report import Row
from skep.env import Rejected
from skep.netproxy.kernel.adapters import natrules, vipmodes, vips
from skep.netproxy.kernel.adapters.natrules import Ingress, IngressWanted
from skep.netproxy.kernel.adapters.tasks import TaskNamespace, TaskOptions
from skep.netproxy.kernel.adapters.vipmodes import BPF, NFT, Place, VipMode
from skep.netproxy.kernel.core.ingress import Egress, IngressPort
from skep.netproxy.kernel.core.links import Network, Peer, TaskLink
from skep.netproxy.kernel.core.names import HOST_INGRESS
from skep.netproxy.kernel.core.sources import SourceRoute
from skep.netproxy.kernel.core.sources import TaskLink as IngressLink
from skep.netproxy.kernel.core.understood import VipKey
from tests.support.netns import Lab, lab, why_not
from tests.unit.netproxy.kernel.support import Node, do

NET, VNI, SUBNET, PREFIX = "bench", 4100, "10.0.0.0/16", 16
PLAIN, CLIENT, SERVER = "10.0.1.11", "10.0.1.12", "10.0.1.21"
MEASURED = (VNI, "10.0.100.1")
SERVICES = 1000
ROUNDS = 5
VIP_AIMS = {BPF: Aims(0.98, 1.02), NFT: Aims(0.87)}
INGRESS_AIMS = Aims(0.88)
LABELS = {BPF: f"BPF VIP, {SERVICES} services", NFT: f"nft VIP, {SERVICES} services"}
INGRESS_LABEL = f"published port, one hop away, {SERVICES} ports"
GROWTH = {BPF: (100, 1000, 10_000), NFT: (100, 1000, 10_000)}
ANY_SOURCE = TaskOptions(reverse_path=0)


def measure_vips(is_quick: bool, mode: str) -> Iterable[Row]:
    """All loads by one kind of virtual addresses."""
    label = LABELS[mode]
    if why := _hindrance(mode):
        yield skipped(label, why)
        return
    aims = dict.fromkeys((KEPT, NEW, BULK), VIP_AIMS[mode])
    with _vip_path() as path:
        targets = {"direct": path.direct, label: path.by_vip(mode, SERVICES)}
        servers = dict.fromkeys(targets, path.servers)
        try:
            found = load.in_turns(targets, servers, 1 if is_quick else ROUNDS)
        except BadOutput as error:
            yield skipped(label, str(error))
            return
        yield from compare(label, found[label], ("direct", found["direct"]), aims)


def measure_growth(is_quick: bool) -> Iterable[Row]:
    """New connections beside more and more services."""
    for mode in (BPF, NFT):
        if why := _hindrance(mode):
            yield skipped(f"growth, {mode}", why)
            continue
        with _vip_path() as path:
            for services in GROWTH[mode][: 2 if is_quick else None]:
                label = f"growth, {mode} VIP, {services} services"
                target = path.by_vip(mode, services)
                direct: list[Reading] = []
                ours: list[Reading] = []
                for _ in range(1 if is_quick else 3):
                    direct.append(load.measure(NEW, path.direct, path.servers))
                    ours.append(load.measure(NEW, target, path.servers))
                peer = ("direct", {NEW: direct})
                yield from compare(label, {NEW: ours}, peer, {NEW: Aims()})


def _hindrance(mode: str) -> str:
    if why := why_not() or load.missing():
        return why
    return (vips.supported() if mode == BPF else natrules.supported()) or ""


class _VipPath:
    """A server and two clients on one network."""

    def __init__(self, made: Lab, node: Node, folder: Path) -> None:
        self._made = made
        self._node = node
        self._folder = folder
        self._modes: dict[str, VipMode] = {}
        self._programs = load.Programs(folder)

    def make(self) -> None:
        """Attach the three, and start the servers."""
        network = Network(NET, VNI, SUBNET, is_internal=True)
        self._node.networks = [network]
        assert self._node.apply() == ()
        self._plain, self._client, server = (
            self._attach(name, address)
            for name, address in (("plain", PLAIN), ("client", CLIENT), ("server", SERVER))
        )
        for each in (self._plain, self._client):
            load.tune(Path(each.path))
        self.servers = start_servers(self._programs, Path(server.path), "0.0.0.0")
        self.direct = Target(Path(self._plain.path), SERVER)

    def by_vip(self, mode: str, services: int) -> Target:
        """The client that has so many virtual addresses, one of which leads to the server."""
        if mode not in self._modes:
            self._modes[mode] = vipmodes.choose(self._node.place.node, mode)
        made = self._modes[mode]
        place = Place(self._client.path, self._client.cookie, ((VNI, SUBNET),))
        problems = made.apply(dict(_services(services)), {"client": place}, is_all=True)
        assert problems == (), problems
        return Target(Path(self._client.path), MEASURED[1], cgroup=made.cgroup)

    def close(self) -> None:
        """End everything."""
        self._programs.close()
        for mode in self._modes.values():
            mode.clean()
            mode.close()

    def _attach(self, name: str, address: str) -> TaskNamespace:
        link = TaskLink(NET, address, PREFIX, "eth0")
        return do(self._node.links.attach(name, [link]))


@contextmanager
def _vip_path() -> Iterator[_VipPath]:
    with tempfile.TemporaryDirectory() as folder, lab(1) as made:
        node = Node(made, "n1", Path(folder))
        path = _VipPath(made, node, Path(folder))
        try:
            path.make()
            yield path
        finally:
            path.close()
            node.remove()


def _services(count: int) -> Iterator[tuple[VipKey, tuple[str, ...]]]:
    """The measured one, and others with three tasks each that nobody asks for."""
    yield MEASURED, (SERVER,)
    for number in range(1, count):
        vip = f"10.0.{100 + number // 250}.{number % 250 + 1}"
        tasks = (f"10.0.{200 + number % 50}.{(3 * number + n) % 250 + 1}" for n in range(3))
        yield (VNI, vip), tuple(tasks)


# ----------------------------------------------------------------------------- published ports


def measure_ingress(is_quick: bool) -> Iterable[Row]:
    """All loads through a published port, and routed by a node without rules."""
    if why := why_not() or load.missing() or natrules.supported() or "":
        yield skipped(INGRESS_LABEL, why)
        return
    aims = dict.fromkeys((KEPT, NEW, BULK), INGRESS_AIMS)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        made = stack.enter_context(lab(5))
        started = stack.enter_context(programs(folder))
        client = made.path("n5")
        load.tune(client)
        try:
            port, port_servers = _by_port(stack, made, folder, started)
            direct, direct_servers = _by_route(stack, made, folder, started)
            found = load.in_turns(
                {
                    "direct": Target(client, direct),
                    INGRESS_LABEL: Target(client, port, 9000, 9001),
                },
                {"direct": direct_servers, INGRESS_LABEL: port_servers},
                1 if is_quick else ROUNDS,
            )
        except (BadOutput, Rejected) as error:
            yield skipped(INGRESS_LABEL, str(error))
            return
        peer = ("VXLAN, no NAT", found["direct"])
        yield from compare(INGRESS_LABEL, found[INGRESS_LABEL], peer, aims)


class _Pair:
    """Two nodes on an ingress network, and a task on the second one."""

    def __init__(self, stack: ExitStack, made: Lab, folder: Path, names: tuple[str, str]) -> None:
        self.number = made.nodes.index(names[0]) + 1
        self.subnet = f"10.{100 + self.number}.0.0/24"
        self.way_in, self.way_out, self.task = (
            f"10.{100 + self.number}.0.{last}" for last in (1, 2, 21)
        )
        self.nodes = []
        for name in names:
            node = Node(made, name, folder / name)
            stack.callback(node.remove)
            self.nodes.append(node)
        first, second = self.nodes
        network = Network(NET, VNI + self.number, self.subnet)
        peers = {
            first: [Peer(self.way_out, second.address), Peer(self.task, second.address)],
            second: [Peer(self.way_in, first.address)],
        }
        for node, address in ((first, self.way_in), (second, self.way_out)):
            node.networks, node.peers = [network], {NET: peers[node]}
            assert node.apply() == ()
            do(node.links.ensure_ingress(NET, address, 24))
        link = TaskLink(NET, self.task, 24, "eth0")
        self.namespace = Path(do(second.links.attach("task", [link], ANY_SOURCE)).path)


def _by_port(
    stack: ExitStack, made: Lab, folder: Path, started: load.Programs
) -> tuple[str, list[int]]:
    pair = _Pair(stack, made, folder, ("n1", "n2"))
    ports = [
        IngressPort("tcp", 9000, WEB_PORT, (pair.task,)),
        IngressPort("tcp", 9001, BULK_PORT, (pair.task,)),
        *(IngressPort("tcp", 10_000 + n, 80, (pair.task,)) for n in range(SERVICES - 2)),
    ]
    routes = (SourceRoute(1, pair.way_in), SourceRoute(2, pair.way_out))
    for node, tasks in zip(pair.nodes, (False, True), strict=True):
        ingress = Ingress(node.place.node, str(made.path(node.name)), HOST_INGRESS)
        link = IngressLink("eth0", pair.task, pair.way_out)
        wanted = IngressWanted(
            ports=tuple(ports),
            egress=Egress((node.links.gateway.subnet,), (pair.subnet,)),
            nodes=routes,
            tasks={str(pair.namespace): link} if tasks else {},
        )
        problems = ingress.apply(wanted)
        assert problems == (), problems
        stack.callback(ingress.clean)
    servers = start_servers(started, pair.namespace, "0.0.0.0", "port")
    return pair.nodes[0].address, servers


def _by_route(
    stack: ExitStack, made: Lab, folder: Path, started: load.Programs
) -> tuple[str, list[int]]:
    pair = _Pair(stack, made, folder, ("n3", "n4"))
    first = pair.nodes[0]
    made.command(made.path("n3"), "sysctl", "-qw", "net.ipv4.ip_forward=1")
    made.command(made.path("n5"), "ip", "route", "add", pair.subnet, "via", first.address)
    underlay = f"{made.address('n5')}/32"
    made.command(pair.namespace, "ip", "route", "add", underlay, "via", pair.way_in)
    servers = start_servers(started, pair.namespace, "0.0.0.0", "route")
    return pair.task, servers
