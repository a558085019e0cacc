"""The gRPC adapter, over real sockets: it keeps the promises of the Transport seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from skep.env import (
    CallError,
    Channel,
    Code,
    Rejected,
    Retryable,
    Service,
    Stream,
    StreamBroken,
)
from skep.rpc import GrpcTransport

DEADLINE_S = 10.0


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S * 3):
            await test

    asyncio.run(bounded())


async def answer(request: bytes) -> bytes:
    match request:
        case b"rejected":
            raise Rejected("spec.name: too long", field="spec.name")
        case b"retryable":
            raise Retryable("the queue is full")
        case b"call error":
            raise CallError(Code.NOT_FOUND, "no such thing", {"leader": "127.0.0.1:1"})
        case b"fault":
            raise ZeroDivisionError("oops")
        case b"slow":
            await asyncio.sleep(DEADLINE_S)
    return request[::-1]


async def double(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        if frame == b"leave":
            raise CallError(Code.FAILED_PRECONDITION, "not here", {"leader": "127.0.0.1:2"})
        if frame == b"end":
            return
        await stream.send(frame * 2)


@asynccontextmanager
async def served(address: str = "127.0.0.1:0") -> AsyncIterator[tuple[str, Channel]]:
    transport = GrpcTransport(("skep.v1.Control",))
    service = Service({"test.Test/Answer": answer}, {"test.Test/Double": double})
    listener = await transport.listen(address, service)
    channel = transport.channel(listener.address)
    try:
        yield listener.address, channel
    finally:
        await channel.close()
        await listener.close()


def test_a_call_and_a_stream_carry_bytes_both_ways(tmp_path: Path) -> None:
    async def test(address: str) -> None:
        async with served(address) as (_, channel):
            assert await channel.call("test.Test/Answer", b"abc", deadline_s=DEADLINE_S) == b"cba"
            stream = await channel.open("test.Test/Double", deadline_s=DEADLINE_S)
            await stream.send(b"x")
            assert await stream.receive() == b"xx"
            await stream.send(b"end")
            assert await stream.receive() is None

    run(test("127.0.0.1:0"))
    run(test(f"unix:{tmp_path}/s.sock"))


@pytest.mark.parametrize(
    ("request_", "code", "text", "details"),
    [
        (b"rejected", Code.INVALID_ARGUMENT, "spec.name: too long", {"field": "spec.name"}),
        (b"retryable", Code.UNAVAILABLE, "the queue is full", {}),
        (b"call error", Code.NOT_FOUND, "no such thing", {"leader": "127.0.0.1:1"}),
        (b"fault", Code.INTERNAL, "internal error: ZeroDivisionError: oops", {}),
    ],
)
def test_what_a_handler_raises_is_what_the_caller_gets(
    request_: bytes, code: Code, text: str, details: dict[str, str]
) -> None:
    async def test() -> None:
        async with served() as (_, channel):
            with pytest.raises(CallError) as caught:
                await channel.call("test.Test/Answer", request_, deadline_s=DEADLINE_S)
            assert (caught.value.code, caught.value.message) == (code, text)
            assert caught.value.details == details

    run(test())


def test_a_server_that_ends_a_stream_says_why() -> None:
    async def test() -> None:
        async with served() as (_, channel):
            stream = await channel.open("test.Test/Double", deadline_s=DEADLINE_S)
            await stream.send(b"leave")
            with pytest.raises(CallError, match="not here") as caught:
                await stream.receive()
            assert caught.value.details == {"leader": "127.0.0.1:2"}
            with pytest.raises(CallError, match="not here"):
                await stream.send(b"more")

    run(test())


def test_nobody_there_is_unavailable_and_a_missed_deadline_is_not() -> None:
    async def test() -> None:
        nobody = GrpcTransport().channel("127.0.0.1:1")
        with pytest.raises(CallError) as caught:
            await nobody.call("test.Test/Answer", b"", deadline_s=DEADLINE_S)
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(CallError) as caught:
            await nobody.open("test.Test/Double", deadline_s=DEADLINE_S)
        assert caught.value.code is Code.UNAVAILABLE
        await nobody.close()
        async with served() as (_, channel):
            with pytest.raises(CallError) as caught:
                await channel.call("test.Test/Answer", b"slow", deadline_s=0.1)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            with pytest.raises(CallError) as caught:
                await channel.call("test.Test/Nothing", b"", deadline_s=DEADLINE_S)
            assert caught.value.code is Code.UNIMPLEMENTED

    run(test())


def test_a_server_that_goes_leaves_calls_unknown_and_streams_broken() -> None:
    async def test() -> None:
        transport = GrpcTransport()
        service = Service({"test.Test/Answer": answer}, {"test.Test/Double": double})
        listener = await transport.listen("127.0.0.1:0", service)
        channel = transport.channel(listener.address)
        stream = await channel.open("test.Test/Double", deadline_s=DEADLINE_S)
        await stream.send(b"x")
        assert await stream.receive() == b"xx"
        call = asyncio.ensure_future(
            channel.call("test.Test/Answer", b"slow", deadline_s=DEADLINE_S)
        )
        # The call is on its way once another one, sent after it, is answered.
        await channel.call("test.Test/Answer", b"abc", deadline_s=DEADLINE_S)
        await listener.close()
        with pytest.raises(CallError) as caught:
            await call
        assert caught.value.code is Code.UNKNOWN
        with pytest.raises(StreamBroken):
            await stream.receive()
        await channel.close()

    run(test())


def test_a_cancelled_reader_is_cancelled_and_a_closed_stream_is_broken() -> None:
    async def test() -> None:
        async with served() as (_, channel):
            stream = await channel.open("test.Test/Double", deadline_s=DEADLINE_S)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stream.receive()
            stream = await channel.open("test.Test/Double", deadline_s=DEADLINE_S)
            reader = asyncio.ensure_future(stream.receive())
            await stream.send(b"x")
            assert await reader == b"xx"
            reader = asyncio.ensure_future(stream.receive())
            await asyncio.sleep(0)
            await stream.close()
            with pytest.raises(StreamBroken):
                await reader

    run(test())


def test_a_taken_address_is_refused() -> None:
    async def test() -> None:
        async with served() as (address, _):
            with pytest.raises(OSError, match="can't listen"):
                await GrpcTransport().listen(address, Service())

    run(test())


def test_health_and_reflection_are_served() -> None:
    async def test() -> None:
        async with served() as (address, _), grpc.aio.insecure_channel(address) as channel:
            check: Callable[..., Awaitable[bytes]] = channel.unary_unary(
                "/grpc.health.v1.Health/Check"
            )
            data = await check(health_pb2.HealthCheckRequest().SerializeToString())
            health = health_pb2.HealthCheckResponse.FromString(data)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            reflect: Any = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )()
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            await reflect.write(ask.SerializeToString())
            listed = reflection_pb2.ServerReflectionResponse.FromString(await reflect.read())
            names = {service.name for service in listed.list_services_response.service}
            assert {"skep.v1.Control", "grpc.health.v1.Health"} <= names
            ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="skep.v1.Control")
            await reflect.write(ask.SerializeToString())
            found = reflection_pb2.ServerReflectionResponse.FromString(await reflect.read())
            assert found.file_descriptor_response.file_descriptor_proto
            reflect.cancel()

    run(test())
