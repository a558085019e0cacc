"""Placing pending tasks: filter, then spread.

Of the nodes that pass every filter, the one with the fewest tasks of the service wins, then the
one with the fewest tasks at all, then the lowest name, so that the outcome is the same on replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from skep.domain.base import NodeId, ServiceId, replace
from skep.domain.objects import Task
from skep.domain.spec import TaskSpec
from skep.domain.states import TaskState, Writer, check_move
from skep.manager.scheduler.core.filters import NodeLoad, explain, first_refusal

SpecOf = Callable[[Task], TaskSpec | None]
"""A task's spec by its revision; None when the revision is gone."""


@dataclass(frozen=True)
class Placement:
    """What a pass decided about one task: a node, or a reason."""

    task: Task
    node_id: NodeId | None
    explanation: str = ""


def count_loads(loads: dict[NodeId, NodeLoad], tasks: Iterable[Task], spec_of: SpecOf) -> None:
    """Put every placed task that has not ended on its node."""
    for task in tasks:
        if task.node_id in loads and not task.is_terminal:
            spec = spec_of(task)
            if spec is not None:
                loads[task.node_id].add(task.service_id, spec)


def place(
    pending: Sequence[Task], loads: dict[NodeId, NodeLoad], spec_of: SpecOf
) -> Iterator[Placement]:
    """Decide about pending tasks one by one, oldest first; each decision counts for the next."""
    # Nodes only fill up during a pass: what one task was refused, its like are refused too.
    hopeless: dict[tuple[ServiceId, int], str] = {}
    for task in sorted(pending, key=lambda task: (task.created_ns, task.slot, task.id)):
        like = (task.service_id, task.revision)
        spec = spec_of(task)
        if spec is None:
            continue
        best = None
        if like not in hopeless:
            best, refused = _best(task, loads, spec)
            if best is None:
                hopeless[like] = explain(refused)
        if best is None:
            yield Placement(task, None, hopeless[like])
        else:
            best.add(task.service_id, spec)
            yield Placement(task, best.node.id)


def _best(
    task: Task, loads: dict[NodeId, NodeLoad], spec: TaskSpec
) -> tuple[NodeLoad | None, dict[str, int]]:
    """The node to put it on, and how many nodes each filter has refused."""
    refused: dict[str, int] = {}
    best: NodeLoad | None = None
    for load in loads.values():
        refusal = first_refusal(load, spec)
        if refusal is not None:
            refused[refusal.name] = refused.get(refusal.name, 0) + 1
        elif best is None or _rank(load, task.service_id) < _rank(best, task.service_id):
            best = load
    return best, refused


def _rank(load: NodeLoad, service_id: ServiceId) -> tuple[int, int, str, str]:
    return (load.by_service.get(service_id, 0), load.tasks, load.node.name, load.node.id)


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
