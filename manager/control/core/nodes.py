"""What operators change on nodes."""

from __future__ import annotations

from skep.domain.base import pairs, replace
from skep.domain.control import RemoveRequest, RemoveResponse, UpdateNodeRequest
from skep.domain.objects import Node, NodeRole, NodeState, Volume
from skep.domain.states import TERMINAL, TaskState, Writer, check_move
from skep.domain.validate import check_labels
from skep.domain.volumes import without_node
from skep.env import CallError, Code
from skep.manager.control.core.find import find
from skep.manager.store.core.transaction import Transaction


def update_node(tx: Transaction, request: UpdateNodeRequest) -> Node:
    """Change availability and labels."""
    node = find(tx, Node, request.ref)
    if request.version is not None and request.version != node.version:
        raise CallError(
            Code.ABORTED,
            f"node {node.name!r} was changed meanwhile (it is at version {node.version}, "
            f"not {request.version}); read it again and repeat the change",
        )
    check_labels(request.labels_set, "labels_set")
    labels = dict(node.labels)
    labels.update(request.labels_set)
    for name in request.labels_removed:
        labels.pop(name, None)
    check_labels(pairs(labels), "labels_set")
    changed = replace(
        node, labels=pairs(labels), availability=request.availability or node.availability
    )
    if changed != node:
        tx.update(changed)
    return changed


def remove_node(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Forget a worker that is down. Its tasks are lost for good."""
    node = find(tx, Node, request.ref)
    if node.role is NodeRole.MANAGER:
        raise CallError(Code.FAILED_PRECONDITION, f"node {node.name!r} is a manager")
    if node.state is not NodeState.DOWN:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"node {node.name!r} is {node.state.value}; stop it first, and remove it once it is "
            "down",
        )
    for task in tx.tasks_of_node(node.id):
        if task.status.state not in TERMINAL:
            check_move(task.id, task.status.state, TaskState.ORPHANED, Writer.DISPATCHER)
            status = replace(
                task.status,
                state=TaskState.ORPHANED,
                since_ns=tx.now_ns,
                error=f"node {node.name} was removed",
            )
            tx.update(replace(task, status=status))
    for volume in list(tx.all(Volume)):
        # What it had is gone with it: the next task begins with an empty one.
        if (left := without_node(volume, node.id)) is not volume:
            tx.update(left)
    tx.remove(Node, node.id)
    return RemoveResponse(id=node.id, name=node.name)
