"""Reading logs: each line once, whatever happens to streams and managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skep.api import codec
from skep.client import Cluster, NotFound, Unavailable, connect
from skep.client.logs import last_lines
from skep.domain.base import TaskId
from skep.domain.control import LogEvent, LogLine, LogsRequest, LogStream
from skep.env import CallError, Code, StreamBroken
from tests.unit.client.fake import ADDRESSES, FakeControl, FakeSeams, FakeStream, seams


def run(world: FakeSeams, script: Callable[[Cluster], Awaitable[None]]) -> None:
    async def go() -> None:
        async with connect(ADDRESSES, seams=world, deadline_s=20.0) as cluster:
            await asyncio.wait_for(script(cluster), 10)

    asyncio.run(go())


def event(text: str, position: str = "", task_id: str = "t1") -> LogEvent:
    lines = (LogLine(time_ns=1, stream=LogStream.STDOUT, text=text.encode()),) if text else ()
    return LogEvent(task_id=TaskId(task_id), lines=lines, position=position)


def say(stream: FakeStream, *events: LogEvent | Exception | None) -> None:
    for each in events:
        frame = codec.encode(each) if isinstance(each, LogEvent) else each
        stream.frames.put_nowait(frame)


async def next_stream(control: FakeControl, number: int) -> FakeStream:
    while len(control.streams) <= number or not control.streams[number].sent:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return control.streams[number]


def asked(stream: FakeStream) -> LogsRequest:
    return codec.decode(LogsRequest, stream.sent[0])


async def collect(cluster: Cluster, into: list[str], *, is_follow: bool) -> None:
    async for each in cluster.logs(["web"], tail=5, is_follow=is_follow):
        into += [line.text.decode() for line in each.lines]


def test_a_broken_stream_is_taken_up_where_it_ended() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        seen: list[str] = []
        reading = asyncio.ensure_future(collect(cluster, seen, is_follow=True))
        first = await next_stream(control, 0)
        assert asked(first) == LogsRequest(services=("web",), tail=5, is_follow=True)
        gone = CallError(Code.UNAVAILABLE, "leadership has changed")
        say(first, event("", "0", "t2"), event("a", "1"), event("b", "2"), gone)
        second = await next_stream(control, 1)
        assert asked(second).positions == (("t1", "2"), ("t2", "0"))
        say(second, event("c", "3"), StreamBroken("cut"))
        third = await next_stream(control, 2)
        assert asked(third).positions == (("t1", "3"), ("t2", "0"))
        say(third, event("d", "4"), None)
        await reading
        assert seen == ["a", "b", "c", "d"]

    run(world, script)


def test_what_must_not_be_tried_again_is_raised_and_the_rest_not_for_ever() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        reading = asyncio.ensure_future(collect(cluster, [], is_follow=False))
        say(await next_stream(control, 0), CallError(Code.NOT_FOUND, "there is no service 'web'"))
        with pytest.raises(NotFound):
            await reading
        reading = asyncio.ensure_future(collect(cluster, [], is_follow=False))
        number = 1
        while not reading.done():
            stream = await asyncio.wait_for(next_stream(control, number), 5)
            say(stream, CallError(Code.UNAVAILABLE, "no manager leads"))
            number += 1
            for _ in range(20):
                await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="no manager leads"):
            await reading
        assert world.clock.time < 1000 + 30

    run(world, script)


def test_a_follower_whose_stream_lived_long_is_given_all_the_time_again() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        reading = asyncio.ensure_future(collect(cluster, [], is_follow=True))
        for number in range(5):
            stream = await next_stream(control, number)
            world.clock.time += 100
            say(stream, StreamBroken("cut"))
        await next_stream(control, 5)
        assert not reading.done()
        reading.cancel()
        await asyncio.wait((reading,))

    run(world, script)


def test_the_last_lines_of_a_task_or_nothing() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        reading = asyncio.ensure_future(last_lines(cluster, TaskId("t1"), 2))
        stream = await next_stream(control, 0)
        assert asked(stream) == LogsRequest(tasks=("t1",), tail=2)
        say(stream, event("a"), event("b"), event("c"), None)
        assert [line.text for line in await reading] == [b"b", b"c"]
        reading = asyncio.ensure_future(last_lines(cluster, TaskId("t1"), 2))
        say(await next_stream(control, 1), CallError(Code.NOT_FOUND, "no such task"))
        assert await reading == []

    run(world, script)
