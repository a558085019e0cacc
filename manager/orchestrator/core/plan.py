"""What a pass decides, before anybody writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.domain.base import replace
from skep.domain.objects import Task
from skep.domain.states import DesiredState, TaskState, Writer, check_move


@dataclass
class Plan:
    """Changes to make to one service's tasks, and when to look again even if nothing happens.

    `wake_at_ns` is wall time; `notes` are one line per decision, for the log.
    """

    created: list[Task] = field(default_factory=list)
    updated: dict[str, Task] = field(default_factory=dict)
    wake_at_ns: int | None = None
    notes: list[str] = field(default_factory=list)

    def create(self, task: Task, why: str) -> None:
        """A new attempt."""
        self.created.append(task)
        self.notes.append(f"task={task.id} slot={task.name} to=new why={why}")

    def want(self, task: Task, desired: DesiredState, why: str) -> None:
        """Move a task's desired state. A task that no node ever got is ended right here."""
        changed = replace(task, desired_state=desired)
        is_stopped = desired in (DesiredState.SHUTDOWN, DesiredState.REMOVE)
        if is_stopped and task.status.state in (TaskState.NEW, TaskState.PENDING):
            check_move(task.id, task.status.state, TaskState.SHUTDOWN, Writer.ORCHESTRATOR)
            status = replace(
                task.status, state=TaskState.SHUTDOWN, message="never placed", error=""
            )
            changed = replace(changed, status=status)
        self.updated[task.id] = changed
        self.notes.append(
            f"task={task.id} slot={task.name} from={task.desired_state.value} "
            f"to={desired.value} why={why}"
        )

    def wake(self, at_ns: int) -> None:
        """Look again at `at_ns` at the latest."""
        self.wake_at_ns = at_ns if self.wake_at_ns is None else min(at_ns, self.wake_at_ns)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.created and not self.updated
