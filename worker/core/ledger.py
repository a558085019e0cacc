"""What a worker keeps on its disk, as changes that add up.

The ledger holds the highest leader term obeyed, the assignments, and the newest status of each
task with its counter. A status is saved before it is reported: so a counter that any leader has
seen is on disk, and a restarted agent, counting on from there, never uses one twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.domain.base import ClusterId, NodeId, Struct, TaskId
from skep.domain.objects import TaskStatus
from skep.domain.session import Assignment, TaskReport

LEDGER_FORMAT = 1


class LedgerHeader(Struct, frozen=True, kw_only=True):
    """The first record: what wrote the file, and whose it is."""

    format: int
    cluster_id: ClusterId
    node_id: NodeId


class Change(Struct, frozen=True, kw_only=True):
    """One record: what is different from before. Tasks are removed before others are added."""

    term: int | None = None
    removed: tuple[TaskId, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    statuses: tuple[TaskReport, ...] = ()


@dataclass
class Ledger:
    """The sum of all changes."""

    term: int = 0
    assignments: dict[TaskId, Assignment] = field(default_factory=dict)
    statuses: dict[TaskId, TaskStatus] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Add one change. A term never falls, whatever the change says."""
        if change.term is not None:
            self.term = max(self.term, change.term)
        for task_id in change.removed:
            self.assignments.pop(task_id, None)
            self.statuses.pop(task_id, None)
        for assignment in change.assignments:
            self.assignments[assignment.task.id] = assignment
        for report in change.statuses:
            self.statuses[report.task_id] = report.status

    def whole(self) -> Change:
        """One change that makes all of this out of nothing."""
        return Change(
            term=self.term,
            assignments=tuple(self.assignments.values()),
            statuses=tuple(
                TaskReport(task_id=task_id, status=status)
                for task_id, status in self.statuses.items()
            ),
        )
