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
# Likewise, for the content of configs and secrets.
FILES_LIMIT_BYTES = 1024**3


class SequenceBroken(Exception):
    """The frames don't add up; the text says how."""


class SetSequence:
    """Joins frames to whole sets, in order, for one session."""

    def __init__(self) -> None:
        self._next = 1
        self._frames: list[AssignmentSet] = []
        self._entries = 0
        self._file_bytes = 0

    def add(self, frame: AssignmentSet) -> AssignmentSet | None:
        """The whole set when `frame` ends one, None while more must come.

        Raises SequenceBroken.
        """
        if frame.sequence != self._next:
            raise SequenceBroken(f"set {self._next} was due, {frame.sequence} came")
        if (frame.kind is AssignmentKind.COMPLETE) != (self._next == 1):
            raise SequenceBroken(f"set {frame.sequence} is {frame.kind.value}")
        self._frames.append(frame)
        self._entries += _entries(frame)
        self._file_bytes += sum(len(file.data) for file in frame.files)
        if self._entries > SET_LIMIT:
            raise SequenceBroken(f"set {frame.sequence} has more than {SET_LIMIT} entries")
        if self._file_bytes > FILES_LIMIT_BYTES:
            raise SequenceBroken(f"set {frame.sequence} has more than {FILES_LIMIT_BYTES} bytes")
        if frame.is_partial:
            return None
        frames, self._frames = self._frames, []
        self._entries = self._file_bytes = 0
        self._next += 1
        assignments: tuple[Assignment, ...] = tuple(a for part in frames for a in part.assignments)
        removed: tuple[TaskId, ...] = tuple(task_id for part in frames for task_id in part.removed)
        return AssignmentSet(
            kind=frame.kind,
            sequence=frame.sequence,
            assignments=assignments,
            removed=removed,
            files=tuple(file for part in frames for file in part.files),
            files_removed=tuple(id_ for part in frames for id_ in part.files_removed),
            logins=tuple(login for part in frames for login in part.logins),
            has_logins=any(part.has_logins for part in frames),
        )


def _entries(frame: AssignmentSet) -> int:
    lists = (frame.assignments, frame.removed, frame.files, frame.files_removed, frame.logins)
    return sum(map(len, lists))
