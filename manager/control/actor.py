"""The control API of one manager: it answers what it may, and passes the rest to the leader.

Mutations and linearizable reads are the leader's. A manager that doesn't lead passes such a call
on, once and unchanged, so that the client's request id travels with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import msgspec

from skep.api import codec
from skep.domain.base import NodeId, ServiceId, Struct, encode, replace
from skep.domain.control import (
    CreateNetworkRequest,
    CreateServiceRequest,
    DeployStackRequest,
    DeployStackResponse,
    GetClusterRequest,
    GetClusterResponse,
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
from skep.domain.objects import (
    Cluster,
    Network,
    Node,
    Object,
    Request,
    Service,
    Stack,
    Task,
)
from skep.domain.validate import check_request_id
from skep.env import CallError, CallHandler, Channel, Code, Env, Rejected, Retryable
from skep.manager.control import storage
from skep.manager.control.core import networks, nodes, services, stacks
from skep.manager.control.core.find import find
from skep.manager.control.core.views import select_tasks, service_view
from skep.manager.leading import catch_up, no_leader
from skep.manager.store.actor import NotLeading, Store
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Struct)
Q = TypeVar("Q", bound=Struct)

FORWARDED = "forwarded/"
FORWARD_DEADLINE_S = 10.0
RELEASE = "0.1.0"


class Leadership(Protocol):
    """What the API needs to know of who leads."""

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads."""
        ...

    @property
    def leader_id(self) -> NodeId | None:
        """The leading manager's node, if known."""
        ...

    @property
    def leader_address(self) -> str | None:
        """Where the leader's control API is, if known."""
        ...

    @property
    def term(self) -> int:
        """The present term."""
        ...

    def is_applied_everywhere(self, service_id: ServiceId) -> bool:
        """Whether all netproxies have a service's endpoints; True where this isn't known."""
        ...

    def ingress_problems(self, service_name: str) -> tuple[str, ...]:
        """What netproxies can't put in force of a service; empty where this isn't known."""
        ...


class Control:
    """Handlers by method name; see proto/skep/v1/control.proto."""

    def __init__(self, env: Env, store: Store, leadership: Leadership) -> None:
        self._env = env
        self._store = store
        self._leadership = leadership
        self._channels: dict[str, Channel] = {}

    def handlers(self) -> dict[str, CallHandler]:
        """Every unary method of the Control service, and its forwarded twin."""
        ids = self._env.ids.new_id
        mutations: dict[str, tuple[type[Any], type[Any], Callable[[Transaction, Any], Any]]] = {
            "UpdateNode": (UpdateNodeRequest, Node, nodes.update_node),
            "RemoveNode": (RemoveRequest, RemoveResponse, nodes.remove_node),
            "CreateService": (
                CreateServiceRequest,
                Service,
                lambda tx, request: services.create_service(tx, request, ids),
            ),
            "UpdateService": (UpdateServiceRequest, Service, services.update_service),
            "RollbackService": (RollbackServiceRequest, Service, services.rollback_service),
            "RemoveService": (RemoveRequest, RemoveResponse, services.remove_service),
            "RemoveTask": (RemoveRequest, RemoveResponse, services.remove_task),
            "DeployStack": (
                DeployStackRequest,
                DeployStackResponse,
                lambda tx, request: stacks.deploy_stack(tx, request, ids),
            ),
            "RemoveStack": (RemoveRequest, RemoveResponse, stacks.remove_stack),
            "CreateNetwork": (
                CreateNetworkRequest,
                Network,
                lambda tx, request: networks.create_network(tx, request, ids),
            ),
            "RemoveNetwork": (RemoveRequest, RemoveResponse, networks.remove_network),
            **storage.mutations(ids),
        }
        reads: dict[str, tuple[type[Any], Callable[[Any], Struct]]] = {
            "GetCluster": (GetClusterRequest, self._get_cluster),
            "ListNodes": (ListNodesRequest, self._list_nodes),
            "GetNode": (GetRequest, lambda request: self._get(Node, request)),
            "GetService": (GetRequest, lambda request: self._view(self._get(Service, request))),
            "ListServices": (ListServicesRequest, self._list_services),
            "ListRevisions": (ListRevisionsRequest, self._list_revisions),
            "GetTask": (GetRequest, lambda request: self._get(Task, request)),
            "ListTasks": (ListTasksRequest, self._list_tasks),
            "GetStack": (GetRequest, lambda request: self._get(Stack, request)),
            "ListStacks": (ListStacksRequest, self._list_stacks),
            "GetNetwork": (GetRequest, self._get_network),
            "ListNetworks": (ListNetworksRequest, self._list_networks),
            **storage.Reads(self._store).by_name(),
        }
        found: dict[str, CallHandler] = {}
        for name, (kind, answer, fn) in mutations.items():
            method = f"skep.v1.Control/{name}"
            found[method] = self._mutation(method, kind, answer, fn, may_forward=True)
            found[FORWARDED + method] = self._mutation(method, kind, answer, fn, may_forward=False)
        for name, (kind, read) in reads.items():
            method = f"skep.v1.Control/{name}"
            found[method] = self._read(method, kind, read, may_forward=True)
            found[FORWARDED + method] = self._read(method, kind, read, may_forward=False)
        return found

    async def close(self) -> None:
        """Give the channels to other managers back."""
        for channel in self._channels.values():
            await channel.close()

    # ------------------------------------------------------------------------ two shapes

    def _mutation(
        self,
        method: str,
        kind: type[Q],
        answer_kind: type[A],
        fn: Callable[[Transaction, Q], A],
        *,
        may_forward: bool,
    ) -> CallHandler:
        async def handle(data: bytes) -> bytes:
            request = codec.decode(kind, data)
            check_request_id(request)
            if not self._leadership.is_leader:
                return await self._forward(method, data, may_forward)

            def run(tx: Transaction) -> A:
                return _once(tx, method, request, answer_kind, lambda: fn(tx, request))

            try:
                answer = await self._store.update(run)
            except NotLeading:
                # Nothing was done; the client tries again, and by then somebody leads.
                raise CallError(Code.UNAVAILABLE, "leadership has just changed") from None
            except Retryable as error:
                raise CallError(
                    Code.RESOURCE_EXHAUSTED, str(error), {"retry-after-ms": "200"}
                ) from None
            return codec.encode(self._fresh(answer))

        return handle

    def _read(
        self, method: str, kind: type[Q], read: Callable[[Q], Struct], *, may_forward: bool
    ) -> CallHandler:
        async def handle(data: bytes) -> bytes:
            request = codec.decode(kind, data)
            if not getattr(request, "is_stale", False):
                if not self._leadership.is_leader:
                    return await self._forward(method, data, may_forward)
                await catch_up(self._store)
            return codec.encode(read(request))

        return handle

    async def _forward(self, method: str, data: bytes, may_forward: bool) -> bytes:
        address = self._leadership.leader_address
        if not may_forward or address is None:
            raise no_leader()
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._env.transport.channel(address)
        return await channel.call(FORWARDED + method, data, deadline_s=FORWARD_DEADLINE_S)

    def _fresh(self, answer: Struct) -> Struct:
        """The answer with its object as it is now: with its version, which the transaction could
        not know yet."""
        if isinstance(answer, DeployStackResponse):
            return replace(answer, stack=cast("Stack", self._fresh(answer.stack)))
        if isinstance(answer, Object):
            return self._store.tables.get(type(answer), answer.id) or answer
        return storage.fresh(self._store.tables, answer)

    # ---------------------------------------------------------------------------- reads

    def _get(self, kind: type[Any], request: GetRequest) -> Any:
        return find(self._store.tables, kind, request.ref)

    def _view(self, service: Service) -> ServiceView:
        view = service_view(self._store.tables, service)
        problems = self._leadership.ingress_problems(service.name)
        if problems:
            return replace(view, is_converged=False, problems=(*problems, *view.problems))
        if view.is_converged and not self._leadership.is_applied_everywhere(service.id):
            return replace(view, is_converged=False)
        return view

    def _get_cluster(self, request: GetClusterRequest) -> GetClusterResponse:
        cluster = next(iter(self._store.tables.all(Cluster)), None)
        if cluster is None:
            raise CallError(Code.UNAVAILABLE, "the cluster is just being founded; try again")
        return GetClusterResponse(
            cluster=cluster,
            leader_id=self._leadership.leader_id,
            term=self._leadership.term,
            version=self._store.version,
            release=RELEASE,
        )

    def _list_nodes(self, request: ListNodesRequest) -> ListNodesResponse:
        rows = sorted(self._store.tables.all(Node), key=lambda node: (node.name, node.id))
        return ListNodesResponse(
            nodes=tuple(rows), leader_id=self._leadership.leader_id, version=self._store.version
        )

    def _list_services(self, request: ListServicesRequest) -> ListServicesResponse:
        rows = sorted(self._store.tables.all(Service), key=lambda row: (row.name, row.id))
        if request.stack is not None:
            stack = find(self._store.tables, Stack, request.stack)
            rows = [row for row in rows if row.stack_id == stack.id]
        return ListServicesResponse(
            services=tuple(self._view(row) for row in rows), version=self._store.version
        )

    def _list_revisions(self, request: ListRevisionsRequest) -> ListRevisionsResponse:
        service = find(self._store.tables, Service, request.service)
        rows = sorted(
            self._store.tables.revisions_of(service.id), key=lambda row: row.number, reverse=True
        )
        return ListRevisionsResponse(revisions=tuple(rows), version=self._store.version)

    def _list_tasks(self, request: ListTasksRequest) -> ListTasksResponse:
        tasks = select_tasks(self._store.tables, request)
        return ListTasksResponse(tasks=tasks, version=self._store.version)

    def _list_stacks(self, request: ListStacksRequest) -> ListStacksResponse:
        rows = sorted(self._store.tables.all(Stack), key=lambda row: (row.name, row.id))
        return ListStacksResponse(stacks=tuple(rows), version=self._store.version)

    def _get_network(self, request: GetRequest) -> NetworkView:
        [found] = networks.network_views(self._store.tables, [self._get(Network, request)])
        return found

    def _list_networks(self, request: ListNetworksRequest) -> ListNetworksResponse:
        rows = sorted(self._store.tables.all(Network), key=lambda row: (row.name, row.id))
        if request.stack is not None:
            stack = find(self._store.tables, Stack, request.stack)
            rows = [row for row in rows if row.stack_id == stack.id]
        return ListNetworksResponse(
            networks=networks.network_views(self._store.tables, rows), version=self._store.version
        )


def _once(
    tx: Transaction, method: str, request: Any, answer_kind: type[A], run: Callable[[], A]
) -> A:
    """Run a mutation unless its request id was answered before."""
    done = tx.get(Request, request.request_id)
    digest = hashlib.sha256(encode(request)).hexdigest()
    if done is not None:
        if (done.method, done.digest) != (method, digest):
            raise Rejected(
                f"request_id: {request.request_id!r} was used for another request, a {done.method}",
                field="request_id",
            )
        return msgspec.msgpack.decode(done.answer, type=answer_kind)
    answer = run()
    row = Request(
        id=request.request_id,
        method=method,
        digest=digest,
        answer=msgspec.msgpack.encode(answer),
    )
    tx.create(row)
    return answer
