"""The simulated network: what callers and handlers see when links and processes fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from skep.env import CallError, Code, Env, Rejected, Retryable, Service, Stream, StreamBroken
from tests.sim.world import SeedFailed, World, simulate


def in_world(body: Callable[[World], Coroutine[None, None, None]], seed: int = 1) -> None:
    simulate("test", body, seed)


async def _two(world: World, service: Service) -> tuple[Env, Env]:
    server, client = world.node("server").boot(), world.node("client").boot()
    await server.transport.listen("server:1", service)
    return server, client


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (Rejected("no", field="spec.name"), Code.INVALID_ARGUMENT, {"field": "spec.name"}),
        (Retryable("busy"), Code.UNAVAILABLE, {}),
        (CallError(Code.ABORTED, "stale", {"version": "3"}), Code.ABORTED, {"version": "3"}),
    ],
)
def test_errors_of_handlers_arrive_as_over_the_real_transport(
    error: Exception, code: Code, details: dict[str, str]
) -> None:
    async def scenario(world: World) -> None:
        async def handler(_: bytes) -> bytes:
            raise error

        async def stream_handler(stream: Stream) -> None:
            await stream.send(b"first")
            raise error

        _, client = await _two(world, Service({"C": handler}, {"S": stream_handler}))
        channel = client.transport.channel("server:1")
        with pytest.raises(CallError) as caught:
            await channel.call("C", b"", deadline_s=1.0)
        assert (caught.value.code, caught.value.details) == (code, details)
        stream = await channel.open("S", deadline_s=1.0)
        assert await stream.receive() == b"first"
        with pytest.raises(CallError) as caught:
            await stream.receive()
        assert (caught.value.code, caught.value.details) == (code, details)

    in_world(scenario)


def test_a_bug_in_a_handler_is_internal_to_the_caller_and_a_problem_to_us() -> None:
    async def scenario(world: World) -> None:
        async def handler(_: bytes) -> bytes:
            raise KeyError("bug")

        _, client = await _two(world, Service({"C": handler}))
        with pytest.raises(CallError) as caught:
            await client.transport.channel("server:1").call("C", b"", deadline_s=1.0)
        assert caught.value.code is Code.INTERNAL

    with pytest.raises(SeedFailed, match="handler of C raised KeyError"):
        in_world(scenario)


def test_a_call_that_found_nobody_did_nothing() -> None:
    async def scenario(world: World) -> None:
        _, client = await _two(world, Service())
        for address, method, code in (
            ("server:2", "C", Code.UNAVAILABLE),
            ("server:1", "C", Code.UNIMPLEMENTED),
        ):
            with pytest.raises(CallError) as caught:
                await client.transport.channel(address).call(method, b"", deadline_s=1.0)
            assert caught.value.code is code

    in_world(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_answer_is_unknown(seed: int) -> None:
    async def scenario(world: World) -> None:
        calls: list[bytes] = []

        async def handler(request: bytes) -> bytes:
            calls.append(request)
            await asyncio.sleep(1.0)
            return request

        _, client = await _two(world, Service({"C": handler}))
        world.after(0.5, world.nodes["server"].crash)
        with pytest.raises(CallError) as caught:
            await client.transport.channel("server:1").call("C", b"1", deadline_s=5.0)
        assert calls == [b"1"]
        assert caught.value.code is Code.UNKNOWN

    in_world(scenario, seed)


def test_a_deadline_ends_a_call_and_its_handler() -> None:
    async def scenario(world: World) -> None:
        ends: list[str] = []

        async def handler(_: bytes) -> bytes:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
            return b""

        _, client = await _two(world, Service({"C": handler}))
        with pytest.raises(CallError) as caught:
            await client.transport.channel("server:1").call("C", b"", deadline_s=1.0)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        await asyncio.sleep(1.0)
        assert ends == ["cancelled"]

    in_world(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_frames_of_a_stream_stay_in_order_through_a_short_partition(seed: int) -> None:
    async def scenario(world: World) -> None:
        heard: list[bytes] = []

        async def handler(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                heard.append(frame)

        world.network.climate.mean_delay_s = 0.1
        _, client = await _two(world, Service(streams={"S": handler}))
        stream = await client.transport.channel("server:1").open("S", deadline_s=9.0)
        world.after(0.3, lambda: world.network.cut("client", "server"))
        world.after(1.3, lambda: world.network.heal("client", "server"))
        for number in range(50):
            await stream.send(b"%d" % number)
            await asyncio.sleep(0.02)
        await world.eventually("all is heard", lambda: len(heard) == 50, within_s=10.0)
        assert heard == [b"%d" % number for number in range(50)]

    in_world(scenario, seed)


@pytest.mark.parametrize("one_way", [True, False])
def test_a_long_partition_breaks_streams_and_nothing_arrives_twice(one_way: bool) -> None:
    async def scenario(world: World) -> None:
        heard: list[bytes] = []
        ends: list[str] = []

        async def handler(stream: Stream) -> None:
            try:
                while (frame := await stream.receive()) is not None:
                    heard.append(frame)
            except (StreamBroken, asyncio.CancelledError) as error:
                ends.append(type(error).__name__)
                raise

        world.network.climate.keepalive_s = 5.0
        _, client = await _two(world, Service(streams={"S": handler}))
        stream = await client.transport.channel("server:1").open("S", deadline_s=1.0)
        await stream.send(b"before")
        await asyncio.sleep(1.0)
        world.network.cut("client", "server")
        if not one_way:
            world.network.cut("server", "client")
        await stream.send(b"during")
        with pytest.raises(StreamBroken):
            await stream.receive()
        with pytest.raises(CallError) as caught:
            await client.transport.channel("server:1").open("S", deadline_s=1.0)
        assert caught.value.code is Code.UNAVAILABLE
        await asyncio.sleep(10.0)
        world.network.heal_all()
        await asyncio.sleep(10.0)
        assert heard == [b"before"]
        assert len(ends) == 1

    in_world(scenario)


def test_a_slow_reader_makes_the_sender_wait() -> None:
    async def scenario(world: World) -> None:
        sent: list[int] = []

        async def handler(stream: Stream) -> None:
            await asyncio.sleep(10.0)
            while await stream.receive() is not None:
                pass

        async def send_all(stream: Stream) -> None:
            for number in range(40):
                await stream.send(b"x")
                sent.append(number)

        _, client = await _two(world, Service(streams={"S": handler}))
        stream = await client.transport.channel("server:1").open("S", deadline_s=1.0)
        task = client.spawn("send", send_all(stream))
        await asyncio.sleep(5.0)
        assert len(sent) == world.network.climate.window
        await asyncio.sleep(10.0)
        assert task.done()
        assert len(sent) == 40

    in_world(scenario)


def test_a_killed_process_is_noticed_at_once_and_a_dark_machine_late() -> None:
    async def scenario(world: World, is_power_lost: bool, at_least_s: float) -> None:
        async def handler(stream: Stream) -> None:
            await stream.receive()

        world.network.climate.keepalive_s = 8.0
        _, client = await _two(world, Service(streams={"S": handler}))
        channel = client.transport.channel("server:1")
        stream = await channel.open("S", deadline_s=1.0)
        world.nodes["server"].crash(is_power_lost=is_power_lost)
        begin = world.now()
        with pytest.raises(StreamBroken):
            await stream.receive()
        assert at_least_s <= world.now() - begin <= at_least_s * 4.0 + 0.1

    in_world(lambda world: scenario(world, False, 0.0))
    in_world(lambda world: scenario(world, True, 4.0))


def test_addresses_are_owned_and_given_back() -> None:
    async def scenario(world: World) -> None:
        server, client = world.node("server").boot(), world.node("client").boot()
        listener = await server.transport.listen("127.0.0.1:0", Service())
        with pytest.raises(OSError, match="in use"):
            await client.transport.listen(listener.address, Service())
        await listener.close()
        await client.transport.listen(listener.address, Service())
        # Unix sockets are each machine's own.
        await server.transport.listen("unix:/run/x", Service())
        await client.transport.listen("unix:/run/x", Service())
        world.nodes["client"].crash()
        await server.transport.listen(listener.address, Service())

    in_world(scenario)
