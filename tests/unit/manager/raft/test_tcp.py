"""Streams over real sockets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from skep.env import CallError, Code, Rejected, Service, Stream, StreamBroken
from skep.manager.raft.adapters import tcp
from skep.manager.raft.adapters.tcp import TcpTransport

LIMIT = 1_000_000
DEADLINE_S = 10.0


def run(
    test: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


async def echo(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


async def refuse(_stream: Stream) -> None:
    raise CallError(Code.FAILED_PRECONDITION, "not now", {"leader": "m2"})


SERVICE = Service(streams={"echo": echo, "refuse": refuse})


@pytest.mark.parametrize("kind", ["tcp", "unix", "ipv6"])
@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_frames_come_back_in_order(
    kind: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None, tmp_path: Path
) -> None:
    addresses = {"tcp": "127.0.0.1:0", "unix": f"unix:{tmp_path}/s", "ipv6": "[::1]:0"}

    async def test() -> None:
        transport = TcpTransport(LIMIT)
        listener = await transport.listen(addresses[kind], SERVICE)
        stream = await transport.channel(listener.address).open("echo", deadline_s=1.0)
        frames = [bytes([n % 256]) * size for n, size in enumerate((0, 1, 70_000, LIMIT))]
        for frame in frames:
            await stream.send(frame)
            assert await stream.receive() == frame
        await stream.close()
        await listener.close()

    run(test(), loop_factory)


def test_a_slow_reader_holds_the_sender_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "RECEIVE_LIMIT_BYTES", 200_000)
    monkeypatch.setattr(tcp, "SEND_LIMIT_BYTES", 100_000)
    sent = 0
    go = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await go.wait()
        for _ in range(1_000):
            assert await stream.receive() == bytes(50_000)

    async def test() -> None:
        nonlocal sent
        transport = TcpTransport(LIMIT)
        listener = await transport.listen("127.0.0.1:0", Service(streams={"slow": slow}))
        stream = await transport.channel(listener.address).open("slow", deadline_s=1.0)

        async def send_all() -> None:
            nonlocal sent
            for _ in range(1_000):
                await stream.send(bytes(50_000))
                sent += 1

        sending = asyncio.create_task(send_all())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 1_000
        go.set()
        await sending
        assert await stream.receive() is None
        await listener.close()

    run(test())


def test_a_goodbye_is_told_apart_from_a_break() -> None:
    ends: asyncio.Queue[str] = asyncio.Queue()

    async def note(stream: Stream) -> None:
        try:
            ends.put_nowait("closed" if await stream.receive() is None else "frame")
        except StreamBroken:
            ends.put_nowait("broken")

    async def test() -> None:
        transport = TcpTransport(LIMIT)
        listener = await transport.listen("127.0.0.1:0", Service(streams={"note": note}))
        channel = transport.channel(listener.address)
        stream = await channel.open("note", deadline_s=1.0)
        await stream.close()
        host, port = listener.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(struct.pack(">IB", 4, 1) + b"note")
        writer.close()
        assert sorted([await ends.get(), await ends.get()]) == ["broken", "closed"]
        with pytest.raises(StreamBroken):
            await stream.send(b"x")
        await listener.close()

    run(test())


def test_the_handlers_error_reaches_the_caller() -> None:
    async def test() -> None:
        transport = TcpTransport(LIMIT)
        listener = await transport.listen("127.0.0.1:0", SERVICE)
        for method, code in (
            ("refuse", Code.FAILED_PRECONDITION),
            ("no such", Code.UNIMPLEMENTED),
        ):
            stream = await transport.channel(listener.address).open(method, deadline_s=1.0)
            with pytest.raises(CallError) as caught:
                await stream.receive()
            assert caught.value.code is code
        await listener.close()

    run(test())


def test_nobody_there_is_unavailable() -> None:
    async def test() -> None:
        transport = TcpTransport(LIMIT)
        listener = await transport.listen("127.0.0.1:0", SERVICE)
        await listener.close()
        with pytest.raises(CallError) as caught:
            await transport.channel(listener.address).open("echo", deadline_s=1.0)
        assert caught.value.code is Code.UNAVAILABLE

    run(test())


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, struct.pack(">IB", 3, 0) + b"abc"]
)
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    async def test() -> None:
        transport = TcpTransport(LIMIT)
        listener = await transport.listen("127.0.0.1:0", SERVICE)
        host, port = listener.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        await reader.read()
        writer.close()
        stream = await transport.channel(listener.address).open("echo", deadline_s=1.0)
        await stream.send(b"still here")
        assert await stream.receive() == b"still here"
        await stream.close()
        await listener.close()

    run(test())


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(Rejected, match="host:port"):
        run(TcpTransport(LIMIT).listen("nowhere", SERVICE))  # type: ignore[arg-type]
