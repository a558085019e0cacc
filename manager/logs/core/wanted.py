"""Which tasks a reader of logs means, and whether their output can be had."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from skep.domain.base import NodeId, ServiceId, TaskId
from skep.domain.control import LogsRequest
from skep.domain.objects import Node, NodeState, Service, Task
from skep.domain.states import TaskState, order
from skep.env import Rejected
from skep.manager.control.core.find import find
from skep.manager.store.core.tables import View

# A command line has room for some thousands; nobody means that many.
REFS_LIMIT = 100
# Lines are counted backwards by the worker before the first is sent.
TAIL_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for, by id: names may come to mean something else while it is followed."""

    services: tuple[ServiceId, ...]
    tasks: tuple[TaskId, ...]


def select(view: View, request: LogsRequest) -> Selection:
    """What the request names. Raises CallError NOT_FOUND, Rejected."""
    if not request.services and not request.tasks:
        raise Rejected("services: name a service or a task", field="services")
    if len(request.services) + len(request.tasks) > REFS_LIMIT:
        raise Rejected(f"services: at most {REFS_LIMIT} services and tasks", field="services")
    if request.tail is not None and not 0 <= request.tail <= TAIL_LIMIT:
        raise Rejected(f"tail: at most {TAIL_LIMIT} lines, and no less than 0", field="tail")
    return Selection(
        tuple(find(view, Service, ref).id for ref in request.services),
        tuple(find(view, Task, ref).id for ref in request.tasks),
    )


def tasks_of(view: View, of: Selection) -> list[Task]:
    """The tasks meant that exist now, ended ones too: by service, slot and age."""
    found = {
        task.id: task for service_id in of.services for task in view.tasks_of_service(service_id)
    }
    for task_id in of.tasks:
        task = view.get(Task, task_id)
        if task is not None:
            found[task_id] = task
    return sorted(
        found.values(), key=lambda task: (task.service_name, task.slot, task.created_ns, task.id)
    )


def is_over(view: View, of: Selection) -> bool:
    """Whether nothing that was meant exists any more, or will write anything."""
    tasks = (view.get(Task, task_id) for task_id in of.tasks)
    return not any(view.get(Service, service_id) for service_id in of.services) and all(
        task is None or task.is_terminal for task in tasks
    )


class Standing(enum.Enum):
    """Whether a task's output can be had."""

    NOTHING = "nothing"  # it never wrote anything, and won't
    NOT_YET = "not yet"
    AT_NODE = "at its node"
    NODE_DOWN = "its node is down"
    NODE_GONE = "its node was removed"


def standing(view: View, task: Task) -> Standing:
    """Where a task's output is."""
    state = task.status.state
    if state is TaskState.REJECTED:
        return Standing.NOTHING
    if task.node_id is None or order(state) < order(TaskState.READY):
        return Standing.NOTHING if task.is_terminal else Standing.NOT_YET
    node = view.get(Node, task.node_id)
    if node is None:
        return Standing.NODE_GONE
    return Standing.NODE_DOWN if node.state is NodeState.DOWN else Standing.AT_NODE


def node_name(view: View, node_id: NodeId | None) -> str:
    """What people call it; its id once it was removed."""
    node = None if node_id is None else view.get(Node, node_id)
    return node.name if node is not None else node_id or ""
