"""Taking a task up where an earlier agent has left it."""

from __future__ import annotations

import enum

from skep.domain.states import TaskState, order

_WAY = (
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
)


class Resumption(enum.Enum):
    """What to do with a task of which no process was ever seen."""

    LOST = "its engine has lost it"
    PREPARE = "prepare it again"
    START = "start it again"
    NOTHING = "what follows from its state"


def way(old: TaskState, until: TaskState) -> tuple[TaskState, ...]:
    """The states after `old` up to one, in their order."""
    return tuple(state for state in _WAY if order(old) < order(state) <= order(until))


def resumption(state: TaskState, *, is_prepared: bool, is_unwanted: bool) -> Resumption:
    """Where to go on with a task that was last in this state."""
    match state:
        case TaskState.RUNNING:
            return Resumption.LOST
        case TaskState.STARTING if not is_prepared:
            return Resumption.LOST
        case _ if is_unwanted:
            return Resumption.NOTHING
        case TaskState.STARTING:
            return Resumption.START
        case TaskState.PREPARING:
            return Resumption.PREPARE
        case TaskState.READY if not is_prepared:
            return Resumption.PREPARE
        case _:
            return Resumption.NOTHING
