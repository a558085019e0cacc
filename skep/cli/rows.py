"""Domain objects as the rows that tables, JSON and YAML show. Pure."""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from skep.cli import updatewords
from skep.domain.base import Pairs
from skep.domain.control import NetworkView, ServiceView
from skep.domain.objects import Node, NodeRole, Service, Stack, Task
from skep.domain.spec import Port, PortMode, ProxyProtocol, ServiceSpec
from skep.domain.states import TaskState

NS_PER_S = 1_000_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of rows. Every field is shown, whatever its value."""


class NodeRow(Row, frozen=True, kw_only=True):
    """`address` is where the node is reached; `leader` marks the leading manager."""

    id: str
    name: str
    address: str
    role: str
    status: str
    availability: str
    leader: bool
    labels: dict[str, str]
    message: str


class PortRow(Row, frozen=True, kw_only=True):
    """A published port. `published` is null until one was picked."""

    published: int | None
    target: int
    protocol: str
    mode: str = PortMode.INGRESS.value
    proxy_protocol: str = ProxyProtocol.NONE.value
    accepts_proxy_protocol: bool = False


class ServiceRow(Row, frozen=True, kw_only=True):
    """`running` counts the healthy tasks of the present spec; `failed` says that the restart
    policy tries no more, `rolled_back` that the cluster gave up what was asked for last; `update`
    is the state of its newest update, `update_message` why."""

    id: str
    name: str
    mode: str
    running: int
    desired: int
    converged: bool
    failed: bool
    rolled_back: bool
    removing: bool
    image: str
    ports: list[PortRow]
    problems: list[str]
    update: str | None
    update_message: str


class TaskRow(Row, frozen=True, kw_only=True):
    """`since` is Unix time in seconds; `is_current` marks the first of its slot; `image` is that
    of its own revision; `ports` are those that it publishes on its node alone; `networks` are its
    addresses by the networks' names."""

    id: str
    name: str
    service: str
    slot: int
    node: str | None
    desired_state: str
    state: str
    healthy: bool
    since: float
    message: str
    error: str
    exit_code: int | None
    pid: int | None
    address: str
    revision: int
    is_current: bool
    image: str
    ports: list[PortRow]
    networks: dict[str, str]


class RevisionRow(Row, frozen=True, kw_only=True):
    """A spec that a service has had. `created` is Unix time in seconds, `changes` names what it
    changed of the one before, `running` counts its tasks, `is_present` marks the one in force."""

    revision: int
    created: float
    image: str
    note: str
    changes: str
    running: int
    is_present: bool


class StackRow(Row, frozen=True, kw_only=True):
    """A stack and how many services it names."""

    id: str
    name: str
    services: int
    revision: int


class NetworkRow(Row, frozen=True, kw_only=True):
    """A network; `subnet` is empty, and `vxlan_id` null, until they were given out, and `message`
    says why that isn't so yet. `services` counts those on it, `tasks` the addresses in use."""

    id: str
    name: str
    driver: str
    subnet: str
    vxlan_id: int | None
    services: int
    tasks: int
    internal: bool
    ingress: bool
    removing: bool
    message: str
    labels: dict[str, str]


class ProcessRow(Row, frozen=True, kw_only=True):
    """A process of a local cluster; what is null is not known of one that doesn't run."""

    name: str
    node: str
    kind: str
    pid: int | None
    state: str
    uptime_s: float | None
    address: str
    metrics: str
    memory_bytes: int | None
    log: str


def node_row(node: Node, leader_id: str | None) -> NodeRow:
    """One node."""
    address = node.description.address or node.control_address.rpartition(":")[0]
    return NodeRow(
        id=node.id,
        name=node.name,
        address=address,
        role=node.role.value,
        status=node.state.value,
        availability=node.availability.value,
        leader=node.role is NodeRole.MANAGER and node.id == leader_id,
        labels=dict(node.labels),
        message=node.message,
    )


def ports_of(service: Service) -> tuple[Port, ...]:
    """The ports with what was picked for them, as far as it was."""
    return service.spec.ports if service.ports is None else service.ports


def service_row(view: ServiceView, *, is_failed: bool) -> ServiceRow:
    """One service."""
    service = view.service
    return ServiceRow(
        id=service.id,
        name=service.name,
        mode=service.spec.mode.value,
        running=view.running,
        desired=view.desired,
        converged=view.is_converged,
        failed=is_failed,
        rolled_back=updatewords.is_rolled_back(service),
        removing=service.is_removing,
        image=service.spec.task.run.image,
        ports=[port_row(port) for port in ports_of(service)],
        problems=list(view.problems),
        update=service.update.state.value if service.update else None,
        update_message=service.update.message if service.update else "",
    )


def port_row(port: Port) -> PortRow:
    """One published port."""
    return PortRow(
        published=port.published,
        target=port.target,
        protocol=port.protocol.value,
        mode=port.mode.value,
        proxy_protocol=port.proxy_protocol.value,
        accepts_proxy_protocol=port.accepts_proxy_protocol,
    )


Specs = Mapping[tuple[str, int], ServiceSpec]
"""Specs by service id and revision, as far as they are known."""


def task_rows(
    tasks: Iterable[Task],
    node_names: Mapping[str, str],
    specs: Specs | None = None,
    network_names: Mapping[str, str] | None = None,
) -> list[TaskRow]:
    """Tasks by service and slot; of each slot those that are wanted first, then the newest."""
    ordered = sorted(
        tasks,
        key=lambda task: (task.service_name, task.slot, not task.is_wanted, -_birth(task)),
    )
    rows = []
    before: tuple[str, int] | None = None
    for task in ordered:
        status = task.status
        place = (task.service_id, task.slot)
        spec = (specs or {}).get((task.service_id, task.revision))
        own_ports = spec.ports if spec and not task.is_terminal else ()
        rows.append(
            TaskRow(
                id=task.id,
                name=task.name,
                service=task.service_name,
                slot=task.slot,
                node=node_names.get(task.node_id, task.node_id) if task.node_id else None,
                desired_state=task.desired_state.value,
                state=status.state.value,
                healthy=status.is_healthy,
                since=(status.since_ns or task.updated_ns) / NS_PER_S,
                message=status.message,
                error=status.error,
                exit_code=status.exit_code,
                pid=status.pid,
                address=task.address,
                revision=task.revision,
                is_current=place != before,
                image=spec.task.run.image if spec else "",
                ports=[port_row(p) for p in own_ports if p.mode is PortMode.HOST],
                networks={
                    (network_names or {}).get(at.network_id, at.network_id): at.address
                    for at in task.attachments
                },
            )
        )
        before = place
    return rows


def _birth(task: Task) -> int:
    return task.created_ns or task.version


def stack_row(stack: Stack) -> StackRow:
    """One stack."""
    return StackRow(
        id=stack.id, name=stack.name, services=len(stack.spec.services), revision=stack.revision
    )


def network_row(view: NetworkView) -> NetworkRow:
    """One network."""
    network = view.network
    return NetworkRow(
        id=network.id,
        name=network.name,
        driver=network.spec.driver,
        subnet=network.subnet,
        vxlan_id=network.vni,
        services=len(view.services),
        tasks=view.tasks,
        internal=network.spec.is_internal,
        ingress=network.is_ingress,
        removing=network.is_removing,
        message=network.message,
        labels=dict(network.spec.labels),
    )


# ------------------------------------------------------------------------------ as text


def ports_text(ports: Iterable[PortRow]) -> str:
    """As Docker writes them: "*:8080->80/tcp"; those in mode host, and those that say who the
    client is, are marked."""
    return ", ".join(
        f"*:{'?' if port.published is None else port.published}->{port.target}/{port.protocol}"
        + _marks(port)
        for port in ports
    )


def _marks(port: PortRow) -> str:
    marks = ["host"] if port.mode == PortMode.HOST.value else []
    if port.proxy_protocol != ProxyProtocol.NONE.value:
        marks.append(f"PROXY {port.proxy_protocol}")
    if port.accepts_proxy_protocol:
        marks.append("accepts PROXY")
    return f" ({', '.join(marks)})" if marks else ""


def age_text(seconds: float) -> str:
    """A span of time in one unit, as people say it."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1 and (count >= 2 or name != "day"):
            return f"{count} {name}{'' if count == 1 else 's'}"
    count = max(0, int(seconds))
    return f"{count} second{'' if count == 1 else 's'}"


def state_text(row: TaskRow, now_s: float) -> str:
    """Such as "Running 5 seconds ago". How a task ended is told as its error."""
    words = row.state.capitalize()
    if row.state == TaskState.RUNNING.value and not row.healthy:
        words += " (unhealthy)"
    return f"{words} {age_text(now_s - row.since)} ago" if row.since else words


def size_text(size_bytes: int) -> str:
    """A size in MiB, which is what the memory of processes is about."""
    return f"{size_bytes / 2**20:.1f} MiB"


# --------------------------------------------------------------------------- whole objects


def plain(of: Any) -> Any:
    """A domain object with all its fields, defaults too, in JSON's terms; named strings as maps,
    bytes in base64."""
    if isinstance(of, msgspec.Struct):
        found = {}
        for field in msgspec.structs.fields(of):
            value = getattr(of, field.name)
            found[field.name] = dict(value) if field.type == Pairs else plain(value)
        return found | ({"name": of.name} if isinstance(of, Task) else {})
    if isinstance(of, enum.Enum):
        return of.value
    if isinstance(of, bytes):
        return base64.b64encode(of).decode()
    if isinstance(of, tuple | list):
        return [plain(item) for item in of]
    return of
