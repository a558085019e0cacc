"""Where services can be reached: a pure projection of the cluster database.

Managers compute it, netproxies follow it as one versioned stream. An update carries
`from_version`; a netproxy that isn't exactly there asks for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.base import ClusterId, NetworkId, NodeId, ServiceId, Struct, TaskId, lookup
from skep.domain.notes import WIREGUARD_KEY_NOTE
from skep.domain.objects import Attachment, Network, Node, Service, Task, Vip
from skep.domain.spec import EndpointMode, ExposedPort, Port
from skep.domain.states import DesiredState, TaskState

ENDPOINT_FORMAT = 1


class Endpoint(Struct, frozen=True, kw_only=True):
    """One task, at `address` in the relay plane, at its `attachments` in the kernel plane, on the
    target port of each of the service's ports. `name` is the task's own, `service.slot`."""

    task_id: TaskId
    node_id: NodeId
    address: str
    attachments: tuple[Attachment, ...] = ()
    name: str = ""


class NetworkPlace(Struct, frozen=True, kw_only=True):
    """That a service is on a network, and what else it is called there."""

    network_id: NetworkId
    aliases: tuple[str, ...] = ()


class ServiceEndpoints(Struct, frozen=True, kw_only=True):
    """A service's ports and addresses, and its healthy tasks (`endpoints`), by task id.

    `others` are tasks on networks that live but don't serve: they start, or are draining. No new
    connection goes to them, but they are to be reachable by address all the same.
    """

    service_id: ServiceId
    name: str
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    exposed: tuple[ExposedPort, ...] = ()
    networks: tuple[NetworkPlace, ...] = ()
    vips: tuple[Vip, ...] = ()
    others: tuple[Endpoint, ...] = ()


class NetworkEntry(Struct, frozen=True, kw_only=True):
    """A network that has been allocated."""

    network_id: NetworkId
    name: str
    vni: int
    subnet: str
    gateway: str = ""
    is_internal: bool = False
    is_ingress: bool = False
    is_encrypted: bool = False


class MeshNode(Struct, frozen=True, kw_only=True):
    """Where the netproxy of a node takes connections from other nodes; its address in the
    underlay, and its own on the ingress network; its public WireGuard key, if it can encrypt."""

    node_id: NodeId
    mesh_address: str
    name: str = ""
    address: str = ""
    ingress_address: str = ""
    plane: str = "relay"
    wireguard_key: str = ""


class NetworkQuestion(Struct, frozen=True, kw_only=True):
    """A person wants to know how a node sees the network: all of it in short, or (`name`) what
    this name leads to for the task `task_id` of this node. Answered by a `Diagnosis`."""

    id: str
    name: str = ""
    task_id: TaskId | None = None


class Probe(Struct, frozen=True, kw_only=True):
    """One endpoint, tried just now. `latency_ns` is absent where `error` says what went wrong."""

    task_id: TaskId
    node_id: NodeId
    address: str
    latency_ns: int | None = None
    error: str = ""


class NameAnswer(Struct, frozen=True, kw_only=True):
    """What a name leads to for one task: `kind` is "vip", "tasks" or "unknown"."""

    name: str
    kind: str
    network: str = ""
    service: str = ""
    addresses: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    why: str = ""


class Diagnosis(Struct, frozen=True, kw_only=True):
    """How one node's netproxy sees the network. `problems` are what it couldn't put in force,
    `differences` where the world (the kernel, its workers) isn't as it has put it."""

    question_id: str
    node_id: NodeId
    plane: str
    held_version: int
    applied_version: int
    problems: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    answer: NameAnswer | None = None


class EndpointUpdate(Struct, frozen=True, kw_only=True):
    """One step of the stream, or (`is_complete`) the whole of it. One step may come in several
    frames: all but the last say `is_partial`. An update with nothing in it moves the version; one
    with a `question` has nothing else, and moves nothing."""

    from_version: int
    version: int
    is_complete: bool = False
    is_partial: bool = False
    services: tuple[ServiceEndpoints, ...] = ()
    removed_services: tuple[ServiceId, ...] = ()
    nodes: tuple[MeshNode, ...] = ()
    removed_nodes: tuple[NodeId, ...] = ()
    networks: tuple[NetworkEntry, ...] = ()
    removed_networks: tuple[NetworkId, ...] = ()
    question: NetworkQuestion | None = None


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
    diagnosis: Diagnosis | None = None


def is_serving(task: Task) -> bool:
    """Whether new connections may go to this task."""
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
        and task.node_id is not None
    )


def is_placed(task: Task) -> bool:
    """Whether a task is on a node and may have a process there."""
    return task.node_id is not None and not task.is_terminal


def project_service(
    service: Service, tasks: Iterable[Task], networks: Iterable[NetworkPlace]
) -> ServiceEndpoints | None:
    """The endpoints of one service on these networks. None for one that has neither ports nor
    networks, and for one that is being removed once no task of it is left."""
    placed = sorted((t for t in tasks if is_placed(t)), key=lambda t: t.id)
    on_networks = tuple(networks)
    if service.is_removing:
        others = tuple(_endpoint(t) for t in placed if t.attachments)
        if not others:
            return None
        return ServiceEndpoints(service_id=service.id, name=service.name, others=others)
    if not service.ports and not on_networks:
        return None
    return ServiceEndpoints(
        service_id=service.id,
        name=service.name,
        ports=service.ports or (),
        endpoints=tuple(_endpoint(t) for t in placed if is_serving(t)),
        endpoint_mode=service.spec.endpoint_mode,
        exposed=service.spec.exposed,
        networks=on_networks,
        vips=service.vips,
        others=tuple(_endpoint(t) for t in placed if t.attachments and not is_serving(t)),
    )


def _endpoint(task: Task) -> Endpoint:
    assert task.node_id is not None
    return Endpoint(
        task_id=task.id,
        node_id=task.node_id,
        address=task.address,
        attachments=task.attachments,
        name=task.name,
    )


def project_network(network: Network) -> NetworkEntry | None:
    """A network's entry; None for one that the allocator hasn't come to yet."""
    if network.vni is None:
        return None
    return NetworkEntry(
        network_id=network.id,
        name=network.name,
        vni=network.vni,
        subnet=network.subnet,
        gateway=network.gateway,
        is_internal=network.spec.is_internal,
        is_ingress=network.is_ingress,
        is_encrypted=network.spec.is_encrypted,
    )


def project_node(node: Node) -> MeshNode | None:
    """A node's mesh entry; None for a node without a netproxy."""
    description = node.description
    if not description.mesh_address:
        return None
    return MeshNode(
        node_id=node.id,
        mesh_address=description.mesh_address,
        name=node.name,
        address=description.address,
        ingress_address=node.ingress_address,
        plane=description.plane,
        wireguard_key=lookup(description.notes, WIREGUARD_KEY_NOTE) or "",
    )
