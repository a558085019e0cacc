"""What one worker must hold, and the difference to what it was told last.

A worker holds every task that was placed on it, until the task's row is deleted. One that has ended
is among them: it isn't started again, but what is left of it (its output) stays with its worker for
as long as people can ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from skep.domain.base import TaskId
from skep.domain.objects import Task
from skep.domain.session import Assignment, AssignmentKind, AssignmentSet
from skep.domain.states import DesiredState

# Small enough that a frame never holds up the heartbeats behind it.
FRAME_ASSIGNMENTS = 50

Wrap = Callable[[Task], Assignment | None]
"""The assignment of a task: with its spec. None when the revision is gone."""


@dataclass
class WorkerSet:
    """What one session was told, by task: the desired state, since nothing else of it changes."""

    sequence: int = 0
    told: dict[TaskId, DesiredState] = field(default_factory=dict)

    def complete(self, tasks: Iterable[Task], wrap: Wrap) -> list[AssignmentSet]:
        """The first set of a session, in frames."""
        held = list(tasks)
        self.told = {task.id: task.desired_state for task in held}
        return self._frames(AssignmentKind.COMPLETE, held, [], wrap)

    def increment(self, tasks: Iterable[Task], wrap: Wrap) -> list[AssignmentSet]:
        """What has changed since, in frames; nothing if nothing has."""
        now = {task.id: task for task in tasks}
        changed = [
            task for task in now.values() if self.told.get(task.id) is not task.desired_state
        ]
        removed = [task_id for task_id in self.told if task_id not in now]
        if not changed and not removed:
            return []
        for task in changed:
            self.told[task.id] = task.desired_state
        for task_id in removed:
            del self.told[task_id]
        return self._frames(AssignmentKind.INCREMENT, changed, removed, wrap)

    def _frames(
        self, kind: AssignmentKind, tasks: list[Task], removed: list[TaskId], wrap: Wrap
    ) -> list[AssignmentSet]:
        self.sequence += 1
        wrapped = [given for task in tasks if (given := wrap(task)) is not None]
        chunks = [
            wrapped[start : start + FRAME_ASSIGNMENTS]
            for start in range(0, len(wrapped), FRAME_ASSIGNMENTS)
        ] or [[]]
        return [
            AssignmentSet(
                kind=kind,
                sequence=self.sequence,
                assignments=tuple(chunk),
                removed=tuple(removed) if place == 0 else (),
                is_partial=place < len(chunks) - 1,
            )
            for place, chunk in enumerate(chunks)
        ]
