"""A small world for netproxies: managers in memory, real sockets on loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from skep.api import codec
from skep.domain.base import ClusterId, NodeId, ServiceId, TaskId
from skep.domain.endpoints import (
    Endpoint,
    EndpointUpdate,
    MeshNode,
    NetproxyApplied,
    NetproxyMessage,
    NetworkQuestion,
    ServiceEndpoints,
)
from skep.domain.spec import Balance, Port
from skep.env import (
    CallError,
    Code,
    DiceIds,
    Env,
    File,
    Listener,
    LoopClock,
    LoopSpawn,
    Monotonic,
    Service,
    StreamBroken,
)
from skep.netproxy.actor import FollowActor, Identity, Progress, make_mailbox
from skep.netproxy.adapters.relay import Place, Relay
from skep.netproxy.core.routes import Desired
from skep.netproxy.dataplane import Look
from skep.supervisor import Child, Supervisor

CLUSTER = ClusterId("cluster")
PORT = 18080
TARGET = 8080
MESH_PORT = 7946
DEADLINE_S = 10.0
# How old what a relay shows of itself may be.
REPORT_PERIOD_S = 0.02

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

_numbers = itertools.count(1)


def fresh_host() -> str:
    """A loopback address that nothing else uses."""
    number = next(_numbers)
    block, page = 160 + os.getpid() % 64, os.getpid() // 64 % 128 * 2 + number // 250
    return f"127.{block}.{page}.{number % 250 + 1}"


def run(loop_name: str, work: Coroutine[Any, Any, Any]) -> None:
    """Run on a loop of that kind; anything left behind is an error."""
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        errors: list[str] = []
        runner.get_loop().set_exception_handler(lambda _, context: errors.append(repr(context)))
        runner.run(work)
        assert not errors, errors


async def eventually(condition: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Poll until `condition` holds."""
    until = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it never came true"
        await asyncio.sleep(0.002)


# ---------------------------------------------------------------------------------- the managers


class MemoryStream:
    """One end of a stream in memory."""

    def __init__(
        self, peer: str, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]
    ) -> None:
        self.peer = peer
        self._inbox = inbox
        self._outbox = outbox
        self._is_closed = False

    async def send(self, frame: bytes) -> None:
        if self._is_closed:
            raise StreamBroken("closed")
        await self._outbox.put(frame)

    async def receive(self) -> bytes | None:
        return await self._inbox.get()

    async def until_read(self) -> None:
        """Wait until the other end has taken all that was sent."""
        await eventually(self._outbox.empty)

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._outbox.put_nowait(None)


class Conversation:
    """What one netproxy said on one stream, and a way to answer."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.hello = 0
        self.node_id = ""
        self.applied: list[NetproxyApplied] = []
        self.is_over = False

    async def send(self, *updates: EndpointUpdate) -> None:
        for update in updates:
            await self.stream.send(codec.encode(update))

    async def acknowledged(self, version: int) -> None:
        await eventually(lambda: any(a.version >= version for a in self.applied))


class FakeManager:
    """Answers every netproxy, and remembers what each said."""

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        self.is_up = True
        self.greeting: Callable[[Conversation], Awaitable[None]] | None = None

    async def serve(self, stream: MemoryStream) -> None:
        conversation = Conversation(stream)
        while (frame := await stream.receive()) is not None:
            message = codec.decode(NetproxyMessage, frame)
            if message.hello is not None:
                conversation.hello = message.hello.applied_version
                conversation.node_id = message.hello.node_id
                self.conversations.append(conversation)
                if self.greeting is not None:
                    await self.greeting(conversation)
            if message.applied is not None:
                conversation.applied.append(message.applied)
        conversation.is_over = True

    async def follower(self, node_id: str, number: int = 0) -> Conversation:
        """The `number`-th conversation with a node."""

        def found() -> list[Conversation]:
            return [c for c in self.conversations if c.node_id == node_id]

        await eventually(lambda: len(found()) > number)
        return found()[number]


class MemoryTransport:
    """Channels to fake managers, by address."""

    def __init__(self, managers: dict[str, FakeManager]) -> None:
        self._managers = managers
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, service: Service) -> Listener:
        raise NotImplementedError

    def channel(self, address: str) -> MemoryChannel:
        return MemoryChannel(self, address)

    def connect(self, address: str) -> MemoryStream:
        manager = self._managers.get(address)
        if manager is None or not manager.is_up:
            raise CallError(Code.UNAVAILABLE, f"{address} does not answer")
        up: asyncio.Queue[bytes | None] = asyncio.Queue()
        down: asyncio.Queue[bytes | None] = asyncio.Queue()
        task = asyncio.create_task(manager.serve(MemoryStream("netproxy", up, down)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return MemoryStream(address, down, up)


class MemoryChannel:
    def __init__(self, transport: MemoryTransport, address: str) -> None:
        self._transport = transport
        self._address = address

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        raise NotImplementedError

    async def open(self, method: str, *, deadline_s: float) -> MemoryStream:
        assert method == "skep.v1.Endpoints/Follow"
        return self._transport.connect(self._address)

    async def close(self) -> None:
        pass


class MemoryDisk:
    """Whole files in memory; outlives the netproxy that wrote them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, path: str) -> File:
        raise NotImplementedError

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    async def replace(self, path: str, data: bytes) -> None:
        self.files[path] = data

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def list(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(self.files))


class SkippingClock(LoopClock):
    """The loop's clock, which may be set forward."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self._skip = asyncio.Event()

    def now(self) -> Monotonic:
        return Monotonic(super().now() + self._skipped_s)

    async def sleep(self, delay_s: float) -> None:
        until = self.now() + delay_s
        while (left_s := until - self.now()) > 0.0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._skip.wait()

    def skip(self, seconds: float) -> None:
        """Whoever sleeps until then wakes up."""
        self._skipped_s += seconds
        self._skip.set()
        self._skip = asyncio.Event()


def make_env(transport: MemoryTransport, disk: MemoryDisk, clock: LoopClock | None = None) -> Env:
    dice = random.Random(1)
    return Env(
        node="n",
        clock=clock or LoopClock(),
        dice=dice,
        ids=DiceIds(dice),
        tasks=LoopSpawn(),
        transport=transport,
        disk=disk,
    )


# --------------------------------------------------------------------------------- the netproxies


class Netproxy:
    """One netproxy of a test cluster, in this process, on a loopback address of its own."""

    def __init__(
        self,
        node_id: str,
        managers: dict[str, FakeManager] | None = None,
        disk: MemoryDisk | None = None,
        host: str | None = None,
        workers: int = 1,
        host6: str = "",
    ) -> None:
        self.node_id = NodeId(node_id)
        self.host = host or fresh_host()
        self.managers = managers or {}
        self.disk = disk or MemoryDisk()
        self.progress = Progress()
        self.clock = SkippingClock()
        env = self.env = make_env(MemoryTransport(self.managers), self.disk, self.clock)
        place = Place(
            cluster_id=CLUSTER,
            node_id=self.node_id,
            ingress_host=self.host,
            ingress_host6=host6,
            mesh=(self.host, MESH_PORT),
            connection_limit=10_000,
            workers=workers,
            report_period_s=REPORT_PERIOD_S,
        )
        self.relay = Relay(env, place)
        self.traffic = self.relay.totals
        self.escalated: list[BaseException] = []
        mailbox = make_mailbox()
        identity = Identity(CLUSTER, self.node_id, tuple(self.managers) or ("nobody:1",))
        self.supervisor = Supervisor(
            env,
            "netproxy",
            (
                Child(
                    "follow",
                    mailbox,
                    lambda: FollowActor(env, mailbox, identity, self, self.progress),
                ),
            ),
            self.escalated.append,
        )

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        return await self.relay.apply(desired)

    async def diagnose(self, question: NetworkQuestion) -> Look:
        return Look(plane="relay", facts=(f"asked {question.id}",))

    @property
    def mesh(self) -> MeshNode:
        return MeshNode(node_id=self.node_id, mesh_address=f"{self.host}:{MESH_PORT}")

    async def __aenter__(self) -> Netproxy:
        self.supervisor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.stop()
        await self.relay.close(0.0)
        assert self.escalated == []

    def ingress(self) -> tuple[str, int]:
        return self.host, PORT


# ------------------------------------------------------------------------------------- the tasks


class FakeTask:
    """A task: a TCP server on an address of its own that remembers who connected."""

    def __init__(self, task_id: str, node_id: str) -> None:
        self.endpoint = Endpoint(
            task_id=TaskId(task_id), node_id=NodeId(node_id), address=fresh_host()
        )
        self.name = task_id
        self.peers: list[str] = []
        self._server: asyncio.Server | None = None
        self._behaviour: Callable[..., Awaitable[None]] = self.say_name_then_echo
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(
        self, behaviour: Callable[..., Awaitable[None]] | None = None, backlog: int = 1024
    ) -> FakeTask:
        self._behaviour = behaviour or self._behaviour
        self._server = await asyncio.start_server(
            self._serve, self.endpoint.address, TARGET, backlog=backlog, limit=65536
        )
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.close()
            await eventually(lambda: not self._writers)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # uvloop has no name for a peer that is gone already.
        self.peers.append((writer.get_extra_info("peername") or ("gone",))[0])
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                await self._behaviour(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.discard(writer)

    async def say_name_then_echo(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(self.name.encode() + b"\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def service(
    *tasks: FakeTask,
    name: str = "web",
    balance: Balance = Balance.ROUND_ROBIN,
    published: int = PORT,
) -> ServiceEndpoints:
    return ServiceEndpoints(
        service_id=ServiceId(f"id-{name}"),
        name=name,
        ports=(Port(target=TARGET, published=published, balance=balance),),
        endpoints=tuple(task.endpoint for task in tasks),
    )


def complete(
    version: int,
    *services: ServiceEndpoints,
    nodes: tuple[Netproxy, ...] = (),
    mesh: tuple[MeshNode, ...] = (),
) -> EndpointUpdate:
    return EndpointUpdate(
        from_version=0,
        version=version,
        is_complete=True,
        services=services,
        nodes=(*(node.mesh for node in nodes), *mesh),
    )


@contextlib.asynccontextmanager
async def cluster(*names: str) -> AsyncIterator[tuple[FakeManager, list[Netproxy]]]:
    """A manager and netproxies that follow it."""
    manager = FakeManager()
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(Netproxy(name, {"manager:1": manager}))
            for name in names
        ]
        yield manager, nodes


async def publish(manager: FakeManager, nodes: list[Netproxy], update: EndpointUpdate) -> None:
    """Send an update to all nodes, and wait until it is in force on each."""
    for node in nodes:
        conversation = await manager.follower(node.node_id)
        await conversation.send(update)
        await conversation.acknowledged(update.version)


# ------------------------------------------------------------------------------------ the clients


async def ask_name(address: tuple[str, int]) -> str:
    """Connect, and say which task answered; "" for a connection that was reset."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(*address)
            try:
                return (await reader.readline()).decode().strip()
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
    except ConnectionError:
        return ""


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Make closing (or abort) send RST, as the kernel does for a process that was killed with
    unread data."""
    of = writer.get_extra_info("socket")
    of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
