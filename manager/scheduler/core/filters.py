"""Filters: each one looks at a node and a task, and explains itself to the user.

Order and wording follow Docker Swarm's, so that people's habits and scripts still work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skep.domain.base import NodeId, ServiceId
from skep.domain.constraints import are_met, is_supported
from skep.domain.notes import can_encrypt
from skep.domain.objects import Availability, Node, NodeState, Task
from skep.domain.spec import Protocol, TaskSpec

HostPort = tuple[int, Protocol]
"""A port in host mode, as its node sees it: the published number."""


@dataclass(frozen=True)
class VolumeUse:
    """A node-local volume of a task's slot."""

    name: str
    is_movable: bool = False


@dataclass(frozen=True)
class Demand:
    """A task, and what it asks of a node. `lacks_port`: one of its host ports has no number yet.
    `is_encrypted`: one of its networks is. `nodes` are those that its `volumes` leave to it (None:
    all), and `pins` says which of them hold it there: no filter, since only those are looked at."""

    task: Task
    spec: TaskSpec
    host_ports: tuple[HostPort, ...] = ()
    lacks_port: bool = False
    is_encrypted: bool = False
    volumes: tuple[VolumeUse, ...] = ()
    nodes: frozenset[NodeId] | None = None
    pins: tuple[str, ...] = ()


@dataclass
class SlotCount:
    """Active tasks of one service. A task never competes with what is in its own slot already:
    that one is going away, at the latest once its successor is healthy."""

    total: int = 0
    by_slot: dict[int, int] = field(default_factory=dict)

    def add(self, slot: int, count: int = 1) -> None:
        """More tasks in one slot."""
        self.total += count
        self.by_slot[slot] = self.by_slot.get(slot, 0) + count

    def others(self, slot: int) -> int:
        """Those of all other slots."""
        return self.total - self.by_slot.get(slot, 0)


_NONE = SlotCount()


@dataclass(eq=False)
class NodeLoad:
    """A node and what is on it.

    Resources and host ports are held by every task that has not ended. `tasks` and `by_service`
    count the active ones, which are those that are wanted; `failures` those that failed on it a
    short while ago, by service and task revision.
    """

    node: Node
    free_cpu_nano: int
    free_memory_bytes: int
    tasks: int = 0
    by_service: dict[ServiceId, SlotCount] = field(default_factory=dict)
    host_ports: set[HostPort] = field(default_factory=set)
    failures: dict[tuple[ServiceId, int], int] = field(default_factory=dict)

    def add(self, demand: Demand) -> None:
        """Put a task on it."""
        self.free_cpu_nano -= demand.spec.reservations.cpu_nano or 0
        self.free_memory_bytes -= demand.spec.reservations.memory_bytes or 0
        self.host_ports.update(demand.host_ports)
        if demand.task.is_wanted:
            self.tasks += 1
            self.by_service.setdefault(demand.task.service_id, SlotCount()).add(demand.task.slot)

    def active(self, service_id: ServiceId) -> SlotCount:
        """The active tasks of a service; not to be changed."""
        return self.by_service.get(service_id, _NONE)


@dataclass(frozen=True)
class Filter:
    """One reason for refusing a node. `explain` words the count of refused nodes."""

    name: str
    passes: Callable[[NodeLoad, Demand], bool]
    explain: Callable[[int], str]


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _is_ready(load: NodeLoad, demand: Demand) -> bool:
    node = load.node
    return node.state is NodeState.READY and node.availability is Availability.ACTIVE


def _has_room(load: NodeLoad, demand: Demand) -> bool:
    wanted = demand.spec.reservations
    has_cpu = (wanted.cpu_nano or 0) <= max(load.free_cpu_nano, 0)
    return has_cpu and (wanted.memory_bytes or 0) <= max(load.free_memory_bytes, 0)


def _has_engine(load: NodeLoad, demand: Demand) -> bool:
    return demand.spec.engine in load.node.description.engines


def _can_encrypt(load: NodeLoad, demand: Demand) -> bool:
    return not demand.is_encrypted or can_encrypt(load.node.description.notes)


def _meets_constraints(load: NodeLoad, demand: Demand) -> bool:
    return are_met(demand.spec.placement.constraints, load.node)


def _has_platform(load: NodeLoad, demand: Demand) -> bool:
    platforms = demand.spec.placement.platforms
    return not platforms or is_supported(platforms, load.node.description)


def _has_host_ports(load: NodeLoad, demand: Demand) -> bool:
    return load.host_ports.isdisjoint(demand.host_ports)


def _is_below_most(load: NodeLoad, demand: Demand) -> bool:
    most = demand.spec.placement.max_replicas_per_node
    return most is None or load.active(demand.task.service_id).others(demand.task.slot) < most


FILTERS: tuple[Filter, ...] = (
    Filter(
        "ready",
        _is_ready,
        lambda count: f"{_nodes(count)} not available for new tasks",
    ),
    Filter("resources", _has_room, lambda count: f"insufficient resources on {_nodes(count)}"),
    Filter("engine", _has_engine, lambda count: f"engine missing on {_nodes(count)}"),
    # Swarm has none like it: there, every node can.
    Filter(
        "encryption",
        _can_encrypt,
        lambda count: f"a network is encrypted, which {_nodes(count)} can't",
    ),
    Filter(
        "constraints",
        _meets_constraints,
        lambda count: f"scheduling constraints not satisfied on {_nodes(count)}",
    ),
    Filter("platform", _has_platform, lambda count: f"unsupported platform on {_nodes(count)}"),
    Filter(
        "host port",
        _has_host_ports,
        lambda count: f"host-mode port already in use on {_nodes(count)}",
    ),
    # The only one that looks at the task's slot, and last: what it refuses, no other one does.
    Filter("max replicas", _is_below_most, lambda count: "max replicas per node limit exceed"),
)


def first_refusal(load: NodeLoad, demand: Demand) -> Filter | None:
    """The first filter that refuses the node, or None when it passes all."""
    for each in FILTERS:
        if not each.passes(load, demand):
            return each
    return None


def explain(refused: Mapping[str, int], pins: tuple[str, ...] = ()) -> str:
    """Why no node will do: what holds the task to some of them, then the filter that refused most
    of those."""
    texts = {each.name: each.explain for each in FILTERS}
    ranked = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    reasons = [*pins, *(texts[name](count) for name, count in ranked)]
    return f"no suitable node ({'; '.join(reasons)})" if reasons else "no suitable node"


def loads_by_node(nodes: Mapping[NodeId, Node]) -> dict[NodeId, NodeLoad]:
    """Every node with nothing on it yet."""
    return {
        node.id: NodeLoad(node, node.description.cpu_nano, node.description.memory_bytes)
        for node in nodes.values()
        if node.runs_tasks
    }
