"""Netproxies as processes, a manager on real gRPC, tasks on loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from skep.domain.base import NodeId
from skep.domain.endpoints import EndpointUpdate, MeshNode
from skep.env import Service, Stream
from skep.rpc import GrpcTransport
from tests.unit.netproxy.support import (
    CLUSTER,
    DEADLINE_S,
    MESH_PORT,
    PORT,
    FakeManager,
    FakeTask,
    ask_name,
    complete,
    eventually,
    fresh_host,
    service,
)

pytestmark = pytest.mark.process

METRICS_PORT = 9100


def play(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60.0):
            await work

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def grpc_manager() -> AsyncIterator[tuple[FakeManager, str]]:
    """A fake manager behind the real transport, and its address."""
    manager = FakeManager()

    async def follow(stream: Stream) -> None:
        await manager.serve(stream)  # type: ignore[arg-type]

    listener = await GrpcTransport().listen(
        f"{fresh_host()}:0", Service(streams={"skep.v1.Endpoints/Follow": follow})
    )
    try:
        yield manager, listener.address
    finally:
        await listener.close()


class Process:
    """One netproxy process."""

    def __init__(self, node_id: str, manager: str, folder: Path, loop: str) -> None:
        self.node_id = node_id
        self.host = fresh_host()
        self.mesh = MeshNode(node_id=NodeId(node_id), mesh_address=f"{self.host}:{MESH_PORT}")
        self._log = folder / f"{node_id}.log"
        self._arguments = [
            *("--name", node_id, "--node-id", node_id, "--cluster-id", str(CLUSTER)),
            *("--address", self.host, "--mesh", self.mesh.mesh_address, "--managers", manager),
            *("--state-dir", str(folder / node_id), "--loop", loop),
            *("--metrics", f"{self.host}:{METRICS_PORT}"),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Process:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "skep.netproxy.main", *self._arguments), stderr=log
            )

    async def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return await self._process.wait()

    def ingress(self) -> tuple[str, int]:
        return self.host, PORT

    def metrics(self) -> str:
        url = f"http://{self.host}:{METRICS_PORT}/metrics"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return str(answer.read().decode())

    def pss_bytes(self) -> int:
        assert self._process is not None
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found
        return int(found.group(1)) * 1024

    def log_lines(self) -> list[str]:
        return self._log.read_text().splitlines()


async def publish(manager: FakeManager, update: EndpointUpdate, *nodes: Process) -> None:
    for node in nodes:
        conversation = await manager.follower(node.node_id)
        await conversation.send(update)
        await conversation.acknowledged(update.version)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_through_one_node_to_a_task_of_another(loop: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            grpc_manager() as (manager, address),
            Process("a", address, tmp_path, loop) as a,
            Process("b", address, tmp_path, loop) as b,
        ):
            task = await FakeTask("t1", "b").start()
            await publish(manager, complete(5, service(task), mesh=(a.mesh, b.mesh)), a, b)
            assert [await ask_name(a.ingress()) for _ in range(20)] == ["t1"] * 20
            assert set(task.peers) == {b.host}
            counted = 'skep_netproxy_connections_total{service="web",way="ingress"} 20.0'
            # Workers say what they have counted once a second.
            await eventually(lambda: counted in a.metrics())
            shown = await asyncio.to_thread(a.metrics)
            assert 'skep_netproxy_connect_seconds_bucket{le="10.0",service="web"' in shown
            assert "skep_netproxy_applied_version 5.0" in shown
            # It stands on every node, so it must stay small.
            assert a.pss_bytes() < 50 * 1024 * 1024

            reader, writer = await asyncio.open_connection(*a.ingress())
            assert await reader.readline() == b"t1\n"
            await b.end(signal.SIGKILL)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            await task.stop()

    play(scene())


def test_terminated_it_ends_at_once_and_started_again_it_serves_without_managers(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        task = FakeTask("t1", "a")
        async with grpc_manager() as (manager, address):
            a = Process("a", address, tmp_path, "uvloop")
            await a.start()
            await task.start()
            await publish(manager, complete(5, service(task), mesh=(a.mesh,)), a)
            held, writer = await asyncio.open_connection(*a.ingress())
            await held.readline()
            assert await a.end(signal.SIGTERM) == 0
            with pytest.raises(ConnectionResetError):
                await held.read()
            writer.close()
            lines = a.log_lines()
        async with a:
            await eventually(lambda: len(a.log_lines()) > len(lines))
            name = ""
            while not name:
                name = await ask_name(a.ingress())
            assert name == "t1"
            assert any("state=loaded version=5" in line for line in a.log_lines())
        await task.stop()

    play(scene())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--mesh", "0.0.0.0:7946"], "--mesh 0.0.0.0 is not a loopback address"),
        (["--metrics", "10.0.0.1:9100"], "--metrics 10.0.0.1 is not a loopback address"),
        (["--mesh", "localhost:7946"], "'localhost' is not an IP address"),
        (["--managers", ""], "--managers is missing"),
        (["--config", "/nowhere"], "--config /nowhere"),
    ],
)
def test_options_that_are_refused(changes: list[str], told: str, tmp_path: Path) -> None:
    async def scene() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "skep.netproxy.main", "--node-id", "a", "--cluster-id", "c"),
            *("--address", "127.0.0.1", "--mesh", "127.0.0.1:7946", "--managers", "127.0.0.1:1"),
            *("--state-dir", str(tmp_path / "state"), *changes),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert told in errors.decode()
        assert not (tmp_path / "state").exists()

    play(scene())


def test_two_netproxies_never_share_a_folder(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Process("a", "127.0.0.1:1", tmp_path, "asyncio") as a:
            await eventually(lambda: os.path.exists(tmp_path / "a" / ".lock"))
            await eventually(lambda: any("state=started" in line for line in a.log_lines()))
            second = Process("a", "127.0.0.1:1", tmp_path, "asyncio")
            await second.start()
            assert second._process is not None
            assert await second._process.wait() == 2
            assert any("a netproxy of this node runs already" in line for line in a.log_lines())

    play(scene())
