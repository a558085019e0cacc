"""What one worker must hold, and the difference to what it was told last.

A worker holds every task that was placed on it and has not ended. A task that ended while the
session lives stays with its worker (its output can still be read) until its row is deleted; a
worker that registers anew isn't given what has ended.
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
        alive = [task for task in tasks if not task.is_terminal]
        self.told = {task.id: task.desired_state for task in alive}
        return self._frames(AssignmentKind.COMPLETE, alive, [], wrap)

    def increment(self, tasks: Iterable[Task], wrap: Wrap) -> list[AssignmentSet]:
        """What has changed since, in frames; nothing if nothing has."""
        now = {task.id: task for task in tasks}
        changed = [
            task
            for task in now.values()
            if self.told.get(task.id) is not task.desired_state
            and (task.id in self.told or not task.is_terminal)
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
