"""Which reports of workers count.

A status is taken only from the node that holds the task, only with a higher counter than the one
stored, and only forward: so late, doubled and reordered reports change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.domain.base import NodeId, SessionId, replace
from skep.domain.objects import Task
from skep.domain.session import TaskReport
from skep.domain.states import TaskState, order
from skep.manager.store.core.transaction import Transaction

# A worker's text is shown to people, not kept as a log.
TEXT_LIMIT = 1000


def accepted(
    tx: Transaction, node_id: NodeId, session_id: SessionId, reports: Sequence[TaskReport]
) -> list[Task]:
    """Write the reports that count; returns the tasks as they were before."""
    changed = []
    for report in reports:
        task = tx.get(Task, report.task_id)
        if task is None or task.node_id != node_id or not is_newer(task, report):
            continue
        status = replace(
            report.status,
            session_id=session_id,
            message=report.status.message[:TEXT_LIMIT],
            error=report.status.error[:TEXT_LIMIT],
        )
        tx.update(_stamped(replace(task, status=status), tx.now_ns))
        changed.append(task)
    return changed


def _stamped(task: Task, now_ns: int) -> Task:
    """With the times that windows are measured from, by the leader's clock: a task whose first
    good status comes together with its end was never seen healthy."""
    status = task.status
    if status.state is TaskState.RUNNING and status.is_healthy and task.healthy_ns is None:
        return replace(task, healthy_ns=now_ns)
    if status.state is TaskState.RUNNING and not status.is_healthy and task.sick_ns is None:
        return replace(task, sick_ns=now_ns)
    if task.is_terminal:
        return replace(task, ended_ns=now_ns)
    return task


def is_newer(task: Task, report: TaskReport) -> bool:
    """Whether a report says more than what is stored."""
    return (
        not task.is_terminal
        and report.status.counter > task.status.counter
        and order(report.status.state) >= order(task.status.state)
    )
