"""The agent's core: whom it obeys, what it saves before it says it, what it lets go of."""

from __future__ import annotations

from skep.domain.base import SessionId, TaskId, replace
from skep.domain.objects import TaskStatus
from skep.domain.session import AssignmentKind, AssignmentSet, StatusBatch, TaskReport
from skep.domain.states import DesiredState, TaskState
from skep.worker.core.agent import AgentCore, StrayTask
from skep.worker.core.events import (
    AgentEffect,
    Call,
    CallSucceeded,
    ChangeSaved,
    FlushDue,
    ForgetTask,
    LeaveSession,
    NoteMove,
    ProcessStarted,
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
    TasksDrained,
)
from skep.worker.core.ledger import Change, Ledger
from skep.worker.engine.protocol import HeldState, Started
from tests.unit.worker.fakes import assignment
from tests.unit.worker.play import Play, at, held, wanted

S1, S2 = SessionId("s1"), SessionId("s2")
T1 = TaskId("t1")


def core_at_term(term: int) -> AgentCore:
    """A worker without tasks that has obeyed a leader of `term`."""
    core = AgentCore(Ledger(term=term))
    [save] = core.begin(at(0.0), [])
    assert isinstance(save, SaveChange)
    core.step(ChangeSaved(at(0.0), save.number))
    return core


def whole(
    *of: object,
    sequence: int = 1,
    kind: AssignmentKind = AssignmentKind.COMPLETE,
    is_partial: bool = False,
) -> AssignmentSet:
    return AssignmentSet(kind=kind, sequence=sequence, assignments=of, is_partial=is_partial)  # type: ignore[arg-type]


def kinds(effects: list[AgentEffect]) -> list[type]:
    return [type(effect) for effect in effects]


# ----------------------------------------------------------------------------------- terms


def test_nothing_is_obeyed_before_its_term_is_on_disk() -> None:
    core = AgentCore(Ledger())
    core.begin(at(0.0), [])
    assert core.step(SessionOpened(at(0.0), S1, 7)) == [SaveChange(1, Change(term=7))]
    assert core.step(SetReceived(at(0.1), S1, whole(assignment()))) == []
    effects = core.step(ChangeSaved(at(0.2), 1))
    assert effects[0] == RaiseTerm(7)
    assert StartCall(Call.PREPARE, assignment()) in effects


def test_a_term_that_is_known_is_obeyed_at_once() -> None:
    core = core_at_term(7)
    core.step(SessionOpened(at(0.0), S1, 7))
    effects = core.step(SetReceived(at(0.1), S1, whole(assignment())))
    assert StartCall(Call.PREPARE, assignment()) in effects


def test_a_lower_term_is_left() -> None:
    core = core_at_term(7)
    assert core.step(SessionOpened(at(0.0), S1, 6)) == [
        LeaveSession(S1, "its term 6 is over: 7 was obeyed")
    ]
    assert core.step(SetReceived(at(0.1), S1, whole(assignment()))) == []


def test_a_full_disk_keeps_a_new_leader_waiting() -> None:
    core = core_at_term(7)
    [save] = core.step(SessionOpened(at(0.0), S1, 8))
    assert isinstance(save, SaveChange)
    core.step(SetReceived(at(0.1), S1, whole(assignment())))
    assert core.step(SaveFailed(at(0.2), save.number, "full")) == [SetFlush(1.2)]
    [again] = core.step(FlushDue(at(1.2)))
    assert again == SaveChange(save.number + 1, Change(term=8))
    effects = core.step(ChangeSaved(at(1.3), save.number + 1))
    assert StartCall(Call.PREPARE, assignment()) in effects


def test_a_leader_that_never_stops_talking_while_the_disk_is_slow_is_left() -> None:
    core = core_at_term(7)
    core.step(SessionOpened(at(0.0), S1, 8))
    last: list[AgentEffect] = []
    for _ in range(257):
        assert last == []
        last = core.step(TasksDrained(at(0.1), S1, (T1,)))
    assert last == [LeaveSession(S1, "the disk is too slow to obey it")]


def test_what_was_read_is_written_again_before_it_counts() -> None:
    ledger = Ledger(term=7)
    ledger.assignments[T1] = assignment()
    ledger.statuses[T1] = TaskStatus(state=TaskState.RUNNING, counter=5, pid=101)
    core = AgentCore(ledger)
    effects = core.begin(at(0.0), [StrayTask(held("t1", HeldState.RUNNING), "process")])
    report = TaskReport(task_id=T1, status=ledger.statuses[T1])
    assert effects[-1] == SaveChange(1, Change(term=7, statuses=(report,)))
    assert core.step(SessionOpened(at(0.0), S1, 7)) == []
    sent = TaskReport(task_id=T1, status=replace(report.status, session_id=S1))
    assert core.step(ChangeSaved(at(0.1), 1)) == [
        SendBatch(S1, StatusBatch(number=1, reports=(sent,)))
    ]


# ------------------------------------------------------------------------------------ sets


def test_a_gap_means_registering_anew() -> None:
    core = core_at_term(1)
    core.step(SessionOpened(at(0.0), S1, 1))
    core.step(SetReceived(at(0.0), S1, whole()))
    late = whole(sequence=3, kind=AssignmentKind.INCREMENT)
    assert core.step(SetReceived(at(0.1), S1, late)) == [LeaveSession(S1, "set 2 was due, 3 came")]


def test_a_set_in_frames_counts_once_the_last_has_come() -> None:
    core = core_at_term(1)
    core.step(SessionOpened(at(0.0), S1, 1))
    first = whole(assignment("t1"), is_partial=True)
    assert core.step(SetReceived(at(0.0), S1, first)) == []
    effects = core.step(SetReceived(at(0.0), S1, whole(assignment("t2"))))
    assert [e.assignment.task.id for e in effects if isinstance(e, StartCall)] == ["t1", "t2"]


def test_an_old_sessions_frames_are_ignored() -> None:
    core = core_at_term(1)
    core.step(SessionOpened(at(0.0), S1, 1))
    core.step(SessionClosed(at(0.0), "gone"))
    core.step(SessionOpened(at(0.0), S2, 1))
    assert core.step(SetReceived(at(0.1), S1, whole(assignment()))) == []
    assert core.step(StatusesAcknowledged(at(0.1), S1, 1)) == []
    assert core.step(TasksDrained(at(0.1), S1, (T1,))) == []


def test_what_ended_elsewhere_or_was_never_placed_is_not_taken_up() -> None:
    core = core_at_term(1)
    core.step(SessionOpened(at(0.0), S1, 1))
    over = assignment("t1", state=TaskState.FAILED)
    unplaced = assignment("t2", state=TaskState.PENDING)
    assert core.step(SetReceived(at(0.0), S1, whole(over, unplaced))) == []


def test_a_worker_that_lost_its_disk_starts_nothing_a_second_time() -> None:
    core = core_at_term(1)
    core.step(SessionOpened(at(0.0), S1, 1))
    ran = assignment(state=TaskState.RUNNING)
    ran = replace(ran, task=replace(ran.task, status=replace(ran.task.status, counter=40)))
    effects = core.step(SetReceived(at(0.0), S1, whole(ran)))
    assert effects == [
        NoteMove(T1, TaskState.RUNNING, TaskState.FAILED, "lost"),
        SetFlush(0.025),
    ]
    task = core.task(T1)
    assert task is not None
    assert task.status.counter == 41


def test_a_task_that_was_dropped_is_gone_from_disk_once_its_engine_has_let_go() -> None:
    play = Play()
    play.quickly_run(assignment())
    play.change(removed=["t1"])
    play.flush()
    play.saved()
    assert play.disk.assignments[T1].task.desired_state is DesiredState.REMOVE
    play.ended("t1", 143)
    play.done(Call.STOP, "t1")
    effects = play.core.step(CallSucceeded(at(0.0), T1, Call.REMOVE))
    assert effects == [
        ForgetTask(T1),
    ]
    play.flush()
    play.saved()
    assert play.disk.assignments == {}
    assert play.disk.statuses == {}


def test_what_is_dropped_is_not_reported() -> None:
    play = Play()
    play.quickly_run(assignment())
    play.change(removed=["t1"])
    play.ended("t1", 143)
    play.done(Call.STOP, "t1")
    play.flush()
    play.saved()
    assert "report" not in play.text


def test_strays_wait_for_the_first_complete_set() -> None:
    core = core_at_term(1)
    core = AgentCore(Ledger())
    stray = StrayTask(held("old", HeldState.RUNNING), "process")
    assert core.begin(at(0.0), [stray]) == []
    core.step(SessionOpened(at(0.0), S1, 1))
    effects = core.step(ChangeSaved(at(0.0), 1))
    assert kinds(effects) == [RaiseTerm]
    effects = core.step(SetReceived(at(0.0), S1, whole()))
    stops = [e.assignment.task.id for e in effects if isinstance(e, StartCall)]
    assert stops == ["old", "old"]  # one to wait for it, one to stop it


# --------------------------------------------------------------------------- saving, reporting


def test_statuses_are_saved_before_they_are_sent() -> None:
    play = Play()
    play.begin()
    play.welcome("s1", 1)
    play.saved()
    play.whole(assignment())
    play.lines.clear()
    play.flush()
    assert "report" not in play.text
    play.saved()
    assert "report to s1: t1 preparing #2" in play.text


def test_a_session_hears_everything_again() -> None:
    play = Play()
    play.quickly_run(assignment("t1"), assignment("t2"))
    play.lose_session()
    play.welcome("s2", 1)
    assert "report to s2: t1 running #5, t2 running #5" in play.text


def test_what_changes_during_a_save_waits_for_the_next_one() -> None:
    play = Play()
    play.begin()
    play.welcome("s1", 1)
    play.saved()
    play.whole(assignment())
    play.flush()
    play.done(Call.PREPARE, "t1")
    assert play.core.step(FlushDue(at(0.0))) == []
    play.lines.clear()
    play.saved()
    assert play.text.splitlines() == [
        "0 saved",
        "    report to s1: t1 preparing #2",
        "    save at 0.2",
    ]


def test_steps_on_the_way_are_told_late_or_with_what_comes_next() -> None:
    play = Play()
    play.begin()
    play.welcome("s1", 1)
    play.saved()
    play.whole(assignment())
    play.flush()
    play.saved()
    play.lines.clear()
    play.done(Call.PREPARE, "t1")
    play.started("t1")
    play.flush()
    assert play.text.splitlines() == [
        "0 done: prepare t1",
        "    t1: preparing -> ready, prepared",
        "    t1: ready -> starting, wanted running",
        "    start t1",
        "    save at 0.2",
        "0 done: start t1, pid 101",
        "    wait t1",
        "    t1: starting -> running, started",
        "    save at 0.025",
        "0 time to save",
        "    save t1 running #5",
    ]


def test_a_failed_save_is_made_again_with_the_newest() -> None:
    play = Play()
    play.begin()
    play.welcome("s1", 1)
    play.saved()
    play.whole(assignment())
    play.flush()
    play.done(Call.PREPARE, "t1")
    play.save_failed()
    play.lines.clear()
    play.flush()
    assert play.text.splitlines()[1:] == ["    save t1 (wanted running), t1 starting #4"]


def test_the_leader_is_given_no_more_than_it_takes() -> None:
    play = Play()
    play.quickly_run(assignment())
    play.change(assignment("t2"))
    for _ in range(10):
        play.core.step(ProcessStarted(at(0.0), T1, Started(pid=play.core_pid(), started_ns=0)))
        play.flush()
        play.saved()
    reports = [line for line in play.lines if line.startswith("    report")]
    assert len(reports) == 4
    play.lines.clear()
    play.stored()
    assert [line for line in play.lines if line.startswith("    report")]


def test_a_task_wanted_removed_stays_until_its_end_is_acknowledged() -> None:
    play = Play()
    web = assignment()
    play.quickly_run(web)
    play.change(wanted(web, DesiredState.REMOVE))
    play.ended("t1", 143)
    play.done(Call.STOP, "t1")
    play.flush()
    play.saved()
    assert "remove t1" not in play.text
    play.stored()
    assert "remove t1" in play.text
