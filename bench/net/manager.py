"""The managers' end of the endpoint stream, and the clock: `python -m bench.net.manager PLAN`.

Runs in a namespace that the nodes reach. What is real: the projection and its versions, the stream
over gRPC, and three netproxy processes. What is missing is Raft: a change begins where a commit is
handed to the feed. It is over when the last of the netproxies has said here that it is in force,
which they do after it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench.net.load import cpu_s
from skep.api import codec
from skep.domain.attach import AttachRequest, AttachResponse, DetachRequest
from skep.domain.base import ClusterId, NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.control import WatchAction
from skep.domain.endpoints import NetworkQuestion
from skep.domain.objects import (
    Attachment,
    Network,
    Node,
    NodeDescription,
    NodeRole,
    Object,
    Service,
    Task,
    TaskStatus,
    Vip,
)
from skep.domain.spec import NetworkSpec, NetworkUse, Port, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TaskState
from skep.env import CallError, Code, RealDisk, real_env
from skep.env import Service as Calls
from skep.manager.endpoints.actor import METHOD, EndpointServer
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from skep.rpc import GrpcTransport

PATIENCE_S = 120.0
CLUSTER = ClusterId("bench")
INGRESS, FIRST, SECOND = NetworkId("ingress"), NetworkId("first"), NetworkId("second")
NETWORKS = (
    (INGRESS, 4200, "10.64.0.0/12"),
    (FIRST, 4201, "10.80.0.0/12"),
    (SECOND, 4202, "10.96.0.0/12"),
)
# Of a series, however slow; less is no series.
FEWEST = 10
BIG = ServiceId("big")
# Tasks' addresses count up from the one place, virtual ones from the other.
TASKS_FROM, VIPS_FROM, ATTACHED_FROM = 1000, 600_000, 900_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured. `nodes` are ids and underlay addresses; `sockets` are where their
    netproxies take a worker's calls; `published` services have a port each, the rest are reached
    by virtual address alone. `marks` tell the netproxies' processes, by their command lines. A
    series of changes that takes longer than `series_s` is ended before it has all of them."""

    address: str
    nodes: tuple[tuple[str, str], ...]
    sockets: tuple[str, ...]
    services: int
    marks: tuple[str, ...] = ()
    replicas: int = 3
    published: int = 20
    changes: int = 100
    big: int = 0
    big_changes: int = 20
    attaches: int = 0
    series_s: float = 12.0


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each, and the seconds of CPU that all of one node's netproxy took for one, in the
    mean."""

    times_s: tuple[float, ...] = ()
    cpu_s: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Until the whole was in force on all nodes, and each change and attaching."""

    whole_s: float = 0.0
    internal: Series = Series()
    published: Series = Series()
    big: Series = Series()
    attach: Series = Series()
    problems: tuple[str, ...] = ()


class Committed:
    """Stands for the store: its tables, and who follows its commits."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.version = 1
        self._followers: list[Callable[[list[Change]], None]] = []

    def subscribe(self, follower: Callable[[list[Change]], None]) -> None:
        """See `Store.subscribe`."""
        self._followers.append(follower)

    def commit(self, *rows: Object) -> None:
        """Write these rows and tell."""
        self.version += 1
        changes = []
        for row in rows:
            old = self.tables.get(type(row), row.id)
            self.tables.put(row)
            action = WatchAction.CREATE if old is None else WatchAction.UPDATE
            changes.append(Change(self.version, action, row, old))
        for follower in self._followers:
            follower(changes)


class Bench:
    """One cluster's measurements, one after the other."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._env = real_env("bench", GrpcTransport(), RealDisk(folder))
        self._store = Committed()
        self._server = EndpointServer(self._env, cast("Store", self._store), CLUSTER)
        self._moved = asyncio.Event()
        self._server.on_progress = self._moved.set
        self._numbers = itertools.count(ATTACHED_FROM)

    async def run(self) -> Result:
        """All that the plan asks for."""
        plan = self._plan
        began = time.perf_counter()
        async with self.served():
            whole_s = time.perf_counter() - began
            # One task on each node, which is to see the changes.
            for number in range(len(plan.nodes)):
                await self._attach(number, f"client{number}", (FIRST,))
            await self._change(ServiceId("s0"), 4)
            return Result(
                whole_s=whole_s,
                attach=await self._series(self._attach_again(plan.attaches), 1),
                internal=await self._of(ServiceId(f"s{plan.services - 1}"), plan.changes),
                published=await self._of(ServiceId("s0"), plan.changes),
                big=await self._of(BIG, plan.big_changes) if plan.big else Series(),
                problems=await self._problems(),
            )

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """With all that the plan has in force on every node."""
        for row in _rows(self._plan):
            self._store.tables.put(row)
        self._server.start()
        listener = await self._env.transport.listen(
            self._plan.address, Calls(streams={METHOD: self._server.serve})
        )
        try:
            await self._all_applied()
            yield
        finally:
            await listener.close()

    async def _of(self, service_id: ServiceId, count: int) -> Series:
        # The first ones pay for what is done once.
        await self._change(service_id, 2)
        return await self._series(self._change(service_id, count), len(self._plan.nodes))

    async def _series(self, work: Awaitable[list[float]], nodes: int) -> Series:
        pids = _pids(self._plan.marks)
        before_s = cpu_s(pids)
        times_s = await work
        spent_s = cpu_s(pids) - before_s
        return Series(times_s=tuple(times_s), cpu_s=spent_s / nodes / max(len(times_s), 1))

    async def _change(self, service_id: ServiceId, count: int) -> list[float]:
        """Take one task of the service away and put it back, `count` times in all, or as often
        as the time allows."""
        task = next(iter(self._store.tables.tasks_of_service(service_id)))
        times: list[float] = []
        until = time.perf_counter() + self._plan.series_s
        while len(times) < count and (len(times) < FEWEST or time.perf_counter() < until):
            status = replace(task.status, is_healthy=not task.status.is_healthy)
            task = replace(task, status=status)
            began = time.perf_counter()
            self._store.commit(task)
            await self._all_applied()
            times.append(time.perf_counter() - began)
        return times

    async def _all_applied(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_applied():
                self._moved.clear()
                await self._moved.wait()

    def _is_applied(self) -> bool:
        progress = self._server.progress()
        version = self._store.version
        is_whole = len(progress) == len(self._plan.nodes)
        return is_whole and all(each.version >= version for each in progress)

    async def _attach_again(self, count: int) -> list[float]:
        """Seconds to attach one more task to two networks, as the worker asks for it."""
        times = []
        for number in range(count):
            task = f"more{number}"
            began = time.perf_counter()
            await self._attach(0, task, (FIRST, SECOND))
            times.append(time.perf_counter() - began)
            await self._call(0, "Detach", DetachRequest(task_id=TaskId(task)))
        return times

    async def _attach(self, node: int, task: str, networks: Sequence[NetworkId]) -> AttachResponse:
        subnets = {network: subnet for network, _, subnet in NETWORKS}
        number = next(self._numbers)
        attachments = tuple(
            Attachment(network_id=each, address=_address(subnets[each], number))
            for each in networks
        )
        return await self._attach_as(node, TaskId(task), attachments)

    async def _attach_as(
        self, node: int, task_id: TaskId, attachments: tuple[Attachment, ...]
    ) -> AttachResponse:
        request = AttachRequest(
            task_id=task_id,
            service_id=ServiceId("bench"),
            service_name="bench",
            attachments=attachments,
        )
        until = self._env.now() + PATIENCE_S
        while True:
            try:
                return codec.decode(AttachResponse, await self._call(node, "Attach", request))
            except CallError as error:
                # As a worker does: what a netproxy has just begun, it may not have finished.
                if error.code is not Code.UNAVAILABLE or self._env.now() > until:
                    raise
                await asyncio.sleep(0.01)

    async def _call(self, node: int, name: str, request: AttachRequest | DetachRequest) -> bytes:
        channel = self._env.transport.channel(self._plan.sockets[node])
        try:
            data = codec.encode(request)
            return await channel.call(f"skep.v1.Attach/{name}", data, deadline_s=PATIENCE_S)
        finally:
            await channel.close()

    async def _problems(self) -> tuple[str, ...]:
        """What the netproxies say of themselves, and where the kernel isn't as they have put it."""
        question = NetworkQuestion(id="bench")
        answers, silent = await self._server.ask(question, None, PATIENCE_S)
        found = [f"{node} says nothing" for node in silent]
        for answer in answers:
            found += [f"{answer.node_id}: {e}" for e in answer.problems + answer.differences]
        return tuple(found)


def _pids(marks: Sequence[str]) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            if "netproxy" in words and any(mark in words for mark in marks):
                found.append(int(process.name))
    return found


def _rows(plan: Plan) -> list[Object]:
    rows: list[Object] = [
        Network(
            id=network_id,
            name=str(network_id),
            spec=NetworkSpec(name=str(network_id), subnet=subnet),
            vni=vni,
            subnet=subnet,
            is_ingress=network_id == INGRESS,
        )
        for network_id, vni, subnet in NETWORKS
    ]
    for number, (node_id, address) in enumerate(plan.nodes, 1):
        rows.append(
            Node(
                id=NodeId(node_id),
                name=node_id,
                role=NodeRole.WORKER,
                description=NodeDescription(
                    hostname=node_id,
                    address=address,
                    mesh_address=f"{address}:7946",
                    plane="kernel",
                ),
                ingress_address=_address(NETWORKS[0][2], number),
            )
        )
    numbers = itertools.count(TASKS_FROM)
    for number in range(plan.services):
        is_published = number < plan.published
        rows += _service(
            plan, ServiceId(f"s{number}"), number, is_published, plan.replicas, numbers
        )
    if plan.big:
        rows += _service(plan, BIG, plan.services, False, plan.big, numbers)
    return rows


def addresses(plan: Plan) -> list[str]:
    """All that the plan's tasks, nodes and services have."""
    found = []
    for row in _rows(plan):
        match row:
            case Task(attachments=attachments):
                found += [each.address for each in attachments]
            case Service(vips=vips):
                found += [each.address for each in vips]
            case Node(ingress_address=address):
                found.append(address)
    return found


def _service(  # noqa: PLR0913 - what is different in each of them
    plan: Plan,
    service_id: ServiceId,
    number: int,
    is_published: bool,
    replicas: int,
    numbers: itertools.count[int],
) -> list[Object]:
    ports = (Port(target=80, published=20_000 + number),) if is_published else ()
    use = (NetworkUse(network=str(FIRST)),)
    networks = (FIRST, INGRESS) if is_published else (FIRST,)
    subnets = {network: subnet for network, _, subnet in NETWORKS}
    vip = Vip(network_id=FIRST, index=number, address=_address(subnets[FIRST], VIPS_FROM + number))
    spec = ServiceSpec(
        name=str(service_id), task=TaskSpec(run=RunSpec(), networks=use), ports=ports
    )
    rows: list[Object] = [
        Service(id=service_id, name=spec.name, spec=spec, ports=ports, vips=(vip,))
    ]
    for slot in range(replicas):
        place = next(numbers)
        rows.append(
            Task(
                id=TaskId(f"{service_id}-{slot}"),
                service_id=service_id,
                service_name=spec.name,
                revision=1,
                slot=slot + 1,
                status=TaskStatus(state=TaskState.RUNNING),
                node_id=NodeId(plan.nodes[slot % len(plan.nodes)][0]),
                address="127.0.0.1",
                attachments=tuple(
                    Attachment(network_id=each, address=_address(subnets[each], place))
                    for each in networks
                ),
            )
        )
    return rows


def _address(subnet: str, number: int) -> str:
    """The address of that number in a subnet."""
    first = [int(part) for part in subnet.partition("/")[0].split(".")]
    whole = int.from_bytes(bytes(first), "big") + number
    return ".".join(map(str, whole.to_bytes(4, "big")))


def main() -> None:
    """Measure, and print the result as JSON."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with tempfile.TemporaryDirectory() as folder:

        async def run() -> Result:
            return await Bench(plan, Path(folder)).run()

        print(json.dumps(msgspec.to_builtins(uvloop.run(run()))), flush=True)


if __name__ == "__main__":
    main()
