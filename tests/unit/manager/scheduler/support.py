"""Clusters and crowds for the scheduler's tests, and its decisions as plain dicts."""

from __future__ import annotations

from typing import Any

from skep.domain.base import SECOND_NS, NodeId, ServiceId, pairs, replace
from skep.domain.objects import Node, Task
from skep.domain.spec import Placement, Resources, RunSpec, TaskSpec
from skep.domain.states import TaskState
from skep.manager.scheduler.core.filters import Demand, HostPort, loads_by_node
from skep.manager.scheduler.core.place import count_loads, place
from skep.manager.scheduler.core.volumes import Places
from tests.unit.manager.build import node, task

PLAIN = TaskSpec(run=RunSpec(command=("serve",)))
NOW_NS = 10_000 * SECOND_NS


def wants(**reservations: Any) -> TaskSpec:
    return replace(PLAIN, reservations=Resources(**reservations))


def placed_by(**placement: Any) -> TaskSpec:
    return replace(PLAIN, placement=Placement(**placement))


def limited(most: int, *constraints: str) -> TaskSpec:
    return placed_by(max_replicas_per_node=most, constraints=constraints)


def spread_over(*labels: str, **reservations: Any) -> TaskSpec:
    placement = Placement(preferences=tuple(f"node.labels.{label}" for label in labels))
    return replace(wants(**reservations), placement=placement)


def labelled(name: str, **labels: str) -> Node:
    return node(name, labels=pairs(labels))


def waiting(*ids: str, of: str = "s1", first_slot: int = 1, **changes: Any) -> list[Task]:
    return [
        task(id_, TaskState.PENDING, **{"service_id": ServiceId(of), "slot": n, **changes})
        for n, id_ in enumerate(ids, start=first_slot)
    ]


def crowd(count: int, of: str = "s1", prefix: str = "new") -> list[Task]:
    """Waiting tasks in slots of their own."""
    return waiting(*(f"{prefix}-{of}-{n:04}" for n in range(count)), of=of, first_slot=10_001)


def on(node_id: str, count: int, of: str = "s1", **changes: Any) -> list[Task]:
    """Running tasks in slots of their own."""
    base = 100 * int("".join(each for each in node_id if each.isdigit()) or "0")
    return [
        task(
            f"{of}-{node_id}-{n}",
            TaskState.RUNNING,
            **{
                "service_id": ServiceId(of),
                "node_id": NodeId(node_id),
                "slot": base + n,
                **changes,
            },
        )
        for n in range(count)
    ]


def in_slot(slot: int, node_id: str, **changes: Any) -> Task:
    [running] = on(node_id, 1, slot=slot, **changes)
    return running


def fails(
    count: int, node_id: str, of: str = "s1", state: TaskState = TaskState.FAILED, **changes: Any
) -> list[Task]:
    """Tasks that have failed there just now."""
    return [
        task(
            f"{of}-{node_id}-failed-{n}",
            state,
            **{
                "service_id": ServiceId(of),
                "node_id": NodeId(node_id),
                "ended_ns": NOW_NS - SECOND_NS,
                **changes,
            },
        )
        for n in range(count)
    ]


def scheduled(
    pending: list[Task],
    nodes: list[Node],
    there: list[Task],
    spec: TaskSpec = PLAIN,
    ports: tuple[HostPort, ...] = (),
) -> dict[str, str]:
    """Task to node, or to the explanation; all tasks have one spec."""
    loads = loads_by_node({row.id: row for row in nodes})

    def demand_of(task: Task) -> Demand:
        return Demand(task, spec, ports)

    count_loads(loads, there, demand_of, NOW_NS)
    return {
        placed.task.id: placed.node_id or placed.explanation
        for placed in place(pending, loads, demand_of, Places((), loads))
    }


def placed_under(
    pending: list[Task], nodes: list[Node], ports: dict[str, tuple[HostPort, ...]]
) -> dict[str, str]:
    """The same for tasks whose services have host ports of their own."""
    loads = loads_by_node({row.id: row for row in nodes})
    decided = place(
        pending, loads, lambda task: Demand(task, PLAIN, ports[task.service_id]), Places((), loads)
    )
    return {placed.task.id: placed.node_id or placed.explanation for placed in decided}


def counts(placements: dict[str, str]) -> dict[str, int]:
    return {name: list(placements.values()).count(name) for name in set(placements.values())}
