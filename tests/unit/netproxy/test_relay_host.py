"""Ports in host mode on real sockets: open where a task is, and leading nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from skep.domain.base import replace
from skep.domain.endpoints import EndpointUpdate, ServiceEndpoints
from skep.domain.spec import Port, PortMode
from tests.unit.netproxy.support import (
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
    publish,
    run,
    service,
)

LOOPBACK6 = "::1"
pytestmark = pytest.mark.parametrize("loop", LOOPS)


def on_host(*tasks: FakeTask, name: str = "web") -> ServiceEndpoints:
    port = Port(target=TARGET, published=PORT, mode=PortMode.HOST)
    return replace(service(*tasks, name=name), ports=(port,))


def step(version: int, *services: ServiceEndpoints) -> EndpointUpdate:
    """What takes a netproxy from the version before."""
    return EndpointUpdate(from_version=version - 1, version=version, services=services)


async def is_refused(node: Netproxy) -> bool:
    try:
        _, writer = await asyncio.open_connection(*node.ingress())
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def test_each_node_leads_to_its_own_tasks_and_one_without_refuses(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b", "c") as (manager, nodes):
            a, b, c = nodes
            tasks = [
                await FakeTask(name, node).start()
                for name, node in (("t1", "a"), ("t2", "b"), ("t3", "b"))
            ]
            await publish(manager, nodes, complete(5, on_host(*tasks), nodes=(a, b, c)))
            assert [await ask_name(a.ingress()) for _ in range(4)] == ["t1"] * 4
            assert [await ask_name(b.ingress()) for _ in range(4)] == ["t2", "t3", "t2", "t3"]
            assert await is_refused(c)
            # Nothing went from node to node.
            assert [node.traffic.of("web", "mesh").connections for node in nodes] == [0, 0, 0]
            for task in tasks:
                await task.stop()

    run(loop, play())


def test_the_port_comes_and_goes_with_the_tasks_of_its_node(loop: str) -> None:
    async def play() -> None:
        async with cluster("a", "b") as (manager, [a, b]):
            first, second = await FakeTask("t1", "a").start(), await FakeTask("t2", "b").start()
            await publish(manager, [a, b], complete(5, on_host(first), nodes=(a, b)))
            assert await is_refused(b)
            await publish(manager, [a, b], step(6, on_host(second)))
            # A node acknowledges a version once it is in force, the closing of ports included.
            assert await is_refused(a)
            assert await ask_name(b.ingress()) == "t2"
            await publish(manager, [a, b], step(7, on_host(first, second)))
            assert await ask_name(a.ingress()) == "t1"
            await first.stop()
            await second.stop()

    run(loop, play())


def test_a_published_port_is_open_by_ipv6_as_well(loop: str) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind((LOOPBACK6, 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback address")
        number = probe.getsockname()[1]

    async def play() -> None:
        manager = FakeManager()
        managers = {"manager:1": manager}
        async with Netproxy("a", managers, host6=LOOPBACK6) as a, Netproxy("b", managers) as b:
            here, there = await FakeTask("t1", "a").start(), await FakeTask("t2", "b").start()
            web = replace(service(here, there), ports=(Port(target=TARGET, published=number),))
            await publish(manager, [a, b], complete(5, web, nodes=(a, b)))
            for host in (LOOPBACK6, a.host):
                assert {await ask_name((host, number)) for _ in range(4)} == {"t1", "t2"}
            await publish(
                manager,
                [a, b],
                EndpointUpdate(from_version=5, version=6, removed_services=(web.service_id,)),
            )
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(LOOPBACK6, number)
            await here.stop()
            await there.stop()

    run(loop, play())


def test_an_open_connection_outlives_its_port(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, on_host(task), nodes=(a,)))
            reader, writer = await asyncio.open_connection(*a.ingress())
            assert await reader.readline() == b"t1\n"
            await publish(manager, [a], step(6, on_host()))
            assert await is_refused(a)
            writer.write(b"still there?\n")
            assert await reader.readline() == b"still there?\n"
            writer.close()
            await writer.wait_closed()
            await task.stop()

    run(loop, play())


def test_one_service_takes_the_port_over_from_another(loop: str) -> None:
    async def play(between: Callable[[ServiceEndpoints], tuple[ServiceEndpoints, ...]]) -> None:
        async with cluster("a") as (manager, [a]):
            old, new = await FakeTask("t1", "a").start(), await FakeTask("t2", "a").start()
            comes = on_host(new, name="other")
            await publish(manager, [a], complete(5, on_host(old), nodes=(a,)))
            await publish(manager, [a], step(6, *between(comes)))
            await publish(manager, [a], step(7, on_host(), comes))
            assert await ask_name(a.ingress()) == "t2"
            conversation = await manager.follower("a")
            assert conversation.applied[-1].errors == ()
            await old.stop()
            await new.stop()

    ways: tuple[Callable[[ServiceEndpoints], tuple[ServiceEndpoints, ...]], ...] = (
        lambda comes: (),  # at once
        lambda comes: (on_host(),),  # one after the other
        lambda comes: (comes,),  # both for a moment
    )
    for way in ways:
        run(loop, play(way))


def test_a_port_that_somebody_else_has_is_told_by_service_and_tried_again(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            squatter = socket.create_server(a.ingress())
            task = await FakeTask("t1", "a").start()
            conversation = await manager.follower("a")
            await publish(manager, [a], complete(5, on_host(task), nodes=(a,)))
            assert conversation.applied[-1].errors == (f"web: port {PORT}: Address already in use",)
            squatter.close()
            await eventually(lambda: not conversation.applied[-1].errors)
            assert await ask_name(a.ingress()) == "t1"
            await task.stop()

    run(loop, play())
