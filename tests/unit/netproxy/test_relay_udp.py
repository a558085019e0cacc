"""Datagrams through real relay workers, two on each node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from skep.domain.base import NodeId, ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.adapters.relay import Place, Relay
from skep.netproxy.core.routes import Candidate, Desired, Route
from tests.unit.netproxy.support import (
    CLUSTER,
    DEADLINE_S,
    MemoryDisk,
    MemoryTransport,
    eventually,
    fresh_host,
    make_env,
    run,
)

pytestmark = pytest.mark.process

PORT, TARGET, MESH_PORT = 15300, 15353, 7946
WORKERS = 2
# Enough that all of them on one worker would be a wonder (1 in 2^31).
CLIENTS = 32


class Task(asyncio.DatagramProtocol):
    """Answers with its name and what it got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host = fresh_host()
        self.peers: list[str] = []
        self.seen: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, (self.host, TARGET))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # which it only looks like

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self.peers.append(addr[0])
        self.seen.append(data)
        self._transport.sendto(self.name.encode() + b":" + data, addr)

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Client:
    """Asks without trying again."""

    def __init__(self, host: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((host, PORT))

    async def ask(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, data)
        async with asyncio.timeout(DEADLINE_S):
            return await loop.sock_recv(self._socket, 65536)

    def close(self) -> None:
        self._socket.close()


class Node:
    def __init__(self, name: str) -> None:
        self.host = fresh_host()
        self.name = name
        place = Place(
            cluster_id=CLUSTER,
            node_id=NodeId(name),
            ingress_host=self.host,
            mesh=(self.host, MESH_PORT),
            connection_limit=1000,
            workers=WORKERS,
            report_period_s=0.05,
        )
        self.relay = Relay(make_env(MemoryTransport({}), MemoryDisk()), place)

    async def serve(
        self, version: int, *candidates: Candidate, protocols: tuple[str, ...] = ("udp",)
    ) -> None:
        routes = tuple(
            Route(
                service_id=ServiceId("id-dns"),
                service_name="dns",
                published=PORT,
                target=TARGET,
                protocol=protocol,
                balance=Balance.ROUND_ROBIN,
                candidates=candidates,
            )
            for protocol in protocols
        )
        assert await self.relay.apply(Desired(version=version, routes=routes)) == ()

    def counted(self, way: str) -> tuple[int, int]:
        """Flows that there were, and that there are."""
        total = self.relay.totals.services.get(("dns", way))
        return (total.connections, total.active) if total is not None else (0, 0)


@contextlib.asynccontextmanager
async def world(nodes: int, *tasks: str) -> AsyncIterator[tuple[list[Node], list[Task]]]:
    made = [Node(f"n{number}") for number in range(nodes)]
    running = [Task(name) for name in tasks]
    try:
        for task in running:
            await task.start()
        yield made, running
    finally:
        for node in made:
            await node.relay.close(0.0)
        for task in running:
            task.stop()


def here(task: Task) -> Candidate:
    return Candidate(task_id=TaskId(task.name), address=task.host)


def there(task: Task, node: Node) -> Candidate:
    mesh = f"{node.host}:{MESH_PORT}"
    return Candidate(task_id=TaskId(task.name), address=task.host, mesh_address=mesh)


@contextlib.contextmanager
def clients_of(node: Node, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        clients = [Client(node.host) for _ in range(count)]
        for client in clients:
            stack.callback(client.close)
        yield clients


async def ask_all(clients: list[Client], data: bytes) -> list[bytes]:
    return [await client.ask(data) for client in clients]


def names(answers: list[bytes]) -> list[bytes]:
    return [answer.partition(b":")[0] for answer in answers]


def test_flows_stay_with_their_worker_and_their_task() -> None:
    async def play() -> None:
        async with world(1, "t1", "t2") as ([node], [one, two]):
            await node.serve(1, here(one), here(two))
            with clients_of(node, CLIENTS) as clients:
                first = names(await ask_all(clients, b"1"))
                for _ in range(5):
                    assert names(await ask_all(clients, b"2")) == first
                await eventually(lambda: node.counted("ingress_udp") == (CLIENTS, CLIENTS))
                # Both workers take turns over the tasks by themselves.
                assert set(first) == {b"t1", b"t2"}
                # New candidates are in force in every worker when `serve` returns.
                await node.serve(2, here(two))
                assert set(names(await ask_all(clients, b"3"))) == {b"t2"}
                seen = Counter(one.seen)
                assert b"3" not in seen

    run("asyncio", play())


def test_every_worker_takes_a_part() -> None:
    async def play() -> None:
        async with world(1, "t1") as ([node], [task]):
            await node.serve(1, here(task))
            with clients_of(node, CLIENTS) as clients:
                await ask_all(clients, b"1")
                await eventually(lambda: node.counted("ingress_udp")[1] == CLIENTS)
                victim = node.relay.worker_pids[0]
                os.kill(victim, signal.SIGKILL)
                await eventually(lambda: 0 < node.counted("ingress_udp")[1] < CLIENTS)
                await eventually(lambda: victim not in node.relay.worker_pids)
                # Its clients are served by the one that takes its place: what they send meanwhile
                # waits in the socket, which outlives the worker.
                assert set(names(await ask_all(clients, b"2"))) == {b"t1"}

    run("asyncio", play())


def test_a_task_on_another_node_is_reached_by_its_workers() -> None:
    async def play() -> None:
        async with world(2, "t1") as ([origin, owner], [task]):
            await owner.serve(1, here(task))
            await origin.serve(1, there(task, owner))
            with clients_of(origin, CLIENTS) as clients:
                for size in (1, 1400, 60_000):
                    assert await ask_all(clients, bytes(size)) == [b"t1:" + bytes(size)] * CLIENTS
                await eventually(lambda: owner.counted("mesh_udp") == (CLIENTS, CLIENTS))
            assert set(task.peers) == {owner.host}

    run("asyncio", play())


def test_tcp_and_udp_have_ports_of_their_own() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"by tcp\n")
        writer.close()
        await writer.wait_closed()

    async def ask_by_tcp(host: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, PORT)
        said = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return said

    async def play() -> None:
        async with world(1, "t1") as ([node], [task]):
            server = await asyncio.start_server(answer, task.host, TARGET)
            with clients_of(node, 1) as [client]:
                await node.serve(1, here(task))
                assert f"{node.host}:{PORT}/udp" in node.relay.observed().listeners
                assert await client.ask(b"1") == b"t1:1"
                with pytest.raises(ConnectionRefusedError):
                    await ask_by_tcp(node.host)
                await node.serve(2, here(task), protocols=("tcp", "udp"))
                assert await ask_by_tcp(node.host) == b"by tcp\n"
                assert await client.ask(b"2") == b"t1:2"
                await node.serve(3, here(task), protocols=("tcp",))
                assert await ask_by_tcp(node.host) == b"by tcp\n"
                with pytest.raises(ConnectionRefusedError):
                    await client.ask(b"3")
            server.close()
            await server.wait_closed()

    run("asyncio", play())


def test_a_port_that_another_has_is_an_error_and_is_not_shared() -> None:
    async def play() -> None:
        async with world(1, "t1") as ([node], [task]):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind((node.host, PORT))
                with pytest.raises(AssertionError, match="Address already in use"):
                    await node.serve(1, here(task))
            await node.serve(2, here(task))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="Address already in use"):
                    other.bind((node.host, PORT))

    run("asyncio", play())
