"""What may be forgotten: ended tasks beyond the history limit, and services whose tasks are gone.

A row is only deleted once nothing of its task can still run: it has ended, or it never had a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skep.domain.base import NodeId
from skep.domain.objects import Node, NodeState, Service, Task
from skep.domain.states import DesiredState, TaskState


def reapable(
    service: Service | None,
    tasks: Iterable[Task],
    nodes: Mapping[NodeId, Node],
    history_limit: int,
) -> list[Task]:
    """The tasks of one service that may be deleted now.

    Of each slot the newest ended ones are kept, `history_limit` of them, or as many as the restart
    policy has to remember. Of a service that is gone nothing is kept.
    """
    if service is not None:
        attempts = service.spec.task.restart.max_attempts
        # The newest one stays in any case: it tells that its slot was given up.
        history_limit = max(history_limit, attempts + 1 if attempts else 1)
    gone: list[Task] = []
    slots: dict[int, list[Task]] = {}
    serving_ns: dict[int, int] = {}
    for task in tasks:
        if task.is_wanted and task.status.state is TaskState.RUNNING:
            oldest_ns = serving_ns.get(task.slot, task.created_ns)
            serving_ns[task.slot] = min(task.created_ns, oldest_ns)
        is_over = task.is_terminal or _is_out_of_reach(task, nodes)
        if not is_over or task.is_wanted:
            continue
        if service is None or task.desired_state is DesiredState.REMOVE:
            gone.append(task)
        elif task.is_terminal:
            slots.setdefault(task.slot, []).append(task)
    for slot, history in slots.items():
        history.sort(key=lambda task: (task.created_ns, task.version, task.id))
        gone += _forgotten(history, serving_ns.get(slot), history_limit)
    return gone


def _forgotten(history: list[Task], since_ns: int | None, limit: int) -> list[Task]:
    """Of a slot's ended tasks, the oldest first, those beyond the limit; but not the first one
    after a task that still runs: it tells since when that one is to be followed by another."""
    first = next((task for task in history if since_ns and task.created_ns > since_ns), None)
    return [task for task in history[: max(len(history) - limit, 0)] if task is not first]


def _is_out_of_reach(task: Task, nodes: Mapping[NodeId, Node]) -> bool:
    """Its node is lost: should it come back, it will be told to hold nothing of the task."""
    if task.node_id is None:
        return task.status.state is not TaskState.RUNNING
    node = nodes.get(task.node_id)
    return node is None or node.state is NodeState.DOWN
