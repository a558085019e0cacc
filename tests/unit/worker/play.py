"""The agent's core on a stage: what happens is a method, what it asks for is a line of text.

Nothing answers by itself: a test says what the engine, the disk and the leader do, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.domain.base import SessionId, TaskId, replace
from skep.domain.session import (
    Assignment,
    AssignmentKind,
    AssignmentSet,
    GivenFile,
    GivenLogin,
)
from skep.domain.states import DesiredState
from skep.worker.core.agent import AgentCore, StrayTask
from skep.worker.core.events import (
    AgentEffect,
    AgentEvent,
    Call,
    CallDue,
    CallFailed,
    CallSucceeded,
    ChangeSaved,
    FlushDue,
    ForgetTask,
    HealthProbed,
    LeaveSession,
    Moment,
    NoteMove,
    ProcessEnded,
    ProcessStarted,
    PutOffCall,
    RaiseTerm,
    SaveChange,
    SaveFailed,
    SendBatch,
    SessionClosed,
    SessionOpened,
    SetFlush,
    SetReceived,
    StartCall,
    StatusesAcknowledged,
    TakeSupplies,
    TasksDrained,
)
from skep.worker.core.ledger import Change, Ledger
from skep.worker.engine.protocol import Exit, Held, HeldState, Started


def at(now: float) -> Moment:
    """A moment by its monotonic seconds; the wall clock shows the same."""
    return Moment(now, int(now * 1e9))


class Play:
    """One agent's life. `text` is its trace."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.disk = ledger or Ledger()
        self.core = AgentCore(self.disk)
        self.now = 0.0
        self.lines: list[str] = []
        self.session = SessionId("")
        self._sets = 0
        self._saving: SaveChange | None = None
        self._batch = 0
        self._pid = 1000

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def say(self, line: str) -> None:
        self.lines.append(line)

    # ------------------------------------------------------------------------ what happens

    def begin(self, *held: Held) -> None:
        names = ", ".join(f"{each.task_id} {each.state.value}" for each in held) or "nothing"
        self.say(f"{self.now:g} the agent begins; its engine holds {names}")
        self._show(self.core.begin(at(self.now), [StrayTask(each, "process") for each in held]))

    def welcome(self, session: str, term: int) -> None:
        self.session, self._sets = SessionId(session), 0
        self._step(
            f"the leader of term {term} opens session {session}",
            SessionOpened(at(self.now), self.session, term),
        )

    def lose_session(self) -> None:
        self._step("the session is lost", SessionClosed(at(self.now), "gone"))

    def whole(
        self,
        *assignments: Assignment,
        files: Sequence[GivenFile] = (),
        logins: Sequence[GivenLogin] = (),
    ) -> None:
        names = ", ".join(_name(each) for each in assignments) or "nothing"
        frame = AssignmentSet(
            kind=AssignmentKind.COMPLETE,
            sequence=0,
            assignments=assignments,
            files=tuple(files),
            logins=tuple(logins),
            has_logins=bool(logins),
        )
        self._set(f"the leader assigns {names}", frame)

    def change(
        self,
        *assignments: Assignment,
        removed: Sequence[str] = (),
        files_removed: Sequence[str] = (),
    ) -> None:
        names = [_name(each) for each in assignments] + [f"no {name}" for name in removed]
        frame = AssignmentSet(
            kind=AssignmentKind.INCREMENT,
            sequence=0,
            assignments=assignments,
            removed=tuple(map(TaskId, removed)),
            files_removed=tuple(files_removed),
        )
        self._set(f"the leader changes {', '.join(names)}", frame)

    def _set(self, line: str, frame: AssignmentSet) -> None:
        self._sets += 1
        frame = replace(frame, sequence=self._sets)
        self._step(line, SetReceived(at(self.now), self.session, frame))

    def drained(self, task_id: str) -> None:
        self._step(
            f"the leader says that {task_id} is drained",
            TasksDrained(at(self.now), self.session, (TaskId(task_id),)),
        )

    def stored(self) -> None:
        self._step(
            f"the leader has stored batch {self._batch}",
            StatusesAcknowledged(at(self.now), self.session, self._batch),
        )

    def done(self, call: Call, task_id: str) -> None:
        self._step(
            f"done: {call.value} {task_id}", CallSucceeded(at(self.now), TaskId(task_id), call)
        )

    def failed(self, call: Call, task_id: str, why: str, *, is_retryable: bool = False) -> None:
        event = CallFailed(at(self.now), TaskId(task_id), call, why, is_retryable)
        self._step(f"failed: {call.value} {task_id}: {why}", event)

    def started(self, task_id: str, pid: int = 101) -> None:
        started = Started(pid=pid, started_ns=int(self.now * 1e9))
        self._step(
            f"done: start {task_id}, pid {pid}",
            ProcessStarted(at(self.now), TaskId(task_id), started),
        )

    def ended(self, task_id: str, code: int, reason: str = "") -> None:
        exit_ = Exit(exit_code=code, ended_ns=int(self.now * 1e9), reason=reason)
        self._step(
            f"{task_id} ends with {code}", ProcessEnded(at(self.now), TaskId(task_id), exit_)
        )

    def probed(self, task_id: str, complaint: str | None = None) -> None:
        self._step(
            f"the test of {task_id} says: {complaint or 'healthy'}",
            HealthProbed(at(self.now), TaskId(task_id), complaint),
        )

    def due(self, call: Call, task_id: str) -> None:
        self._step(f"time to {call.value} {task_id}", CallDue(at(self.now), TaskId(task_id), call))

    def flush(self) -> None:
        self._step("time to save", FlushDue(at(self.now)))

    def saved(self) -> None:
        assert self._saving is not None
        saving, self._saving = self._saving, None
        self.disk.apply(saving.change)
        self._step("saved", ChangeSaved(at(self.now), saving.number))

    def save_failed(self) -> None:
        assert self._saving is not None
        saving, self._saving = self._saving, None
        self._step("the disk is full", SaveFailed(at(self.now), saving.number, "full"))

    def quickly_run(self, *assignments: Assignment) -> None:
        """From nothing to running, saved and acknowledged, without a trace."""
        shown, self.lines = self.lines, []
        self.begin()
        self.welcome("s1", 1)
        self.saved()
        self.whole(*assignments)
        for each in assignments:
            self.done(Call.PREPARE, each.task.id)
            self.started(each.task.id)
        self.flush()
        self.saved()
        self.stored()
        self.lines = shown

    def core_pid(self) -> int:
        """A pid that was never used."""
        self._pid += 1
        return self._pid

    # ------------------------------------------------------------------- what it asks for

    def _step(self, line: str, event: AgentEvent) -> None:
        self.say(f"{self.now:g} {line}")
        self._show(self.core.step(event))

    def _show(self, effects: list[AgentEffect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveChange):
                self._saving = effect
            if isinstance(effect, SendBatch):
                self._batch = effect.batch.number
            self.say(f"    {describe(effect)}")
        self.core.check_invariants()


def describe(effect: AgentEffect) -> str:
    """One effect in words."""
    match effect:
        case StartCall(call, assignment):
            return f"{call.value} {assignment.task.id}"
        case PutOffCall(call, task_id, due):
            return f"{call.value} {task_id} at {due:g}"
        case NoteMove(task_id, old, new, why):
            return f"{task_id}: {old.value} -> {new.value}, {why}"
        case ForgetTask(task_id):
            return f"forget {task_id}"
        case SaveChange(_, change):
            return f"save {_describe_change(change)}"
        case SendBatch(session_id, batch):
            reports = ", ".join(
                f"{each.task_id} {each.status.state.value} #{each.status.counter}"
                for each in batch.reports
            )
            return f"report to {session_id}: {reports}"
        case LeaveSession(session_id, why):
            return f"leave {session_id}: {why}"
        case RaiseTerm(term):
            return f"refuse terms below {term}"
        case SetFlush(due):
            return f"save at {due:g}"
        case TakeSupplies():
            return _describe_supplies(effect)


def _describe_supplies(effect: TakeSupplies) -> str:
    parts = [f"{file.kind.value} {file.id}" for file in effect.files]
    parts += [f"no {id_}" for id_ in effect.removed]
    parts += [f"login {login.server}" for login in effect.logins or ()]
    parts += ["no logins"] if effect.logins == () and not effect.is_all else []
    return f"take in {'all: ' if effect.is_all else ''}{', '.join(parts)}"


def _describe_change(change: Change) -> str:
    parts = [] if change.term is None else [f"term {change.term}"]
    parts += [f"no {task_id}" for task_id in change.removed]
    parts += [_name(each) for each in change.assignments]
    parts += [
        f"{each.task_id} {each.status.state.value} #{each.status.counter}"
        for each in change.statuses
    ]
    return ", ".join(parts)


def _name(assignment: Assignment) -> str:
    return f"{assignment.task.id} (wanted {assignment.task.desired_state.value})"


def wanted(assignment: Assignment, desired: DesiredState) -> Assignment:
    """The same task, wanted otherwise."""
    return replace(assignment, task=replace(assignment.task, desired_state=desired))


def held(task_id: str, state: HeldState, *, exit_code: int | None = None, pid: int = 101) -> Held:
    """What an engine holds of a task."""
    return Held(
        task_id=TaskId(task_id),
        state=state,
        started=None if state is HeldState.PREPARED else Started(pid=pid, started_ns=0),
        exit=None if exit_code is None else Exit(exit_code=exit_code, ended_ns=0),
    )
