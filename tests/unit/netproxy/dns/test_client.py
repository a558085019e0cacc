"""The control process's side: starting, finding, telling differences, and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from skep.env import DiceIds, Env, LoopClock, LoopSpawn, Rejected, Retryable
from skep.netproxy.dns.adapters.client import DnsClient
from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import Listen, Told, Welcome
from skep.netproxy.dns.core.zones import Scope
from skep.rpc import GrpcTransport
from tests.unit.netproxy.dns.support import (
    DEADLINE_S,
    LOOPBACK,
    ask,
    bound_pair,
    query,
    read,
    record,
    scope,
    zone,
)
from tests.unit.netproxy.support import LOOPS

NET = zone("net", record("web", "10.0.0.2"), record("db", "10.0.0.3"))
LATER = zone("net", record("web", "10.0.0.9"), record("api", "10.0.0.4"))


@pytest.fixture(params=list(LOOPS))
def play(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a loop of each kind; anything left behind is an error."""

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            errors: list[str] = []
            runner.get_loop().set_exception_handler(lambda _, told: errors.append(repr(told)))
            runner.run(work)
            assert not errors, errors

    return run


Play = Callable[[Coroutine[Any, Any, None]], None]


def make_env(disk: Any = None) -> Env:
    dice = random.Random(1)
    return Env(
        node="n",
        clock=LoopClock(),
        dice=dice,
        ids=DiceIds(dice),
        tasks=LoopSpawn(),
        transport=GrpcTransport(),
        disk=disk,
    )


@contextlib.asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """Ends whatever process is left over."""
    with tempfile.TemporaryDirectory() as path:
        try:
            yield Path(path)
        finally:
            last = make_client(Path(path))
            await last.start()
            await last.close(leave=False)


def make_client(path: Path) -> DnsClient:
    (path / "resolv.conf").write_text("")
    return DnsClient(make_env(), path / "dns.sock", resolv_conf=path / "resolv.conf")


def at(scope_: Scope, port: int = 0) -> Listen:
    return Listen(scope=scope_, address=LOOPBACK, port=port)


async def port_of(client: DnsClient, scope_id: str) -> int:
    status = await client.status()
    return next(each.port for each in status.scopes if each.scope_id == scope_id)


async def eventually(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def asked(port: int, name: str) -> list[str]:
    return await asyncio.to_thread(lambda: ask(port, name).addresses)


def test_it_starts_and_tells(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            assert await client.apply([NET], [at(scope("s", "net"))]) == ()
            port = await port_of(client, "s")
            assert await asked(port, "web") == ["10.0.0.2"]
            assert await client.ask("s", "db") == Told(outcome="found", addresses=("10.0.0.3",))
            with pytest.raises(Rejected, match="no scope 'x'"):
                await client.ask("x", "db")
            await client.apply([LATER], [at(scope("s", "net")), at(scope("t", "net"))])
            assert await asked(port, "web") == ["10.0.0.9"]
            assert await asked(port, "db") == []
            await client.apply([LATER], [at(scope("t", "net"))])
            assert [each.scope_id for each in (await client.status()).scopes] == ["t"]
            await client.close()

    play(work())


def test_answers_go_on_without_control_and_the_next_one_finds_it(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            first = make_client(path)
            await first.start()
            await first.apply([NET], [at(scope("s", "net")), at(scope("gone", "net"))])
            port, gone = await port_of(first, "s"), await port_of(first, "gone")
            pid = (await first.status()).pid
            held = socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S)
            with held:
                await first.close()
                assert await asked(port, "web") == ["10.0.0.2"]
                second = make_client(path)
                await second.start()
                # Having found it changes nothing yet.
                assert await asked(gone, "web") == ["10.0.0.2"]
                await second.apply([LATER], [at(scope("s", "net"))])
                status = await second.status()
                assert (status.pid, await port_of(second, "s")) == (pid, port)
                assert [each.scope_id for each in status.scopes] == ["s"]
                assert status.records == 2
                # The same socket still: what was connected to it is, too.
                data = query("web")
                held.sendall(len(data).to_bytes(2, "big") + data)
                answer = await asyncio.to_thread(held.recv, 512)
                assert read(answer[2:]).addresses == ["10.0.0.9"]
            await second.close()

    play(work())


def test_killed_control_leaves_it_answering() -> None:
    """The real thing: a control process that gets SIGKILL with its whole process group."""
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.unit.netproxy.dns.test_client import *\n"
        "async def main():\n"
        "    client = make_client(Path(sys.argv[1])); await client.start()\n"
        "    await client.apply([NET], [at(scope('s', 'net'))])\n"
        "    print(await port_of(client, 's'), flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )

    async def work() -> None:
        async with folder() as path:
            control = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", script, str(path)),
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            assert control.stdout is not None
            port = int(await control.stdout.readline())
            os.killpg(control.pid, signal.SIGKILL)
            await control.wait()
            assert await asked(port, "web") == ["10.0.0.2"]

    asyncio.run(work())


def test_when_it_dies_it_is_started_again_with_everything(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            udp, tcp = bound_pair()
            port = udp.getsockname()[1]
            udp.close()
            tcp.close()
            await client.apply([NET], [at(scope("s", "net"), port)])
            pid = (await client.status()).pid
            os.kill(pid, signal.SIGKILL)

            async def is_back() -> bool:
                try:
                    return await asyncio.to_thread(self_ask) == ["10.0.0.2"]
                except OSError:
                    return False

            def self_ask() -> list[str]:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                    asking.settimeout(0.5)
                    asking.connect((LOOPBACK, port))
                    asking.send(query("web"))
                    return read(asking.recv(512)).addresses

            await eventually(is_back)
            status = await client.status()
            assert status.pid != pid
            assert status.records == 2
            await client.close()

    play(work())


def test_one_that_hangs_is_killed_and_replaced(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.netproxy.dns.adapters.link.REQUEST_DEADLINE_S", 0.5)

    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            await client.apply([NET], [at(scope("s", "net"))])
            pid = (await client.status()).pid
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Retryable, match="silent"):
                await client.apply([LATER], [at(scope("s", "net"))])

            async def is_replaced() -> bool:
                try:
                    status = await client.status()
                except Retryable:
                    return False
                return status.pid != pid and bool(status.scopes)

            await eventually(is_replaced)
            assert await asked(await port_of(client, "s"), "web") == ["10.0.0.9"]
            await client.close()

    play(work())


def test_what_cannot_be_bound_is_tried_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.netproxy.dns.adapters.client.RETRY_S", 0.05)

    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            udp, tcp = bound_pair()
            port = udp.getsockname()[1]
            tcp.close()
            wanted = [at(scope("taken", "net"), port), at(scope("fine", "net"))]
            [error] = await client.apply([NET], wanted)
            assert error.scope_id == "taken"
            assert "Address already in use" in error.why
            assert client.errors == (error,)
            udp.close()

            async def is_there() -> bool:
                return not client.errors

            await eventually(is_there)
            assert await asked(port, "web") == ["10.0.0.2"]
            await client.close()

    play(work())


def test_what_makes_no_sense_is_rejected_and_changes_nothing(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            await client.apply([NET], [at(scope("s", "net"))])
            version = (await client.status()).version
            bad_scope = at(scope("t", "net", own=(record("me", "localhost"),)))
            for zones, scopes, text in (
                ([zone("net", record("web", "10.0.0"))], [], "record 'web': '10.0.0' is no IPv4"),
                ([zone("net", subnets=("10/8/8",))], [], "'10/8/8' is no IPv4 subnet"),
                ([NET, NET], [], "one id"),
                ([NET], [at(scope("s")), at(scope("s"))], "one id"),
                ([NET], [bad_scope], "scope 't': record 'me'"),
            ):
                with pytest.raises(Rejected, match=text):
                    await client.apply(zones, scopes)
            status = await client.status()
            assert (status.version, len(status.scopes)) == (version, 1)
            await client.close()

    play(work())


def test_only_differences_travel(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    encode = protocol.encode

    def noting(message: Any) -> bytes:
        sent.append(message)
        return encode(message)

    monkeypatch.setattr("skep.netproxy.dns.adapters.link.protocol.encode", noting)
    many = tuple(record(f"s{n}", f"10.0.{n // 250}.{n % 250}") for n in range(1000))
    changed = zone("net", *many[:-1], record("s999", "10.9.9.9"))

    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            scopes = [at(scope("s", "net"))]
            await client.apply([zone("net", *many)], scopes)
            sent.clear()
            await client.apply([zone("net", *many)], [at(scope("s", "net"))])
            assert sent == []
            await client.apply([changed], scopes)
            [request] = sent
            [change] = request.changed
            assert change.changed == (record("s999", "10.9.9.9"),)
            assert (change.removed, change.is_whole) == ((), False)
            assert len(encode(request)) < 300
            assert await client.ask("s", "s999") == Told(outcome="found", addresses=("10.9.9.9",))
            await client.close()

    play(work())


async def foreign(path: Path, format_: int) -> tuple[asyncio.Server, asyncio.Event]:
    """A process of another release, for as long as it isn't told to end."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while prefix := await reader.read(4):
            body = await reader.readexactly(struct.unpack("!I", prefix)[0])
            if isinstance(protocol.decode_request(body), protocol.End):
                ended.set()
                path.unlink()
                break
            writer.write(protocol.encode(Welcome(format_, os.getpid())))
        writer.close()

    return await asyncio.start_unix_server(serve, str(path)), ended


def test_one_of_another_format_is_told_to_end(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            server, ended = await foreign(path / "dns.sock", protocol.FORMAT + 1)
            client = make_client(path)
            await client.start()
            assert ended.is_set()
            status = await client.status()
            assert status.pid != os.getpid()
            await client.close()
            server.close()
            await server.wait_closed()

    play(work())


def test_two_that_start_it_at_once_share_it(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            clients = [make_client(path) for _ in range(2)]
            await asyncio.gather(*(client.start() for client in clients))
            pids = {(await client.status()).pid for client in clients}
            assert len(pids) == 1
            for client in clients:
                await client.close()

    play(work())


def test_one_that_cannot_start_says_why(play: Play) -> None:
    async def work() -> None:
        with tempfile.TemporaryDirectory() as path:
            (Path(path) / "file").write_text("")
            client = DnsClient(
                make_env(), Path(path) / "dns.sock", state_dir=Path(path) / "file" / "x"
            )
            with pytest.raises(Retryable, match=r"did not start: .*Not a directory"):
                await client.start()
            await client.close()

    play(work())


def test_a_path_that_is_too_long_is_rejected() -> None:
    with pytest.raises(Rejected, match="at most 107 bytes"):
        DnsClient(make_env(), Path("/tmp") / ("x" * 110))


def test_ending_it_ends_the_answers(play: Play) -> None:
    async def work() -> None:
        async with folder() as path:
            client = make_client(path)
            await client.start()
            await client.apply([NET], [at(scope("s", "net"))])
            port = await port_of(client, "s")
            await client.close(leave=False)
            with pytest.raises(ConnectionRefusedError):
                await asked(port, "web")
            assert not (path / "dns.sock").exists()

    play(work())
