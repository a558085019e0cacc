"""What the agent's core is told, and what it asks for.

Events are what has happened; each carries the moment at which it did. Effects are what the actor
must do, in the order given. Results of effects come back as events.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from skep.domain.base import SessionId, TaskId
from skep.domain.session import Assignment, AssignmentSet, GivenFile, GivenLogin, StatusBatch
from skep.domain.spec import HealthCheck
from skep.domain.states import TaskState
from skep.worker.core.ledger import Change
from skep.worker.engine.protocol import Exit, Started


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: monotonic seconds to reckon with, wall nanoseconds to show."""

    now: float
    wall_ns: int


class Call(enum.Enum):
    """What an engine can be asked to do with a task."""

    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    PROBE = "probe"
    STOP = "stop"
    REMOVE = "remove"


# ------------------------------------------------------------------- events: what engines answer


@dataclass(frozen=True, slots=True)
class CallSucceeded:
    """PREPARE, STOP or REMOVE is done."""

    at: Moment
    task_id: TaskId
    call: Call


@dataclass(frozen=True, slots=True)
class CallReported:
    """PREPARE is not done, but `words` say how far it is."""

    at: Moment
    task_id: TaskId
    call: Call
    words: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The engine could not do it; `is_retryable` says whether it may be able to later."""

    at: Moment
    task_id: TaskId
    call: Call
    why: str
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """START is done."""

    at: Moment
    task_id: TaskId
    started: Started


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """WAIT is done."""

    at: Moment
    task_id: TaskId
    exit: Exit


@dataclass(frozen=True, slots=True)
class HealthProbed:
    """PROBE is done: `complaint` is what the test said, None when the task is healthy."""

    at: Moment
    task_id: TaskId
    complaint: str | None


@dataclass(frozen=True, slots=True)
class CallDue:
    """The time for a call that was put off has come. Only a hint: it may be overtaken."""

    at: Moment
    task_id: TaskId
    call: Call


TaskEvent = (
    CallSucceeded
    | CallReported
    | CallFailed
    | ProcessStarted
    | ProcessEnded
    | HealthProbed
    | CallDue
)


# ------------------------------------------------------------------- events: session and disk


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The leader of `term` has welcomed this worker."""

    at: Moment
    session_id: SessionId
    term: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """There is no session any more."""

    at: Moment
    why: str


@dataclass(frozen=True, slots=True)
class SetReceived:
    """One frame of assignments."""

    at: Moment
    session_id: SessionId
    frame: AssignmentSet


@dataclass(frozen=True, slots=True)
class StatusesAcknowledged:
    """The leader has committed every batch up to `number`."""

    at: Moment
    session_id: SessionId
    number: int


@dataclass(frozen=True, slots=True)
class TasksDrained:
    """No netproxy sends new connections to these tasks."""

    at: Moment
    session_id: SessionId
    task_ids: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class ChangeSaved:
    """The change is durable."""

    at: Moment
    number: int


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The disk refused the change; none of it may be relied on."""

    at: Moment
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class FlushDue:
    """What has changed since the last save is to be saved, and then reported."""

    at: Moment


AgentEvent = (
    TaskEvent
    | SessionOpened
    | SessionClosed
    | SetReceived
    | StatusesAcknowledged
    | TasksDrained
    | ChangeSaved
    | SaveFailed
    | FlushDue
)


# ---------------------------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class StartCall:
    """Ask the task's engine; the answer comes back as an event. STOP and REMOVE first cancel a
    PREPARE, START or PROBE that is under way. A PROBE's `health` is what the engine told of
    the task's test, where that is to be asked in place of the spec's."""

    call: Call
    assignment: Assignment
    health: HealthCheck | None = None


@dataclass(frozen=True, slots=True)
class PutOffCall:
    """Say CallDue at monotonic time `due`, replacing what was put off for this task and call."""

    call: Call
    task_id: TaskId
    due: float


@dataclass(frozen=True, slots=True)
class NoteMove:
    """One line for the log."""

    task_id: TaskId
    old: TaskState
    new: TaskState
    why: str


@dataclass(frozen=True, slots=True)
class ForgetTask:
    """Nothing is left of this task; let go of what is kept for it."""

    task_id: TaskId


TaskEffect = StartCall | PutOffCall | NoteMove | ForgetTask


@dataclass(frozen=True, slots=True)
class SaveChange:
    """Make it durable; answered by ChangeSaved or SaveFailed. One at a time."""

    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Report to the leader; lost without a word when the session is gone by then."""

    session_id: SessionId
    batch: StatusBatch


@dataclass(frozen=True, slots=True)
class LeaveSession:
    """End this session and register anew."""

    session_id: SessionId
    why: str


@dataclass(frozen=True, slots=True)
class RaiseTerm:
    """From now on leaders of lower terms are refused; durable already."""

    term: int


@dataclass(frozen=True, slots=True)
class SetFlush:
    """Say FlushDue at monotonic time `due`."""

    due: float


@dataclass(frozen=True, slots=True)
class TakeSupplies:
    """Have these files and logins at hand, and forget the files `removed`, before any call that
    comes after. `logins` are all that there are; None: as before. `is_all`: forget every other file
    as well."""

    files: tuple[GivenFile, ...] = ()
    removed: tuple[str, ...] = ()
    logins: tuple[GivenLogin, ...] | None = None
    is_all: bool = False


AgentEffect = (
    TaskEffect | SaveChange | SendBatch | LeaveSession | RaiseTerm | SetFlush | TakeSupplies
)
