"""One task: every event, and the whole list of what follows."""

from __future__ import annotations

from itertools import pairwise

import pytest

from skep.domain.base import NetworkId, TaskId, replace
from skep.domain.objects import Attachment, TaskStatus
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck
from skep.domain.states import DesiredState, IllegalMove, TaskState
from skep.worker.core.calls import TRIES_LIMIT
from skep.worker.core.ending import gist
from skep.worker.core.events import (
    Call,
    CallDue,
    CallFailed,
    CallReported,
    CallSucceeded,
    ForgetTask,
    HealthProbed,
    NoteMove,
    ProcessEnded,
    ProcessStarted,
    PutOffCall,
    StartCall,
    TaskEffect,
)
from skep.worker.core.task import DRAIN_DEADLINE_S, DRAIN_WINDOW_S, TaskMachine
from skep.worker.engine.protocol import Exit, Held, HeldState, Started
from tests.unit.worker.fakes import HEALTH, assignment
from tests.unit.worker.play import at, held

T1 = TaskId("t1")
S = TaskState


class Driver:
    """A machine, and short words for what happens to it."""

    def __init__(self, of: Assignment, state: TaskState = S.ASSIGNED, *, counter: int = 0) -> None:
        self.machine = TaskMachine(of, TaskStatus(state=state, counter=counter))

    @property
    def status(self) -> TaskStatus:
        return self.machine.status

    def begin(self, now: float = 0.0, held: Held | None = None) -> list[TaskEffect]:
        return self._checked(self.machine.begin(at(now), held))

    def done(self, call: Call, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.step(CallSucceeded(at(now), T1, call)))

    def failed(
        self, call: Call, why: str, now: float = 0.0, *, is_retryable: bool = False
    ) -> list[TaskEffect]:
        return self._checked(self.machine.step(CallFailed(at(now), T1, call, why, is_retryable)))

    def reported(self, call: Call, words: str, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.step(CallReported(at(now), T1, call, words)))

    def started(self, now: float = 0.0, pid: int = 101) -> list[TaskEffect]:
        event = ProcessStarted(at(now), T1, Started(pid=pid, started_ns=at(now).wall_ns))
        return self._checked(self.machine.step(event))

    def ended(self, code: int, now: float = 0.0, reason: str = "") -> list[TaskEffect]:
        exit_ = Exit(exit_code=code, ended_ns=0, reason=reason)
        return self._checked(self.machine.step(ProcessEnded(at(now), T1, exit_)))

    def probed(self, complaint: str | None, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.step(HealthProbed(at(now), T1, complaint)))

    def due(self, call: Call, now: float) -> list[TaskEffect]:
        return self._checked(self.machine.step(CallDue(at(now), T1, call)))

    def want(self, desired: DesiredState, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.want(at(now), desired))

    def drain(self, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.drain(at(now)))

    def drop(self, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.drop(at(now)))

    def acknowledge(self, now: float = 0.0) -> list[TaskEffect]:
        return self._checked(self.machine.acknowledge(at(now)))

    def call(self, call: Call) -> StartCall:
        return StartCall(call, self.machine.assignment)

    def _checked(self, effects: list[TaskEffect]) -> list[TaskEffect]:
        self.machine.check_invariants()
        return effects


def moves(why: str, *states: TaskState) -> list[TaskEffect]:
    return [NoteMove(T1, old, new, why) for old, new in pairwise(states)]


def running(*, health: HealthCheck | None = None, is_published: bool = False) -> Driver:
    task = Driver(assignment(health=health, is_published=is_published))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    if health is not None:
        task.due(Call.PROBE, 1.0)
        task.probed(None, 1.0)
    assert task.status.state is S.RUNNING
    return task


# ------------------------------------------------------------------------------- getting there


def test_an_assigned_task_is_accepted_and_prepared() -> None:
    task = Driver(assignment())
    assert task.begin() == [
        *moves("assigned", S.ASSIGNED, S.ACCEPTED, S.PREPARING),
        task.call(Call.PREPARE),
    ]


def test_a_prepared_task_is_started() -> None:
    task = Driver(assignment())
    task.begin()
    assert task.done(Call.PREPARE) == [
        *moves("prepared", S.PREPARING, S.READY),
        *moves("wanted running", S.READY, S.STARTING),
        task.call(Call.START),
    ]


def test_what_an_engine_says_of_its_preparation_is_the_tasks_message() -> None:
    task = Driver(assignment())
    task.begin()
    counter = task.status.counter
    assert task.reported(Call.PREPARE, "pulling web: 34 % of 120 MB") == []
    assert task.status.message == "pulling web: 34 % of 120 MB"
    assert (task.status.state, task.status.counter) == (S.PREPARING, counter + 1)


def test_what_an_engine_says_of_a_step_that_is_over_is_not_shown() -> None:
    task = Driver(assignment())
    task.begin()
    task.done(Call.PREPARE)
    before = task.status
    task.reported(Call.PREPARE, "pulling web: 100 %")
    assert task.status == before


def test_what_an_engine_says_of_a_task_that_is_being_stopped_is_not_shown() -> None:
    task = Driver(assignment())
    task.begin()
    task.want(DesiredState.SHUTDOWN)
    before = task.status
    task.reported(Call.PREPARE, "pulling web: 50 %")
    assert task.status == before


def test_a_task_without_a_health_test_runs_once_it_is_started() -> None:
    task = Driver(assignment())
    task.begin()
    task.done(Call.PREPARE)
    assert task.started(pid=7) == [
        task.call(Call.WAIT),
        *moves("started", S.STARTING, S.RUNNING),
    ]
    assert task.status.pid == 7


def test_a_task_wanted_ready_waits_there() -> None:
    task = Driver(assignment(desired=DesiredState.READY))
    task.begin()
    assert task.done(Call.PREPARE) == moves("prepared", S.PREPARING, S.READY)
    effects = task.want(DesiredState.RUNNING)
    assert effects == [*moves("wanted running", S.READY, S.STARTING), task.call(Call.START)]


def test_what_is_wanted_never_goes_backward() -> None:
    task = running()
    assert task.want(DesiredState.READY) == []
    assert task.machine.desired is DesiredState.RUNNING


def test_every_news_has_a_counter_of_its_own() -> None:
    task = Driver(assignment(), counter=40)
    task.begin()
    assert task.status.counter == 42
    task.done(Call.PREPARE)
    task.started()
    assert task.status.counter == 45


# ------------------------------------------------------------------------- what goes wrong


def test_what_can_never_be_prepared_is_rejected() -> None:
    task = Driver(assignment())
    task.begin()
    # Half of it may be done, and has to be undone first.
    assert task.failed(Call.PREPARE, "no such user") == [task.call(Call.STOP)]
    assert task.done(Call.STOP) == moves("can't be prepared here", S.PREPARING, S.REJECTED)
    assert task.status.error == "no such user"


def test_what_can_never_be_started_has_failed_once_nothing_of_it_is_left() -> None:
    task = Driver(assignment())
    task.begin()
    task.done(Call.PREPARE)
    assert task.failed(Call.START, "no such program") == [task.call(Call.STOP)]
    assert task.done(Call.STOP) == moves("broken", S.STARTING, S.FAILED)
    assert task.status.error == "no such program"


def test_what_may_work_later_is_tried_again_and_not_for_ever() -> None:
    task = Driver(assignment())
    task.begin()
    now = 0.0
    delays, told = [], []
    for _ in range(TRIES_LIMIT - 1):
        effects = task.failed(Call.PREPARE, "busy", now, is_retryable=True)
        [put_off] = effects
        assert isinstance(put_off, PutOffCall)
        delays.append(put_off.due - now)
        now = put_off.due
        assert task.due(Call.PREPARE, now) == [task.call(Call.PREPARE)]
        told.append(task.status)
    # Why it isn't ready is said at once, and once.
    assert {(status.state, status.message) for status in told} == {(S.PREPARING, "busy")}
    assert len({status.counter for status in told}) == 1
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0]
    task.failed(Call.PREPARE, "busy", now, is_retryable=True)
    task.done(Call.STOP)
    assert task.status.state is S.REJECTED
    assert task.status.error == "busy (tried 6 times)"


def test_a_success_forgives_earlier_failures() -> None:
    task = Driver(assignment())
    task.begin()
    task.failed(Call.PREPARE, "busy", is_retryable=True)
    task.due(Call.PREPARE, 0.5)
    task.done(Call.PREPARE, 0.5)
    effects = task.failed(Call.START, "busy", 0.5, is_retryable=True)
    assert effects == [PutOffCall(Call.START, T1, 1.0)]


def test_an_overtaken_timer_is_only_a_hint() -> None:
    task = Driver(assignment())
    task.begin()
    task.failed(Call.PREPARE, "busy", is_retryable=True)
    assert task.due(Call.PREPARE, 0.4) == []
    assert task.due(Call.START, 9.0) == []
    assert task.due(Call.PREPARE, 0.5) == [task.call(Call.PREPARE)]
    assert task.due(Call.PREPARE, 0.6) == []


def test_a_stop_is_tried_until_it_works() -> None:
    task = running()
    task.want(DesiredState.SHUTDOWN)
    now = 0.0
    for _ in range(20):
        [put_off] = task.failed(Call.STOP, "the engine is away", now)
        assert isinstance(put_off, PutOffCall)
        assert put_off.due - now <= 30.0
        now = put_off.due
        assert task.due(Call.STOP, now) == [task.call(Call.STOP)]
    task.ended(143, now)
    task.done(Call.STOP, now)
    assert task.status.state is S.SHUTDOWN


# ---------------------------------------------------------------------------------- its end


@pytest.mark.parametrize(
    ("code", "reason", "state", "error"),
    [
        (0, "", S.COMPLETE, ""),
        (3, "", S.FAILED, "task: non-zero exit (3)"),
        (137, "out of memory", S.FAILED, "task: non-zero exit (137): out of memory"),
        (127, "exit code 127: no go", S.FAILED, "task: non-zero exit (127): no go"),
    ],
)
def test_an_end_by_itself(code: int, reason: str, state: TaskState, error: str) -> None:
    task = running()
    assert task.ended(code, reason=reason) == moves("ended by itself", S.RUNNING, state)
    assert (task.status.error, task.status.exit_code, task.status.pid) == (error, code, None)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_wanted_stop_is_a_shutdown_whatever_the_code(code: int) -> None:
    task = running()
    assert task.want(DesiredState.SHUTDOWN) == [task.call(Call.STOP)]
    assert task.ended(code) == []
    assert task.done(Call.STOP) == moves("stopped", S.RUNNING, S.SHUTDOWN)
    assert task.status.exit_code == code


def test_the_stop_may_return_before_the_end_is_told() -> None:
    task = running()
    task.want(DesiredState.SHUTDOWN)
    assert task.done(Call.STOP) == []
    assert task.ended(143) == moves("stopped", S.RUNNING, S.SHUTDOWN)


def test_a_task_that_never_started_is_shut_down_at_once() -> None:
    task = Driver(assignment(desired=DesiredState.SHUTDOWN))
    assert task.begin() == moves("wanted stopped", S.ASSIGNED, S.SHUTDOWN)


def test_a_preparation_under_way_is_cancelled_by_the_stop() -> None:
    task = Driver(assignment())
    task.begin()
    assert task.want(DesiredState.SHUTDOWN) == [task.call(Call.STOP)]
    assert task.failed(Call.PREPARE, "too late", is_retryable=True) == []
    assert task.done(Call.STOP) == moves("wanted stopped", S.PREPARING, S.SHUTDOWN)


def test_a_start_that_beats_the_stop_still_tells_its_exit_code() -> None:
    task = Driver(assignment())
    task.begin()
    task.done(Call.PREPARE)
    task.want(DesiredState.SHUTDOWN)
    assert task.started() == [task.call(Call.WAIT)]
    assert task.done(Call.STOP) == []
    task.ended(143)
    assert (task.status.state, task.status.exit_code) == (S.SHUTDOWN, 143)


def test_what_ended_is_removed_once_its_end_is_acknowledged() -> None:
    task = running()
    task.want(DesiredState.SHUTDOWN)
    task.ended(143)
    task.done(Call.STOP)
    assert task.want(DesiredState.REMOVE) == []
    assert task.acknowledge() == [task.call(Call.REMOVE)]
    assert task.done(Call.REMOVE) == [ForgetTask(T1)]
    assert task.machine.is_forgotten


def test_what_no_leader_names_is_stopped_and_removed() -> None:
    task = running(is_published=True)
    assert task.drop() == [task.call(Call.STOP)]
    task.ended(143)
    assert task.done(Call.STOP) == [
        *moves("stopped", S.RUNNING, S.SHUTDOWN),
        task.call(Call.REMOVE),
    ]


def test_what_never_started_is_removed_as_well() -> None:
    task = Driver(assignment(desired=DesiredState.READY))
    task.begin()
    task.done(Call.PREPARE)
    # It may be on networks already, whose addresses are another task's once it is over.
    assert task.drop() == [task.call(Call.STOP)]
    assert task.done(Call.STOP) == [
        *moves("wanted stopped", S.READY, S.SHUTDOWN),
        task.call(Call.REMOVE),
    ]
    assert task.status.message == "never started"


# --------------------------------------------------------------------------------- draining


def test_a_published_task_is_stopped_once_it_is_drained() -> None:
    task = running(is_published=True)
    assert task.want(DesiredState.SHUTDOWN, 10.0) == [
        PutOffCall(Call.STOP, T1, 10.0 + DRAIN_DEADLINE_S)
    ]
    # What is on its way to it has a moment to arrive, and to be answered.
    ends = 10.4 + DRAIN_WINDOW_S
    assert task.drain(10.4) == [PutOffCall(Call.STOP, T1, ends)]
    assert task.drain(10.5) == []
    assert task.due(Call.STOP, ends) == [task.call(Call.STOP)]


def test_a_task_on_networks_is_drained_without_a_published_port_as_well() -> None:
    """Names and virtual addresses lead to it."""
    made = assignment()
    attached = (Attachment(network_id=NetworkId("app"), address="10.0.0.3"),)
    task = Driver(replace(made, task=replace(made.task, attachments=attached)))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    assert task.want(DesiredState.SHUTDOWN, 10.0) == [
        PutOffCall(Call.STOP, T1, 10.0 + DRAIN_DEADLINE_S)
    ]


def test_a_drain_that_nobody_acknowledges_ends_at_its_deadline() -> None:
    task = running(is_published=True)
    task.want(DesiredState.SHUTDOWN, 10.0)
    assert task.due(Call.STOP, 10.0 + DRAIN_DEADLINE_S) == [task.call(Call.STOP)]
    assert task.drain(20.0) == []


def test_a_task_that_is_drained_already_is_stopped_at_once() -> None:
    task = running(is_published=True)
    assert task.drain() == []
    assert task.want(DesiredState.SHUTDOWN) == [task.call(Call.STOP)]


def test_a_published_task_that_never_was_healthy_is_stopped_at_once() -> None:
    task = Driver(assignment(health=HEALTH, is_published=True))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    assert task.want(DesiredState.SHUTDOWN) == [task.call(Call.STOP)]


def test_a_task_that_ends_while_it_drains_was_shut_down() -> None:
    task = running(is_published=True)
    task.want(DesiredState.SHUTDOWN)
    assert task.ended(0) == moves("stopped", S.RUNNING, S.SHUTDOWN)
    assert task.due(Call.STOP, 5.0) == []


# ----------------------------------------------------------------------------------- health


def test_running_means_healthy() -> None:
    task = Driver(assignment(health=HEALTH))
    task.begin()
    task.done(Call.PREPARE)
    assert task.started(10.0) == [task.call(Call.WAIT), PutOffCall(Call.PROBE, T1, 11.0)]
    assert task.status.state is S.STARTING
    assert task.due(Call.PROBE, 11.0) == [task.call(Call.PROBE)]
    assert task.probed(None, 11.5) == [
        *moves("healthy", S.STARTING, S.RUNNING),
        PutOffCall(Call.PROBE, T1, 12.5),
    ]
    assert task.status.pid == 101


def test_enough_failures_in_a_row_end_a_task() -> None:
    task = running(health=HEALTH)
    assert task.probed("refused", 2.0) == [PutOffCall(Call.PROBE, T1, 3.0)]
    assert task.status.is_healthy
    assert task.status.message == "healthy"
    assert task.probed("Traceback:\n  refused   again\n\n", 3.0) == [task.call(Call.STOP)]
    assert not task.status.is_healthy
    assert task.status.message == "unhealthy: refused again"
    assert task.status.state is S.RUNNING
    task.ended(143)
    assert task.done(Call.STOP) == moves("unhealthy", S.RUNNING, S.FAILED)
    assert task.status.error == "unhealthy: refused again"
    assert task.status.exit_code == 143


@pytest.mark.parametrize(
    ("complaint", "line"),
    [
        ("", ""),
        (" \n ", ""),
        ("refused", "refused"),
        ("Traceback\n  File x\nURLError: refused\n", "URLError: refused"),
        ("no answer within 3 s: trying\nstill  trying", "no answer within 3 s: still trying"),
        ("no answer within 3 s: trying", "no answer within 3 s: trying"),
        ("a\n" + "x" * 201, "x" * 199 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_what_a_health_test_says_is_told_in_one_line(complaint: str, line: str) -> None:
    assert gist(complaint) == line


def test_a_task_that_never_becomes_healthy_fails_as_well() -> None:
    task = Driver(assignment(health=HEALTH))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    task.probed("no", 1.0)
    assert task.probed("no", 2.0) == [task.call(Call.STOP)]
    task.ended(143)
    assert task.done(Call.STOP) == moves("unhealthy", S.STARTING, S.FAILED)


def test_an_end_before_the_first_success_is_a_failure_whatever_the_code() -> None:
    task = Driver(assignment(health=HEALTH))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    task.ended(0)
    assert task.status.state is S.FAILED
    assert task.status.error == "ended before it was healthy: exit code 0"


def test_an_engine_that_cannot_test_counts_as_a_failed_test() -> None:
    task = running(health=HEALTH)
    task.failed(Call.PROBE, "no such program", 2.0)
    task.failed(Call.PROBE, "no such program", 3.0)
    task.ended(143)
    task.done(Call.STOP)
    assert task.status.error == "unhealthy: no such program"


def test_a_health_test_of_none_tests_nothing() -> None:
    none = HealthCheck(test=("NONE",))
    task = Driver(assignment(health=none))
    task.begin()
    task.done(Call.PREPARE)
    task.started()
    assert task.status.state is S.RUNNING


# --------------------------------------------------------------------------------- adoption


def test_a_running_task_is_adopted_as_it_is() -> None:
    task = Driver(assignment(), S.RUNNING, counter=5)
    task.machine.status = replace(task.status, pid=101)
    assert task.begin(50.0, held("t1", HeldState.RUNNING)) == [task.call(Call.WAIT)]
    assert (task.status.counter, task.status.pid) == (5, 101)


def test_a_healthy_task_is_tested_on_after_its_adoption() -> None:
    task = Driver(assignment(health=HEALTH), S.RUNNING)
    task.machine.status = replace(task.status, pid=101)
    effects = task.begin(50.0, held("t1", HeldState.RUNNING))
    assert effects == [task.call(Call.WAIT), PutOffCall(Call.PROBE, T1, 51.0)]


@pytest.mark.parametrize("state", [S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING])
def test_an_engine_that_is_ahead_of_the_disk_is_caught_up_with(state: TaskState) -> None:
    task = Driver(assignment(), state)
    effects = task.begin(50.0, held("t1", HeldState.RUNNING))
    assert [effect for effect in effects if isinstance(effect, StartCall)] == [task.call(Call.WAIT)]
    assert task.status.state is S.RUNNING


@pytest.mark.parametrize(
    ("desired", "code", "state"),
    [
        (DesiredState.RUNNING, 0, S.COMPLETE),
        (DesiredState.RUNNING, 4, S.FAILED),
        (DesiredState.SHUTDOWN, 4, S.SHUTDOWN),
    ],
)
def test_an_end_in_the_agents_absence(desired: DesiredState, code: int, state: TaskState) -> None:
    task = Driver(assignment(desired=desired), S.RUNNING)
    effects = task.begin(50.0, held("t1", HeldState.ENDED, exit_code=code))
    assert [type(effect) for effect in effects] == [NoteMove]
    assert (task.status.state, task.status.exit_code) == (state, code)


def test_an_end_that_nobody_saw_is_a_failure_without_a_code() -> None:
    task = Driver(assignment(), S.RUNNING)
    task.begin(50.0, held("t1", HeldState.ENDED))
    assert (task.status.state, task.status.exit_code) == (S.FAILED, None)
    assert task.status.error == "how it ended is unknown"


@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING])
def test_what_the_engine_has_lost_is_never_started_again(state: TaskState) -> None:
    task = Driver(assignment(), state)
    assert task.begin() == moves("lost", state, S.FAILED)
    assert task.status.error == "the engine has lost it"


@pytest.mark.parametrize(
    ("state", "is_prepared", "call"),
    [
        (S.PREPARING, False, Call.PREPARE),
        (S.PREPARING, True, Call.PREPARE),
        (S.READY, False, Call.PREPARE),
        (S.STARTING, True, Call.START),
    ],
)
def test_a_step_under_way_is_taken_again(state: TaskState, is_prepared: bool, call: Call) -> None:
    task = Driver(assignment(), state)
    has = held("t1", HeldState.PREPARED) if is_prepared else None
    assert task.begin(0.0, has) == [task.call(call)]
    assert task.status.counter == 0


def test_a_ready_task_goes_on_from_there() -> None:
    task = Driver(assignment(), S.READY)
    assert task.begin(0.0, held("t1", HeldState.PREPARED)) == [
        *moves("wanted running", S.READY, S.STARTING),
        task.call(Call.START),
    ]


def test_a_stop_under_way_is_taken_again() -> None:
    task = Driver(assignment(desired=DesiredState.SHUTDOWN), S.RUNNING)
    task.machine.status = replace(task.status, pid=101)
    effects = task.begin(0.0, held("t1", HeldState.RUNNING))
    assert effects == [task.call(Call.WAIT), task.call(Call.STOP)]


def test_what_was_prepared_and_never_noted_is_undone() -> None:
    """An agent may die between its engine's answer and its own note of it."""
    task = Driver(assignment(desired=DesiredState.SHUTDOWN))
    assert task.begin(0.0, held("t1", HeldState.PREPARED)) == [task.call(Call.STOP)]
    task.done(Call.STOP)
    assert (task.status.state, task.status.message) == (S.SHUTDOWN, "never started")


def test_a_process_of_a_task_that_is_over_is_stopped() -> None:
    task = Driver(assignment(), S.FAILED)
    assert task.begin(0.0, held("t1", HeldState.RUNNING)) == [task.call(Call.STOP)]
    assert task.done(Call.STOP) == []


def test_an_illegal_move_tells_the_story() -> None:
    task = Driver(assignment(), S.NEW)
    with pytest.raises(IllegalMove) as raised:
        task.begin(0.0, held("t1", HeldState.RUNNING))
    assert str(raised.value).splitlines() == [
        "task=t1 from=new to=assigned writer=worker",
        "0.000 begun held=running",
    ]


# --------------------------------------------------------- what its engine knows of its health


def test_a_test_that_its_engine_brings_along_counts_in_place_of_the_specs() -> None:
    task = Driver(assignment())
    task.begin()
    task.done(Call.PREPARE)
    told = Started(pid=101, started_ns=at(0.0).wall_ns, health=HEALTH)
    effects = task.machine.step(ProcessStarted(at(0.0), T1, told))
    assert effects == [
        task.call(Call.WAIT),
        PutOffCall(Call.PROBE, T1, 1.0),
    ]
    assert task.due(Call.PROBE, 1.0) == [StartCall(Call.PROBE, task.machine.assignment, HEALTH)]
    assert task.probed(None, 1.0)[:1] == moves("healthy", S.STARTING, S.RUNNING)


@pytest.mark.parametrize(("health", "state"), [(None, S.COMPLETE), (HEALTH, S.FAILED)])
def test_an_adopted_end_before_the_engines_test_was_a_success(
    health: HealthCheck | None, state: TaskState
) -> None:
    task = Driver(assignment(), S.STARTING)
    started = Started(pid=101, started_ns=0, health=health)
    ended = Exit(exit_code=0, ended_ns=0)
    task.begin(held=Held(task_id=T1, state=HeldState.ENDED, started=started, exit=ended))
    assert task.status.state is state


def test_a_test_that_could_not_be_asked_is_no_failure_and_is_asked_again() -> None:
    task = running(health=HEALTH)
    now = 2.0
    for _ in range(10 * HEALTH.retries):
        task.due(Call.PROBE, now)
        assert task.failed(Call.PROBE, "the engine is away", now, is_retryable=True) == [
            PutOffCall(Call.PROBE, T1, now + 1.0)
        ]
        now += 1.0
    assert task.status.state is S.RUNNING
    # What can never be asked is as bad as what says no.
    for _ in range(HEALTH.retries):
        task.due(Call.PROBE, now)
        effects = task.failed(Call.PROBE, "no such test", now)
        now += 1.0
    assert effects == [task.call(Call.STOP)]
