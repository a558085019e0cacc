"""The kernel's plane as a whole, on one node of a lab: its restarts, its modes, its counters."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from skep.domain.attach import AttachRequest
from skep.domain.base import ServiceId, TaskId, replace
from skep.domain.endpoints import MeshNode, ServiceEndpoints
from skep.domain.objects import Attachment
from skep.domain.spec import Port, Protocol
from skep.env import Env, RealDisk, Rejected, Retryable, real_env
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.tally import Tally
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Observed
from skep.netproxy.kernel.adapters import cgroup, leftovers, natrules, netns, vipmodes, vips
from skep.netproxy.kernel.adapters.leftovers import clean
from skep.netproxy.kernel.adapters.nft import Nft
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.adapters.plane import KernelPlane
from skep.rpc import GrpcTransport
from tests.support.netns import Lab, lab, needs_namespaces, run_in
from tests.unit.netproxy.kernel.lab import Task
from tests.unit.netproxy.kernel.test_plan_core import APP, HERE, NETWORKS, SECRET, WEB, task

pytestmark = [pytest.mark.process, needs_namespaces()]
needs_bpf = pytest.mark.skipif(vips.supported() is not None, reason=f"{vips.supported()}")

VIP, PORT, PUBLISHED = "10.0.1.2", 80, 8080
BACKENDS = ("10.0.1.11", "10.0.1.12")
OTHER = "10.0.1.3"
DEADLINE_S = 30.0


class _NoRelay:
    """User space's part, which is tested elsewhere."""

    worker_count = 0
    worker_pids = ()

    async def serve(self, *_: object) -> tuple[str, ...]:
        return ()

    def is_open(self, _: object) -> bool:
        return True

    def observed(self) -> Observed:
        return Observed(0, (), 0)

    async def close(self, _: float) -> None:
        pass


class Node:
    """The node n1 of a lab; everything runs in its namespace."""

    def __init__(self, machine: Lab, folder: Path) -> None:
        self.machine = machine
        self.name = f"{machine.name}-n1"
        self.place = HostPlace(self.name, machine.address("n1"), folder=folder / "run")
        self.folder = folder
        self.world = _world(machine, WEB)
        self.servers: list[Task] = []
        self.clients: list[Task] = []

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def go() -> None:
            await work()

        self.machine.run("n1", lambda: asyncio.run(asyncio.wait_for(go(), DEADLINE_S)))

    async def plane(self, mode: str, *, counts_traffic: bool = False) -> KernelPlane:
        disk = RealDisk(self.folder / "disk")
        env: Env = real_env(self.name, GrpcTransport(), disk)
        disk.close()
        made = KernelPlane(env, self.place, HERE, cast(Relay, _NoRelay()))
        await made.open(mode, counts_traffic=counts_traffic)
        return made

    async def apply(self, plane: KernelPlane, *services: ServiceEndpoints) -> None:
        self.world = _world(self.machine, *services) if services else self.world
        desired = Desired(version=self.world.version, world=self.world)
        assert await plane.apply(desired) == ()

    async def attach(self, plane: KernelPlane, *numbers: int) -> None:
        for number in numbers:
            joined = await plane.attach(request(number), self.world)
            assert joined.namespace == str(self.path(number))

    def path(self, number: int) -> Path:
        return self.place.tasks / f"t{number}"

    @property
    def cgroup(self) -> Path:
        root = cgroup.root()
        assert root is not None
        return root / "skep" / self.name

    def serve(self, *numbers: int) -> None:
        for number in numbers:
            self.servers.append(self._start(number, None))
            addresses = (f"10.0.1.{number}", f"10.255.1.{number}")
            self.servers[-1].do("serve", addresses, PORT)

    def client(self, number: int, *, is_in_cgroup: bool) -> Task:
        self.clients.append(self._start(number, self.cgroup if is_in_cgroup else None))
        return self.clients[-1]

    def _start(self, number: int, folder: Path | None) -> Task:
        # Named from where named namespaces are.
        return Task(f"../..{self.path(number)}", folder)

    def end(self) -> None:
        for each in (*self.clients, *self.servers):
            each.close()
        assert self.machine.run("n1", lambda: asyncio.run(clean(self.place))) == ()


def request(number: int) -> AttachRequest:
    attachments = task(number, HERE).attachments
    return AttachRequest(
        task_id=TaskId(f"t{number}"),
        service_id=ServiceId("web"),
        service_name="web",
        attachments=attachments,
    )


def _world(machine: Lab, *services: ServiceEndpoints) -> World:
    me = MeshNode(
        node_id=HERE,
        mesh_address=f"{machine.address('n1')}:7412",
        address=machine.address("n1"),
        ingress_address="10.255.0.2",
        plane="kernel",
    )
    both = (task(11, HERE), task(12, HERE))
    here = [replace(s, endpoints=both) if s.endpoints is WEB.endpoints else s for s in services]
    by_id = {each.service_id: each for each in here}
    return World(7, by_id, {HERE: me}, NETWORKS, frozenset(NETWORKS))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with lab(2) as machine:
        made = Node(machine, tmp_path)
        try:
            yield made
        finally:
            made.end()


@contextlib.contextmanager
def connecting(client: Task, address: str) -> Iterator[Callable[[], None]]:
    """One connection after the other meanwhile, none of which may fail; calling what is given
    waits until one more has been made."""
    failures: list[object] = []
    made = [0]
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set() and not failures:
            results = client.do("loop", address, PORT, 10)
            failures.extend(who for *_, who in results if who not in BACKENDS)
            made[0] += len(results)

    def wait_for_more() -> None:
        before, ends = made[0], time.monotonic() + DEADLINE_S
        while made[0] < before + 20 and not failures:
            assert time.monotonic() < ends
            stop.wait(0.005)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        wait_for_more()
        yield wait_for_more
        wait_for_more()
    finally:
        stop.set()
        thread.join()
    assert failures == []


def answers(client: Task, address: str, times: int = 8) -> set[str]:
    return {
        each if isinstance(each, str) else each[0]
        for each in client.do("connect", address, PORT, times)
    }


MODES = [pytest.param("bpf", marks=needs_bpf), "nft"]


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_takes_nothing_from_tasks_that_are_not_attached_again_yet(
    node: Node, mode: str
) -> None:
    async def go() -> None:
        plane = await node.plane(mode)
        await node.apply(plane)
        await node.attach(plane, 11, 12)
        await node.apply(plane)
        node.serve(11, 12)
        client = node.client(12, is_in_cgroup=mode == "bpf")
        assert answers(client, VIP) == set(BACKENDS)
        with connecting(client, VIP) as one_more:
            await plane.close(0)
            again = await node.plane(mode)
            tasks = frozenset((TaskId("t11"), TaskId("t12")))
            node.world = dataclasses.replace(node.world, tasks=tasks)
            # What comes first: a task without networks, and another one than the client's.
            await again.attach(
                AttachRequest(task_id=TaskId("t90"), service_id=ServiceId("x"), service_name="x"),
                World(),
            )
            await asyncio.to_thread(one_more)
            await node.attach(again, 11)
            await asyncio.to_thread(one_more)
            assert _published(node) in {b"10.255.1.11", b"10.255.1.12"}
            await node.attach(again, 12)
            await node.apply(again)
            await asyncio.to_thread(one_more)
        assert await again.differences() == ()
        await again.close(0)

    node.run(go)


def test_a_task_on_an_encrypted_network_waits_for_a_node_that_can(node: Node) -> None:
    async def go() -> None:
        plane = await node.plane("nft")
        node.world = dataclasses.replace(
            node.world, networks={**NETWORKS, SECRET.network_id: SECRET}
        )
        attachments = (Attachment(network_id=SECRET.network_id, address="10.0.9.11"),)
        asked = replace(request(11), attachments=attachments)
        with pytest.raises(Retryable, match=r"network secret is encrypted, .*: it was not tried"):
            await plane.attach(asked, node.world)
        assert "encryption: none: it was not tried" in plane.facts()
        await plane.close(0)

    node.run(go)


def _published(node: Node) -> bytes:
    """Who answers at the node's published port."""

    def ask() -> bytes:
        address = (node.machine.address("n1"), PUBLISHED)
        with socket.create_connection(address, timeout=5) as one:
            return one.recv(100)

    return node.machine.run("n2", ask)


@needs_bpf
def test_modes_are_switched_without_a_gap(node: Node) -> None:
    async def restarted(plane: KernelPlane, mode: str, *numbers: int) -> KernelPlane:
        await plane.close(0)
        again = await node.plane(mode)
        await node.attach(again, *numbers)
        await node.apply(again)
        return again

    async def go() -> None:
        plane = await node.plane("bpf")
        await node.apply(plane)
        await node.attach(plane, 11, 12)
        await node.apply(plane)
        node.serve(11, 12)
        first = node.client(12, is_in_cgroup=True)
        with connecting(first, VIP) as one_more:
            plane = await restarted(plane, "nft", 11, 12)
            await asyncio.to_thread(one_more)
            assert f"control group {node.cgroup} (0 BPF programs)" in leftovers.look(node.place)
            # One that has started meanwhile is in no control group, and never will be.
            await node.attach(plane, 13)
            await node.apply(plane)
            second = node.client(13, is_in_cgroup=False)
            with connecting(second, VIP) as another:
                plane = await restarted(plane, "bpf", 11, 12, 13)
                await asyncio.to_thread(another)
                # What changes from now on is for those, too.
                other = replace(
                    WEB,
                    service_id=ServiceId("other"),
                    name="other",
                    ports=(),
                    vips=(replace(WEB.vips[0], address=OTHER),),
                )
                await node.apply(plane, WEB, other)
                in_cgroup = node.client(12, is_in_cgroup=True)
                assert answers(in_cgroup, OTHER) == set(BACKENDS)
                outside = node.client(13, is_in_cgroup=False)
                assert answers(outside, OTHER) == set(BACKENDS)
        await node.attach(plane, 14)
        await node.apply(plane)
        third = node.client(14, is_in_cgroup=True)
        assert answers(third, VIP) == set(BACKENDS)
        assert _tables(node, 14) == set()
        assert _tables(node, 13) != set()
        plane = await restarted(plane, "nft", 11, 12, 13, 14)
        assert answers(third, VIP) == set(BACKENDS)
        await plane.close(0)

    node.run(go)


def _tables(node: Node, number: int) -> set[str]:
    """The tables of virtual addresses in a task's namespace."""
    command = ["nsenter", f"--net={node.path(number)}", "nft", "list", "tables"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line for line in done.stdout.splitlines() if "skepvip" in line}


def test_a_published_udp_server_may_ask_others_from_its_own_port(node: Node) -> None:
    """As name servers do: what it sends goes out by the ingress network, by which it answers."""

    async def go() -> None:
        plane = await node.plane("nft")
        port = Port(target=53, published=5353, protocol=Protocol.UDP)
        await node.apply(plane, replace(WEB, ports=(port,), endpoints=(task(11, HERE),)))
        await node.attach(plane, 11)
        await node.apply(plane)
        there = node.machine.run("n2", _datagram_socket, node.machine.address("n2"), 0)
        server = run_in(node.path(11), _datagram_socket, "0.0.0.0", 53)
        with there, server:
            server.sendto(b"who?", there.getsockname())
            question, peer = there.recvfrom(100)
            assert (question, peer[0]) == (b"who?", node.machine.address("n1"))
            there.sendto(b"me", peer)
            assert server.recv(100) == b"me"
            # And it is reached as before.
            asker = node.machine.run("n2", _datagram_socket, node.machine.address("n2"), 0)
            with asker:
                asker.sendto(b"again", (node.machine.address("n1"), 5353))
                asked, client = server.recvfrom(100)
                assert (asked, client) == (b"again", asker.getsockname())
                server.sendto(b"yes", client)
                assert asker.recvfrom(100) == (b"yes", (node.machine.address("n1"), 5353))
        await plane.close(0)

    node.run(go)


def test_a_published_port_is_no_way_out_of_internal_networks(node: Node) -> None:
    async def go() -> None:
        plane = await node.plane("nft")
        await node.apply(plane)
        networks = {**NETWORKS, APP: replace(NETWORKS[APP], is_internal=True)}
        w = node.world
        node.world = World(8, w.services, w.nodes, networks, frozenset(networks))
        await node.apply(plane)
        await node.attach(plane, 11, 12)
        await node.apply(plane)
        node.serve(11, 12)
        assert _published(node) in {b"10.255.1.11", b"10.255.1.12"}
        with node.machine.run("n2", socket.create_server, (node.machine.address("n2"), 0)) as there:

            def leave(source: str) -> None:
                socket.create_connection(there.getsockname(), 0.3, (source, 0)).close()

            for source in ("10.255.1.11", ""):
                with pytest.raises(OSError, match=r"timed out|unreachable"):
                    run_in(node.path(11), leave, source)
        await plane.close(0)

    node.run(go)


def _datagram_socket(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.bind((host, port))
    return made


@needs_bpf
def test_what_the_kernel_counts_is_told_by_service(node: Node) -> None:
    async def go() -> None:
        plane = await node.plane("bpf", counts_traffic=True)
        await node.apply(plane)
        await node.attach(plane, 11, 12)
        empty = replace(
            WEB,
            service_id=ServiceId("empty"),
            name="empty",
            ports=(),
            vips=(replace(WEB.vips[0], address=OTHER),),
        )
        await node.apply(plane, WEB)
        world = node.world
        services = {**world.services, empty.service_id: replace(empty, endpoints=())}
        await plane.apply(Desired(version=8, world=dataclasses.replace(world, services=services)))
        node.serve(11, 12)
        client = node.client(12, is_in_cgroup=True)
        before = plane.tally()
        assert before.vips["web"].connections == before.vips["empty"].refused == 0
        assert answers(client, VIP, 5) <= set(BACKENDS)
        assert answers(client, OTHER, 3) == {"ConnectionRefusedError"}
        assert _published(node)
        tally = await asyncio.to_thread(_told, plane, 5)
        assert tally.vips["web"].connections == 5
        assert tally.vips["empty"].refused == 3
        traffic = tally.traffic["web"]
        assert traffic.established == 5
        assert traffic.round_trip_s > 0
        # Every answer is the backend's address, and its end.
        assert traffic.from_task_bytes >= 5 * len(BACKENDS[0])
        [port] = tally.ports
        assert (port.service_name, port.port, port.connections) == ("web", "8080/tcp", 1)
        assert port.packets >= 6
        assert port.bytes > 6 * 40
        assert tally.strays == 0
        await plane.close(0)
        # Once it is closed, what was last read is what there is.
        assert plane.tally() == tally

    node.run(go)


def _told(plane: KernelPlane, closed: int) -> Tally:
    """The tally, once the kernel has seen so many connections end."""
    ends = time.monotonic() + DEADLINE_S
    while True:
        tally = plane.tally()
        # Bytes are counted at the very end of a connection.
        if tally.traffic["web"].from_client_bytes >= closed or time.monotonic() > ends:
            return tally
        time.sleep(0.01)


def test_a_node_is_one_process_alone(node: Node) -> None:
    async def go() -> None:
        plane = await node.plane("auto")
        with pytest.raises(Rejected, match=f"another netproxy of node {node.name} runs"):
            await node.plane("auto")
        await plane.close(0)
        await (await node.plane("auto")).close(0)

    node.run(go)


def test_clocks_are_the_same_for_all_addresses_where_they_are_translated(node: Node) -> None:
    async def go() -> None:
        plane = await node.plane("nft")
        await node.apply(plane)
        await node.attach(plane, 11)
        await node.apply(plane)
        text = netns.inside(node.path(11), Path("/proc/sys/net/ipv4/tcp_timestamps").read_text)
        assert text.strip() == "2"
        await plane.close(0)

    node.run(go)


def test_a_sandbox_that_is_half_made_is_completed(node: Node) -> None:
    async def go() -> None:
        # As if its process had died between making the file and mounting the namespace on it.
        node.place.tasks.mkdir(parents=True)
        node.place.sandbox.touch()
        node.path(11).touch()
        plane = await node.plane("nft")
        await node.apply(plane)
        await node.attach(plane, 11, 12)
        await node.apply(plane)
        node.serve(11, 12)
        assert answers(node.client(12, is_in_cgroup=False), VIP) == set(BACKENDS)
        assert await plane.differences() == ()
        await plane.close(0)

    node.run(go)


def test_what_is_missing_is_told_before_anything_is_made(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(natrules, "Nft", lambda: Nft("libnftables-of-nobody.so"))

    async def go() -> None:
        with pytest.raises(Rejected, match="apt-get install libnftables1"):
            await node.plane("auto")
        assert not node.place.home.exists()

    node.run(go)


def test_why_it_is_not_bpf_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vips, "supported", lambda: "this kernel is too old")
    chosen = vipmodes.choose("skt-x", "auto")
    assert (chosen.name, chosen.hindrance) == ("nft", "not by BPF: this kernel is too old")
    assert vipmodes.choose("skt-x", "nft").hindrance is None
    with pytest.raises(Rejected, match="too old; --vip nft needs no BPF"):
        vipmodes.choose("skt-x", "bpf")
