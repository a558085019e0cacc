"""Filters: each one looks at a node and a task, and explains itself to the user.

Order and wording follow Docker Swarm's, so that people's habits and scripts still work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skep.domain.base import NodeId, ServiceId
from skep.domain.constraints import are_met
from skep.domain.objects import Availability, Node, NodeState
from skep.domain.spec import TaskSpec


@dataclass
class NodeLoad:
    """A node and what is on it: counted from every task there that has not ended."""

    node: Node
    free_cpu_nano: int
    free_memory_bytes: int
    tasks: int = 0
    by_service: dict[ServiceId, int] = field(default_factory=dict)

    def add(self, service_id: ServiceId, spec: TaskSpec) -> None:
        """Put a task on it."""
        self.tasks += 1
        self.by_service[service_id] = self.by_service.get(service_id, 0) + 1
        self.free_cpu_nano -= spec.reservations.cpu_nano or 0
        self.free_memory_bytes -= spec.reservations.memory_bytes or 0


@dataclass(frozen=True)
class Filter:
    """One reason for refusing a node. `explain` words the count of refused nodes."""

    name: str
    passes: Callable[[NodeLoad, TaskSpec], bool]
    explain: Callable[[int], str]


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _is_ready(load: NodeLoad, spec: TaskSpec) -> bool:
    node = load.node
    return node.state is NodeState.READY and node.availability is Availability.ACTIVE


def _has_room(load: NodeLoad, spec: TaskSpec) -> bool:
    cpu_nano = spec.reservations.cpu_nano or 0
    memory_bytes = spec.reservations.memory_bytes or 0
    return cpu_nano <= max(load.free_cpu_nano, 0) and memory_bytes <= max(load.free_memory_bytes, 0)


def _has_engine(load: NodeLoad, spec: TaskSpec) -> bool:
    return spec.engine in load.node.description.engines


def _meets_constraints(load: NodeLoad, spec: TaskSpec) -> bool:
    return are_met(spec.placement.constraints, load.node)


FILTERS: tuple[Filter, ...] = (
    Filter(
        "ready",
        _is_ready,
        lambda count: f"{_nodes(count)} not available for new tasks",
    ),
    Filter("resources", _has_room, lambda count: f"insufficient resources on {_nodes(count)}"),
    Filter("engine", _has_engine, lambda count: f"engine missing on {_nodes(count)}"),
    Filter(
        "constraints",
        _meets_constraints,
        lambda count: f"scheduling constraints not satisfied on {_nodes(count)}",
    ),
)


def first_refusal(load: NodeLoad, spec: TaskSpec) -> Filter | None:
    """The first filter that refuses the node, or None when it passes all."""
    return next((each for each in FILTERS if not each.passes(load, spec)), None)


def explain(refused: Mapping[str, int]) -> str:
    """Why no node will do: the filter that refused most comes first."""
    if not refused:
        return "no suitable node"
    texts = {each.name: each.explain for each in FILTERS}
    ranked = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    return f"no suitable node ({'; '.join(texts[name](count) for name, count in ranked)})"


def loads_by_node(nodes: Mapping[NodeId, Node]) -> dict[NodeId, NodeLoad]:
    """Every node with nothing on it yet."""
    return {
        node.id: NodeLoad(node, node.description.cpu_nano, node.description.memory_bytes)
        for node in nodes.values()
        if node.runs_tasks
    }
