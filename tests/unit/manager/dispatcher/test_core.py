"""Sessions' sets, liveness, drain and statuses: the rules without the streams."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import NodeId, SessionId, TaskId, replace
from skep.domain.control import NetproxyProgress
from skep.domain.objects import Task, TaskStatus
from skep.domain.session import TaskReport
from skep.domain.states import TERMINAL, TaskState
from skep.manager.dispatcher.core.drain import REPORT_VALID_S, UNHEARD_GRACE_S, DrainWatch
from skep.manager.dispatcher.core.liveness import GRACE_S, Liveness, NodeDown, NodeUp
from skep.manager.dispatcher.core.statuses import TEXT_LIMIT, accepted
from skep.manager.store.core.command import Database
from skep.manager.store.core.transaction import Transaction
from tests.unit.manager.build import task

N1, N2, M1, M2 = NodeId("n1"), NodeId("n2"), NodeId("m1"), NodeId("m2")
SESSION = SessionId("session")


# --------------------------------------------------------------------------------- liveness


def test_a_node_is_up_when_heard_of_and_down_after_a_whole_grace_of_silence() -> None:
    liveness = Liveness()
    assert liveness.heard(100.0, N1) == [NodeUp(N1, "heartbeat")]
    assert liveness.heard(102.0, N1) == []
    assert liveness.judge(102.0 + GRACE_S - 0.1) == []
    assert liveness.judge(102.0 + GRACE_S) == [NodeDown(N1, "silent for 6.0 s")]
    assert liveness.judge(200.0) == []
    assert liveness.heard(201.0, N1) == [NodeUp(N1, "heartbeat")]


def test_a_new_leader_gives_everybody_a_whole_grace() -> None:
    liveness = Liveness()
    for node_id in (N1, N2):
        liveness.expect(50.0, node_id)
    assert liveness.heard(55.0, N2) == [NodeUp(N2, "heartbeat")]
    liveness.expect(55.5, N1)  # It is known already: no second grace.
    # A period on top of the grace: N1 may have had to notice that its leader was stuck.
    assert liveness.judge(57.9) == []
    assert liveness.judge(58.0) == [NodeDown(N1, "silent for 6.0 s")]
    assert liveness.judge(61.0) == [NodeDown(N2, "silent for 6.0 s")]


def test_a_removed_node_is_not_judged() -> None:
    liveness = Liveness()
    liveness.expect(0.0, N1)
    liveness.forget(N1)
    liveness.forget(N2)
    assert liveness.judge(100.0) == []


def test_a_verdict_that_was_not_written_is_given_again() -> None:
    liveness = Liveness()
    liveness.expect(0.0, N1)
    down = NodeDown(N1, "silent for 7.0 s")
    assert liveness.judge(9.0) == [down]
    liveness.unrecorded(N1)
    assert liveness.judge(9.0) == [down]
    assert liveness.heard(8.0, N1) == [NodeUp(N1, "heartbeat")]
    liveness.unrecorded(N1)
    assert liveness.heard(9.0, N1) == [NodeUp(N1, "heartbeat")]
    liveness.unrecorded(N2)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 4.0)), max_size=30))
def test_nobody_is_down_before_its_time_and_nobody_stays_up_after_it(
    steps: list[tuple[bool, float]],
) -> None:
    liveness, now, heard_at, is_up = Liveness(), 10.0, 10.0, True
    liveness.heard(now, N1)
    for is_heard, seconds in steps:
        now += seconds
        if is_heard:
            heard_at = now
            assert len(liveness.heard(now, N1)) == (not is_up)
            is_up = True
        elif liveness.judge(now):
            assert is_up
            assert now - heard_at >= GRACE_S
            is_up = False
        else:
            assert not is_up or now - heard_at < GRACE_S
        liveness.check_invariants()


# ------------------------------------------------------------------------------------ drain


def at(node_id: NodeId, version: int, *, is_connected: bool = True) -> NetproxyProgress:
    return NetproxyProgress(node_id=node_id, version=version, is_connected=is_connected)


def test_a_version_is_everywhere_once_the_slowest_has_it() -> None:
    drain = DrainWatch(started=0.0)
    drain.reported(1.0, M1, [at(N1, 7)])
    drain.reported(1.0, M2, [at(N2, 5)])
    assert drain.applied_everywhere(1.5, [N1, N2], 5)
    assert not drain.applied_everywhere(1.5, [N1, N2], 6)
    drain.reported(2.0, M2, [at(N2, 6)])
    assert drain.applied_everywhere(2.0, [N1, N2], 6)
    # A netproxy whose node has not registered yet is one all the same.
    assert drain.applied_everywhere(2.0, [N1], 6)
    assert not drain.applied_everywhere(2.0, [N1], 7)
    assert DrainWatch(started=0.0).applied_everywhere(2.0, [], 99)


def test_what_a_netproxy_cannot_open_is_told_of_its_service_alone() -> None:
    drain = DrainWatch(started=0.0)
    errors = ("web: port 80: taken", "webshop: port 81: taken")
    drain.reported(1.0, M1, [replace(at(N1, 7), errors=errors), at(N2, 7)])
    assert drain.errors_about(1.0, "web") == {N1: ("port 80: taken",)}
    assert drain.errors_about(1.0, "other") == {}
    # A manager that reports no more says nothing.
    assert drain.errors_about(10.0, "web") == {}


def test_of_a_netproxy_that_two_managers_claim_the_slower_word_counts() -> None:
    drain = DrainWatch(started=0.0)
    drain.reported(1.0, M1, [at(N1, 5)])
    drain.reported(2.0, M2, [at(N1, 9)])
    assert drain.versions(2.0) == {N1: 5}
    drain.reported(2.5, M1, [])
    assert drain.versions(2.5) == {N1: 9}


def test_a_silent_manager_says_nothing_about_its_netproxies_any_more() -> None:
    drain = DrainWatch(started=0.0)
    drain.reported(1.0, M1, [at(N1, 5)])
    drain.reported(3.0, M2, [at(N1, 9)])
    assert drain.versions(1.0 + REPORT_VALID_S) == {N1: 5}
    assert drain.versions(1.1 + REPORT_VALID_S) == {N1: 9}


def test_a_netproxy_nobody_hears_of_holds_tasks_up_for_one_grace() -> None:
    drain = DrainWatch(started=10.0)
    # A new leader knows nothing yet, and must not take that for consent.
    assert not drain.applied_everywhere(10.0 + UNHEARD_GRACE_S, [N1], 1)
    assert drain.applied_everywhere(10.1 + UNHEARD_GRACE_S, [N1], 1)
    drain.reported(20.0, M1, [at(N1, 5)])
    drain.reported(21.0, M1, [at(N1, 5, is_connected=False)])
    assert not drain.applied_everywhere(20.0 + UNHEARD_GRACE_S, [N1], 6)
    assert drain.applied_everywhere(20.1 + UNHEARD_GRACE_S, [N1], 6)


# --------------------------------------------------------------------------------- statuses


def report(state: TaskState, counter: int, **changes: Any) -> TaskReport:
    return TaskReport(
        task_id=TaskId("t1"), status=TaskStatus(state=state, counter=counter, **changes)
    )


def stored(row: Task, *reports: TaskReport, by: NodeId = N1) -> Task:
    tx = Transaction(Database().tables, 1)
    tx.create(row)
    accepted(tx, by, SESSION, reports)
    found = tx.get(Task, row.id)
    assert found is not None
    return replace(found, version=0, created_ns=0, updated_ns=0)


HELD = task("t1", TaskState.STARTING, node_id=N1)
HELD = replace(HELD, status=replace(HELD.status, counter=5))


def test_news_is_taken_under_its_session() -> None:
    new = stored(HELD, report(TaskState.RUNNING, 6, pid=77))
    assert new == replace(
        HELD,
        status=TaskStatus(state=TaskState.RUNNING, counter=6, pid=77, session_id=SESSION),
        healthy_ns=1,
    )


def test_the_first_good_status_and_the_end_are_stamped_once() -> None:
    sick = stored(HELD, report(TaskState.RUNNING, 6, is_healthy=False))
    assert (sick.healthy_ns, sick.ended_ns) == (None, None)
    known = replace(HELD, healthy_ns=7)
    assert stored(known, report(TaskState.RUNNING, 6)).healthy_ns == 7
    dead = stored(known, report(TaskState.FAILED, 6))
    assert (dead.healthy_ns, dead.ended_ns) == (7, 1)


@pytest.mark.parametrize(
    "late",
    [
        report(TaskState.STARTING, 5),
        report(TaskState.RUNNING, 5),
        report(TaskState.RUNNING, 4),
        report(TaskState.READY, 6),
        TaskReport(task_id=TaskId("t9"), status=TaskStatus(state=TaskState.RUNNING, counter=9)),
    ],
    ids=["doubled", "same counter", "lower counter", "lower state", "unknown task"],
)
def test_what_is_no_news_changes_nothing(late: TaskReport) -> None:
    assert stored(HELD, late) == HELD


def test_only_the_node_that_holds_a_task_speaks_for_it() -> None:
    assert stored(HELD, report(TaskState.RUNNING, 6), by=N2) == HELD
    nowhere = replace(HELD, node_id=None)
    assert stored(nowhere, report(TaskState.RUNNING, 6)) == nowhere


@pytest.mark.parametrize("state", [state for state in TaskState if state in TERMINAL])
def test_nothing_is_heard_of_a_task_that_has_ended(state: TaskState) -> None:
    over = replace(HELD, status=replace(HELD.status, state=state))
    assert stored(over, report(TaskState.ORPHANED, 99)) == over


def test_a_task_that_falls_ill_is_news_though_its_state_is_the_same() -> None:
    ill = stored(HELD, report(TaskState.STARTING, 6, is_healthy=False))
    assert not ill.status.is_healthy


def test_several_reports_of_one_task_in_one_batch_are_taken_in_turn() -> None:
    new = stored(HELD, report(TaskState.RUNNING, 6), report(TaskState.FAILED, 7, exit_code=2))
    assert (new.status.state, new.status.counter) == (TaskState.FAILED, 7)


def test_long_texts_are_cut() -> None:
    new = stored(HELD, report(TaskState.FAILED, 6, error="e" * 5000, message="m" * 5000))
    assert (len(new.status.error), len(new.status.message)) == (TEXT_LIMIT, TEXT_LIMIT)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_reports_ends_at_the_newest(seed: int) -> None:
    reports = [
        report(state, number)
        for number, state in enumerate(
            (TaskState.ACCEPTED, TaskState.READY, TaskState.RUNNING, TaskState.FAILED), start=1
        )
    ]
    assigned = task("t1", TaskState.ASSIGNED, node_id=N1)
    for mixed in itertools.permutations((*reports, reports[seed])):
        assert stored(assigned, *mixed).status.counter == 4
