"""Two netproxies on real sockets: tasks of another node are reached by its netproxy alone."""

from __future__ import annotations

import asyncio

import pytest

from skep.domain.base import ClusterId, ServiceId, TaskId
from skep.netproxy.relay.core.mesh import MAGIC, MeshHeader, MeshStatus, encode_header
from tests.unit.netproxy.support import (
    CLUSTER,
    DEADLINE_S,
    LOOPS,
    MESH_PORT,
    TARGET,
    FakeTask,
    Netproxy,
    ask_name,
    cluster,
    complete,
    eventually,
    publish,
    run,
    service,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def test_a_task_of_another_node_is_reached_through_its_netproxy_only(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "b").start()
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            for _ in range(10):
                assert await ask_name(a.ingress()) == "t1"
            # Relays connect from their own node's address, so the task knows who came.
            assert set(task.peers) == {b.host}
            await eventually(lambda: a.traffic.of("web", "ingress").connections == 10)
            await eventually(lambda: b.traffic.of("web", "mesh").connections == 10)
            await task.stop()

    run(loop, play())


def test_with_the_mesh_gone_the_direct_route_is_still_not_taken(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "b").start()
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            await b.supervisor.stop()
            await b.relay.close(0.0)
            assert await ask_name(a.ingress()) == ""
            assert task.peers == []
            await task.stop()

    run(loop, play())


def test_a_local_task_is_reached_directly(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            assert await ask_name(a.ingress()) == "t1"
            assert task.peers == [a.host]
            assert b.traffic.services == {}
            await task.stop()

    run(loop, play())


def test_connections_alternate_between_local_and_remote_tasks(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            tasks = [await FakeTask("t1", "a").start(), await FakeTask("t2", "b").start()]
            await publish(manager, [a, b], complete(5, service(*tasks), nodes=(a, b)))
            assert [await ask_name(a.ingress()) for _ in range(4)] == ["t1", "t2", "t1", "t2"]
            assert [await ask_name(b.ingress()) for _ in range(4)] == ["t1", "t2", "t1", "t2"]
            for task in tasks:
                await task.stop()

    run(loop, play())


def test_a_remote_task_that_refuses_is_passed_over(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            dead, alive = FakeTask("t1", "b"), await FakeTask("t2", "b").start()
            await publish(manager, [a, b], complete(5, service(dead, alive), nodes=(a, b)))
            assert [await ask_name(a.ingress()) for _ in range(10)] == ["t2"] * 10
            await eventually(lambda: b.traffic.of("web", "mesh").errors.get("refused", 0) >= 1)
            await alive.stop()

    run(loop, play())


def test_an_owner_that_no_longer_knows_a_task_sends_the_client_elsewhere(loop: str) -> None:
    """The owner is ahead of the origin: the task is on its way out."""

    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            old, new = await FakeTask("t1", "b").start(), await FakeTask("t2", "b").start()
            await publish(manager, [a, b], complete(5, service(old, new), nodes=(a, b)))
            await publish(manager, [b], complete(6, service(new), nodes=(a, b)))
            assert [await ask_name(a.ingress()) for _ in range(6)] == ["t2"] * 6
            assert old.peers == []
            await eventually(lambda: b.traffic.of("", "mesh").errors.get("unknown_task", 0) >= 1)
            await old.stop()
            await new.stop()

    run(loop, play())


async def say(node: Netproxy, data: bytes) -> bytes:
    """What a netproxy's mesh port answers to these bytes, and that it closes."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(node.host, MESH_PORT)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


def header(**changes: str) -> bytes:
    named = {"cluster": str(CLUSTER), "service": "id-web", "task": "t1", **changes}
    return encode_header(
        MeshHeader(
            cluster_id=ClusterId(named["cluster"]),
            service_id=ServiceId(named["service"]),
            port=TARGET,
            task_id=TaskId(named["task"]),
        )
    )


def test_the_mesh_answers_what_it_refuses(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            refused = {
                header(cluster="other"): MeshStatus.WRONG_CLUSTER,
                header(service="id-x"): MeshStatus.UNKNOWN_TASK,
                header(task="t9"): MeshStatus.UNKNOWN_TASK,
                MAGIC + bytes((99, 0, 2)) + b"xx": MeshStatus.UNKNOWN_VERSION,
                b"GET / HTTP/1.1\r\n\r\n": MeshStatus.MALFORMED,
            }
            for data, status in refused.items():
                assert await say(a, data) == bytes((status,))
            # A task of another node is unknown here: what came by the mesh ends here.
            assert await say(b, header()) == bytes((MeshStatus.UNKNOWN_TASK,))
            assert task.peers == []
            await task.stop()
            assert await say(a, header()) == bytes((MeshStatus.REFUSED,))

    run(loop, play())


def test_a_remote_task_that_says_a_word_and_ends_is_heard_to_its_end(loop: str) -> None:
    """All of it may be there when the owner's answer is read."""

    async def bye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye\n")

    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "b").start(bye)
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            for _ in range(30):
                async with asyncio.timeout(DEADLINE_S):
                    reader, writer = await asyncio.open_connection(*a.ingress())
                    assert await reader.read() == b"bye\n"
                    writer.close()
            await task.stop()

    run(loop, play())


def test_an_owner_that_dies_resets_the_client(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            task = await FakeTask("t1", "b").start()
            await publish(manager, [a, b], complete(5, service(task), nodes=(a, b)))
            reader, writer = await asyncio.open_connection(*a.ingress())
            assert await reader.readline() == b"t1\n"
            await b.supervisor.stop()
            await b.relay.close(0.0)
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(DEADLINE_S):
                    await reader.read()
            writer.close()
            await eventually(lambda: a.relay.observed().connections == 0)
            await task.stop()

    run(loop, play())
