"""The relay's worker processes: how they are fed, replaced, and told apart from strangers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from skep.domain.base import ClusterId, NodeId, ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.adapters import relay as relay_module
from skep.netproxy.adapters.listening import Listening
from skep.netproxy.adapters.relay import Place, Relay
from skep.netproxy.core import proxyheader
from skep.netproxy.core.routes import Candidate, Desired, Route
from skep.netproxy.relay.core import protocol
from skep.netproxy.relay.core.mesh import MeshHeader, MeshStatus, encode_header
from skep.netproxy.relay.core.plan import Change
from skep.netproxy.relay.core.protocol import TCP, UDP, Key
from tests.unit.netproxy.support import (
    CLUSTER,
    DEADLINE_S,
    MESH_PORT,
    PORT,
    REPORT_PERIOD_S,
    TARGET,
    FakeTask,
    MemoryDisk,
    MemoryTransport,
    ask_name,
    eventually,
    fresh_host,
    make_env,
    run,
)


def route(*tasks: FakeTask, published: int = PORT, name: str = "web") -> Route:
    return Route(
        service_id=ServiceId(f"id-{name}"),
        service_name=name,
        published=published,
        target=TARGET,
        balance=Balance.ROUND_ROBIN,
        candidates=tuple(
            Candidate(task_id=task.endpoint.task_id, address=task.endpoint.address)
            for task in tasks
        ),
    )


def desired(version: int, *routes: Route) -> Desired:
    return Desired(version=version, routes=routes)


@asynccontextmanager
async def relay(workers: int = 1, limit: int = 1000) -> AsyncIterator[Relay]:
    host = fresh_host()
    place = Place(
        cluster_id=CLUSTER,
        node_id=NodeId("a"),
        ingress_host=host,
        mesh=(host, MESH_PORT),
        connection_limit=limit,
        workers=workers,
        report_period_s=REPORT_PERIOD_S,
    )
    made = Relay(make_env(MemoryTransport({}), MemoryDisk()), place)
    try:
        yield made
    finally:
        await made.close(0.0)
        assert made.observed().connections == 0


def ingress(of: Relay) -> tuple[str, int]:
    return of._place.ingress_host, PORT


async def first_bytes(of: socket.socket) -> bytes:
    """What a client hears first; it is closed then."""
    with of:
        of.setblocking(False)
        return await asyncio.get_running_loop().sock_recv(of, 100)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_is_killed_is_replaced_and_no_waiting_client_is_lost() -> None:
    async def play() -> None:
        task = await FakeTask("t1", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            assert await of.apply(desired(1, route(task))) == ()
            reader, writer = await asyncio.open_connection(*ingress(of))
            assert await reader.readline() == b"t1\n"
            await eventually(lambda: of.observed().connections == 1)
            [pid] = of.worker_pids
            os.kill(pid, signal.SIGSTOP)  # so that these are not accepted by the one that dies
            waiting = [socket.create_connection(ingress(of)) for _ in range(20)]
            os.kill(pid, signal.SIGKILL)
            # What it relayed is cut by a reset, never by what looks like an orderly end.
            with pytest.raises(ConnectionResetError):
                await reader.read()
            for client in waiting:
                assert await first_bytes(client) == b"t1\n"
            assert not is_running(pid)
            assert of.restarts == 1
            assert await of.apply(desired(2, route(task))) == ()
            await eventually(lambda: of.totals.of("web", "ingress").connections == 21)
            await eventually(lambda: of.totals.of("web", "ingress").active == 0)
            writer.close()
        await task.stop()

    run("uvloop", play())


def test_a_worker_that_hangs_is_told_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "ANSWER_S", 0.3)

    async def play() -> None:
        old, new = await FakeTask("t1", "a").start(), await FakeTask("t2", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            assert await of.apply(desired(1, route(old))) == ()
            [pid] = of.worker_pids
            os.kill(pid, signal.SIGSTOP)
            errors = await of.apply(desired(2, route(new)))
            assert errors == ("relay worker 0 gave no answer in 0.3 s, and is started anew",)
            # What it was told last may not have arrived: it must be gone when apply returns.
            assert not is_running(pid)
            assert await ask_name(ingress(of)) == "t2"
            assert await of.apply(desired(2, route(new))) == ()
        await old.stop()
        await new.stop()

    run("uvloop", play())


def test_several_workers_share_a_port_and_are_summed() -> None:
    async def play() -> None:
        task = await FakeTask("t1", "a").start()
        async with relay(workers=3) as of, asyncio.timeout(DEADLINE_S):
            assert await of.apply(desired(1, route(task))) == ()
            assert len(set(of.worker_pids)) == 3
            assert await asyncio.gather(*(ask_name(ingress(of)) for _ in range(90))) == ["t1"] * 90
            await eventually(lambda: of.totals.of("web", "ingress").connections == 90)
            await eventually(lambda: of.totals.of("web", "ingress").active == 0)
            shares = [held.counts for held in of.totals._now.values()]
            assert all(counts[("web", "ingress")].connections > 5 for counts in shares)
            assert sum(of.totals.of("web", "ingress").latencies) == 90
            # A removed task gets nothing from any of them, and a removed port is closed by all.
            assert await of.apply(desired(2, route())) == ()
            assert {await ask_name(ingress(of)) for _ in range(20)} == {""}
            assert await of.apply(desired(3)) == ()
            for _ in range(20):
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(*ingress(of))
        await task.stop()

    run("uvloop", play())


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("count", [1, 3])
def test_a_port_is_never_shared_with_others(count: int, protocol: str) -> None:
    address = Key(fresh_host(), PORT, protocol)
    ours, theirs = Listening(count), Listening(count)
    ours.open(address)
    with pytest.raises(OSError, match="in use"):
        theirs.open(address)
    stranger = socket.socket(type=socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM)
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if count == 1 or os.geteuid() == 0:
        with pytest.raises(OSError, match="in use"):
            stranger.bind(address.address)
    ours.close(address)
    stranger.bind(address.address)
    if protocol == TCP:
        stranger.listen()
    with pytest.raises(OSError, match="in use"):
        ours.open(address)
    assert ours.addresses == ()
    stranger.close()


def test_ipv6_is_for_ipv6_alone() -> None:
    both = Listening(2)
    any_port = Key("::1", 0)
    both.open(any_port)
    port = both.of(0, any_port).getsockname()[1]
    both.close(any_port)
    both.open(Key("::", port))
    both.open(Key("0.0.0.0", port))
    with socket.create_connection(("::1", port)):
        pass
    for address in both.addresses:
        both.close(address)


def test_fifty_megabytes_each_way_arrive_as_they_were_sent() -> None:
    block = bytes(range(256)) * 1024
    blocks = 200
    whole = hashlib.sha256(block * blocks).hexdigest()

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(blocks):
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def swallow(reader: asyncio.StreamReader) -> str:
        seen = hashlib.sha256()
        while data := await reader.read(1 << 18):
            seen.update(data)
        return seen.hexdigest()

    heard: list[str] = []

    async def both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, digest = await asyncio.gather(pour(writer), swallow(reader))
        heard.append(digest)

    async def play() -> None:
        task = await FakeTask("t1", "a").start(both_ways)
        async with relay() as of, asyncio.timeout(60.0):
            await of.apply(desired(1, route(task)))
            reader, writer = await asyncio.open_connection(*ingress(of))
            _, digest = await asyncio.gather(pour(writer), swallow(reader))
            writer.close()
            await eventually(lambda: heard)
            assert [digest, *heard] == [whole] * 2
            await eventually(lambda: of.observed().connections == 0)
            web = of.totals.of("web", "ingress")
            assert (web.received, web.errors) == ([len(block) * blocks] * 2, {})
        await task.stop()

    run("uvloop", play())


def test_too_many_connections_are_refused_and_counted() -> None:
    async def play() -> None:
        task = await FakeTask("t1", "a").start()
        async with relay(limit=2) as of, asyncio.timeout(DEADLINE_S):
            await of.apply(desired(1, route(task)))
            held = [await asyncio.open_connection(*ingress(of)) for _ in range(2)]
            for reader, _ in held:
                assert await reader.readline() == b"t1\n"
            assert await ask_name(ingress(of)) == ""
            reader, writer = await asyncio.open_connection(ingress(of)[0], MESH_PORT)
            assert await reader.read() == bytes((MeshStatus.BUSY,))
            await eventually(lambda: of.totals.connections == 2)
            for _, each in (*held, (reader, writer)):
                each.close()
            await eventually(lambda: of.totals.connections == 0)
            assert await ask_name(ingress(of)) == "t1"
            await eventually(lambda: of.totals.of("web", "ingress").errors == {"too_many": 1})
        await task.stop()

    run("uvloop", play())


def test_a_failing_task_is_passed_over_and_that_is_counted() -> None:
    async def play() -> None:
        dead, alive = FakeTask("t1", "a"), await FakeTask("t2", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            await of.apply(desired(1, route(dead, alive)))
            assert [await ask_name(ingress(of)) for _ in range(10)] == ["t2"] * 10
            await eventually(lambda: of.totals.of("web", "ingress").connections == 10)
            assert of.totals.of("web", "ingress").ejections == 1
        await alive.stop()

    run("uvloop", play())


# ---------------------------------------------------------------------------- the PROXY protocol


class TellingTask(FakeTask):
    """Says who the PROXY header that it is sent is about, and echoes what follows."""

    async def say_name_then_echo(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        data = b""
        while (parsed := proxyheader.parse(data)) is None:
            data += await reader.read(1)
        writer.write(f"{parsed.source} {parsed.destination}\n".encode())
        writer.write(await reader.readline())
        writer.write_eof()


async def tell(of: Relay, listener: protocol.Listener) -> None:
    """Put it in force beside what is."""
    of._listening.open(listener.key)
    for worker in of._workers.values():
        worker.send_listeners([(listener.key, of._listening.of(worker.number, listener.key))])
        change = Change(changed=(listener,))
        assert await of._answer(worker, of._ask(worker, change)) == ()


def proxying(task: FakeTask, host: str, **settings: object) -> protocol.Listener:
    return protocol.Listener(
        host=host,
        port=PORT,
        service_id=ServiceId("id-web"),
        service_name="web",
        target=TARGET,
        candidates=(protocol.Candidate(task_id=TaskId(task.name), address=task.endpoint.address),),
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_task_is_told_who_connected_to_what(version: str) -> None:
    async def play() -> None:
        task = await TellingTask("t1", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            await of.apply(desired(1))
            host, _ = ingress(of)
            await tell(of, proxying(task, host, sends_proxy=version))
            reader, writer = await asyncio.open_connection(host, PORT)
            writer.write(b"hello\n")
            ours = writer.get_extra_info("sockname")
            assert await reader.readline() == f"{ours} {(host, PORT)}\n".encode()
            assert await reader.read() == b"hello\n"
            writer.close()
        await task.stop()

    run("asyncio", play())


def test_what_a_client_says_of_itself_is_passed_on() -> None:
    async def play() -> None:
        task = await TellingTask("t1", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            await of.apply(desired(1))
            host, _ = ingress(of)
            await tell(of, proxying(task, host, sends_proxy="v2", accepts_proxy=True))
            source, destination = ("10.1.2.3", 5), ("10.9.9.9", 443)
            reader, writer = await asyncio.open_connection(host, PORT)
            writer.write(proxyheader.encode("v1", source, destination) + b"hello\n")
            assert await reader.readline() == f"{source} {destination}\n".encode()
            assert await reader.read() == b"hello\n"
            writer.close()
            # Whoever says something else is cut, before a task hears of it.
            reader, writer = await asyncio.open_connection(host, PORT)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert len(task.peers) == 1
            await eventually(lambda: of.totals.of("web", "ingress").errors == {"no_header": 1})
        await task.stop()

    run("asyncio", play())


def test_the_owner_of_a_task_tells_it_who_connected_to_the_origin() -> None:
    async def play() -> None:
        task = await TellingTask("t1", "a").start()
        async with relay() as of, asyncio.timeout(DEADLINE_S):
            await of.apply(desired(1, route(task)))
            header = MeshHeader(
                cluster_id=ClusterId(CLUSTER),
                service_id=ServiceId("id-web"),
                port=TARGET,
                task_id=TaskId("t1"),
                client="10.1.2.3:5",
                server="10.9.9.9:443",
                proxy="v1",
            )
            reader, writer = await asyncio.open_connection(ingress(of)[0], MESH_PORT)
            writer.write(encode_header(header))
            assert await reader.readexactly(1) == bytes((MeshStatus.CONNECTED,))
            writer.write(b"hello\n")
            assert await reader.readline() == b"('10.1.2.3', 5) ('10.9.9.9', 443)\n"
            assert await reader.read() == b"hello\n"
            writer.close()
        await task.stop()

    run("asyncio", play())
