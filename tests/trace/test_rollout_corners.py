"""Corners of updates, rollbacks and moves in which a release was misjudged, or a slot wedged."""

from __future__ import annotations

import pytest

from skep.domain.base import SECOND_NS, replace
from skep.domain.control import DeployStackRequest
from skep.domain.objects import Availability, Task, TaskStatus, UpdateState, UpdateStatus
from skep.domain.session import TaskReport
from skep.domain.spec import (
    FailureAction,
    Placement,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    StackSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from skep.manager.control.core import stacks
from skep.manager.control.core.views import service_view
from skep.manager.orchestrator.core.slots import is_running
from tests.trace.support.stage import Behaviour, Stage, at_once, spec
from tests.trace.support.telling import stage

__all__ = ["stage"]

START_FIRST = UpdatePolicy(order=UpdateOrder.START_FIRST)
NEVER = RestartPolicy(condition=RestartCondition.NONE)
ROLLBACK = FailureAction.ROLLBACK


def status_of(stage: Stage) -> UpdateStatus:
    status = stage.service().update
    assert status is not None
    return status


def state_of(stage: Stage) -> UpdateState:
    return status_of(stage).state


def running(stage: Stage) -> list[int]:
    return [task.revision for task in stage.tasks() if is_running(task)]


def crash_second(task: Task, state: TaskState | None) -> TaskState | None:
    return TaskState.FAILED if task.revision == 2 and state is TaskState.RUNNING else state


def go(stage: Stage, steps: int, behave: Behaviour, step_s: float = 1.0) -> None:
    for _ in range(steps):
        stage.settle()
        while stage.work(behave):
            stage.settle()
        stage.advance(step_s)


def rest(stage: Stage, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        stage.advance(seconds)
        stage.run()


# ---------------------------------------------------------------------- where tasks may be


def test_tasks_of_the_old_release_go_by_its_own_limit_per_node(stage: Stage) -> None:
    stage.create(spec(replicas=6, image="v1"))
    stage.run()
    stage.update(spec(replicas=4, image="v2", placement=Placement(max_replicas_per_node=2)))
    stage.run()
    rest(stage, 5.0)
    assert state_of(stage) is UpdateState.COMPLETED
    assert running(stage) == [2, 2, 2, 2]


def test_tasks_of_the_old_release_go_by_its_newest_constraints(stage: Stage) -> None:
    stage.label("n1", disk="ssd")
    stage.label("n2", disk="hdd")
    ssd, hdd = (Placement(constraints=(f"node.labels.disk == {kind}",)) for kind in ("ssd", "hdd"))
    stage.create(spec(replicas=3, image="v1", placement=ssd))
    stage.run()
    stage.update(spec(replicas=3, image="v1", placement=hdd))
    stage.run()
    stage.set_availability("n1", Availability.PAUSE)
    slow = UpdatePolicy(delay_ns=400 * SECOND_NS)
    stage.update(spec(replicas=3, image="v2", placement=hdd, update=slow))
    stage.run()
    rest(stage, 50.0, 7)
    assert len(running(stage)) == 3


def test_a_service_is_not_as_asked_while_a_node_has_too_many(stage: Stage) -> None:
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(replicas=2))
    stage.run()
    stage.set_availability("n2", Availability.ACTIVE)
    stage.update(spec(replicas=2, placement=Placement(max_replicas_per_node=1)))
    assert not service_view(stage.store.tables, stage.service()).is_converged
    stage.run()
    assert service_view(stage.store.tables, stage.service()).is_converged


# ------------------------------------------------------------------------ the healthy deadline


def test_a_task_that_dies_long_after_it_was_watched_has_all_the_time_again(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    slow = UpdatePolicy(delay_ns=600 * SECOND_NS)
    stage.update(spec(replicas=2, image="v2", update=slow))
    stage.run()
    stage.advance(350)
    stage.fail("web.1")
    stage.run()
    assert state_of(stage) is UpdateState.UPDATING


def test_a_lost_node_is_no_failure_however_late(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    slow = UpdatePolicy(delay_ns=600 * SECOND_NS)
    stage.update(spec(replicas=2, image="v2", update=slow))
    stage.run()
    stage.advance(350)
    home = next(str(task.node_id) for task in stage.tasks() if task.slot == 1 and is_running(task))
    stage.lose(home)
    stage.remove_node(home)
    stage.run()
    assert state_of(stage) is UpdateState.UPDATING


def test_an_old_task_that_crashes_during_a_rollback_does_not_fail_it(stage: Stage) -> None:
    policy = UpdatePolicy(failure_action=ROLLBACK, delay_ns=20 * SECOND_NS)
    back = UpdatePolicy(delay_ns=10 * SECOND_NS)
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.advance(3600)
    stage.update(spec(replicas=3, image="v2", update=policy, rollback=back))
    stage.run()
    rest(stage, 20.0)
    assert running(stage) == [2, 2, 1]
    stage.fail("web.2")
    stage.settle()
    stage.run()
    stage.fail("web.3")
    stage.run()
    rest(stage, 20.0, 6)
    assert running(stage) == [1, 1, 1]
    assert state_of(stage) is UpdateState.ROLLBACK_COMPLETED


def test_the_time_that_the_old_task_takes_to_stop_is_not_the_new_one_s(stage: Stage) -> None:
    grace_ns = 60 * SECOND_NS
    policy = UpdatePolicy(healthy_deadline_ns=20 * SECOND_NS)
    stage.create(spec(image="v1", stop_grace_ns=grace_ns))
    stage.run()
    stage.update(spec(image="v2", stop_grace_ns=grace_ns, update=policy))
    stage.settle()
    for _ in range(3):
        stage.work(lambda task, state: None if state is TaskState.SHUTDOWN else state)
        stage.settle()
    rest(stage, 40.0)
    assert state_of(stage) is UpdateState.UPDATING
    rest(stage, 5.0)
    assert state_of(stage) is UpdateState.COMPLETED


# ------------------------------------------------------------------------------- draining


def test_a_node_can_be_drained_while_a_start_first_update_is_paused(stage: Stage) -> None:
    stage.register("n3")
    for name in ("n2", "n3"):
        stage.set_availability(name, Availability.PAUSE)
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    for name in ("n2", "n3"):
        stage.set_availability(name, Availability.ACTIVE)
    stage.update(spec(replicas=3, image="v2", update=START_FIRST))
    go(stage, 40, crash_second)
    assert state_of(stage) is UpdateState.PAUSED
    stage.set_availability("n1", Availability.DRAIN)
    go(stage, 60, crash_second)
    assert running(stage) == [1, 1, 1]
    assert not [task for task in stage.tasks() if is_running(task) and task.node_id == "n1"]


def test_a_node_is_empty_in_the_end_though_its_task_s_successor_crashes(stage: Stage) -> None:
    stage.create(spec(image="v1"))
    stage.run()
    home = str(stage.tasks()[0].node_id)
    stage.set_availability(home, Availability.DRAIN)

    def crash_elsewhere(task: Task, state: TaskState | None) -> TaskState | None:
        is_bad = task.node_id != home and state is TaskState.RUNNING
        return TaskState.FAILED if is_bad else state

    go(stage, 330, crash_elsewhere)
    assert not [task for task in stage.tasks() if is_running(task) and task.node_id == home]


def test_slots_that_no_node_will_take_leave_a_node_together(stage: Stage) -> None:
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(replicas=4))
    stage.run()
    stage.set_availability("n1", Availability.DRAIN)
    stage.run()
    rest(stage, 61.0, 5)
    assert not running(stage)


def test_a_proven_slot_that_moves_does_not_fail_the_update(stage: Stage) -> None:
    policy = UpdatePolicy(delay_ns=600 * SECOND_NS, failure_action=ROLLBACK)
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=policy))
    stage.run()
    home = next(str(task.node_id) for task in stage.tasks() if task.slot == 1 and is_running(task))
    stage.set_availability({"n1": "n2", "n2": "n1"}[home], Availability.PAUSE)
    stage.advance(100)
    stage.set_availability(home, Availability.DRAIN)
    stage.run()
    stage.advance(300.5)
    assert state_of(stage) is UpdateState.UPDATING


# ------------------------------------------------------------------------------- completion


@pytest.mark.parametrize("replicas", [0, 2])
def test_an_update_is_not_complete_before_anything_was_tried(stage: Stage, replicas: int) -> None:
    far = Placement(constraints=("node.labels.disk == ssd",))
    stage.create(spec(replicas=replicas, image="v1", placement=far))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=UpdatePolicy(failure_action=ROLLBACK)))
    for _ in range(4):
        stage.step("orchestrator")
    assert state_of(stage) is UpdateState.UPDATING


def test_tasks_that_are_to_run_once_are_changed_with_the_delay_between(stage: Stage) -> None:
    slow = UpdatePolicy(delay_ns=60 * SECOND_NS)
    stage.create(spec(replicas=2, image="v1", restart=NEVER))
    stage.run()
    stage.update(spec(replicas=2, image="v2", restart=NEVER, update=slow))
    stage.run()
    stage.fail("web.1", TaskState.COMPLETE)
    stage.settle()
    assert [t.revision for t in stage.tasks() if t.slot == 2 and t.is_wanted] == [1]
    rest(stage, 60.0)
    assert [t.revision for t in stage.tasks() if t.slot == 2 and t.is_wanted] == [2]


# --------------------------------------------------------------------------------- resuming


def test_a_slot_that_was_given_up_is_tried_again_when_the_update_resumes(stage: Stage) -> None:
    second = spec(replicas=2, image="v2", restart=NEVER)
    stage.create(spec(replicas=2, image="v1", restart=NEVER))
    stage.run()
    stage.update(second)
    for _ in range(2):
        stage.settle()
        stage.work()
    stage.settle()
    stage.fail("web.1")
    stage.run()
    assert state_of(stage) is UpdateState.PAUSED
    stage.update(second)
    stage.run()
    rest(stage, 5.0, 2)
    assert state_of(stage) is UpdateState.COMPLETED


def test_a_slow_release_gets_all_its_time_again_when_the_update_resumes(stage: Stage) -> None:
    second = spec(replicas=2, image="v2", update=UpdatePolicy(healthy_deadline_ns=20 * SECOND_NS))
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(second)

    def never_healthy(task: Task, state: TaskState | None) -> TaskState | None:
        if task.revision != 2 or state is not TaskState.RUNNING:
            return state
        return None if task.status.state is TaskState.STARTING else TaskState.STARTING

    go(stage, 30, never_healthy)
    assert state_of(stage) is UpdateState.PAUSED
    stage.update(second)
    stage.settle()
    assert state_of(stage) is UpdateState.UPDATING


@pytest.mark.parametrize("how", ["update", "stack"])
def test_resuming_a_release_that_crashes_late_loses_no_further_slot(stage: Stage, how: str) -> None:
    def deploy(image: str, other: str) -> None:
        policy = UpdatePolicy(delay_ns=5 * SECOND_NS)
        web = spec(
            replicas=4, image=image, update=policy, restart=RestartPolicy(delay_ns=SECOND_NS)
        )
        if how == "update":
            (stage.create if image == "v1" else stage.update)(web)
            return
        of = StackSpec(name="s", services=(web, spec("other", image=other)))
        request = DeployStackRequest(request_id="r", spec=of)
        stage.store.commit(lambda tx: stacks.deploy_stack(tx, request, stage.env.ids.new_id))

    def late(task: Task, state: TaskState | None) -> TaskState | None:
        is_bad = task.service_name == "web" and task.revision == 2 and not task.is_terminal
        is_due = (
            task.healthy_ns is not None and stage.store.wall_ns - task.healthy_ns >= 3 * SECOND_NS
        )
        return TaskState.FAILED if is_bad and is_due else state

    deploy("v1", "a")
    stage.run()
    deploy("v2", "a")
    go(stage, 20, late, 0.5)
    for turn in range(2):
        while not any(task.revision == 2 and is_running(task) for task in stage.tasks()):
            go(stage, 1, late, 0.5)
        deploy("v2", f"b{turn}")
        go(stage, 40, late, 0.5)
        assert state_of(stage) is UpdateState.PAUSED
    assert {task.slot for task in stage.tasks("web") if task.revision == 2} == {1}


# ---------------------------------------------------------------------------- there and back


def test_a_job_whose_release_was_right_before_runs_again(stage: Stage) -> None:
    for image in ("v1", "v2"):
        (stage.create if image == "v1" else stage.update)(spec(image=image, restart=NEVER))
        stage.run()
        stage.fail("web.1", TaskState.COMPLETE)
        stage.run()
    stage.update(spec(image="v1", restart=NEVER))
    stage.run()
    assert running(stage) == [1]


def test_a_job_that_was_rolled_back_runs_again(stage: Stage) -> None:
    stage.create(spec(image="v1", restart=NEVER))
    stage.run()
    stage.fail("web.1", TaskState.COMPLETE)
    stage.run()
    stage.update(spec(image="v2", restart=NEVER))
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.roll_back("web")
    stage.run()
    rest(stage, 10.0)
    assert service_view(stage.store.tables, stage.service()).is_converged


def test_a_release_that_was_given_up_is_tried_again_when_it_is_asked_for_again(
    stage: Stage,
) -> None:
    for image in ("v1", "v2"):
        (stage.create if image == "v1" else stage.update)(spec(image=image, restart=NEVER))
        stage.run()
        stage.fail("web.1")
        stage.run()
    stage.update(spec(image="v1", restart=NEVER))
    stage.run()
    assert running(stage) == [1]


def test_a_rollback_by_hand_of_what_never_restarts(stage: Stage) -> None:
    stage.create(spec(image="v1", restart=NEVER))
    stage.run()
    stage.advance(3600)
    stage.update(spec(image="v2", restart=NEVER))
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.roll_back("web")
    stage.run()
    assert state_of(stage) is UpdateState.ROLLBACK_STARTED
    assert running(stage) == [1]


def test_a_rollback_waits_for_no_slot_that_it_has_nothing_to_do_with(stage: Stage) -> None:
    policy = UpdatePolicy(
        failure_action=ROLLBACK, delay_ns=1200 * SECOND_NS, monitor_ns=900 * SECOND_NS
    )
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=policy))
    stage.run()
    stage.advance(1)
    home = next(str(task.node_id) for task in stage.tasks() if task.slot == 2)
    stage.set_availability({"n1": "n2", "n2": "n1"}[home], Availability.PAUSE)
    stage.lose(home)
    stage.run()
    stage.advance(310)
    stage.run()
    bad = next(task for task in stage.tasks() if task.revision == 2 and is_running(task))
    stage.report(bad, TaskState.FAILED, "exit 1")
    stage.run()
    assert not any(task.revision == 2 and task.is_wanted for task in stage.tasks())


def test_a_rollback_to_what_was_tried_before_keeps_to_the_parallelism(stage: Stage) -> None:
    all_at_once = UpdatePolicy(order=UpdateOrder.START_FIRST, parallelism=0)
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.update(spec(replicas=3, image="v2", update=all_at_once))
    stage.settle()
    stage.roll_back("web")
    stage.run()
    assert state_of(stage) is UpdateState.ROLLBACK_COMPLETED
    stage.advance(10)
    stage.roll_back("web")
    stage.settle()
    assert running(stage) == [1, 1]
    stage.run()
    rest(stage, 5.0, 6)
    assert running(stage) == [2, 2, 2]


def test_what_was_scaled_during_an_update_stays_so_when_it_is_rolled_back(stage: Stage) -> None:
    policy = UpdatePolicy(failure_action=ROLLBACK, delay_ns=10 * SECOND_NS)
    second = spec(replicas=2, image="v2", update=policy)
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(second)
    stage.run()
    stage.update(replace(second, replicas=5))
    stage.run()
    stage.fail("web.1")
    stage.run()
    assert (stage.service().spec.replicas, stage.service().spec.task.run.image) == (5, "v1")


def test_replicas_that_came_with_the_failed_release_go_with_it(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=5, image="v2", update=UpdatePolicy(failure_action=ROLLBACK)))
    stage.settle()
    stage.work()
    stage.settle()
    stage.fail("web.1")
    stage.run()
    assert (stage.service().spec.replicas, stage.service().spec.task.run.image) == (2, "v1")


# ------------------------------------------------------------------ what a paused update keeps


def test_a_task_removed_by_hand_while_an_update_is_paused_is_followed_by_its_like(
    stage: Stage,
) -> None:
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.update(spec(replicas=3, image="v2", update=UpdatePolicy(delay_ns=5 * SECOND_NS)))
    stage.run()
    stage.fail("web.1")
    stage.run()
    assert state_of(stage) is UpdateState.PAUSED
    stage.remove_task(stage.task("web.3").id)
    stage.run()
    rest(stage, 60.0)
    assert {task.slot: task.revision for task in stage.tasks() if task.is_wanted}[3] == 1


def test_slots_that_are_added_while_an_update_is_paused_get_the_release_before(
    stage: Stage,
) -> None:
    second = spec(replicas=2, image="v2", update=UpdatePolicy(delay_ns=5 * SECOND_NS))
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(second)
    stage.run()
    stage.fail("web.1")
    stage.run()
    assert state_of(stage) is UpdateState.PAUSED
    stage.update(replace(second, replicas=4))
    stage.run()
    rest(stage, 60.0)
    assert running(stage) == [2, 1, 1, 1]


# -------------------------------------------------------------------------------- handovers


def test_a_task_does_not_hand_over_to_one_whose_node_is_lost(stage: Stage) -> None:
    stage.create(spec(image="v1"))
    stage.run()
    stage.set_availability("n1", Availability.PAUSE)
    stage.update(spec(image="v2", update=START_FIRST))
    stage.settle()
    new = stage.task("web.1")
    stage.report(new, TaskState.RUNNING)
    stage.lose(str(new.node_id))
    stage.lead()
    stage.settle()
    assert 1 in running(stage)


def test_scaling_down_keeps_the_slot_that_serves(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    huge = Resources(memory_bytes=1 << 40)
    new = spec(replicas=2, image="v2", update=START_FIRST, reservations=huge)
    stage.update(new)
    stage.run()
    stage.fail("web.2")
    stage.settle()
    stage.update(replace(new, replicas=1))
    stage.run()
    assert running(stage)


# ---------------------------------------------------------------------------------- verdicts


def test_what_turned_sick_within_the_monitor_has_failed_though_it_ends_later(
    stage: Stage,
) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=UpdatePolicy(delay_ns=5 * SECOND_NS)))
    stage.run()
    stage.advance(3)
    task = stage.task("web.1")
    for actor in stage.actors.values():
        at_once(actor.stopped())
    stage.actors = {}
    old = stage.status(task)
    assert task.node_id is not None
    sick = TaskStatus(
        state=old.state, counter=old.counter + 1, is_healthy=False, message="gone sick"
    )
    stage.workers[task.node_id].statuses[task.id] = sick
    stage.send(task.node_id, TaskReport(task_id=task.id, status=sick))
    stage.clock.advance(4)
    stage.lead()
    stage.settle()
    stage.report(stage.task("web.1"), TaskState.FAILED, "gone sick")
    stage.run()
    rest(stage, 1.0, 30)
    assert state_of(stage) is UpdateState.PAUSED


def test_an_update_that_can_not_be_rolled_back_tells_which_slots_failed(stage: Stage) -> None:
    stage.create(spec(image="v1", ports=(Port(target=80, published=8080),)))
    stage.run()
    stage.update(spec(image="v2", update=UpdatePolicy(failure_action=ROLLBACK)))
    stage.settle()
    stage.create(spec("other", ports=(Port(target=80, published=8080),)))
    stage.run()
    stage.fail("web.1")
    stage.run()
    assert status_of(stage).failed_slots == (1,)


def test_the_spec_of_the_tasks_before_an_update_is_kept_as_long_as_they_may_come_again(
    stage: Stage,
) -> None:
    """Their revision is older than any that the history has, since the service was only scaled."""
    stage.create(spec(replicas=1, image="v1"))
    for replicas in range(2, 16):
        stage.update(spec(replicas=replicas, image="v1"))
        stage.run()
    second = spec(replicas=2, image="v2", update=UpdatePolicy(parallelism=0))
    stage.update(second)
    stage.run()
    for _ in range(8):
        # So often that the tasks of the release before are no longer in the history.
        for slot in (1, 2):
            stage.fail(f"web.{slot}")
        stage.run()
        rest(stage, 60.0)
    assert state_of(stage) is UpdateState.PAUSED
    assert {task.revision for task in stage.tasks()} == {stage.service().task_revision}
    stage.update(replace(second, replicas=3))
    stage.run()
    added = stage.task("web.3")
    kept = [row.number for row in stage.store.tables.revisions_of(stage.service().id)]
    assert added.revision == 1
    assert 1 in kept
