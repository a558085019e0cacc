"""The loop and its streams, and what takes too long to wait for in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.netproxy.dns.adapters import loop as loop_module
from skep.netproxy.dns.adapters import server as server_module
from skep.netproxy.dns.adapters.loop import Loop
from skep.netproxy.dns.adapters.server import Server
from skep.netproxy.dns.adapters.stream import Stream
from skep.netproxy.dns.adapters.upstream import ResolvConf, Upstream
from skep.netproxy.dns.core.protocol import Listen, SetScopes, whole
from skep.netproxy.dns.core.zones import Names
from tests.unit.netproxy.dns.support import (
    DEADLINE_S,
    LOOPBACK,
    ask,
    query,
    read,
    record,
    scope,
    zone,
)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_timers_run_in_order_and_not_when_cancelled(loop: Loop) -> None:
    ran: list[int] = []
    now = loop.now()
    loop.call_at(now + 0.02, loop.stop)
    loop.call_at(now + 0.01, lambda: ran.append(2))
    loop.call_at(now - 1, lambda: ran.append(1))
    loop.call_at(now + 0.005, lambda: ran.append(9)).cancel()
    loop.run()
    assert ran == [1, 2]


def test_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    for _ in range(10 * loop_module.CANCELLED_LIMIT):
        loop.call_at(loop.now() + 3600, loop.stop).cancel()
    assert len(loop._timers) <= loop_module.CANCELLED_LIMIT


def test_one_that_fails_is_logged_and_the_others_go_on(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("ours")

    loop.call_at(loop.now(), fail)
    loop.call_at(loop.now(), loop.stop)
    with caplog.at_level(logging.ERROR):
        loop.run()
    assert "ours" in caplog.text


def test_a_stream_carries_more_than_there_is_room_for(loop: Loop) -> None:
    near, far = socket.socketpair()
    far.settimeout(DEADLINE_S)
    heard = bytearray()
    unsent_bytes: list[int] = []
    is_written = threading.Event()

    def collect() -> None:
        with far:
            far.sendall(b"begin")
            # What is read meanwhile would make room, and nothing might be left unsent.
            is_written.wait(DEADLINE_S)
            while data := far.recv(1 << 16):
                heard.extend(data)

    reader = threading.Thread(target=collect)

    def on_data(buffer: bytearray) -> None:
        assert bytes(buffer) == b"begin"
        buffer.clear()
        for number in range(64):
            stream.write(bytes((number,)) * (1 << 16))
        unsent_bytes.append(stream.unsent_bytes)
        stream.end()
        is_written.set()

    stream = Stream(loop, near, on_data, lambda: None)
    loop.call_at(loop.now() + DEADLINE_S, loop.stop)

    def check() -> None:
        if stream.is_open:
            loop.call_at(loop.now() + 0.01, check)
        else:
            loop.stop()

    check()
    reader.start()
    loop.run()
    reader.join(DEADLINE_S)
    assert unsent_bytes[0] > 0
    assert heard == b"".join(bytes((number,)) * (1 << 16) for number in range(64))


@contextlib.contextmanager
def served(tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server in a thread of this process."""
    loop, names = Loop(), Names()
    server = Server(loop, names, Upstream(loop, ResolvConf(tmp_path / "none")))
    many = record("many", *(f"10.0.7.{n}" for n in range(200)))
    names.change_networks(1, (whole(zone("net", many)),), (), is_whole=True)
    listen = Listen(scope=scope("s", "net"), address=LOOPBACK, port=0)
    server.apply(SetScopes(listen=(listen,)))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield server, server.statuses()[0].port
    finally:
        loop.stop()
        # It looks again once something has come.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (LOOPBACK, server.statuses()[0].port))
        thread.join(DEADLINE_S)
        server.close()
        loop.close()


def test_an_idle_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTION_IDLE_S", 0.3)
    with served(tmp_path) as (server, port):
        with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as asking:
            began = time.monotonic()
            data = query("many")
            for _ in range(4):
                asking.sendall(len(data).to_bytes(2, "big") + data)
                answer = asking.recv(2 + 4096, socket.MSG_PEEK)
                assert read(asking.recv(len(answer), socket.MSG_WAITALL)[2:]).addresses
            assert asking.recv(1) == b""
            assert time.monotonic() - began >= 0.3
        assert not server.connections


def test_who_does_not_read_is_hung_up_on(tmp_path: Path) -> None:
    with served(tmp_path) as (server, port):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            asking.settimeout(DEADLINE_S)
            asking.connect((LOOPBACK, port))
            data = query("many")
            with contextlib.suppress(ConnectionError):
                for _ in range(20_000):
                    asking.sendall(len(data).to_bytes(2, "big") + data)
            with contextlib.suppress(ConnectionError):
                while asking.recv(1 << 16):
                    pass
        assert len(ask(port, "many").addresses) == 30
        assert not server.connections
