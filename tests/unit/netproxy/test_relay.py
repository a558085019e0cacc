"""One netproxy on real sockets: what clients and tasks see of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from skep.domain.base import NodeId
from skep.domain.endpoints import EndpointUpdate, MeshNode
from skep.domain.spec import Balance
from skep.netproxy.relay.adapters.arrivals import FIRST_BYTES
from skep.netproxy.relay.core.pipe import CHUNK_BYTES, CLIENT
from tests.unit.netproxy.support import (
    DEADLINE_S,
    LOOPS,
    PORT,
    TARGET,
    FakeManager,
    FakeTask,
    Netproxy,
    ask_name,
    cluster,
    complete,
    eventually,
    fresh_host,
    publish,
    reset_on_close,
    run,
    service,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(node: Netproxy) -> AsyncIterator[Pair]:
    """A client's connection to the published port, with a deadline over all that is done."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(*node.ingress())
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def errors(node: Netproxy) -> dict[str, int]:
    return node.traffic.of("web", "ingress").errors


async def heard(client: socket.socket) -> bytes:
    """All that it is told, to the end."""
    told, loop = b"", asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        while data := await loop.sock_recv(client, 65536):
            told += data
    return told


async def is_refused(node: Netproxy) -> bool:
    try:
        _, writer = await asyncio.open_connection(*node.ingress())
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def test_a_service_without_tasks_is_reset_at_once(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            await publish(manager, [a], complete(5, service(), nodes=(a,)))
            assert await ask_name(a.ingress()) == ""
            await eventually(lambda: errors(a) == {"no_endpoints": 1})

    run(loop, play())


def test_a_task_that_refuses_is_passed_over(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            dead, alive = FakeTask("t1", "a"), await FakeTask("t2", "a").start()
            await publish(manager, [a], complete(5, service(dead, alive), nodes=(a,)))
            assert [await ask_name(a.ingress()) for _ in range(10)] == ["t2"] * 10
            await alive.stop()
            assert await ask_name(a.ingress()) == ""
            await eventually(lambda: errors(a) == {"refused": 1})

    run(loop, play())


async def hear_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says how much it was told, from the first byte to the end."""
    writer.write(b"%d" % len(await reader.read()))


def test_what_a_client_has_said_goes_to_the_task_that_takes_it(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            dead, alive = FakeTask("t1", "a"), await FakeTask("t2", "a").start(hear_all)
            await publish(manager, [a], complete(5, service(dead, alive), nodes=(a,)))
            # Nothing; less and more than is read before it is connected; just as much.
            said = (0, 1, FIRST_BYTES - 1, FIRST_BYTES, FIRST_BYTES + 1, 300_000) * 2
            for amount in said:
                # In one piece, so that it is there when the relay looks.
                with socket.create_connection(a.ingress()) as client:
                    client.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(client, b"x" * amount)
                    client.shutdown(socket.SHUT_WR)
                    assert await heard(client) == b"%d" % amount
            traffic = functools.partial(a.traffic.of, "web", "ingress")
            await eventually(lambda: traffic().received[CLIENT] == sum(said))
            await eventually(lambda: a.relay.observed().connections == 0)
            assert errors(a) == {}
            await alive.stop()

    run(loop, play())


def test_a_client_that_is_gone_before_it_is_connected_leaves_nothing(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            for number in range(50):
                with socket.create_connection(a.ingress()) as client:
                    if number % 2:
                        client.send(b"hello")
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await eventually(lambda: a.traffic.of("web", "ingress").connections == 50)
            await eventually(lambda: a.traffic.of("web", "ingress").active == 0)
            assert set(errors(a)) <= {"client_reset"}
            assert await ask_name(a.ingress()) == "t1"
            await task.stop()

    run(loop, play())


def test_the_client_may_end_first_and_hear_the_answer(loop: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()  # to the end
        writer.write(b"got %d" % len(request))

    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start(answer)
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (reader, writer):
                writer.write(b"x" * 100_000)
                writer.write_eof()
                assert await reader.read() == b"got 100000"
            await eventually(lambda: a.relay.observed().connections == 0)
            assert errors(a) == {}
            await task.stop()

    run(loop, play())


def test_the_task_may_end_first_and_hear_the_rest(loop: str) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.append(await reader.read())

    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start(answer)
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (reader, writer):
                assert await reader.read() == b"bye"
                writer.write(b"y" * 100_000)
                writer.write_eof()
                await eventually(lambda: heard == [b"y" * 100_000])
            await eventually(lambda: a.relay.observed().connections == 0)
            await task.stop()

    run(loop, play())


def test_a_task_that_dies_resets_the_client(loop: str) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        reset_on_close(writer)
        writer.transport.abort()

    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start(die)
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (reader, writer):
                writer.write(b"hello\n")
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            await eventually(lambda: errors(a) == {"task_reset": 1})
            await task.stop()

    run(loop, play())


def test_a_client_that_dies_resets_the_task(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            seen: list[str] = []

            async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"ready\n")
                try:
                    await reader.read()
                except ConnectionResetError:
                    seen.append("reset")

            task = await FakeTask("t1", "a").start(wait)
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (reader, writer):
                assert await reader.readline() == b"ready\n"
                reset_on_close(writer)
                writer.transport.abort()
                await eventually(lambda: seen == ["reset"])
            await task.stop()

    run(loop, play())


def test_a_slow_reader_costs_bounded_memory_and_loses_nothing(loop: str) -> None:
    total = 64 * 1024 * 1024
    block = bytes(range(256)) * 256
    digest = hashlib.sha256(block * (total // len(block))).hexdigest()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()

    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start(pour)
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            seen = hashlib.sha256()
            await eventually(lambda: a.traffic.buffered_bytes)
            most, idle = 0, a.traffic.buffered_bytes
            async with connected(a) as (reader, _):
                # It reads nothing until the relay has as much as it will ever keep.
                await eventually(lambda: a.traffic.buffered_bytes > idle)
                while data := await reader.read(65536):
                    seen.update(data)
                    most = max(most, a.traffic.buffered_bytes)
            assert seen.hexdigest() == digest
            assert idle < most <= idle + CHUNK_BYTES
            await eventually(lambda: a.traffic.buffered_bytes == idle)
            await task.stop()

    run(loop, play())


def test_least_connections_goes_where_least_is_open(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]), contextlib.AsyncExitStack() as stack:
            tasks = [await FakeTask(f"t{n}", "a").start() for n in range(1, 4)]
            web = service(*tasks, balance=Balance.LEAST_CONNECTIONS)
            await publish(manager, [a], complete(5, web, nodes=(a,)))
            held = []
            for _ in range(6):
                reader, writer = await stack.enter_async_context(connected(a))
                held.append(((await reader.readline()).decode().strip(), writer))
            assert sorted(name for name, _ in held) == ["t1", "t1", "t2", "t2", "t3", "t3"]
            for name, writer in held:
                if name == "t2":
                    writer.close()
            await eventually(lambda: a.relay.observed().connections == 4)
            names = []
            for _ in range(2):
                reader, _ = await stack.enter_async_context(connected(a))
                names.append((await reader.readline()).decode().strip())
            assert names == ["t2", "t2"]
            for task in tasks:
                await task.stop()

    run(loop, play())


def test_a_removed_task_keeps_its_connections_and_gets_no_more(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            old, new = await FakeTask("t1", "a").start(), await FakeTask("t2", "a").start()
            await publish(manager, [a], complete(5, service(old), nodes=(a,)))
            async with connected(a) as (reader, writer):
                assert await reader.readline() == b"t1\n"
                await publish(manager, [a], complete(6, service(new), nodes=(a,)))
                assert [await ask_name(a.ingress()) for _ in range(5)] == ["t2"] * 5
                writer.write(b"still here\n")
                assert await reader.readline() == b"still here\n"
            assert len(old.peers) == 1
            await old.stop()
            await new.stop()

    run(loop, play())


def test_a_removed_service_is_refused_but_its_connections_end_with_their_task(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (reader, writer):
                assert await reader.readline() == b"t1\n"
                await publish(manager, [a], complete(6, nodes=(a,)))
                assert await is_refused(a)
                writer.write(b"still here\n")
                assert await reader.readline() == b"still here\n"
                await task.stop()
                assert await reader.read() == b""
            await eventually(lambda: a.relay.observed().connections == 0)
            await publish(manager, [a], complete(7, nodes=(a,), mesh=(stranger(),)))
            assert ("web", "ingress") not in a.traffic.services

    run(loop, play())


def stranger() -> MeshNode:
    return MeshNode(node_id=NodeId("x"), mesh_address=f"{fresh_host()}:7946")


class DeafTask(FakeTask):
    """Its queue of connections is full: a connect to it hangs."""

    def __init__(self, task_id: str, node_id: str) -> None:
        super().__init__(task_id, node_id)
        self._listener = socket.create_server((self.endpoint.address, TARGET), backlog=0)
        self._waiting = []
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex((self.endpoint.address, TARGET))
            self._waiting.append(waiting)

    async def stop(self) -> None:
        for of in (self._listener, *self._waiting):
            of.close()


async def connecting_is_moved_on(
    manager: FakeManager, a: Netproxy, before: EndpointUpdate, after: EndpointUpdate
) -> None:
    """A client whose connection to the first task hangs is with the second, once it is told."""
    await publish(manager, [a], before)
    async with connected(a) as (reader, _):
        await eventually(lambda: a.traffic.of("web", "ingress").active == 1)
        began = asyncio.get_running_loop().time()
        await publish(manager, [a], after)
        assert await reader.readline() == b"t2\n"
        # Not by the attempt's own deadline, which is 2 s.
        assert asyncio.get_running_loop().time() - began < 1.5


def test_a_connect_under_way_to_a_removed_task_is_moved_on(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            deaf, alive = DeafTask("t1", "a"), await FakeTask("t2", "a").start()
            before = complete(5, service(deaf), nodes=(a,))
            await connecting_is_moved_on(
                manager, a, before, complete(6, service(alive), nodes=(a,))
            )
            await deaf.stop()
            await alive.stop()

    run(loop, play())


def test_a_mesh_connect_under_way_to_a_removed_task_is_moved_on(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            mesh = socket.create_server(
                (fresh_host(), 7946)
            )  # it takes connections and never answers
            host, port = mesh.getsockname()
            silent = (MeshNode(node_id=NodeId("b"), mesh_address=f"{host}:{port}"),)
            gone, alive = FakeTask("t1", "b"), await FakeTask("t2", "a").start()
            before = complete(5, service(gone), nodes=(a,), mesh=silent)
            await connecting_is_moved_on(
                manager, a, before, complete(6, service(alive), nodes=(a,), mesh=silent)
            )
            mesh.close()
            await alive.stop()

    run(loop, play())


def test_a_port_that_is_taken_is_told_and_opened_once_it_is_free(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            other = socket.create_server((a.host, PORT))
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            conversation = await manager.follower("a")
            assert conversation.applied[-1].errors == (f"web: port {PORT}: Address already in use",)
            other.close()
            await eventually(lambda: conversation.applied[-1].errors == ())
            assert conversation.applied[-1].version == 5
            assert await ask_name(a.ingress()) == "t1"
            await task.stop()

    run(loop, play())


def test_listeners_follow_the_published_ports(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            other = service(name="other", published=PORT + 1)
            await publish(manager, [a], complete(5, service(), other, nodes=(a,)))
            assert a.relay.observed().listeners == (
                f"{a.host}:{PORT}",
                f"{a.host}:{PORT + 1}",
                f"{a.host}:7946",
            )
            await publish(manager, [a], complete(6, other, nodes=(a,)))
            assert a.relay.observed().listeners == (f"{a.host}:{PORT + 1}", f"{a.host}:7946")
            clash = service(published=7946)
            await publish(manager, [a], complete(7, clash, nodes=(a,)))
            [applied] = [x for x in (await manager.follower("a")).applied if x.version == 7]
            assert applied.errors == ("web: port 7946: it is this node's mesh port",)

    run(loop, play())


def test_closing_lets_short_connections_end_and_cuts_the_rest(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            async with connected(a) as (short, ending), connected(a) as (long, _):
                await short.readline()
                await long.readline()
                closing = asyncio.create_task(a.relay.close(0.2))
                await eventually(lambda: a.relay.observed().listeners == ())
                assert await is_refused(a)
                ending.write_eof()
                assert await short.read() == b""
                with pytest.raises(ConnectionResetError):
                    await long.read()
                await closing
            assert a.relay.observed().connections == 0
            await task.stop()

    run(loop, play())


def test_many_connections_at_once_all_get_through(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            tasks = [await FakeTask("t1", "a").start(), await FakeTask("t2", "b").start()]
            await publish(manager, [a, b], complete(5, service(*tasks), nodes=(a, b)))
            names = await asyncio.gather(*(ask_name(a.ingress()) for _ in range(200)))
            assert sorted(names) == ["t1"] * 100 + ["t2"] * 100
            await eventually(lambda: a.relay.observed().connections == 0)
            await eventually(lambda: b.relay.observed().connections == 0)
            await eventually(lambda: a.traffic.of("web", "ingress").active == 0)
            for task in tasks:
                await task.stop()

    run(loop, play())


def test_a_client_that_vanishes_before_it_is_served_leaves_nothing_behind(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            for _ in range(50):
                client = socket.create_connection(a.ingress())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            await eventually(lambda: a.traffic.of("web", "ingress").connections == 50)
            await eventually(lambda: a.relay.observed().connections == 0)
            await eventually(lambda: a.traffic.of("web", "ingress").active == 0)
            await task.stop()

    run(loop, play())
