"""The rules of replicated services: a scene in, the whole plan out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from skep.domain.base import SECOND_NS, NodeId, TaskId, replace
from skep.domain.objects import (
    Availability,
    Node,
    NodeState,
    Service,
    Task,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import (
    Placement,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TERMINAL, DesiredState, TaskState, order
from skep.manager.orchestrator.core.plan import Decision, Plan
from skep.manager.orchestrator.core.reaper import reapable
from skep.manager.orchestrator.core.replicated import reconcile
from skep.manager.orchestrator.core.slots import STOP_MARGIN_NS, Scene
from tests.unit.manager.build import node, service, service_spec, task

NOW_NS = 1_000 * SECOND_NS
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
READY, RUNNING = DesiredState.READY, DesiredState.RUNNING
SHUTDOWN, REMOVE = DesiredState.SHUTDOWN, DesiredState.REMOVE


def web(replicas: int = 1, **changes: Any) -> Service:
    """A service; `restart`, `placement` and so on are its task's."""
    parts = {k: changes.pop(k) for k in TaskSpec.__struct_fields__ if k in changes}
    of = TaskSpec(run=RunSpec(command=("serve",)), **parts)
    return service(spec=replace(service_spec(replicas=replicas), task=of), **changes)


def plan(of: Service, tasks: list[Task], *nodes: Node, now_ns: int = NOW_NS) -> Plan:
    ids = (f"new{number}" for number in itertools.count(1))
    known = {row.id: row for row in nodes or (node("n1"), node("n2"), node("n3"))}
    return reconcile(Scene(of, tuple(tasks), known, now_ns, lambda: next(ids), lambda _: None))


def told(of: Plan) -> list[str]:
    """A plan's changes as short lines, without the reasons."""
    lines = []
    for decision in of.decisions:
        for row in decision.updated.values():
            lines.append(f"{row.id} {row.desired_state.value}")
        for row in decision.created:
            lines.append(f"+{row.slot} {row.desired_state.value}")
    return lines


def running(id_: str, slot: int = 1, on: NodeId | None = N1, **changes: Any) -> Task:
    return task(id_, TaskState.RUNNING, **{"slot": slot, "node_id": on, **changes})


def ended(id_: str, state: TaskState = TaskState.FAILED, **changes: Any) -> Task:
    return running(id_, status=TaskStatus(state=state), **changes)


# ------------------------------------------------------------------------------- how many


def test_empty_slots_are_filled_from_the_lowest_number() -> None:
    tasks = [running("a", 2), running("b", 5)]
    assert told(plan(web(4), tasks)) == ["+1 running", "+3 running"]


def test_a_new_task_is_of_the_present_task_revision() -> None:
    [created] = plan(web(1, revision=7, task_revision=4), []).created
    assert created == task("new1", revision=4)


def test_a_service_as_it_should_be_needs_nothing() -> None:
    made = plan(web(2), [running("a"), running("b", 2, N2)])
    assert (made.is_empty, made.wake_at_ns) == (True, None)


def test_copies_on_crowded_nodes_go_first_then_high_slots() -> None:
    """SwarmKit's table, S21."""
    tasks = [
        running("t1", 1, N1, status=TaskStatus(state=TaskState.STARTING)),
        running("t2", 2, N2),
        running("t3", 3, N2),
        running("t4", 4, N3),
        running("t5", 5, N3),
        running("t6", 6, N3),
        task("t7", slot=7),
    ]
    gone: dict[int, set[str]] = {}
    for replicas in (6, 4, 2):
        made = plan(web(replicas), tasks)
        gone[replicas] = {k for k, row in made.updated.items() if row.desired_state is REMOVE}
        tasks = [row for row in tasks if row.id not in gone[replicas]]
    assert gone == {6: {"t7"}, 4: {"t5", "t6"}, 2: {"t1", "t3"}}


def test_slots_that_were_given_up_go_before_those_that_run() -> None:
    tasks = [ended("dead", desired_state=SHUTDOWN), running("a", 2), running("b", 3, N2)]
    policy = RestartPolicy(condition=RestartCondition.NONE)
    assert told(plan(web(2, restart=policy), tasks)) == ["dead remove"]


def test_a_slot_is_removed_with_its_history_the_newest_last() -> None:
    tasks = [
        running("new", 2, created_ns=9),
        ended("old", slot=2, created_ns=1, desired_state=SHUTDOWN),
        running("a"),
    ]
    assert told(plan(web(1), tasks)) == ["old remove", "new remove"]


# --------------------------------------------------------------------------------- removal


def test_of_a_removed_service_every_task_is_to_go() -> None:
    tasks = [running("a"), task("b", slot=2), ended("c", slot=3, desired_state=SHUTDOWN)]
    made = plan(web(3, is_removing=True), [*tasks, running("d", 4, desired_state=REMOVE)])
    assert told(made) == ["a remove", "b remove", "c remove"]
    assert made.updated["b"].status.state is TaskState.SHUTDOWN


# ---------------------------------------------------------------------------------- one slot


@pytest.mark.parametrize(
    ("condition", "state", "is_replaced"),
    [
        (RestartCondition.ANY, TaskState.COMPLETE, True),
        (RestartCondition.ANY, TaskState.FAILED, True),
        (RestartCondition.ANY, TaskState.REJECTED, True),
        (RestartCondition.ON_FAILURE, TaskState.COMPLETE, False),
        (RestartCondition.ON_FAILURE, TaskState.FAILED, True),
        (RestartCondition.ON_FAILURE, TaskState.REJECTED, True),
        (RestartCondition.NONE, TaskState.COMPLETE, False),
        (RestartCondition.NONE, TaskState.FAILED, False),
        # These are no ends of its own.
        (RestartCondition.NONE, TaskState.ORPHANED, True),
        (RestartCondition.NONE, TaskState.SHUTDOWN, True),
    ],
)
def test_the_policy_says_which_ends_call_for_another(
    condition: RestartCondition, state: TaskState, is_replaced: bool
) -> None:
    made = plan(web(restart=RestartPolicy(condition=condition)), [ended("a", state)])
    assert made.updated["a"].desired_state is SHUTDOWN
    assert len(made.created) == is_replaced


def test_a_restart_counts_and_waits_for_its_delay() -> None:
    policy = RestartPolicy(delay_ns=7 * SECOND_NS)
    [decision] = plan(web(restart=policy), [ended("a", attempt=3)]).decisions
    assert decision == Decision(
        updated={TaskId("a"): ended("a", attempt=3, desired_state=SHUTDOWN)},
        created=[
            task("new1", desired=READY, attempt=4, start_at_ns=NOW_NS + 7 * SECOND_NS),
        ],
        notes=[
            "task=a slot=web.1 from=running to=shutdown why=ended: failed",
            "task=new1 slot=web.1 to=new why=restart, attempt 4",
        ],
    )


def test_a_delay_beyond_all_time_is_still_a_time() -> None:
    policy = RestartPolicy(delay_ns=2**63 - 1)
    assert plan(web(restart=policy), [ended("a")]).created[0].start_at_ns == 2**63 - 1


def test_without_a_delay_a_restart_runs_at_once() -> None:
    made = plan(web(restart=RestartPolicy(delay_ns=0)), [ended("a")])
    assert told(made) == ["a shutdown", "+1 running"]


@pytest.mark.parametrize(("attempt", "is_replaced"), [(0, True), (1, True), (2, False)])
def test_attempts_run_out(attempt: int, is_replaced: bool) -> None:
    policy = RestartPolicy(max_attempts=2, delay_ns=0)
    made = plan(web(restart=policy), [ended("a", attempt=attempt)])
    assert len(made.created) == is_replaced


def test_an_evicted_attempt_is_counted_once_within_a_window() -> None:
    policy = RestartPolicy(max_attempts=2, delay_ns=0, window_ns=100 * SECOND_NS)
    at = NOW_NS - 10 * SECOND_NS
    history = [
        ended("a", created_ns=at, desired_state=SHUTDOWN),
        ended("b", created_ns=at + 1, attempt=1, desired_state=SHUTDOWN),
        ended("c", created_ns=at + 2, attempt=1, desired_state=SHUTDOWN),
        ended("d", created_ns=at + 3, attempt=1),
    ]
    assert [t.attempt for t in plan(web(restart=policy), history).created] == [2]
    history[-1] = replace(history[-1], attempt=2)
    assert plan(web(restart=policy), history).created == []


def test_a_task_that_fails_on_a_node_it_must_leave_anyway_has_eaten_no_attempt() -> None:
    drained = node("n1", availability=Availability.DRAIN)
    [created] = plan(web(), [ended("a", attempt=3)], drained).created
    assert (created.attempt, created.desired_state, created.start_at_ns) == (3, RUNNING, None)


def test_a_delay_under_way_goes_on_elsewhere() -> None:
    waiting = task(
        "b", TaskState.READY, READY, node_id=N1, attempt=2, start_at_ns=NOW_NS + 5, created_ns=5
    )
    history = [ended("a", desired_state=SHUTDOWN), waiting]
    [created] = plan(web(), history, node("n1", state=NodeState.DOWN)).created
    assert (created.attempt, created.desired_state) == (2, READY)
    assert created.start_at_ns == NOW_NS + 5


EVICTIONS = [
    (node("n1", state=NodeState.DOWN), "node down", ["a shutdown", "+1 running"]),
    (node("n2"), "node removed", ["a shutdown", "+1 running"]),
    # These nodes live: the task goes on until another is healthy.
    (node("n1", availability=Availability.DRAIN), "to move: node drained", ["+1 running"]),
    (
        node("n1", labels=(("disk", "tape"),)),
        "to move: node no longer meets the constraints",
        ["+1 running"],
    ),
]


@pytest.mark.parametrize(("there", "why", "lines"), EVICTIONS)
def test_a_task_that_can_not_stay_is_replaced(there: Node, why: str, lines: list[str]) -> None:
    picky = Placement(constraints=("node.labels.disk != tape",))
    made = plan(web(placement=picky), [running("a")], there)
    assert told(made) == lines
    assert made.decisions[0].notes[0].endswith(f"why={why}")


def test_what_has_nothing_to_lose_is_moved_without_a_handover() -> None:
    starting = running("a", status=TaskStatus(state=TaskState.STARTING))
    made = plan(web(), [starting], node("n1", availability=Availability.DRAIN))
    assert told(made) == ["a shutdown", "+1 ready"]


def test_a_paused_or_silent_node_keeps_its_tasks() -> None:
    for there in (
        node("n1", availability=Availability.PAUSE),
        node("n1", state=NodeState.UNKNOWN),
    ):
        assert plan(web(), [running("a")], there).is_empty


def test_a_replacement_waits_for_all_before_it_but_not_for_ever() -> None:
    bound_ns = 10 * SECOND_NS + STOP_MARGIN_NS
    stopping = running("a", desired_state=SHUTDOWN)
    new = task("b", TaskState.READY, READY, node_id=N2, created_ns=NOW_NS)
    early = plan(web(), [stopping, new], now_ns=NOW_NS + bound_ns - 1)
    assert (early.is_empty, early.wake_at_ns) == (True, NOW_NS + bound_ns)
    assert told(plan(web(), [stopping, new], now_ns=NOW_NS + bound_ns)) == ["b running"]
    lost = plan(web(), [stopping, new], node("n1", state=NodeState.DOWN), node("n2"))
    assert told(lost) == ["b running"]


def test_two_wanted_tasks_in_one_slot_become_one() -> None:
    made = plan(web(), [running("a", created_ns=1), running("b", created_ns=2)])
    assert told(made) == ["a shutdown"]


def test_a_slot_whose_replacement_vanished_is_filled_again() -> None:
    for gone, desired in (
        (running("a", desired_state=SHUTDOWN), READY),
        (ended("a", TaskState.SHUTDOWN, desired_state=SHUTDOWN), RUNNING),
        (ended("a", TaskState.ORPHANED, desired_state=SHUTDOWN), RUNNING),
    ):
        assert told(plan(web(), [gone])) == [f"+1 {desired.value}"]


# ------------------------------------------------------------------- every pair of states


@pytest.mark.parametrize(("desired", "state"), list(itertools.product(DesiredState, TaskState)))
def test_a_slot_in_any_state_comes_to_rest_with_one_wanted_task(
    desired: DesiredState, state: TaskState
) -> None:
    """Plan after plan, each written down, and time always long enough."""
    placed = N1 if order(state) >= order(TaskState.ASSIGNED) else None
    rows = {"a": task("a", state, desired, node_id=placed)}
    now_ns = NOW_NS
    for _ in range(10):
        made = plan(web(), list(rows.values()), now_ns=now_ns)
        if made.is_empty and made.wake_at_ns is None:
            break
        for row in (*made.updated.values(), *made.created):
            assert row.id not in rows or order(row.status.state) >= order(rows[row.id].status.state)
            rows[row.id] = replace(row, id=TaskId(f"{row.id}"), created_ns=now_ns)
        now_ns += 100 * SECOND_NS
    else:
        raise AssertionError("it never comes to rest")
    wanted = [row for row in rows.values() if row.is_wanted]
    assert len(wanted) == 1
    assert wanted[0].desired_state is RUNNING
    assert wanted[0].status.state not in TERMINAL


# ------------------------------------------------------------------------ writing in parts


def test_a_decision_is_written_whole_or_not_at_all() -> None:
    made = plan(web(3), [ended(f"t{slot}", slot=slot) for slot in (1, 2, 3)])
    assert [decision.size for decision in made.decisions] == [2, 2, 2]
    assert [sum(d.size for d in made.first(limit)) for limit in (1, 2, 3, 4, 5, 6, 99)] == [
        2, 2, 2, 4, 4, 6, 6,
    ]  # fmt: skip


# ----------------------------------------------------------------------------------- reaping


@pytest.mark.parametrize(("desired", "state"), list(itertools.product(DesiredState, TaskState)))
def test_only_what_can_not_run_any_more_is_forgotten(
    desired: DesiredState, state: TaskState
) -> None:
    placed = N1 if order(state) >= order(TaskState.ASSIGNED) else None
    row = task("old", state, desired, node_id=placed, created_ns=1)
    newer = [ended(f"t{n}", created_ns=2 + n, desired_state=SHUTDOWN) for n in range(5)]
    has_ended = state in TERMINAL
    is_over = has_ended or placed is None
    up, down = node("n1"), node("n1", state=NodeState.DOWN)
    is_history = desired is SHUTDOWN and has_ended
    for of, there, expected in (
        (web(), up, (desired is REMOVE and is_over) or is_history),
        (None, up, desired in (SHUTDOWN, REMOVE) and is_over),
        (None, down, desired in (SHUTDOWN, REMOVE)),
        (web(), down, desired is REMOVE or is_history),
    ):
        gone = reapable(of, [row, *newer], {there.id: there}, 5)
        assert (row in gone) == expected, (of is None, there.state)


def test_history_reaches_as_far_back_as_the_policy_has_to_remember() -> None:
    tasks = [ended(f"t{n}", created_ns=n, desired_state=SHUTDOWN) for n in range(12)]
    for policy, limit, kept in (
        (RestartPolicy(), 5, 5),
        (RestartPolicy(max_attempts=8), 5, 9),
        (RestartPolicy(max_attempts=1), 5, 5),
        (RestartPolicy(), 0, 1),
    ):
        gone = reapable(web(restart=policy), tasks, {}, limit)
        assert [row.id for row in gone] == [f"t{n}" for n in range(12 - kept)]


def test_what_is_given_up_for_a_move_is_not_started_in_the_same_pass() -> None:
    """Its own time to start has come as well; written after that, the two would be no story."""
    paused = UpdateStatus(
        state=UpdateState.PAUSED,
        revision=2,
        base_revision=1,
        policy=UpdatePolicy(order=UpdateOrder.START_FIRST),
        started_ns=1,
    )
    of = web(revision=2, task_revision=2, update=paused)
    old = running("old", created_ns=1, healthy_ns=1)
    due = task("new", TaskState.READY, READY, node_id=N2, revision=2, created_ns=2)
    drained = node("n1", availability=Availability.DRAIN)
    assert told(plan(of, [old, due], drained, node("n2"))) == ["new shutdown"]
