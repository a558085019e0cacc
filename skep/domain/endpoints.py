"""Where services can be reached: a pure projection of the cluster database.

Managers compute it, netproxies follow it as one versioned stream. An update carries
`from_version`; a netproxy that isn't exactly there asks for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.base import ClusterId, NodeId, ServiceId, Struct, TaskId
from skep.domain.objects import Node, Service, Task
from skep.domain.spec import Port
from skep.domain.states import DesiredState, TaskState

ENDPOINT_FORMAT = 1


class Endpoint(Struct, frozen=True, kw_only=True):
    """One task that serves, at `address` on the target port of each of the service's ports."""

    task_id: TaskId
    node_id: NodeId
    address: str


class ServiceEndpoints(Struct, frozen=True, kw_only=True):
    """A service's published ports and the healthy tasks behind them, by task id."""

    service_id: ServiceId
    name: str
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


class MeshNode(Struct, frozen=True, kw_only=True):
    """Where the netproxy of a node takes connections from other nodes."""

    node_id: NodeId
    mesh_address: str


class EndpointUpdate(Struct, frozen=True, kw_only=True):
    """One step of the stream, or (`is_complete`) the whole of it. One step may come in several
    frames: all but the last say `is_partial`. An update with nothing in it moves the version."""

    from_version: int
    version: int
    is_complete: bool = False
    is_partial: bool = False
    services: tuple[ServiceEndpoints, ...] = ()
    removed_services: tuple[ServiceId, ...] = ()
    nodes: tuple[MeshNode, ...] = ()
    removed_nodes: tuple[NodeId, ...] = ()


class NetproxyHello(Struct, frozen=True, kw_only=True):
    """The first message up. `applied_version` 0 asks for the whole."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId
    applied_version: int = 0


class NetproxyApplied(Struct, frozen=True, kw_only=True):
    """Everything up to `version` is in force on this node, but for `errors`: each begins with the
    name of the service that it concerns, and a colon."""

    version: int
    errors: tuple[str, ...] = ()


class NetproxyMessage(Struct, frozen=True, kw_only=True):
    """One frame up: one of its parts."""

    hello: NetproxyHello | None = None
    applied: NetproxyApplied | None = None


def is_serving(task: Task) -> bool:
    """Whether new connections may go to this task."""
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
        and task.node_id is not None
    )


def project_service(service: Service, tasks: Iterable[Task]) -> ServiceEndpoints | None:
    """The endpoints of one service; None for one that has no ports or is being removed."""
    if service.is_removing or not service.ports:
        return None
    serving = sorted((t for t in tasks if is_serving(t)), key=lambda t: t.id)
    return ServiceEndpoints(
        service_id=service.id,
        name=service.name,
        ports=service.ports,
        endpoints=tuple(
            Endpoint(task_id=t.id, node_id=t.node_id, address=t.address)
            for t in serving
            if t.node_id is not None
        ),
    )


def project_node(node: Node) -> MeshNode | None:
    """A node's mesh entry; None for a node without a netproxy."""
    if not node.description.mesh_address:
        return None
    return MeshNode(node_id=node.id, mesh_address=node.description.mesh_address)
