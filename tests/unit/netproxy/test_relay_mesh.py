"""Two netproxies on real sockets: tasks of another node are reached by its netproxy alone."""

from __future__ import annotations

import pytest

from tests.unit.netproxy.support import (
    LOOPS,
    FakeTask,
    ask_name,
    cluster,
    complete,
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
            assert a.traffic.of("web", "ingress").connections == 10
            assert b.traffic.of("web", "mesh").connections == 10
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
