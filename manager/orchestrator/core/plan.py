"""What a pass decides, before anybody writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from skep.domain.base import replace
from skep.domain.objects import Task, UpdateStatus
from skep.domain.states import DesiredState, TaskState, Writer, check_move


@dataclass
class Decision:
    """Changes that only make sense together: a task that is given up and the one in its place.
    Written in part, the slot's story would say that nobody is to follow.

    `notes` are one line per change, for the log.
    """

    created: list[Task] = field(default_factory=list)
    updated: dict[str, Task] = field(default_factory=dict)
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

    @property
    def size(self) -> int:
        """Objects to write."""
        return len(self.created) + len(self.updated)


@dataclass
class Plan:
    """Decisions about one service's tasks, and when to look again even if nothing happens.

    `wake_at_ns` is wall time. What one pass can't write, the next one finds again. `update` is the
    service's new update status, where that changes; with `rollback_why` the service is to go back
    to the spec before.
    """

    decisions: list[Decision] = field(default_factory=list)
    wake_at_ns: int | None = None
    update: UpdateStatus | None = None
    rollback_why: str | None = None

    def decide(self) -> Decision:
        """A decision, to be filled in."""
        self.decisions.append(Decision())
        return self.decisions[-1]

    def wake(self, at_ns: int) -> None:
        """Look again at `at_ns` at the latest."""
        self.wake_at_ns = at_ns if self.wake_at_ns is None else min(at_ns, self.wake_at_ns)

    def first(self, limit: int) -> Iterator[Decision]:
        """Whole decisions, in order, that make up to `limit` changes together; at least one."""
        room = limit
        for decision in self.decisions:
            if decision.size > room and room < limit:
                return
            room -= decision.size
            yield decision

    @property
    def created(self) -> list[Task]:
        """Every new task."""
        return [task for decision in self.decisions for task in decision.created]

    @property
    def updated(self) -> dict[str, Task]:
        """Every changed task, by id."""
        return {k: task for decision in self.decisions for k, task in decision.updated.items()}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        has_decided = any(decision.size for decision in self.decisions)
        return not has_decided and self.update is None and self.rollback_why is None
