"""Watching: each change once, whatever happens to streams and managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skep.api import codec
from skep.client import Cluster, GivenUp, NotConverged, NotFound, connect
from skep.domain.base import ServiceId
from skep.domain.control import ServiceView, WatchAction, WatchEvent, WatchRequest
from skep.domain.objects import Service
from skep.domain.spec import RunSpec, ServiceSpec, StackSpec, TaskSpec
from tests.unit.client.fake import ADDRESSES, M1, FakeControl, FakeSeams, FakeStream, seams

SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve",))), replicas=2)


def run(world: FakeSeams, script: Callable[[Cluster], Awaitable[None]]) -> None:
    async def go() -> None:
        async with connect(ADDRESSES, seams=world, deadline_s=20.0) as cluster:
            await asyncio.wait_for(script(cluster), 10)

    asyncio.run(go())


def change(version: int, name: str) -> WatchEvent:
    row = Service(id=ServiceId(name), name=name, spec=SPEC, version=version)
    return WatchEvent(version=version, action=WatchAction.UPDATE, service=row)


def asked(stream: FakeStream) -> WatchRequest:
    return codec.decode(WatchRequest, stream.sent[0])


async def next_stream(control: FakeControl, number: int) -> FakeStream:

    while len(control.streams) <= number or not control.streams[number].sent:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return control.streams[number]


def names(events: list[WatchEvent]) -> list[str]:
    return [event.service.name for event in events if event.service]


async def collect(cluster: Cluster, into: list[WatchEvent], count: int) -> None:
    async for event in cluster.watch(kinds=["service"]):
        into.append(event)
        if len(into) == count:
            return


def test_a_watch_from_now_begins_at_one_version() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 1))
        stream = await next_stream(control, 0)
        assert asked(stream) == WatchRequest(from_version=10, kinds=("service",))
        control.tell(stream, change(11, "a"))
        await watching
        assert names(got) == ["a"]

    run(world, script)


def test_a_break_within_a_commit_loses_and_repeats_nothing() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 5))
        stream = await next_stream(control, 0)
        for event in (change(11, "a"), change(12, "b"), change(12, "c")):
            control.tell(stream, event)
        control.cut(stream)
        stream = await next_stream(control, 1)
        assert asked(stream).from_version == 11
        for event in (change(12, "b"), change(12, "c"), change(12, "d"), change(13, "e")):
            control.tell(stream, event)
        await watching
        assert names(got) == ["a", "b", "c", "d", "e"]

    run(world, script)


def test_a_stream_that_says_where_it_begins_repeats_nothing() -> None:
    """As managers do: the first word is the version that was asked for."""
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 4))
        stream = await next_stream(control, 0)
        for event in (WatchEvent(version=10), change(11, "a"), change(12, "b")):
            control.tell(stream, event)
        control.cut(stream)
        stream = await next_stream(control, 1)
        assert asked(stream).from_version == 11
        for event in (WatchEvent(version=11), change(12, "b"), change(12, "c")):
            control.tell(stream, event)
        await watching
        assert names(got) == ["a", "b", "c"]

    run(world, script)


def test_after_the_word_that_all_was_sent_it_resumes_there() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 3))
        stream = await next_stream(control, 0)
        control.tell(stream, change(11, "a"))
        control.tell(stream, WatchEvent(version=15))
        control.cut(stream)
        stream = await next_stream(control, 1)
        assert asked(stream).from_version == 15
        control.tell(stream, change(16, "b"))
        await watching
        assert names(got) == ["a", "b"]

    run(world, script)


def test_a_resync_is_told_and_followed() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 2))
        stream = await next_stream(control, 0)
        control.tell(stream, WatchEvent(version=90, is_resync=True))
        stream.frames.put_nowait(None)
        stream = await next_stream(control, 1)
        assert asked(stream).from_version == 90
        control.tell(stream, change(91, "a"))
        await watching
        assert [event.is_resync for event in got] == [True, False]

    run(world, script)


def test_a_watch_goes_on_at_another_manager() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        got: list[WatchEvent] = []
        watching = asyncio.create_task(collect(cluster, got, 1))
        stream = await next_stream(control, 0)
        world.transport.down = {M1}
        control.cut(stream)
        control.tell(await next_stream(control, 1), change(11, "a"))
        await watching

    run(world, script)


def test_waiting_for_convergence_tells_its_progress() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control
    seen: list[tuple[int, int]] = []

    def progress(views: tuple[ServiceView, ...]) -> None:
        seen.extend((view.running, view.desired) for view in views)
        if len(seen) == 3:
            control.converge()

    async def script(cluster: Cluster) -> None:
        await cluster.stacks.deploy(StackSpec(name="s", services=(SPEC,)))
        views = await cluster.wait_converged(stack="s", timeout_s=60, progress=progress)
        assert [view.is_converged for view in views] == [True]

    run(world, script)
    assert seen == [(0, 2), (0, 2), (0, 2), (2, 2)]


def test_waiting_ends_with_the_story() -> None:
    world = seams(FakeControl(is_quick=False))
    world.transport.control.problems["web"] = ("no suitable node",)

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        with pytest.raises(NotConverged) as caught:
            await cluster.wait_converged(["web"], timeout_s=5)
        assert str(caught.value) == "not converged after 5 s: web 0/2 (no suitable node)"
        assert [view.service.name for view in caught.value.views] == ["web"]
        await cluster.services.remove("web")
        with pytest.raises(NotConverged, match="not removed after 5 s: web"):
            await cluster.wait_removed(["web"], timeout_s=5)
        with pytest.raises(NotFound):
            await cluster.wait_converged(["nope"], timeout_s=5)

    run(world, script)
    assert world.clock.time == pytest.approx(1010, abs=0.5)


def test_waiting_ends_when_the_restart_policy_gives_up() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control
    control.given_up["web"] = 1

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        # One of two slots is still tried.
        with pytest.raises(NotConverged):
            await cluster.wait_converged(["web"], timeout_s=5)
        control.given_up["web"] = 2
        with pytest.raises(GivenUp, match="web: ended, and its restart policy doesn't start it"):
            await cluster.wait_converged(["web"], timeout_s=60)
        control.problems["web"] = ("web.1: exit 1", "web.2: exit 2")
        with pytest.raises(GivenUp) as caught:
            await cluster.wait_converged(["web"], timeout_s=60)
        says = "web: gave up after its last restart: web.1: exit 1; web.2: exit 2"
        assert str(caught.value) == says

    run(world, script)
    assert world.clock.time < 1010


def test_the_end_of_what_an_update_replaces_is_not_the_end_of_waiting() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control
    control.given_up["web"] = 2

    def progress(views: tuple[ServiceView, ...]) -> None:
        if world.clock.time > 1000.5:
            control.given_up.clear()
            control.converge()

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        await cluster.wait_converged(["web"], timeout_s=60, progress=progress)

    run(world, script)


def test_waiting_bears_a_manager_that_is_away_for_a_while() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control

    def progress(views: tuple[ServiceView, ...]) -> None:
        control.converge()
        world.transport.down = {M1}

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        await cluster.wait_converged(["web"], timeout_s=5, progress=progress)

    run(world, script)


def test_a_cancelled_watch_ends_though_its_stream_says_it_broke() -> None:
    world = seams()

    async def script(cluster: Cluster) -> None:
        watching = asyncio.create_task(collect(cluster, [], 1))
        stream = await next_stream(world.transport.control, 0)
        # As a transport may that can't tell the reader's cancelling from its own closing.
        stream.hides_cancel = True
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    run(world, script)
