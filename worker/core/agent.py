"""The whole agent's rules: which tasks are held, whom it obeys, and what it saves and reports.

Three promises shape it. Nothing of a leader is obeyed before its term is on disk, and no lower
term ever again. No status is reported before it is on disk. And a task is let go of only when a
leader's complete set, or its increment, no longer names it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from skep.domain.base import ServiceId, SessionId, TaskId
from skep.domain.objects import Task, TaskStatus
from skep.domain.session import Assignment, AssignmentKind, AssignmentSet
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TERMINAL, DesiredState, TaskState, order
from skep.worker.core.events import (
    AgentEffect,
    AgentEvent,
    ChangeSaved,
    FlushDue,
    LeaveSession,
    Moment,
    RaiseTerm,
    SaveChange,
    SaveFailed,
    SendBatch,
    SessionClosed,
    SessionOpened,
    SetFlush,
    SetReceived,
    StatusesAcknowledged,
    TaskEffect,
    TaskEvent,
    TasksDrained,
)
from skep.worker.core.ledger import Change, Ledger
from skep.worker.core.reports import Reports
from skep.worker.core.running import RunningTask, running_tasks
from skep.worker.core.sets import SequenceBroken, SetSequence
from skep.worker.core.supply import Supply
from skep.worker.core.task import TaskMachine
from skep.worker.engine.protocol import Held

# A burst of changes (fifty tasks that start at once) becomes a few disk writes and frames; and
# nobody notices 25 ms beside the leader's own window of 100 ms.
FLUSH_WINDOW_S = 0.025
# Steps on the way that nothing waits for are told along with what comes next, which is mostly that
# the task runs; a start that takes longer than this is shown as one. Each batch is a commit on all
# managers, and containers that start take the processors for themselves.
PASSING_WINDOW_S = 0.2
# A full disk seldom has room again within less.
SAVE_RETRY_S = 1.0
# What a leader may send while its term is being written to disk; the write takes milliseconds.
WAITING_LIMIT = 256


@dataclass
class _Session:
    session_id: SessionId
    term: int
    is_obeyed: bool = False
    sets: SetSequence = field(default_factory=SetSequence)
    waiting: deque[SetReceived | TasksDrained] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class StrayTask:
    """What an engine holds without an assignment on disk."""

    held: Held
    engine: str


class AgentCore:
    """Events in, effects out. Built from the ledger; `begin` takes up what engines hold."""

    def __init__(self, ledger: Ledger) -> None:
        self.highest_term = ledger.term
        self._ledger = ledger
        # What was read counts as durable only once it was written again by this life: a sync that
        # failed under the last one leaves pages that read well and that a power cut takes away.
        self._is_durable = ledger == Ledger()
        self._tasks: dict[TaskId, TaskMachine] = {}
        self._strays: dict[TaskId, StrayTask] = {}
        self._reports = Reports()
        self._supply = Supply()
        self._session: _Session | None = None
        self._changed: set[TaskId] = set()  # assignments to save
        self._removed: set[TaskId] = set()
        self._number = 0
        self._saving: Change | None = None
        self._is_flush_set = False
        self._is_late_flush_set = False
        self._effects: list[AgentEffect] = []

    # ------------------------------------------------------------------------------ ways in

    def begin(self, at: Moment, strays: Iterable[StrayTask]) -> list[AgentEffect]:
        """Take up the tasks on disk, as the engines hold them. Others that engines hold go on
        until a leader has said what this worker must hold."""
        by_id = {stray.held.task_id: stray for stray in strays}
        for task_id, assignment in self._ledger.assignments.items():
            status = self._ledger.statuses.get(task_id)
            is_own = status is not None
            machine = TaskMachine(assignment, status or assignment.task.status)
            self._take_up(at, machine, by_id.pop(task_id, None), is_own=is_own)
        self._strays = by_id
        if not self._is_durable:
            self._save(at)
        return self._taken()

    def step(self, event: AgentEvent) -> list[AgentEffect]:
        """What follows from one event."""
        match event:
            case SessionOpened():
                self._session_opened(event)
            case SessionClosed():
                self._session_closed()
            case SetReceived() | TasksDrained():
                self._from_leader(event)
            case StatusesAcknowledged(at, session_id, number):
                if self._session is not None and self._session.session_id == session_id:
                    self._acknowledged(at, number)
            case ChangeSaved():
                self._saved(event)
            case SaveFailed():
                self._save_failed(event)
            case FlushDue(at):
                self._is_flush_set = self._is_late_flush_set = False
                self._save(at)
            case _:
                self._task_event(event)
        return self._taken()

    def states(self) -> Counter[TaskState]:
        """How many tasks are in which state, for metrics."""
        # A copy in one go: scrapes come from another thread.
        machines = tuple(self._tasks.values())
        return Counter(machine.status.state for machine in machines)

    def running(self) -> list[RunningTask]:
        """The tasks that run, for metrics."""
        return running_tasks(tuple(self._tasks.values()))

    @property
    def session_id(self) -> SessionId | None:
        """The session it is in, for metrics."""
        return self._session.session_id if self._session else None

    def task(self, task_id: TaskId) -> TaskMachine | None:
        """One task, to look at."""
        return self._tasks.get(task_id)

    # ------------------------------------------------------------------------------ session

    def _session_opened(self, event: SessionOpened) -> None:
        self._session_closed()
        if event.term < self.highest_term:
            why = f"its term {event.term} is over: {self.highest_term} was obeyed"
            self._effects.append(LeaveSession(event.session_id, why))
            return
        self._session = _Session(event.session_id, event.term)
        self._reports.session_opened(event.session_id)
        if event.term == self.highest_term and self._is_durable:
            self._obey(event.at)
        else:
            self._save(event.at)

    def _obey(self, at: Moment) -> None:
        session = self._session
        assert session is not None
        assert session.term == self.highest_term, (session.term, self.highest_term)
        session.is_obeyed = True
        while session.waiting and self._session is session:
            self._from_leader(session.waiting.popleft())
        self._send()

    def _from_leader(self, event: SetReceived | TasksDrained) -> None:
        session = self._session
        if session is None or session.session_id != event.session_id:
            return
        if not session.is_obeyed:
            session.waiting.append(event)
            if len(session.waiting) > WAITING_LIMIT:
                self._leave("the disk is too slow to obey it")
            return
        if isinstance(event, TasksDrained):
            for task_id in event.task_ids:
                if task_id in self._tasks:
                    self._run(event.at, task_id, self._tasks[task_id].drain(event.at))
            return
        try:
            whole = session.sets.add(event.frame)
        except SequenceBroken as error:
            self._leave(str(error))
            return
        if whole is not None:
            self._apply(event.at, whole)

    def _leave(self, why: str) -> None:
        assert self._session is not None
        self._effects.append(LeaveSession(self._session.session_id, why))
        self._session_closed()

    def _session_closed(self) -> None:
        self._session = None
        self._reports.session_closed()

    # -------------------------------------------------------------------------- assignments

    def _apply(self, at: Moment, whole: AssignmentSet) -> None:
        self._effects.extend(self._supply.taken(whole))
        named = {assignment.task.id: assignment for assignment in whole.assignments}
        gone = list(whole.removed)
        if whole.kind is AssignmentKind.COMPLETE:
            gone = [task_id for task_id in self._tasks if task_id not in named]
        for task_id in gone:
            if task_id in self._tasks and not self._tasks[task_id].is_dropped:
                self._drop(at, task_id)
        for task_id, assignment in named.items():
            if task_id in self._tasks:
                self._update(at, task_id, assignment)
            elif _may_begin(assignment.task.status.state):
                self._changed.add(task_id)
                machine = TaskMachine(assignment, assignment.task.status)
                self._take_up(at, machine, self._strays.pop(task_id, None))
        if whole.kind is AssignmentKind.COMPLETE:
            strays, self._strays = self._strays, {}
            for stray in strays.values():
                self._put_away(at, stray)
        self._effects.extend(self._supply.released())

    def _take_up(
        self, at: Moment, machine: TaskMachine, stray: StrayTask | None, *, is_own: bool = False
    ) -> None:
        task_id = machine.assignment.task.id
        self._tasks[task_id] = machine
        self._removed.discard(task_id)
        self._reports.taken_up(task_id, machine.status, is_own=is_own)
        self._run(at, task_id, machine.begin(at, stray.held if stray else None))

    def _update(self, at: Moment, task_id: TaskId, assignment: Assignment) -> None:
        machine = self._tasks[task_id]
        machine.is_dropped = False
        self._reports.set_reported(task_id, is_reported=True)
        before = machine.desired
        effects = machine.want(at, assignment.task.desired_state)
        if machine.desired is not before:
            self._changed.add(task_id)
        self._run(at, task_id, effects)

    def _drop(self, at: Moment, task_id: TaskId) -> None:
        """No longer assigned: it is stopped, and nobody hears of it any more."""
        self._changed.add(task_id)
        self._reports.set_reported(task_id, is_reported=False)
        self._run(at, task_id, self._tasks[task_id].drop(at))

    def _put_away(self, at: Moment, stray: StrayTask) -> None:
        """Stop what an engine holds for nobody, and let the engine forget it. It is treated as
        a task whose assignment says no more than that."""
        machine = TaskMachine(_unknown(stray), TaskStatus(state=TaskState.STARTING))
        machine.is_dropped = True
        self._changed.add(stray.held.task_id)
        self._take_up(at, machine, stray)
        self._reports.set_reported(stray.held.task_id, is_reported=False)

    # -------------------------------------------------------------------------------- tasks

    def _task_event(self, event: TaskEvent) -> None:
        machine = self._tasks.get(event.task_id)
        if machine is not None:
            self._run(event.at, event.task_id, machine.step(event))

    def _run(self, at: Moment, task_id: TaskId, effects: list[TaskEffect]) -> None:
        """Take over what a machine has just asked for, and what has changed of it."""
        machine = self._tasks[task_id]
        self._effects.extend(self._supply.let_through(effects))
        if machine.is_forgotten:
            del self._tasks[task_id]
            self._reports.forget(task_id)
            self._changed.discard(task_id)
            self._removed.add(task_id)
        elif self._reports.newest(task_id) != machine.status:
            self._reports.changed(task_id, machine.status)
        self._touch(at)

    def _acknowledged(self, at: Moment, number: int) -> None:
        for task_id in self._reports.stored(number):
            machine = self._tasks[task_id]
            if self._reports.acknowledged(task_id) == machine.status.counter:
                self._run(at, task_id, machine.acknowledge(at))
        self._send()

    # ----------------------------------------------------------------------- saving, reporting

    def _touch(self, at: Moment) -> None:
        if self._is_flush_set or self._saving is not None:
            return
        if self._changed or self._removed or self._reports.has_unsaved_news:
            self._is_flush_set = True
            self._effects.append(SetFlush(at.now + FLUSH_WINDOW_S))
        elif self._reports.has_unsaved and not self._is_late_flush_set:
            self._is_late_flush_set = True
            self._effects.append(SetFlush(at.now + PASSING_WINDOW_S))

    def _save(self, at: Moment) -> None:
        if self._saving is not None:
            return  # What has changed meanwhile is saved when this save is over.
        term = None if self._is_durable else self.highest_term
        if self._session is not None and not self._session.is_obeyed:
            term = self._session.term
        change = Change(
            term=term,
            removed=tuple(sorted(self._removed)),
            assignments=tuple(self._tasks[task_id].assignment for task_id in sorted(self._changed)),
            statuses=self._reports.take_unsaved(),
        )
        self._removed, self._changed = set(), set()
        if change == Change():
            return
        self._number += 1
        self._saving = change
        self._effects.append(SaveChange(self._number, change))

    def _saved(self, event: ChangeSaved) -> None:
        change = self._saving
        assert change is not None
        assert event.number == self._number, (event.number, self._number)
        self._saving = None
        self._reports.saved(change.statuses)
        self._is_durable = True
        if change.term is not None and change.term > self.highest_term:
            self.highest_term = change.term
            self._effects.append(RaiseTerm(change.term))
        session = self._session
        if session is not None and not session.is_obeyed:
            if session.term == self.highest_term:
                self._obey(event.at)
            elif session.term < self.highest_term:
                self._leave(f"its term {session.term} is over: {self.highest_term} was saved")
            else:
                self._save(event.at)
        self._send()
        self._touch(event.at)

    def _save_failed(self, event: SaveFailed) -> None:
        change = self._saving
        assert change is not None
        self._saving = None
        self._reports.not_saved(change.statuses)
        self._changed |= {a.task.id for a in change.assignments if a.task.id in self._tasks}
        self._removed |= {task_id for task_id in change.removed if task_id not in self._tasks}
        self._is_flush_set = True
        self._effects.append(SetFlush(event.at.now + SAVE_RETRY_S))

    def _send(self) -> None:
        session = self._session
        if session is not None and session.is_obeyed:
            for batch in self._reports.next_batches():
                self._effects.append(SendBatch(session.session_id, batch))

    def _taken(self) -> list[AgentEffect]:
        effects, self._effects = self._effects, []
        return effects

    def check_invariants(self) -> None:
        """Called by tests and the simulator after every step."""
        self._reports.check_invariants()
        self._supply.check_invariants()
        assert not self._effects
        assert self._changed <= self._tasks.keys()
        assert not self._removed & self._tasks.keys()
        assert not self._strays.keys() & self._tasks.keys()
        session = self._session
        assert session is None or session.term >= self.highest_term
        is_known = session is not None and session.term == self.highest_term
        assert session is None or session.is_obeyed == (is_known and self._is_durable)
        for task_id, machine in self._tasks.items():
            assert machine.assignment.task.id == task_id
            machine.check_invariants()


def _may_begin(state: TaskState) -> bool:
    """Whether a task that comes in this state, and that we don't know, is ours to take up."""
    return order(TaskState.ASSIGNED) <= order(state) and state not in TERMINAL


def _unknown(stray: StrayTask) -> Assignment:
    task = Task(
        id=stray.held.task_id,
        service_id=ServiceId(""),
        service_name="unknown",
        revision=0,
        slot=0,
        desired_state=DesiredState.REMOVE,
    )
    run = TaskSpec(run=RunSpec(), engine=stray.engine)
    return Assignment(task=task, spec=ServiceSpec(name="unknown", task=run))
