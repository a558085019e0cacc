"""What tasks are given beside their specs, as far as the agent's rules are concerned.

It is in memory alone, so that an agent's life begins without any of it. Until a leader's first
complete set has brought what there is, calls that may need it are withheld: asked too early, an
engine could only fail, and a task would be given up for nothing while managers are away.
"""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.base import TaskId
from skep.domain.session import Assignment, AssignmentKind, AssignmentSet
from skep.domain.spec import PROCESS
from skep.worker.core.events import Call, ForgetTask, StartCall, TakeSupplies, TaskEffect


class Supply:
    """Says what to take in, and withholds calls until then."""

    def __init__(self) -> None:
        self.is_here = False
        """Whether a leader has said, in this life, all that there is."""
        self._has_any = False
        self._withheld: dict[TaskId, StartCall] = {}

    def taken(self, whole: AssignmentSet) -> list[TakeSupplies]:
        """What a whole set says of files and logins, if it says anything."""
        is_all = whole.kind is AssignmentKind.COMPLETE
        self.is_here |= is_all
        has_news = bool(whole.files or whole.files_removed) or whole.has_logins
        if not has_news and not (is_all and self._has_any):
            return []
        self._has_any = True
        logins = whole.logins if whole.has_logins or is_all else None
        return [TakeSupplies(whole.files, whole.files_removed, logins, is_all)]

    def let_through(self, effects: Iterable[TaskEffect]) -> list[TaskEffect]:
        """Of what tasks ask for, all that need not wait."""
        through: list[TaskEffect] = []
        for effect in effects:
            match effect:
                case StartCall(call, assignment) if not self.is_here and _may_need(
                    call, assignment
                ):
                    self._withheld[assignment.task.id] = effect
                    continue
                case StartCall(Call.STOP | Call.REMOVE, assignment):
                    # What they would cancel if it were under way is not begun at all.
                    self._withheld.pop(assignment.task.id, None)
                case ForgetTask(task_id):
                    self._withheld.pop(task_id, None)
            through.append(effect)
        return through

    def released(self) -> list[StartCall]:
        """What was withheld, once nothing needs to be."""
        if not self.is_here:
            return []
        withheld, self._withheld = self._withheld, {}
        return list(withheld.values())

    def check_invariants(self) -> None:
        """Called by tests and the simulator after every step."""
        assert not (self.is_here and self._withheld), list(self._withheld)


def _may_need(call: Call, assignment: Assignment) -> bool:
    run = assignment.spec.task.run
    has_files = bool(run.configs or run.secrets)
    if call is Call.PREPARE:
        # Whether a registry wants a login is not known before the leader has said so.
        return has_files or assignment.spec.task.engine != PROCESS
    return call is Call.START and has_files
