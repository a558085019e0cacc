"""Whether the frames of one session's assignment sets add up.

Sets are numbered from 1 without a gap, the first one is complete, and the frames of one set follow
each other. Whatever breaks that means that something was lost, and the only safe answer is to
register anew.
"""

from __future__ import annotations

from skep.domain.base import TaskId
from skep.domain.session import Assignment, AssignmentKind, AssignmentSet

# Far above what fits on one machine; a leader that sends more is broken, and would fill our memory.
SET_LIMIT = 20_000


class SequenceBroken(Exception):
    """The frames don't add up; the text says how."""


class SetSequence:
    """Joins frames to whole sets, in order, for one session."""

    def __init__(self) -> None:
        self._next = 1
        self._frames: list[AssignmentSet] = []

    def add(self, frame: AssignmentSet) -> AssignmentSet | None:
        """The whole set when `frame` ends one, None while more must come.

        Raises SequenceBroken.
        """
        if frame.sequence != self._next:
            raise SequenceBroken(f"set {self._next} was due, {frame.sequence} came")
        if (frame.kind is AssignmentKind.COMPLETE) != (self._next == 1):
            raise SequenceBroken(f"set {frame.sequence} is {frame.kind.value}")
        self._frames.append(frame)
        if sum(len(part.assignments) + len(part.removed) for part in self._frames) > SET_LIMIT:
            raise SequenceBroken(f"set {frame.sequence} has more than {SET_LIMIT} entries")
        if frame.is_partial:
            return None
        frames, self._frames = self._frames, []
        self._next += 1
        assignments: tuple[Assignment, ...] = tuple(a for part in frames for a in part.assignments)
        removed: tuple[TaskId, ...] = tuple(task_id for part in frames for task_id in part.removed)
        return AssignmentSet(
            kind=frame.kind, sequence=frame.sequence, assignments=assignments, removed=removed
        )
