"""A control API in memory: managers that share one state, on a network that fails when told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar, get_type_hints

from skep.api import codec
from skep.domain import control as c
from skep.domain.base import NetworkId, NodeId, StackId, Struct, TaskId, replace
from skep.domain.objects import (
    Attachment,
    Network,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Object,
    Revision,
    Service,
    Stack,
    Task,
    TaskStatus,
    UpdateState,
    UpdateStatus,
    revision_id,
)
from skep.domain.objects import Cluster as ClusterRow
from skep.domain.spec import NetworkSpec, RestartCondition, ServiceSpec
from skep.domain.states import DesiredState, TaskState
from skep.env import (
    CallError,
    Channel,
    Code,
    DiceIds,
    Listener,
    Monotonic,
    Rejected,
    Stream,
    StreamBroken,
    Timer,
    WallNs,
)
from skep.env import Service as Served
from tests.unit.client.fakestorage import FakeStorage

T = TypeVar("T")
Row = TypeVar("Row", bound=Object)

M1, M2, M3 = "127.32.0.1:4000", "127.32.0.2:4000", "127.32.0.3:4000"
ADDRESSES = (M1, M2, M3)


class FakeClock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> Monotonic:
        return Monotonic(self.time)

    def wall(self) -> WallNs:
        return WallNs(int(self.time * 1e9))

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError

    async def sleep(self, delay_s: float) -> None:
        self.time += delay_s
        await asyncio.sleep(0)

    async def within(self, deadline_s: float, awaitable: Awaitable[T]) -> T:
        return await awaitable


class FakeStream:
    """The client's end of a stream."""

    peer = "fake"
    hides_cancel = False
    is_closed = False

    def __init__(self, first: list[bytes]) -> None:
        self.frames: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.sent = first

    async def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    async def receive(self) -> bytes | None:
        try:
            frame = await self.frames.get()
        except asyncio.CancelledError:
            if self.hides_cancel:
                raise StreamBroken("fake: closed here") from None
            raise
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def close(self) -> None:
        self.is_closed = True
        self.frames.put_nowait(None)


class FakeLogs(FakeStream):
    """The logs of tasks whose output is known, by task id; it ends when all is told."""

    def __init__(self, first: list[bytes], output: dict[str, list[str]]) -> None:
        super().__init__(first)
        self.output = output

    async def send(self, frame: bytes) -> None:
        request = codec.decode(c.LogsRequest, frame)
        for task_id in request.tasks:
            texts = self.output.get(task_id, [])[-(request.tail or 0) :]
            lines = tuple(
                c.LogLine(time_ns=1, stream=c.LogStream.STDOUT, text=text.encode())
                for text in texts
            )
            event = c.LogEvent(task_id=TaskId(task_id), lines=lines, position="1")
            self.frames.put_nowait(codec.encode(event))
        self.frames.put_nowait(None)


@dataclass
class FakeNetwork:
    """A Transport. `down` refuse; `hung` never answer; `losing` do it and lose the answer;
    `leaderless` answer that they can't, but for stale reads."""

    control: FakeControl
    clock: FakeClock
    down: set[str] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    losing: set[str] = field(default_factory=set)
    leaderless: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def listen(self, address: str, service: Served) -> Listener:
        raise NotImplementedError

    def channel(self, address: str) -> Channel:
        return FakeChannel(self, address)


@dataclass
class FakeChannel:
    network: FakeNetwork
    address: str

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        await asyncio.sleep(0)
        network = self.network
        network.calls.append((self.address, method, request))
        if self.address in network.down:
            raise CallError(Code.UNAVAILABLE, f"{self.address}: failed to connect")
        if self.address in network.hung:
            network.clock.time += deadline_s
            raise CallError(Code.DEADLINE_EXCEEDED, f"{self.address}: deadline exceeded")
        if self.address in network.leaderless and not is_stale_read(method, request):
            raise CallError(Code.UNAVAILABLE, network.leaderless[self.address])
        answer = network.control.serve(method.rpartition("/")[2], request)
        if self.address in network.losing:
            raise CallError(Code.UNKNOWN, f"{self.address}: connection lost")
        return answer

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        if self.address in self.network.down:
            raise CallError(Code.UNAVAILABLE, f"{self.address}: failed to connect")
        if method.endswith("/Logs") and self.network.control.output is not None:
            return FakeLogs([], self.network.control.output)
        stream = FakeStream([])
        self.network.control.streams.append(stream)
        return stream

    async def close(self) -> None:
        pass


def is_stale_read(method: str, request: bytes) -> bool:
    name = f"on_{method.rpartition('/')[2]}"
    handler = getattr(FakeControl, name, None) or getattr(FakeStorage, name)
    return bool(getattr(codec.decode(get_type_hints(handler)["q"], request), "is_stale", False))


def no_such(kind: str, ref: str) -> CallError:
    return CallError(Code.NOT_FOUND, f"no {kind} {ref!r}; see `skep {kind} ls`")


class FakeControl:
    """The control API over plain dicts. Services converge when `converge` is called, or at once
    with `is_quick`; updates go as `set_update` and `roll_back` say."""

    def __init__(self, *, is_quick: bool = True) -> None:
        self.ids = DiceIds(random.Random("fake"))
        self.is_quick = is_quick
        self.version = 10
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, Service] = {}
        self.storage = FakeStorage(lambda: self.services.values(), self.ids.new_id)
        self.tasks: dict[str, Task] = {}
        self.stacks: dict[str, Stack] = {}
        self.networks: dict[str, Network] = {}
        self.diagnosis = c.DiagnoseNetworkResponse(version=41)
        self.questions: list[tuple[str, str]] = []
        self.answers: dict[str, Struct] = {}
        self.streams: list[FakeStream] = []
        self.revisions: list[Revision] = []
        self.output: dict[str, list[str]] | None = None
        self.problems: dict[str, tuple[str, ...]] = {}
        self.given_up: dict[str, int] = {}
        for number in (1, 2, 3):
            self._add_node(f"m{number}", NodeRole.MANAGER, number)
        for number in (1, 2, 3):
            self._add_node(f"w{number}", NodeRole.WORKER, number + 3)

    def _add_node(self, name: str, role: NodeRole, number: int) -> None:
        row = Node(
            id=NodeId(f"{name}-id"),
            name=name,
            role=role,
            description=NodeDescription(hostname=name, address=f"127.32.0.{number}"),
            state=NodeState.READY,
            runs_tasks=role is NodeRole.WORKER,
        )
        self.nodes[row.id] = row

    def serve(self, method: str, data: bytes) -> bytes:
        name = f"on_{method}"
        owner = self if hasattr(self, name) else self.storage
        handler: Callable[[Struct], Struct] = getattr(owner, name)
        request = codec.decode(get_type_hints(handler)["q"], data)
        request_id = getattr(request, "request_id", None)
        if request_id in self.answers:
            return codec.encode(self.answers[request_id])
        try:
            answer = handler(request)
        except Rejected as error:
            # As the real transport does.
            raise CallError(Code.INVALID_ARGUMENT, str(error), {"field": error.field}) from None
        if request_id is not None:
            self.answers[request_id] = answer
        return codec.encode(answer)

    def stamped(self, row: Row) -> Row:
        self.version += 1
        return replace(row, version=self.version)

    def find(self, table: dict[str, Row], kind: str, ref: str) -> Row:
        for row in table.values():
            if ref in (row.id, getattr(row, "name", None)) or row.id.startswith(ref):
                return row
        raise no_such(kind, ref)

    # ------------------------------------------------------------------------------ reads

    def on_GetCluster(self, q: c.GetClusterRequest) -> c.GetClusterResponse:  # noqa: N802
        row = ClusterRow(id="cluster-id", block=32)
        return c.GetClusterResponse(cluster=row, leader_id=NodeId("m1-id"), version=self.version)

    def on_ListNodes(self, q: c.ListNodesRequest) -> c.ListNodesResponse:  # noqa: N802
        nodes = tuple(self.nodes.values())
        return c.ListNodesResponse(nodes=nodes, leader_id=NodeId("m1-id"), version=self.version)

    def on_GetNode(self, q: c.GetRequest) -> Node:  # noqa: N802
        return self.find(self.nodes, "node", q.ref)

    def on_GetService(self, q: c.GetRequest) -> c.ServiceView:  # noqa: N802
        return self.view(self.find(self.services, "service", q.ref))

    def on_ListServices(self, q: c.ListServicesRequest) -> c.ListServicesResponse:  # noqa: N802
        rows = self.services.values()
        if q.stack is not None:
            stack = self.find(self.stacks, "stack", q.stack)
            rows = [row for row in rows if row.stack_id == stack.id]  # type: ignore[assignment]
        views = tuple(self.view(row) for row in sorted(rows, key=lambda row: row.name))
        return c.ListServicesResponse(services=views, version=self.version)

    def on_ListTasks(self, q: c.ListTasksRequest) -> c.ListTasksResponse:  # noqa: N802
        tasks = list(self.tasks.values())
        if q.service is not None:
            owner = self.find(self.services, "service", q.service)
            tasks = [task for task in tasks if task.service_id == owner.id]
        if q.node is not None:
            node = self.find(self.nodes, "node", q.node)
            tasks = [task for task in tasks if task.node_id == node.id]
        if q.stack is not None:
            stack = self.find(self.stacks, "stack", q.stack)
            owned = {row.id for row in self.services.values() if row.stack_id == stack.id}
            tasks = [task for task in tasks if task.service_id in owned]
        if not q.is_all:
            tasks = [task for task in tasks if not task.is_terminal]
        return c.ListTasksResponse(tasks=tuple(tasks), version=self.version)

    def on_GetTask(self, q: c.GetRequest) -> Task:  # noqa: N802
        return self.find(self.tasks, "task", q.ref)

    def on_GetStack(self, q: c.GetRequest) -> Stack:  # noqa: N802
        return self.find(self.stacks, "stack", q.ref)

    def on_ListStacks(self, q: c.ListStacksRequest) -> c.ListStacksResponse:  # noqa: N802
        return c.ListStacksResponse(stacks=tuple(self.stacks.values()), version=self.version)

    def on_ListRevisions(self, q: c.ListRevisionsRequest) -> c.ListRevisionsResponse:  # noqa: N802
        row = self.find(self.services, "service", q.service)
        kept = [each for each in reversed(self.revisions) if each.service_id == row.id]
        return c.ListRevisionsResponse(revisions=tuple(kept), version=self.version)

    def on_GetNetwork(self, q: c.GetRequest) -> c.NetworkView:  # noqa: N802
        return self.network_view(self.find(self.networks, "network", q.ref))

    def on_ListNetworks(self, q: c.ListNetworksRequest) -> c.ListNetworksResponse:  # noqa: N802
        rows = list(self.networks.values())
        if q.stack is not None:
            stack = self.find(self.stacks, "stack", q.stack)
            rows = [row for row in rows if row.stack_id == stack.id]
        views = tuple(self.network_view(row) for row in sorted(rows, key=lambda row: row.name))
        return c.ListNetworksResponse(networks=views, version=self.version)

    def on_DiagnoseNetwork(  # noqa: N802
        self, q: c.DiagnoseNetworkRequest
    ) -> c.DiagnoseNetworkResponse:
        self.questions.append((q.name, q.from_task))
        return self.diagnosis

    def network_view(self, row: Network) -> c.NetworkView:
        users = self.users(row)
        held = [t for t in self.tasks.values() if not t.is_terminal]
        count = sum(at.network_id == row.id for task in held for at in task.attachments)
        return c.NetworkView(network=row, services=users, tasks=count)

    def users(self, row: Network) -> tuple[str, ...]:
        return tuple(
            sorted(
                service.name
                for service in self.services.values()
                if row.name in [use.network for use in service.spec.task.networks]
            )
        )

    def view(self, row: Service) -> c.ServiceView:
        mine = [task for task in self.tasks.values() if task.service_id == row.id]
        up = [t for t in mine if t.is_wanted and t.status.state is TaskState.RUNNING]
        right = {task.slot for task in up if task.revision == row.task_revision}
        running = {task.slot for task in up}
        completed = {
            task.slot
            for task in mine
            if task.status.state is TaskState.COMPLETE
            and task.revision == row.task_revision
            and row.spec.task.restart.condition is not RestartCondition.ANY
        }
        is_at_rest = row.update is None or row.update.state in (
            UpdateState.COMPLETED,
            UpdateState.ROLLBACK_COMPLETED,
        )
        return c.ServiceView(
            service=row,
            running=len(running),
            desired=row.spec.replicas,
            is_converged=len(right | completed) == row.spec.replicas
            and len(running | completed) == row.spec.replicas
            and not row.is_removing
            and is_at_rest,
            problems=self.problems.get(row.name, ()),
            given_up=self.given_up.get(row.name, 0),
            completed=len(completed),
        )

    # ------------------------------------------------------------------------------ writes

    def on_UpdateNode(self, q: c.UpdateNodeRequest) -> Node:  # noqa: N802
        row = self.find(self.nodes, "node", q.ref)
        labels = {key: value for key, value in row.labels if key not in q.labels_removed}
        labels |= dict(q.labels_set)
        self.nodes[row.id] = self.stamped(
            replace(
                row,
                availability=q.availability or row.availability,
                labels=tuple(sorted(labels.items())),
            )
        )
        return self.nodes[row.id]

    def on_RemoveNode(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        row = self.find(self.nodes, "node", q.ref)
        if row.state is not NodeState.DOWN:
            raise CallError(Code.FAILED_PRECONDITION, f"node {row.name!r} is not down; stop it")
        del self.nodes[row.id]
        return c.RemoveResponse(id=row.id, name=row.name)

    def on_CreateService(self, q: c.CreateServiceRequest) -> Service:  # noqa: N802
        return self.create(self.storage.with_ids(q.spec))

    def on_UpdateService(self, q: c.UpdateServiceRequest) -> Service:  # noqa: N802
        q = replace(q, spec=self.storage.with_ids(q.spec))
        row = self.find(self.services, "service", q.ref)
        if q.version is not None and q.version != row.version:
            raise CallError(Code.ABORTED, f"service {row.name!r} was changed meanwhile")
        if q.spec != row.spec:
            is_scaled = replace(row.spec, replicas=q.spec.replicas) == q.spec
            note = f"scaled from {row.spec.replicas} to {q.spec.replicas}"
            self.write(row, q.spec, note if is_scaled else "")
        elif row.update is not None:
            self.set_update(row.name, UpdateState.UPDATING)
        if self.is_quick:
            self.converge()
        return self.services[row.id]

    def on_RollbackService(self, q: c.RollbackServiceRequest) -> Service:  # noqa: N802
        row = self.find(self.services, "service", q.ref)
        number = row.previous_revision if q.revision is None else q.revision
        kept = [r for r in self.revisions if (r.service_id, r.number) == (row.id, number)]
        if not kept:
            why = f"service {row.name!r} has no revision {number or ''} to go back to"
            raise CallError(Code.FAILED_PRECONDITION if number is None else Code.NOT_FOUND, why)
        self.roll_back(row.name, kept[0].number, "manually requested rollback")
        if self.is_quick:
            self.converge()
        return self.services[row.id]

    def on_RemoveService(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        row = self.find(self.services, "service", q.ref)
        self.services[row.id] = self.stamped(replace(row, is_removing=True))
        if self.is_quick:
            self.converge()
        return c.RemoveResponse(id=row.id, name=row.name)

    def on_CreateNetwork(self, q: c.CreateNetworkRequest) -> Network:  # noqa: N802
        return self.add_network(q.spec)

    def on_RemoveNetwork(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        row = self.find(self.networks, "network", q.ref)
        if self.users(row):
            why = f"network {row.name!r} is used by service {self.users(row)[0]}"
            raise CallError(Code.FAILED_PRECONDITION, why)
        del self.networks[row.id]
        return c.RemoveResponse(id=row.id, name=row.name)

    def add_network(self, spec: NetworkSpec, stack_id: StackId | None = None) -> Network:
        if any(row.name == spec.name for row in self.networks.values()):
            why = f"spec.name: a network called {spec.name!r} exists; choose another name"
            raise CallError(Code.ALREADY_EXISTS, why, {"field": "spec.name"})
        number = len(self.networks) + 1
        subnet = spec.subnet or f"10.0.{number}.0/24"
        row = Network(
            id=NetworkId(self.ids.new_id()),
            name=spec.name,
            spec=spec,
            stack_id=stack_id,
            vni=4096 + number,
            subnet=subnet,
            gateway=spec.gateway or f"{subnet.rpartition('.')[0]}.1",
        )
        self.networks[row.id] = self.stamped(row)
        return self.networks[row.id]

    def attach(self, task: Task, **addresses: str) -> Task:
        """Give a task addresses, by the names of networks."""
        ids = {row.name: row.id for row in self.networks.values()}
        attachments = tuple(
            Attachment(network_id=ids[name], address=at) for name, at in addresses.items()
        )
        self.tasks[task.id] = replace(task, attachments=attachments)
        return self.tasks[task.id]

    def on_RemoveTask(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        row = self.find(self.tasks, "task", q.ref)
        return c.RemoveResponse(id=row.id, name=row.name)

    def on_DeployStack(self, q: c.DeployStackRequest) -> c.DeployStackResponse:  # noqa: N802
        named = (
            self.storage.with_ids(each, f"spec.services[{place}]")
            for place, each in enumerate(q.spec.services)
        )
        q = replace(q, spec=replace(q.spec, services=tuple(named)))
        found = [row for row in self.stacks.values() if row.name == q.spec.name]
        row = found[0] if found else Stack(id=self.ids.new_id(), name=q.spec.name, spec=q.spec)  # type: ignore[arg-type]
        row = self.stacks[row.id] = self.stamped(replace(row, spec=q.spec))
        created, updated, unchanged = [], [], []
        by_name = {service.name: service for service in self.services.values()}
        for place, spec in enumerate(q.spec.services):
            self.check_ports(f"spec.services[{place}]", spec)
        there = {network.name for network in self.networks.values()}
        missing = [network for network in q.spec.networks if network.name not in there]
        for network in missing:
            self.add_network(network, row.id)
        for spec in q.spec.services:
            old = by_name.get(spec.name)
            if old is None:
                self.create(spec, row)
                created.append(spec.name)
            elif old.spec == spec:
                unchanged.append(spec.name)
            else:
                self.write(old, spec)
                updated.append(spec.name)
        wanted = {spec.name for spec in q.spec.services}
        gone = [s for s in self.services.values() if s.stack_id == row.id and s.name not in wanted]
        names = tuple(service.name for service in gone)
        if q.is_prune:
            for service in gone:
                self.services[service.id] = replace(service, is_removing=True)
        if self.is_quick:
            self.converge()
        return c.DeployStackResponse(
            stack=row,
            created=tuple(created),
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            removed=names if q.is_prune else (),
            kept=() if q.is_prune else names,
            networks_created=tuple(network.name for network in missing),
        )

    def on_RemoveStack(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        row = self.find(self.stacks, "stack", q.ref)
        del self.stacks[row.id]
        for service in list(self.services.values()):
            if service.stack_id == row.id:
                self.services[service.id] = replace(service, is_removing=True)
        if self.is_quick:
            self.converge()
        for network in list(self.networks.values()):
            if network.stack_id == row.id:
                del self.networks[network.id]
        self.storage.forget_stack(row.name)
        return c.RemoveResponse(id=row.id, name=row.name)

    def check_ports(self, where: str, spec: ServiceSpec) -> None:
        for other in self.services.values():
            for place, port in enumerate(spec.ports):
                taken = [each.published for each in other.spec.ports if other.name != spec.name]
                if port.published in taken:
                    field = f"{where}.ports[{place}].published"
                    why = (
                        f"port {port.published}/tcp is already published by service {other.name!r}"
                    )
                    raise CallError(Code.ALREADY_EXISTS, f"{field}: {why}", {"field": field})

    def create(self, spec: ServiceSpec, stack: Stack | None = None) -> Service:
        self.check_ports("spec", spec)
        if any(row.name == spec.name for row in self.services.values()):
            raise CallError(Code.ALREADY_EXISTS, f"there is a service {spec.name!r} already")
        if not spec.task.run.command and not spec.task.run.args:
            raise CallError(
                Code.INVALID_ARGUMENT, "spec.task.run: no command", {"field": "spec.task.run"}
            )
        row = Service(
            id=self.ids.new_id(),  # type: ignore[arg-type]
            name=spec.name,
            spec=spec,
            stack_id=stack.id if stack else None,
            ports=spec.ports,
        )
        self.keep(row, "created")
        if self.is_quick:
            self.converge()
        return self.services[row.id]

    def write(self, row: Service, spec: ServiceSpec, note: str = "") -> Service:
        """A new revision, and an update where tasks are to change."""
        number = row.revision + 1
        is_same = spec.task == row.spec.task
        update = UpdateStatus(
            state=UpdateState.UPDATING,
            revision=number,
            base_revision=row.revision,
            policy=spec.update,
            started_ns=1,
            message="update in progress",
        )
        changed = replace(
            row,
            spec=spec,
            revision=number,
            ports=spec.ports,
            task_revision=row.task_revision if is_same else number,
            previous_revision=row.revision,
            update=row.update if is_same else update,
        )
        return self.keep(changed, note or "updated")

    def keep(self, row: Service, note: str = "") -> Service:
        """Store a service with the revision that it is at."""
        self.services[row.id] = self.stamped(row)
        self.revisions.append(
            Revision(
                id=revision_id(row.id, row.revision),
                service_id=row.id,
                number=row.revision,
                spec=row.spec,
                task_revision=row.task_revision,
                note=note,
                created_ns=1_000_000_000,
            )
        )
        return self.services[row.id]

    def set_update(self, name: str, state: UpdateState, message: str = "", **more: object) -> None:
        """Say how far the update of a service is."""
        row = self.find(self.services, "service", name)
        assert row.update is not None
        update = replace(row.update, state=state, message=message, **more)
        self.services[row.id] = self.stamped(replace(row, update=update))

    def roll_back(self, name: str, to: int, message: str) -> None:
        """Begin to go back to an earlier revision, as a failed update does by itself."""
        row = self.find(self.services, "service", name)
        (old,) = [r for r in self.revisions if (r.service_id, r.number) == (row.id, to)]
        update = UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED,
            revision=row.revision,
            base_revision=to,
            policy=row.spec.rollback,
            started_ns=1,
            message=message,
        )
        changed = replace(
            row,
            spec=old.spec,
            revision=row.revision + 1,
            task_revision=old.task_revision,
            update=update,
        )
        self.keep(changed, f"rollback to {to}")

    def converge(self) -> None:
        """Make reality as wanted, at once."""
        ends = {
            UpdateState.UPDATING: UpdateState.COMPLETED,
            UpdateState.ROLLBACK_STARTED: UpdateState.ROLLBACK_COMPLETED,
        }
        for row in list(self.services.values()):
            if row.update is not None and row.update.state in ends:
                self.set_update(row.name, ends[row.update.state], row.update.message, ended_ns=2)
            for task in list(self.tasks.values()):
                is_old = task.service_id == row.id and task.revision != row.task_revision
                if is_old and not task.is_terminal:
                    self.end_task(task, TaskState.SHUTDOWN)
            replicas = 0 if row.is_removing else row.spec.replicas
            for task in [task for task in self.tasks.values() if task.service_id == row.id]:
                if task.slot > replicas:
                    del self.tasks[task.id]
            mine = [task for task in self.tasks.values() if task.service_id == row.id]
            slots = {t.slot for t in mine if t.revision == row.task_revision and t.is_wanted}
            for slot in set(range(1, replicas + 1)) - slots:
                self.add_task(row, slot)
            if row.is_removing:
                del self.services[row.id]

    def add_task(self, row: Service, slot: int, state: TaskState = TaskState.RUNNING) -> Task:
        number = (slot - 1) % 3 + 1
        task = Task(
            id=self.ids.new_id(),  # type: ignore[arg-type]
            service_id=row.id,
            service_name=row.name,
            revision=row.task_revision,
            slot=slot,
            node_id=NodeId(f"w{number}-id"),
            address=f"127.32.16.{slot}",
            desired_state=DesiredState.RUNNING,
            status=TaskStatus(state=state, since_ns=1_000_000_000, pid=4000 + slot),
        )
        self.tasks[task.id] = self.stamped(task)
        return self.tasks[task.id]

    def end_task(self, task: Task, state: TaskState, **status: object) -> Task:
        """A task that has ended, and is wanted no more."""
        ended = replace(
            task,
            desired_state=DesiredState.SHUTDOWN,
            status=replace(task.status, state=state, **status),
        )
        self.tasks[task.id] = self.stamped(ended)
        return self.tasks[task.id]

    def tell(self, stream: FakeStream, event: c.WatchEvent) -> None:
        stream.frames.put_nowait(codec.encode(event))

    def cut(self, stream: FakeStream) -> None:
        stream.frames.put_nowait(StreamBroken("fake: cut"))


@dataclass
class FakeSeams:
    """Everything together; what `connect(seams=...)` takes."""

    clock: FakeClock
    ids: DiceIds
    transport: FakeNetwork


def seams(control: FakeControl | None = None) -> FakeSeams:
    clock = FakeClock()
    network = FakeNetwork(control or FakeControl(), clock)
    return FakeSeams(clock, DiceIds(random.Random("client")), network)
