"""Nodes, services, tasks, stacks and networks: one class each, with what the control API offers.

`ref` is an id, a unique prefix of one, or a name. Reads see every write that was answered before
they began, unless `is_stale`, which takes what the manager that is asked has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from skep.client import execution
from skep.client.calls import Caller
from skep.client.errors import Conflict
from skep.client.execution import ExecResult, Execution
from skep.client.outcome import is_paused
from skep.client.storage import write_files
from skep.domain.base import pairs, replace
from skep.domain.control import (
    CreateNetworkRequest,
    CreateServiceRequest,
    DeployStackRequest,
    DeployStackResponse,
    DiagnoseNetworkRequest,
    DiagnoseNetworkResponse,
    GetRequest,
    ListNetworksRequest,
    ListNetworksResponse,
    ListNodesRequest,
    ListNodesResponse,
    ListRevisionsRequest,
    ListRevisionsResponse,
    ListServicesRequest,
    ListServicesResponse,
    ListStacksRequest,
    ListStacksResponse,
    ListTasksRequest,
    ListTasksResponse,
    NetworkView,
    RemoveRequest,
    RemoveResponse,
    RollbackServiceRequest,
    ServiceView,
    UpdateNodeRequest,
    UpdateServiceRequest,
)
from skep.domain.execution import ExecSpec
from skep.domain.objects import Availability, Network, Node, Revision, Service, Stack, Task
from skep.domain.spec import NetworkSpec, ServiceSpec, StackSpec
from skep.domain.storage import ConfigSpec, SecretSpec

# Two people who change one service at once settle in two rounds; a loop against a busy robot ends.
CHANGE_ATTEMPTS = 10


class Nodes:
    """Machines of the cluster."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> Node:
        """One node. Raises NotFound."""
        return await self._caller.call("GetNode", GetRequest(ref=ref, is_stale=is_stale), Node)

    async def list(self, *, is_stale: bool = False) -> tuple[Node, ...]:
        """All nodes, by name."""
        return (await self.snapshot(is_stale=is_stale)).nodes

    async def snapshot(
        self, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> ListNodesResponse:
        """All nodes with the leader's id and the version they were read at."""
        request = ListNodesRequest(is_stale=is_stale)
        return await self._caller.call(
            "ListNodes", request, ListNodesResponse, deadline_s=deadline_s
        )

    async def update(
        self,
        ref: str,
        *,
        availability: Availability | None = None,
        labels_set: Mapping[str, str] | None = None,
        labels_removed: tuple[str, ...] = (),
        version: int | None = None,
    ) -> Node:
        """Change what the operator sets; what is absent stays. With the `version` that was read,
        raises Conflict if the node was changed since. Raises NotFound, Refused."""
        request = UpdateNodeRequest(
            request_id=self._caller.ids.new_id(),
            ref=ref,
            version=version,
            availability=availability,
            labels_set=pairs(labels_set or {}),
            labels_removed=labels_removed,
        )
        return await self._caller.call("UpdateNode", request, Node)

    async def remove(self, ref: str) -> RemoveResponse:
        """Forget a node that is down. Raises NotFound, Refused."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveNode", request, RemoveResponse)


class Services:
    """Specs that the cluster keeps true."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(
        self, ref: str, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> ServiceView:
        """One service and how far it is. Raises NotFound."""
        request = GetRequest(ref=ref, is_stale=is_stale)
        return await self._caller.call("GetService", request, ServiceView, deadline_s=deadline_s)

    async def list(
        self, *, stack: str | None = None, is_stale: bool = False, deadline_s: float | None = None
    ) -> tuple[ServiceView, ...]:
        """Services by name, all or those of one stack."""
        request = ListServicesRequest(stack=stack, is_stale=is_stale)
        return (await self._snapshot(request, deadline_s)).services

    async def snapshot(
        self, *, stack: str | None = None, is_stale: bool = False
    ) -> ListServicesResponse:
        """Services with the version they were read at, for a watch that begins there."""
        return await self._snapshot(ListServicesRequest(stack=stack, is_stale=is_stale), None)

    async def create(self, spec: ServiceSpec) -> Service:
        """A new service. Raises InvalidArgument, AlreadyExists (name or published port)."""
        request = CreateServiceRequest(request_id=self._caller.ids.new_id(), spec=spec)
        return await self._caller.call("CreateService", request, Service)

    async def update(self, ref: str, spec: ServiceSpec, *, version: int | None = None) -> Service:
        """Replace the spec, whose name must stay. With the `version` that was read, raises
        Conflict if the service was changed since. Raises NotFound, InvalidArgument."""
        request = UpdateServiceRequest(
            request_id=self._caller.ids.new_id(), ref=ref, spec=spec, version=version
        )
        return await self._caller.call("UpdateService", request, Service)

    async def change(self, ref: str, edit: Callable[[ServiceSpec], ServiceSpec]) -> Service:
        """Read, `edit` and write back; again from the start when somebody else was faster. An
        edit that changes nothing writes nothing, but for a service whose update is paused, which
        goes on by that. Raises NotFound, InvalidArgument, and Conflict if others were faster every
        time."""
        for attempt in range(1, CHANGE_ATTEMPTS + 1):
            service = (await self.get(ref)).service
            spec = edit(service.spec)
            if spec == service.spec and not is_paused(service):
                return service
            try:
                return await self.update(service.id, spec, version=service.version)
            except Conflict:
                if attempt == CHANGE_ATTEMPTS:
                    raise
        raise AssertionError("the loop returns or raises")

    async def scale(self, ref: str, replicas: int) -> Service:
        """Set the number of replicas; running tasks stay. Raises as `change`."""
        return await self.change(ref, lambda spec: replace(spec, replicas=replicas))

    async def rollback(
        self, ref: str, *, revision: int | None = None, version: int | None = None
    ) -> Service:
        """Give it the spec of an earlier revision; without one, that before its last update.
        Watched as closely as an update. Raises NotFound, Refused when there is none to go back
        to, and Conflict if the service was changed since `version`."""
        request = RollbackServiceRequest(
            request_id=self._caller.ids.new_id(), ref=ref, revision=revision, version=version
        )
        return await self._caller.call("RollbackService", request, Service)

    async def history(self, ref: str, *, is_stale: bool = False) -> tuple[Revision, ...]:
        """The specs it has had, the newest first, as far as they are kept. Raises NotFound."""
        request = ListRevisionsRequest(service=ref, is_stale=is_stale)
        return (await self._caller.call("ListRevisions", request, ListRevisionsResponse)).revisions

    async def remove(self, ref: str) -> RemoveResponse:
        """Mark the service for removal: its tasks are stopped, then it goes. Raises NotFound."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveService", request, RemoveResponse)

    async def _snapshot(
        self, request: ListServicesRequest, deadline_s: float | None
    ) -> ListServicesResponse:
        return await self._caller.call(
            "ListServices", request, ListServicesResponse, deadline_s=deadline_s
        )


class Tasks:
    """Attempts to run one slot of a service."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> Task:
        """One task. Raises NotFound."""
        return await self._caller.call("GetTask", GetRequest(ref=ref, is_stale=is_stale), Task)

    async def list(
        self,
        *,
        service: str | None = None,
        node: str | None = None,
        stack: str | None = None,
        is_all: bool = False,
        is_stale: bool = False,
    ) -> tuple[Task, ...]:
        """Tasks by service name, slot and newest first; ended ones only with `is_all`. Raises
        NotFound for an unknown service, node or stack."""
        request = ListTasksRequest(
            service=service, node=node, stack=stack, is_all=is_all, is_stale=is_stale
        )
        return (await self._caller.call("ListTasks", request, ListTasksResponse)).tasks

    async def remove(self, ref: str) -> RemoveResponse:
        """Stop one task; its service gets another one in its place. Raises NotFound."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveTask", request, RemoveResponse)

    async def start_exec(self, ref: str, spec: ExecSpec) -> Execution:
        """Run a program inside a running task, wherever that is, and speak to it. Close it at the
        end. Raises NotFound, Refused (the task doesn't run, the program can't be started),
        Unavailable when nothing was done."""
        return await execution.execute(self._caller, ref, spec)

    async def exec(self, ref: str, spec: ExecSpec) -> ExecResult:
        """Run a program inside a running task, without input, and wait for its end. Raises as
        `start_exec`, and OutcomeUnknown when the connection is lost."""
        return await execution.run(self._caller, ref, spec)


class Stacks:
    """Named sets of services, deployed as one."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> Stack:
        """One stack. Raises NotFound."""
        return await self._caller.call("GetStack", GetRequest(ref=ref, is_stale=is_stale), Stack)

    async def list(self, *, is_stale: bool = False) -> tuple[Stack, ...]:
        """All stacks, by name."""
        return (await self.snapshot(is_stale=is_stale)).stacks

    async def snapshot(self, *, is_stale: bool = False) -> ListStacksResponse:
        """All stacks with the version they were read at."""
        request = ListStacksRequest(is_stale=is_stale)
        return await self._caller.call("ListStacks", request, ListStacksResponse)

    async def deploy(
        self,
        spec: StackSpec,
        *,
        configs: Sequence[ConfigSpec] = (),
        secrets: Sequence[SecretSpec] = (),
        is_prune: bool = False,
    ) -> DeployStackResponse:
        """Make the cluster hold this stack, all of it or nothing. Services that the stack no
        longer names stay, and are named in the answer, unless `is_prune`. Raises
        InvalidArgument, AlreadyExists (a published port or a name that is another's).

        The stack's own `configs` and `secrets` are written first. Where the stack had another
        content under a name before, a new one is made beside it, and the services that use that
        name are given the new one: the answer's stack says the names."""
        spec = await write_files(self._caller, spec, configs, secrets)
        request = DeployStackRequest(
            request_id=self._caller.ids.new_id(), spec=spec, is_prune=is_prune
        )
        return await self._caller.call("DeployStack", request, DeployStackResponse)

    async def remove(self, ref: str) -> RemoveResponse:
        """Remove the stack and, once their tasks have ended, its services. Raises NotFound."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveStack", request, RemoveResponse)


class Networks:
    """What tasks are connected by, and kept apart by."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> NetworkView:
        """One network, and who is on it. Raises NotFound."""
        request = GetRequest(ref=ref, is_stale=is_stale)
        return await self._caller.call("GetNetwork", request, NetworkView)

    async def list(
        self, *, stack: str | None = None, is_stale: bool = False
    ) -> tuple[NetworkView, ...]:
        """All networks, or those of one stack, by name. Raises NotFound for an unknown stack."""
        request = ListNetworksRequest(stack=stack, is_stale=is_stale)
        return (await self._caller.call("ListNetworks", request, ListNetworksResponse)).networks

    async def create(self, spec: NetworkSpec) -> Network:
        """A new network. Raises AlreadyExists, InvalidArgument."""
        request = CreateNetworkRequest(request_id=self._caller.ids.new_id(), spec=spec)
        return await self._caller.call("CreateNetwork", request, Network)

    async def remove(self, ref: str) -> RemoveResponse:
        """Remove a network that no service uses. Raises NotFound, FailedPrecondition."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveNetwork", request, RemoveResponse)

    async def diagnose(self, name: str = "", from_task: str = "") -> DiagnoseNetworkResponse:
        """How every node's netproxy sees the network; or, with both arguments, what `name` leads
        to for the task `from_task`. Raises NotFound for an unknown task."""
        request = DiagnoseNetworkRequest(name=name, from_task=from_task)
        return await self._caller.call("DiagnoseNetwork", request, DiagnoseNetworkResponse)
