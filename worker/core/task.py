"""The life of one task on its worker.

The machine is level-triggered: whatever happens, `_advance` looks at the state, at what managers
want and at what the engine is busy with, and takes the next step. Every step is checked against
the one table of moves. A task is never started twice: what its engine has lost, has failed.
"""

from __future__ import annotations

from collections import deque

from skep.domain.base import SECOND_NS, replace
from skep.domain.objects import TaskStatus
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck
from skep.domain.states import (
    TERMINAL,
    DesiredState,
    IllegalMove,
    TaskState,
    Writer,
    check_move,
    desired_order,
    order,
)
from skep.worker.core.calls import Calls
from skep.worker.core.ending import (
    ERROR_LIMIT,
    NEVER_STARTED,
    Ending,
    Stop,
    StopCause,
    ending,
    gist,
)
from skep.worker.core.events import (
    Call,
    CallDue,
    CallFailed,
    CallReported,
    CallSucceeded,
    ForgetTask,
    HealthProbed,
    Moment,
    NoteMove,
    ProcessEnded,
    ProcessStarted,
    PutOffCall,
    StartCall,
    TaskEffect,
    TaskEvent,
)
from skep.worker.core.health import Health, Verdict
from skep.worker.core.resume import Resumption, resumption, way
from skep.worker.engine.protocol import Exit, Held, HeldState, Started

# Netproxies apply a version within a second, also when one of them has just reconnected; and a
# service whose managers are gone must still stop in a time that people are ready to wait.
DRAIN_DEADLINE_S = 5.0
# A server that dies at its stop signal can still answer what was on its way to it.
DRAIN_WINDOW_S = 0.2
STORY_LIMIT = 40


class TaskMachine:
    """One task. `begin` once, then `step` for each event."""

    def __init__(self, assignment: Assignment, status: TaskStatus) -> None:
        self.assignment = assignment
        self.status = status
        self.is_dropped = False
        """No leader's assignment names it any more."""
        self.is_forgotten = False
        """Its engine has nothing of it left: the agent may forget it too."""
        self.story: deque[str] = deque(maxlen=STORY_LIMIT)
        self._is_held = False
        self._is_acknowledged = False
        self._is_drained = False
        self._stop: Stop | None = None
        self._exit: Exit | None = None
        self._health: Health | None = None
        self._engines_check: HealthCheck | None = None
        self._calls = Calls()
        self._effects: list[TaskEffect] = []

    @property
    def desired(self) -> DesiredState:
        """What managers want of it; REMOVE once they have dropped it."""
        return self.assignment.task.desired_state

    @property
    def is_over(self) -> bool:
        """Whether it has reached a terminal state."""
        return self.status.state in TERMINAL

    @property
    def is_unwanted(self) -> bool:
        """Whether it is to be stopped."""
        return desired_order(self.desired) >= desired_order(DesiredState.SHUTDOWN)

    def begin(self, at: Moment, held: Held | None) -> list[TaskEffect]:
        """Take it up: anew, or as its engine holds it after an agent's death."""
        self._tell(at, f"begun held={held.state.value if held else None}")
        self._is_held = held is not None
        if self.is_over:
            # What never started may still be connected to networks.
            if held is not None and held.state is not HeldState.ENDED:
                self._call(Call.STOP)
        elif held is not None and held.state is not HeldState.PREPARED:
            self._adopt(at, held)
        else:
            self._resume(at, is_prepared=held is not None)
        return self._flush(at)

    def step(self, event: TaskEvent) -> list[TaskEffect]:
        """What follows from one event."""
        match event:
            case CallSucceeded(at, _, call):
                self._succeeded(at, call)
            case CallReported(_, _, call, words):
                self._reported(call, words[:ERROR_LIMIT])
            case CallFailed(at, _, call, why, is_retryable):
                self._failed(at, call, why, is_retryable=is_retryable)
            case ProcessStarted(at, _, started):
                self._calls.succeeded(Call.START)
                self._started(at, started)
            case ProcessEnded(at, _, exit_):
                self._calls.succeeded(Call.WAIT)
                self._exit = exit_
                if not self.is_over and Call.STOP not in self._calls.busy:
                    self._ended(at, exit_)
            case HealthProbed(at, _, complaint):
                self._calls.succeeded(Call.PROBE)
                self._probed(at, complaint)
            case CallDue(at, _, call):
                self._came_due(at, call)
        return self._flush(event.at)

    def want(self, at: Moment, desired: DesiredState) -> list[TaskEffect]:
        """Managers want something else of it. What they want never goes backward."""
        if desired_order(desired) > desired_order(self.desired):
            self._tell(at, f"desired={desired.value}")
            task = replace(self.assignment.task, desired_state=desired)
            self.assignment = replace(self.assignment, task=task)
        return self._flush(at)

    def drop(self, at: Moment) -> list[TaskEffect]:
        """No assignment names it any more: it is to be stopped and forgotten."""
        self.is_dropped = True
        return self.want(at, DesiredState.REMOVE)

    def drain(self, at: Moment) -> list[TaskEffect]:
        """No netproxy sends it new connections; those that there are get a moment to end."""
        if not self._is_drained and self._stop is not None and Call.STOP in self._calls.due:
            self._put_off(at, Call.STOP, DRAIN_WINDOW_S)
        self._is_drained = True
        return self._flush(at)

    def acknowledge(self, at: Moment) -> list[TaskEffect]:
        """The leader has committed this task's newest status."""
        self._is_acknowledged = True
        return self._flush(at)

    def _flush(self, at: Moment) -> list[TaskEffect]:
        if not self.is_over:
            self._advance(at)
        if self.is_over:
            self._dispose()
        effects, self._effects = self._effects, []
        return effects

    def _advance(self, at: Moment) -> None:
        if self._stop is None and self.is_unwanted:
            self._begin_stop(at)
            return
        if self._stop is not None or self._calls.are_pending:
            return
        match self.status.state:
            case TaskState.ASSIGNED | TaskState.ACCEPTED:
                self._walk(at, TaskState.PREPARING, "assigned")
                self._call(Call.PREPARE)
            case TaskState.READY if self.desired is DesiredState.RUNNING:
                self._move(at, TaskState.STARTING, "wanted running", message="starting")
                self._call(Call.START)

    def _begin_stop(self, at: Moment) -> None:
        self._stop = Stop(StopCause.WANTED)
        self._calls.due.pop(Call.PROBE, None)
        is_early = order(self.status.state) < order(TaskState.PREPARING)
        # An agent that died may have prepared more than it could note.
        if is_early and not (self._calls.busy or self._is_held):
            self._finish(at, NEVER_STARTED)
        elif self._has_connections():
            self._put_off(at, Call.STOP, DRAIN_DEADLINE_S)
        else:
            self._call(Call.STOP)

    def _has_connections(self) -> bool:
        return (
            self.status.state is TaskState.RUNNING
            and bool(self.assignment.spec.ports or self.assignment.task.attachments)
            and not self._is_drained
            and not self.is_dropped
        )

    def _dispose(self) -> None:
        """Let the engine forget a task that is over, once nobody needs its remains."""
        if self._is_unneeded() and not (self.is_forgotten or self._calls.are_pending):
            self._call(Call.REMOVE)

    def _is_unneeded(self) -> bool:
        is_told = self.is_dropped or self._is_acknowledged
        return self.is_over and is_told and self.desired is DesiredState.REMOVE

    def _succeeded(self, at: Moment, call: Call) -> None:
        self._calls.succeeded(call)
        match call:
            case Call.PREPARE if self.status.state is TaskState.PREPARING:
                self._move(at, TaskState.READY, "prepared", message="prepared")
            case Call.STOP if not self.is_over and Call.WAIT not in self._calls.busy:
                self._ended(at, self._exit)
            case Call.REMOVE:
                self.is_forgotten = True
                self._effects.append(ForgetTask(self.assignment.task.id))

    def _reported(self, call: Call, words: str) -> None:
        # One that is being stopped, or has taken the step, has another message by then.
        is_current = call in self._calls.busy and self._stop is None
        if is_current and self.status.state is TaskState.PREPARING:
            self._set_status(replace(self.status, message=words))

    def _failed(self, at: Moment, call: Call, why: str, *, is_retryable: bool) -> None:
        self._calls.busy.discard(call)
        why = why[:ERROR_LIMIT]
        self._tell(at, f"{call.value} failed: {why}")
        if call is Call.PROBE:
            self._unprobed(at, why, is_retryable=is_retryable)
            return
        if self._stop is not None and call in (Call.PREPARE, Call.START):
            return  # The STOP that is under way finishes it.
        delay_s = self._calls.failed(call, is_retryable=is_retryable)
        if delay_s is not None:
            if call in (Call.PREPARE, Call.START) and why != self.status.message:
                # Whoever wonders why it doesn't start should not have to wait for the last try.
                self._set_status(replace(self.status, message=why))
            self._put_off(at, call, delay_s)
            return
        error = f"{why} (tried {self._calls.tries(call)} times)" if is_retryable else why
        if call is Call.WAIT:
            self._ended(at, None, lost=error)
        else:
            # Half of it may have been done, and its addresses are another task's once it is over.
            cause = StopCause.UNPREPARED if call is Call.PREPARE else StopCause.BROKEN
            self._stop = Stop(cause, error)
            self._call(Call.STOP)

    def _started(self, at: Moment, started: Started) -> None:
        if self.is_over:
            return
        self._call(Call.WAIT)
        if self._stop is not None:
            return
        self._engines_check = started.health
        check = self._check()
        if check is None:
            self._become_running(at, "started", pid=started.pid)
            return
        if self.status.pid != started.pid:
            self._set_status(replace(self.status, pid=started.pid))
        # The start period began with the process, perhaps under an earlier agent.
        age_s = max(0.0, (at.wall_ns - started.started_ns) / SECOND_NS)
        is_known = self.status.state is TaskState.RUNNING
        self._health = Health(check, at.now - age_s, is_known_healthy=is_known)
        self._put_off(at, Call.PROBE, self._health.delay_s(at.now))

    def _become_running(self, at: Moment, message: str, *, pid: int | None) -> None:
        if self.status.state is TaskState.STARTING:
            self._move(at, TaskState.RUNNING, message, message=message, pid=pid)
        elif self.status.pid != pid:
            self._set_status(replace(self.status, pid=pid))

    def _probed(self, at: Moment, complaint: str | None) -> None:
        if self.is_over or self._stop is not None or self._health is None:
            return
        verdict = self._health.probed(complaint)
        if verdict is Verdict.UNHEALTHY:
            error = f"unhealthy: {gist(complaint or '')}"
            self._set_status(replace(self.status, is_healthy=False, message=error))
            self._stop = Stop(StopCause.UNHEALTHY, error)
            self._call(Call.STOP)
            return
        if verdict is Verdict.HEALTHY:
            self._become_running(at, "healthy", pid=self.status.pid)
        self._put_off(at, Call.PROBE, self._health.delay_s(at.now))

    def _unprobed(self, at: Moment, why: str, *, is_retryable: bool) -> None:
        """Its test could not be run. An engine that can't be asked says nothing of the task."""
        if not is_retryable:
            self._probed(at, why)
        elif self._health is not None and not self.is_over and self._stop is None:
            self._put_off(at, Call.PROBE, self._health.delay_s(at.now))

    def _came_due(self, at: Moment, call: Call) -> None:
        if self.is_forgotten or not self._calls.is_due(call, at.now):
            return
        if call is Call.PROBE and self._health is not None:
            self._health.began(at.now)
        self._call(call)

    def _ended(self, at: Moment, exit_: Exit | None, lost: str = "") -> None:
        if self._stop is None and self.is_unwanted:
            self._stop = Stop(StopCause.WANTED)
        self._finish(at, ending(self.status.state, self._stop, exit_, lost))

    def _finish(self, at: Moment, end: Ending) -> None:
        self._move(
            at,
            end.state,
            end.why,
            message=end.message,
            error=end.error,
            exit_code=end.exit_code,
            pid=None,
        )
        self._calls.end()

    def _adopt(self, at: Moment, held: Held) -> None:
        """Its process runs, or has ended meanwhile: take it over as it is."""
        self._walk(at, TaskState.STARTING, "adopted")
        if held.state is HeldState.ENDED:
            self._engines_check = held.started.health if held.started else None
            if self._check() is None and self.status.state is TaskState.STARTING:
                self._move(at, TaskState.RUNNING, "adopted", message="started")
            self._ended(at, held.exit)
        elif held.started is None:
            self._call(Call.START)  # It says who runs, and leaves what runs as it is.
        else:
            self._started(at, held.started)

    def _resume(self, at: Moment, *, is_prepared: bool) -> None:
        """No process of it was ever seen: go on where the last status left off."""
        state, is_unwanted = self.status.state, self.is_unwanted
        match resumption(state, is_prepared=is_prepared, is_unwanted=is_unwanted):
            case Resumption.LOST:
                self._ended(at, None, "the engine has lost it")
            case Resumption.PREPARE:
                self._call(Call.PREPARE)
            case Resumption.START:
                self._call(Call.START)

    def _walk(self, at: Moment, until: TaskState, why: str) -> None:
        """Go there step by step, from wherever it is before that."""
        for state in way(self.status.state, until):
            self._move(at, state, why, message=state.value)

    def _check(self) -> HealthCheck | None:
        check = self._engines_check or self.assignment.spec.task.run.health
        return None if check is None or check.test[:1] in ((), ("NONE",)) else check

    def _call(self, call: Call) -> None:
        if not self._calls.begin(call):
            return
        health = self._engines_check if call is Call.PROBE else None
        self._effects.append(StartCall(call, self.assignment, health))

    def _put_off(self, at: Moment, call: Call, delay_s: float) -> None:
        self._calls.due[call] = at.now + delay_s
        self._effects.append(PutOffCall(call, self.assignment.task.id, at.now + delay_s))

    def _move(self, at: Moment, new: TaskState, why: str, **changes: object) -> None:
        old, task_id = self.status.state, self.assignment.task.id
        try:
            check_move(task_id, old, new, Writer.WORKER)
        except IllegalMove as error:
            raise IllegalMove(f"{error}\n" + "\n".join(self.story)) from None
        self._tell(at, f"{old.value} -> {new.value}: {why}")
        self._set_status(replace(self.status, state=new, since_ns=at.wall_ns, **changes))
        self._effects.append(NoteMove(task_id, old, new, why))

    def _set_status(self, status: TaskStatus) -> None:
        self.status = replace(status, counter=self.status.counter + 1)
        self._is_acknowledged = False

    def _tell(self, at: Moment, what: str) -> None:
        self.story.append(f"{at.now:.3f} {what}")

    def check_invariants(self) -> None:
        """Called by tests and the simulator after every step."""
        story = "\n".join(self.story)
        assert not (self.is_over and self._calls.busy - {Call.STOP, Call.REMOVE}), story
        assert not (self.is_forgotten and self._calls.busy), story
        # Unless it waits for its managers (READY), or is over, something is on its way.
        is_waiting = self.is_over or self.status.state is TaskState.READY
        assert is_waiting or self._calls.are_pending, story
        is_kept = not self._is_unneeded() or self.is_forgotten
        assert is_kept or self._calls.are_pending, story
