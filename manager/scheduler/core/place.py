"""Placing pending tasks: filter, then spread.

Of the nodes that pass every filter, and lie in the least used branch where the service names labels
to spread over, one on which tasks of this kind don't keep failing wins, then the one with the
fewest tasks of the service, then the one with the fewest tasks at all, then the lowest name, so
that the outcome is the same on replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from skep.domain.base import SECOND_NS, NodeId, ServiceId, replace
from skep.domain.objects import Task, VolumePlace
from skep.domain.states import TaskState, Writer, check_move
from skep.manager.scheduler.core.filters import Demand, NodeLoad, explain, first_refusal
from skep.manager.scheduler.core.spread import Branch, Division, rank
from skep.manager.scheduler.core.volumes import Places

# How long a failure speaks against its node. Swarm's number.
FAILURE_WINDOW_NS = 300 * SECOND_NS

DemandOf = Callable[[Task], Demand | None]
"""What a task asks of a node, by its revision; None when the revision is gone."""

NO_PORT_YET = "waiting for the number of a host-mode port"


@dataclass(frozen=True)
class Placement:
    """What a pass decided about one task: a node, or a reason. `volumes` are those, by name, that
    are in places from now on where they weren't."""

    task: Task
    node_id: NodeId | None
    explanation: str = ""
    volumes: Mapping[str, tuple[VolumePlace, ...]] = field(default_factory=dict)


def count_loads(
    loads: dict[NodeId, NodeLoad], tasks: Iterable[Task], demand_of: DemandOf, now_ns: int
) -> None:
    """Put every placed task that has not ended on its node, and tell the node of its failures.

    Failures are read from the rows of ended tasks, of which each slot keeps the newest few (five
    unless the operator or the restart policy says otherwise). So a service of one slot avoids a
    node only while its newest five attempts all failed there, and tries it again after one attempt
    elsewhere; with a shorter history it never avoids one. The slots of a bigger service make up
    for each other.
    """
    for task in tasks:
        if task.node_id not in loads:
            continue
        load = loads[task.node_id]
        if task.is_terminal:
            if _is_recent_failure(task, now_ns):
                kind = (task.service_id, task.revision)
                load.failures[kind] = load.failures.get(kind, 0) + 1
            continue
        demand = demand_of(task)
        if demand is not None:
            load.add(demand)


def _is_recent_failure(task: Task, now_ns: int) -> bool:
    return (
        task.status.state in (TaskState.FAILED, TaskState.REJECTED)
        and task.ended_ns is not None
        and now_ns - task.ended_ns < FAILURE_WINDOW_NS
    )


def place(
    pending: Sequence[Task], loads: dict[NodeId, NodeLoad], demand_of: DemandOf, places: Places
) -> Iterator[Placement]:
    """Decide about pending tasks one by one, oldest first; each decision counts for the next."""
    divisions: dict[tuple[str, ...], Division] = {}
    branches: dict[ServiceId, dict[int, Branch]] = {}
    # Nodes only fill up during a pass: why one task was refused, its like are refused too.
    hopeless: dict[tuple[ServiceId, int], str] = {}
    for task in sorted(pending, key=lambda task: (task.created_ns, task.slot, task.id)):
        demand = demand_of(task)
        if demand is None:
            continue
        if demand.lacks_port:
            yield Placement(task, None, NO_PORT_YET)
            continue
        of_service = branches.setdefault(task.service_id, {})
        if task.revision not in of_service:
            labels = demand.spec.placement.preferences
            if labels not in divisions:
                divisions[labels] = Division(tuple(loads.values()), labels)
            of_service[task.revision] = Branch(divisions[labels], task.service_id, task.revision)
        demand = places.pinned(demand)
        if demand.nodes is None:
            best = of_service[task.revision].best(demand)
        else:
            best = _best_at_home(demand, demand.nodes, loads)
        if best is not None:
            best.add(demand)
            for branch in of_service.values():
                branch.count(demand, best)
            volumes = places.take(demand, best.node.id) if demand.volumes else {}
            yield Placement(task, best.node.id, volumes=volumes)
            continue
        if demand.nodes is not None:
            yield Placement(task, None, _why_not_at_home(demand, demand.nodes, loads))
            continue
        like = (task.service_id, task.revision)
        if like not in hopeless:
            hopeless[like] = _why_none(demand, loads)
        yield Placement(task, None, hopeless[like])


def _best_at_home(
    demand: Demand, nodes: frozenset[NodeId], loads: dict[NodeId, NodeLoad]
) -> NodeLoad | None:
    """The best of the few nodes where a task's volumes are: nothing is spread any more."""
    task = demand.task
    fitting = [loads[id_] for id_ in sorted(nodes) if first_refusal(loads[id_], demand) is None]
    return min(
        fitting,
        key=lambda load: rank(load, task.service_id, task.revision, task.slot),
        default=None,
    )


def _why_not_at_home(
    demand: Demand, nodes: frozenset[NodeId], loads: dict[NodeId, NodeLoad]
) -> str:
    return explain(_refusals(demand, (loads[id_] for id_ in nodes)), demand.pins)


def _why_none(demand: Demand, loads: dict[NodeId, NodeLoad]) -> str:
    return explain(_refusals(demand, loads.values()))


def _refusals(demand: Demand, loads: Iterable[NodeLoad]) -> dict[str, int]:
    refused: dict[str, int] = {}
    for load in loads:
        refusal = first_refusal(load, demand)
        assert refusal is not None, f"task={demand.task.id} fits on node={load.node.id}"
        refused[refusal.name] = refused.get(refusal.name, 0) + 1
    return refused


def applied(placement: Placement, now_ns: int) -> Task | None:
    """The task as the decision makes it, or None when that is how it is already."""
    task = placement.task
    if placement.node_id is None:
        if task.status.error == placement.explanation:
            return None
        return replace(task, status=replace(task.status, error=placement.explanation))
    check_move(task.id, task.status.state, TaskState.ASSIGNED, Writer.SCHEDULER)
    status = replace(
        task.status, state=TaskState.ASSIGNED, message="assigned", error="", since_ns=now_ns
    )
    return replace(task, node_id=placement.node_id, status=status)


def is_placeable(task: Task) -> bool:
    """Whether a task waits for a node."""
    return task.status.state is TaskState.PENDING and task.is_wanted and task.node_id is None
