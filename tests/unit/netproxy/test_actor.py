"""The netproxy as a whole, with managers in memory: following, falling back, starting again."""

from __future__ import annotations

import asyncio

import pytest

from skep.domain.endpoints import EndpointUpdate, NetproxyApplied
from skep.netproxy.core.follow import SILENCE_LIMIT_S
from tests.unit.netproxy.support import (
    LOOPS,
    Conversation,
    FakeManager,
    FakeTask,
    MemoryDisk,
    Netproxy,
    ask_name,
    cluster,
    complete,
    eventually,
    fresh_host,
    publish,
    run,
    service,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def test_a_version_is_acknowledged_once_it_is_in_force(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            conversation = await manager.follower("a")
            assert conversation.hello == 0
            seen: list[tuple[int, int]] = []
            apply = a.relay.apply

            async def slow(desired: object) -> tuple[str, ...]:
                # Whatever is acknowledged meanwhile must be older.
                for _ in range(20):
                    await asyncio.sleep(0)
                seen.extend((5, said.version) for said in conversation.applied)
                return await apply(desired)  # type: ignore[arg-type]

            a.relay.apply = slow  # type: ignore[method-assign]
            await conversation.send(complete(5, service(task), nodes=(a,)))
            await conversation.acknowledged(5)
            assert seen == []
            assert conversation.applied == [NetproxyApplied(version=5)]
            assert await ask_name(a.ingress()) == "t1"
            await conversation.send(EndpointUpdate(from_version=5, version=8))
            await conversation.acknowledged(8)
            await task.stop()

    run(loop, play())


def test_a_gap_leads_to_a_new_stream_that_asks_for_the_whole(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(), nodes=(a,)))
            first = await manager.follower("a")
            await first.send(EndpointUpdate(from_version=7, version=8))
            second = await manager.follower("a", 1)
            assert second.hello == 0
            await eventually(lambda: first.is_over)
            await second.send(complete(8, service(task), nodes=(a,)))
            await second.acknowledged(8)
            assert await ask_name(a.ingress()) == "t1"
            await task.stop()

    run(loop, play())


def test_a_frame_that_cannot_be_read_leads_to_a_new_stream(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            await publish(manager, [a], complete(5, service(), nodes=(a,)))
            first = await manager.follower("a")
            await first.stream.send(b"\xff\xff\xff")
            second = await manager.follower("a", 1)
            assert second.hello == 5

    run(loop, play())


def test_another_manager_is_followed_when_one_goes(loop: str) -> None:
    async def play() -> None:
        managers = {"m:1": FakeManager(), "m:2": FakeManager()}

        async def greet(conversation: Conversation) -> None:
            if not conversation.hello:
                await conversation.send(complete(5, service()))

        for manager in managers.values():
            manager.greeting = greet
        async with Netproxy("a", managers) as a:
            await eventually(lambda: a.progress.applied_version == 5)
            [first] = [m for m in managers.values() if m.conversations]
            [other] = [m for m in managers.values() if m is not first]
            first.is_up = False
            await first.conversations[0].stream.close()
            second = await other.follower("a")
            assert second.hello == 5
            await second.send(EndpointUpdate(from_version=5, version=6))
            await second.acknowledged(6)

    run(loop, play())


def test_a_silent_manager_is_left(loop: str) -> None:
    async def play() -> None:
        manager = FakeManager()
        async with Netproxy("a", {"m:1": manager}) as a:
            first = await manager.follower("a")
            await first.send(complete(5, service()))
            await first.acknowledged(5)
            a.clock.skip(SILENCE_LIMIT_S)
            second = await manager.follower("a", 1)
            assert second.hello == 5
            assert first.is_over

    run(loop, play())


def test_a_manager_that_gives_signs_of_life_is_kept(loop: str) -> None:
    async def play() -> None:
        manager = FakeManager()
        async with Netproxy("a", {"m:1": manager}) as a:
            first = await manager.follower("a")
            await first.send(complete(5, service()))
            await first.acknowledged(5)
            for _ in range(10):
                await first.send(EndpointUpdate(from_version=5, version=5))
                await first.stream.until_read()
                a.clock.skip(0.9 * SILENCE_LIMIT_S)
            assert len(manager.conversations) == 1
            assert len(first.applied) == 1

    run(loop, play())


def test_started_again_without_any_manager_it_serves_from_disk(loop: str) -> None:
    async def play() -> None:
        disk, host, manager = MemoryDisk(), fresh_host(), FakeManager()
        task = await FakeTask("t1", "a").start()
        async with Netproxy("a", {"m:1": manager}, disk, host) as a:
            await publish(manager, [a], complete(5, service(), nodes=(a,)))
            # Two in quick succession: the second must not be lost to the pause between saves.
            await publish(manager, [a], complete(6, service(task), nodes=(a,)))
        manager.is_up = False
        began = asyncio.get_running_loop().time()
        async with Netproxy("a", {"m:1": manager}, disk, host) as a:
            await eventually(lambda: a.progress.applied_version == 6)
            assert await ask_name(a.ingress()) == "t1"
            assert asyncio.get_running_loop().time() - began < 2.0
            manager.is_up = True
            conversation = await manager.follower("a", 1)
            assert conversation.hello == 6
        await task.stop()

    run(loop, play())


@pytest.mark.parametrize("node_id", ["a", "b"])
def test_a_state_that_is_of_no_use_is_no_obstacle(loop: str, node_id: str) -> None:
    async def play() -> None:
        disk, manager = MemoryDisk(), FakeManager()
        if node_id == "a":
            disk.files["endpoints"] = b"\xc1 not msgpack"
        else:
            async with Netproxy("a", {"m:1": manager}, disk) as a:
                await publish(manager, [a], complete(5, service(), nodes=(a,)))
        async with Netproxy(node_id, {"m:1": manager}, disk) as fresh:
            conversation = await manager.follower(node_id)
            assert conversation.hello == 0
            await publish(manager, [fresh], complete(6, service(), nodes=(fresh,)))

    run(loop, play())


def test_an_actor_that_dies_starts_again_from_disk_and_cuts_nothing(loop: str) -> None:
    async def play() -> None:
        async with cluster("a") as (manager, [a]):
            task = await FakeTask("t1", "a").start()
            await publish(manager, [a], complete(5, service(task), nodes=(a,)))
            reader, writer = await asyncio.open_connection(*a.ingress())
            assert await reader.readline() == b"t1\n"
            await eventually(lambda: a.disk.files)
            apply = a.relay.apply

            async def fail(_: object) -> tuple[str, ...]:
                a.relay.apply = apply  # type: ignore[method-assign]
                raise RuntimeError("a bug")

            a.relay.apply = fail  # type: ignore[method-assign, assignment]
            first = await manager.follower("a")
            await first.send(complete(6, nodes=(a,)))
            second = await manager.follower("a", 1)
            # It had held version 6, and may or may not have saved it before it died.
            assert second.hello in (5, 6)
            await second.send(complete(7, service(task), nodes=(a,)))
            await second.acknowledged(7)
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"
            writer.close()
            await writer.wait_closed()
            assert await ask_name(a.ingress()) == "t1"
            assert a.supervisor.restarts == {"follow": 1}
            await task.stop()

    run(loop, play())
