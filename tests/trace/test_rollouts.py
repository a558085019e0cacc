"""Updates and rollbacks, told as they happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from skep.domain.base import SECOND_NS, replace
from skep.domain.objects import Availability, Revision, Task, TaskStatus, UpdateState, UpdateStatus
from skep.domain.session import TaskReport
from skep.domain.spec import (
    FailureAction,
    Port,
    PortMode,
    Resources,
    RestartCondition,
    RestartPolicy,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError
from skep.manager.control.core.views import service_view
from skep.manager.orchestrator.core.slots import is_running
from tests.trace.support.stage import Stage, spec
from tests.trace.support.telling import stage, tells

__all__ = ["stage"]

START_FIRST = UpdatePolicy(order=UpdateOrder.START_FIRST)


def status_of(stage: Stage) -> UpdateStatus:
    status = stage.service().update
    assert status is not None
    return status


def running_revisions(stage: Stage) -> list[int]:
    return [task.revision for task in stage.tasks() if is_running(task)]


# ------------------------------------------------------------------------------ going well


def test_start_first_stops_the_old_task_once_the_new_one_is_healthy(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=2, image="v2", update=START_FIRST))
    stage.run()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n1
        0.0 web.1b running
        0.0 web.2b created, to be running
        0.0 web.1a to stop
        0.0 web.2b assigned to n2
        0.0 web.1a shutdown
        0.0 web.2b running
        0.0 web.2a to stop
        0.0 web.2a shutdown
        """,
    )
    # It is complete once the last one has been watched for long enough.
    stage.advance(4.9)
    tells(stage, "")
    stage.advance(0.1)
    tells(stage, "5.0 web completed: update completed")


def test_as_many_slots_change_at_a_time_as_the_policy_says_with_a_pause_between(
    stage: Stage,
) -> None:
    policy = UpdatePolicy(parallelism=2, delay_ns=3 * SECOND_NS, monitor_ns=0)
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=3, image="v2", update=policy))
    stage.run()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.2a to stop
        0.0 web.2b created, to be ready
        0.0 web.1b assigned to n2
        0.0 web.2b assigned to n1
        0.0 web.1a shutdown
        0.0 web.2a shutdown
        0.0 web.1b ready
        0.0 web.2b ready
        0.0 web.1b to run
        0.0 web.2b to run
        0.0 web.1b running
        0.0 web.2b running
        """,
    )
    stage.advance(3.0)
    stage.run()
    stage.advance(3.0)
    tells(
        stage,
        """
        3.0 web.3a to stop
        3.0 web.3b created, to be ready
        3.0 web.3b assigned to n1
        3.0 web.3a shutdown
        3.0 web.3b ready
        3.0 web.3b to run
        3.0 web.3b running
        6.0 web completed: update completed
        """,
    )


def test_a_parallelism_of_zero_changes_all_at_once(stage: Stage) -> None:
    stage.create(spec(replicas=4, image="v1"))
    stage.run()
    stage.update(spec(replicas=4, image="v2", update=UpdatePolicy(parallelism=0)))
    stage.settle()
    assert [task.revision for task in stage.tasks() if task.is_wanted] == [2, 2, 2, 2]


def test_what_does_not_serve_anyway_goes_first(stage: Stage) -> None:
    restart = RestartPolicy(max_attempts=1, delay_ns=0)
    stage.create(spec(replicas=2, image="v1", restart=restart))
    stage.run()
    for _ in range(2):
        stage.fail("web.2")
        stage.run()
    stage.story()
    stage.update(spec(replicas=2, image="v2", restart=restart))
    stage.run()
    assert stage.story().splitlines()[1].startswith("0.0 web.2c created")


def test_a_new_leader_goes_on_where_the_old_one_was(stage: Stage) -> None:
    policy = UpdatePolicy(delay_ns=10 * SECOND_NS)
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=policy))
    stage.run()
    stage.advance(4.0)
    stage.story()
    stage.lead()
    stage.run()
    stage.advance(5.9)
    tells(stage, "")
    stage.advance(0.2)
    stage.run()
    assert "web.2b running" in stage.story()
    stage.lead()
    stage.advance(10.0)
    assert status_of(stage).state is UpdateState.COMPLETED


def test_scaling_while_an_update_is_under_way_lets_it_go_on(stage: Stage) -> None:
    policy = UpdatePolicy(delay_ns=10 * SECOND_NS)
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    new = spec(replicas=2, image="v2", update=policy)
    stage.update(new)
    stage.run()
    began_ns = status_of(stage).started_ns
    stage.update(replace(new, replicas=3))
    stage.run()
    status = status_of(stage)
    assert (status.state, status.started_ns) == (UpdateState.UPDATING, began_ns)
    assert (status.revision, status.base_revision) == (3, 1)
    stage.advance(10.0)
    stage.run()
    stage.advance(10.0)
    assert status_of(stage).state is UpdateState.COMPLETED
    assert running_revisions(stage) == [2, 2, 2]


def test_a_host_port_is_freed_before_the_new_task_starts(stage: Stage) -> None:
    ports = (Port(target=80, published=8080, mode=PortMode.HOST),)
    stage.create(spec(image="v1", ports=ports))
    stage.run()
    stage.story()
    stage.update(spec(image="v2", ports=ports, update=START_FIRST))
    stage.settle()
    assert stage.story().splitlines()[1] == "0.0 web.1a to stop"


# ------------------------------------------------------------------------------ going wrong


def test_a_release_that_fails_late_is_rolled_back_to_what_ran_before(stage: Stage) -> None:
    policy = UpdatePolicy(
        failure_action=FailureAction.ROLLBACK,
        order=UpdateOrder.START_FIRST,
        delay_ns=10 * SECOND_NS,
    )
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=2, image="v2", update=policy, rollback=START_FIRST))
    stage.run()
    stage.advance(3.0)
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n1
        0.0 web.1b running
        0.0 web.1a to stop
        0.0 web.1a shutdown
        3.0 web.1b failed (exit 1)
        3.0 web rollback_started: update rolled back due to failure or early termination of task web.1b: exit 1
        3.0 web.1b to stop
        3.0 web.1c created, to be running
        3.0 web.1c assigned to n1
        3.0 web.1c running
        """,  # noqa: E501 - the message is one line
    )
    stage.advance(5.0)
    assert status_of(stage).state is UpdateState.ROLLBACK_COMPLETED
    service = stage.service()
    assert (service.spec.task.run.image, service.revision, service.task_revision) == ("v1", 3, 1)
    assert (status_of(stage).revision, status_of(stage).base_revision) == (2, 1)
    # The second slot was never touched.
    assert running_revisions(stage) == [1, 1]
    assert service_view(stage.store.tables, service).is_converged


def test_a_rollback_keeps_the_tasks_that_still_run(stage: Stage) -> None:
    """Start first, and the new task never gets healthy: the old one has never stopped."""
    stage.create(spec(image="v1"))
    stage.run()
    stage.story()
    policy = replace(START_FIRST, failure_action=FailureAction.ROLLBACK)
    stage.update(spec(image="v2", update=policy, restart=RestartPolicy(delay_ns=0)))
    stage.settle()
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n1
        0.0 web.1b failed (exit 1)
        0.0 web rollback_started: update rolled back due to failure or early termination of task web.1b: exit 1
        0.0 web.1b to stop
        0.0 web rollback_completed: rollback completed (update rolled back due to failure or early termination of task web.1b: exit 1)
        """,  # noqa: E501 - the messages are one line each
    )
    # What was tried after it is another story: when the old task ends, it is replaced as ever.
    stage.report(next(task for task in stage.tasks() if task.is_wanted), TaskState.FAILED, "late")
    stage.run()
    stage.advance(5.0)
    stage.run()
    assert running_revisions(stage) == [1]


def test_a_paused_update_waits_for_a_person_and_keeps_old_slots_old(stage: Stage) -> None:
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    new = spec(replicas=3, image="v2", restart=RestartPolicy(delay_ns=0))
    stage.update(new)
    stage.settle()
    stage.work()
    stage.settle()
    stage.fail("web.1")
    stage.run()
    assert status_of(stage).state is UpdateState.PAUSED
    assert "task web.1" in status_of(stage).message
    assert not service_view(stage.store.tables, stage.service()).is_converged
    # A task of the old release that is replaced stays of the old release.
    stage.fail("web.3")
    stage.run()
    stage.advance(60.0)
    stage.run()
    assert running_revisions(stage) == [2, 1, 1]
    # Scaling is no word on the update.
    stage.update(replace(new, replicas=4))
    stage.run()
    assert status_of(stage).state is UpdateState.PAUSED
    # The same spec again is one: go on.
    stage.update(replace(new, replicas=4))
    stage.run()
    stage.advance(5.0)
    assert status_of(stage).state is UpdateState.COMPLETED
    assert running_revisions(stage) == [2, 2, 2, 2]


def test_a_newer_spec_replaces_an_update_and_goes_back_to_the_last_good_one(stage: Stage) -> None:
    policy = replace(START_FIRST, failure_action=FailureAction.ROLLBACK)
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=policy))
    stage.settle()
    stage.update(spec(replicas=2, image="v3", update=policy))
    stage.settle()
    assert (status_of(stage).revision, status_of(stage).base_revision) == (3, 1)
    assert [task.revision for task in stage.tasks() if task.is_wanted] == [1, 3, 1]
    stage.fail("web.1")
    stage.run()
    assert running_revisions(stage) == [1, 1]
    assert stage.service().spec.task.run.image == "v1"


def test_a_failing_rollback_is_watched_and_pauses(stage: Stage) -> None:
    policy = UpdatePolicy(failure_action=FailureAction.ROLLBACK)
    restart = RestartPolicy(delay_ns=0)
    for image in ("v1", "v2"):
        old = spec(image=image, update=policy, rollback=policy, restart=restart)
        (stage.create if image == "v1" else stage.update)(old)
        stage.settle()
        stage.run()
    for _ in range(2):
        stage.fail("web.1")
        stage.run()
    status = status_of(stage)
    assert status.state is UpdateState.ROLLBACK_PAUSED
    assert status.message.startswith("rollback paused due to failure or early termination of task")
    # The old release is tried on, as its restart policy says, and a person may do more.
    stage.advance(60.0)
    stage.run()
    assert status_of(stage).state is UpdateState.ROLLBACK_PAUSED
    assert running_revisions(stage) == [1]


def test_some_slots_may_fail(stage: Stage) -> None:
    """SwarmKit's table, S34: of 4 slots every other one fails; the second failure is too many."""
    policy = UpdatePolicy(failure_action=FailureAction.ROLLBACK, max_failure_ratio=0.4)
    stage.create(spec(replicas=4, image="v1"))
    stage.run()
    stage.update(spec(replicas=4, image="v2", update=policy))

    def behave(task: Task, state: TaskState | None) -> TaskState | None:
        is_bad = task.revision == 2 and task.slot % 2 == 1 and state is TaskState.RUNNING
        return TaskState.FAILED if is_bad else state

    for _ in range(40):
        stage.settle()
        stage.work(behave)
    tried = {task.slot for task in stage.tasks() if task.revision == 2}
    assert tried == {1, 2, 3}
    stage.advance(5.0)
    stage.run()
    stage.advance(5.0)
    assert status_of(stage).state is UpdateState.ROLLBACK_COMPLETED
    assert running_revisions(stage) == [1, 1, 1, 1]


def test_without_a_spec_to_go_back_to_an_update_is_paused(stage: Stage) -> None:
    policy = UpdatePolicy(failure_action=FailureAction.ROLLBACK)
    stage.create(spec(image="v1", ports=(Port(target=80, published=8080),)))
    stage.run()
    stage.update(spec(image="v2", update=policy))
    stage.settle()
    stage.create(spec("other", ports=(Port(target=80, published=8080),)))
    stage.run()
    stage.fail("web.1")
    stage.run()
    assert status_of(stage).state is UpdateState.PAUSED
    assert status_of(stage).failed_slots == (1,)
    assert "port 8080/tcp of the spec before is published by service 'other'" in (
        status_of(stage).message
    )


# ------------------------------------------------------------------------- rollback by hand


def test_a_rollback_by_hand_goes_back_and_forth(stage: Stage) -> None:
    for image in ("v1", "v2"):
        old = spec(replicas=2, image=image, update=UpdatePolicy(monitor_ns=0))
        (stage.create if image == "v1" else stage.update)(old)
        stage.run()
    stage.story()
    stage.roll_back("web")
    stage.run()
    assert stage.story().startswith("0.0 web rollback_started: manually requested rollback")
    assert stage.service().spec.task.run.image == "v1"
    stage.roll_back("web")
    assert stage.service().spec.task.run.image == "v2"
    stage.roll_back("web", 1)
    stage.run()
    stage.advance(5.0)
    assert running_revisions(stage) == [1, 1]
    assert status_of(stage).state is UpdateState.ROLLBACK_COMPLETED
    rows = sorted(stage.store.tables.all(Revision), key=lambda row: row.number)
    assert [(row.number, row.task_revision, row.note) for row in rows] == [
        (1, 1, "created"),
        (2, 2, "updated"),
        (3, 1, "rollback to 1"),
        (4, 2, "rollback to 2"),
        (5, 1, "rollback to 1"),
    ]


def test_after_an_automatic_rollback_a_person_has_to_say_where_to(stage: Stage) -> None:
    policy = UpdatePolicy(failure_action=FailureAction.ROLLBACK)
    stage.create(spec(image="v1"))
    stage.run()
    stage.update(spec(image="v2", update=policy))
    stage.settle()
    stage.work()
    stage.settle()
    stage.fail("web.1")
    stage.run()
    assert status_of(stage).state is UpdateState.ROLLBACK_STARTED
    with pytest.raises(CallError, match="has no spec before the present one"):
        stage.roll_back("web")
    with pytest.raises(CallError, match="has no revision 9; kept are 1, 2, 3"):
        stage.roll_back("web", 9)
    with pytest.raises(CallError, match="revision 1 of service 'web' says what the present one"):
        stage.roll_back("web", 1)
    stage.roll_back("web", 2)
    assert stage.service().spec.task.run.image == "v2"


# ----------------------------------------------------- five bad releases, whatever the policy


@dataclass
class Release:
    """The second release, going wrong in its own way; the first one is good."""

    kind: str
    stage: Stage

    def behave(self, task: Task, state: TaskState | None) -> TaskState | None:
        if self.kind == "hangs at stop" and state is TaskState.SHUTDOWN and task.revision == 1:
            # It is the release before that hangs; it is killed when nobody waits any more.
            return None
        if task.revision == 1 or task.desired_state is not DesiredState.RUNNING:
            return state
        match self.kind:
            case "crashes at once":
                return TaskState.FAILED if state is TaskState.RUNNING else state
            case "crashes late" | "turns unhealthy":
                return self._after_three_seconds(task, state)
        return state

    def _after_three_seconds(self, task: Task, state: TaskState | None) -> TaskState | None:
        since_ns = task.healthy_ns
        is_due = since_ns is not None and self.stage.store.wall_ns - since_ns >= 3 * SECOND_NS
        if not is_due or task.is_terminal:
            return state
        if self.kind == "turns unhealthy" and task.status.is_healthy:
            self._turn_unhealthy(task)
            return None
        return TaskState.FAILED

    def _turn_unhealthy(self, task: Task) -> None:
        assert task.node_id is not None
        old = self.stage.status(task)
        sick = TaskStatus(
            state=old.state, counter=old.counter + 1, is_healthy=False, message="gone sick"
        )
        self.stage.workers[task.node_id].statuses[task.id] = sick
        self.stage.send(task.node_id, TaskReport(task_id=task.id, status=sick))


def _spec_of_second(kind: str, policy: UpdatePolicy) -> Any:
    reservations = Resources(memory_bytes=1 << 40) if kind == "never starts" else Resources()
    return spec(
        replicas=3,
        image="v2",
        update=policy,
        rollback=UpdatePolicy(parallelism=0, order=policy.order),
        reservations=reservations,
    )


BAD_RELEASES = (
    "never starts",
    "crashes at once",
    "crashes late",
    "turns unhealthy",
    "hangs at stop",
)
REASONS = {
    "never starts": "did not become healthy within 20 s (no suitable node",
    "crashes at once": "exit 1",
    "crashes late": "exit 1",
    "turns unhealthy": "gone sick",
}


@pytest.mark.parametrize("order", UpdateOrder)
@pytest.mark.parametrize("action", FailureAction)
@pytest.mark.parametrize("kind", BAD_RELEASES)
def test_a_bad_release_ends_as_its_policy_says(
    stage: Stage, kind: str, action: FailureAction, order: UpdateOrder
) -> None:
    policy = UpdatePolicy(
        failure_action=action,
        order=order,
        # With a pause at least as long as the monitor, each slot proves the release to the next.
        delay_ns=5 * SECOND_NS,
        healthy_deadline_ns=20 * SECOND_NS,
    )
    stage.create(spec(replicas=3, image="v1", stop_grace_ns=SECOND_NS))
    stage.run()
    stage.update(_spec_of_second(kind, policy))
    release = Release(kind, stage)
    least = 3
    for _ in range(400):
        stage.settle()
        while stage.work(release.behave):
            stage.settle()
        serving = {task.slot for task in stage.tasks() if is_running(task)}
        least = min(least, len(serving))
        stage.advance(0.5)
    status = status_of(stage)
    if kind == "hangs at stop":
        # The release itself is fine; the update waits for each old task, but not for ever.
        assert status.state is UpdateState.COMPLETED
        assert least >= (3 if order is UpdateOrder.START_FIRST else 2)
        assert running_revisions_wanted(stage) == [2, 2, 2]
        return
    expected = {
        FailureAction.PAUSE: UpdateState.PAUSED,
        FailureAction.CONTINUE: UpdateState.COMPLETED,
        FailureAction.ROLLBACK: UpdateState.ROLLBACK_COMPLETED,
    }
    assert status.state is expected[action]
    took_s = ((status.ended_ns or 0) - status.started_ns) / SECOND_NS
    assert took_s <= 3 * (20 + 31 + 5) + 5
    assert (
        status.failed_slots
        == {
            FailureAction.PAUSE: (1,),
            FailureAction.CONTINUE: (1, 2, 3),
            FailureAction.ROLLBACK: (),
        }[action]
    )
    if action is not FailureAction.CONTINUE:
        assert REASONS[kind] in status.message
        assert "task web.1" in status.message
        assert least >= 2
        # What the first slot of a paused start-first update loses is only what crashes late.
        if order is UpdateOrder.START_FIRST and kind in ("never starts", "crashes at once"):
            assert least == 3
    elif order is UpdateOrder.START_FIRST and kind in ("never starts", "crashes at once"):
        assert least == 3
        assert running_revisions(stage) == [1, 1, 1]
    if action is FailureAction.ROLLBACK:
        assert running_revisions(stage) == [1, 1, 1]
        assert stage.service().spec.task.run.image == "v1"


def test_who_turns_unhealthy_has_failed_however_long_it_takes_to_stop(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.update(spec(replicas=2, image="v2", update=START_FIRST))
    release = Release("turns unhealthy", stage)

    def hangs(task: Task, state: TaskState | None) -> TaskState | None:
        is_sick = task.status.state is TaskState.RUNNING and not task.status.is_healthy
        return None if is_sick else release.behave(task, state)

    for _ in range(20):
        stage.settle()
        while stage.work(hangs):
            stage.settle()
        stage.advance(0.5)
    assert status_of(stage).state is UpdateState.PAUSED
    assert status_of(stage).message.endswith(": gone sick")


def running_revisions_wanted(stage: Stage) -> list[int]:
    return [task.revision for task in stage.tasks() if task.is_wanted and is_running(task)]


def test_draining_in_the_middle_of_an_update_spreads_nothing_unproven(stage: Stage) -> None:
    stage.register("n3")
    policy = UpdatePolicy(delay_ns=30 * SECOND_NS)
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.update(spec(replicas=3, image="v2", update=policy))
    stage.run()
    assert running_revisions(stage) == [2, 1, 1]
    home = next(task.node_id for task in stage.tasks() if task.slot == 3)
    stage.set_availability(str(home), Availability.DRAIN)
    stage.run()
    assert running_revisions(stage) == [2, 1, 1]
    assert all(task.node_id != home for task in stage.tasks() if is_running(task))


# ------------------------------------------------------------------------- what the storms found


def test_a_task_that_may_stay_after_all_stays(stage: Stage) -> None:
    """Its successor waits for the very port that it holds, and would do so for good."""
    ports = (Port(target=80, published=8080, mode=PortMode.HOST),)
    stage.create(spec(replicas=2, ports=ports))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.run()
    stage.set_availability("n1", Availability.ACTIVE)
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1b created, to be running
        0.0 web.1b (no suitable node (host-mode port already in use on 1 node; 1 node not available for new tasks))
        0.0 n1 is set to active
        0.0 web.1b to be removed shutdown
        0.0 web.1b forgotten
        """,  # noqa: E501 - the message is one line
    )
    assert service_view(stage.store.tables, stage.service()).is_converged


def test_each_move_has_its_own_time(stage: Stage) -> None:
    """A successor that was given up when the task could stay is no part of the next move."""
    policy = UpdatePolicy(healthy_deadline_ns=20 * SECOND_NS)
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(update=policy))
    stage.run()
    [first] = stage.tasks()
    for _ in range(3):
        stage.set_availability("n1", Availability.DRAIN)
        stage.run()
        stage.advance(15.0)
        stage.run()
        stage.set_availability("n1", Availability.ACTIVE)
        stage.run()
    assert [task.id for task in stage.tasks() if task.is_wanted] == [first.id]


def test_a_successor_that_was_given_up_long_ago_hurries_no_later_move(stage: Stage) -> None:
    restart = RestartPolicy(condition=RestartCondition.NONE)
    policy = UpdatePolicy(healthy_deadline_ns=20 * SECOND_NS)
    stage.create(spec(restart=restart, update=policy))
    stage.run()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    stage.fail("web.1")
    stage.set_availability("n1", Availability.ACTIVE)
    stage.run()
    stage.advance(100.0)
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.set_availability("n2", Availability.PAUSE)
    stage.run()
    stage.advance(19.0)
    stage.run()
    assert running_revisions(stage) == [1]
    stage.set_availability("n2", Availability.ACTIVE)
    stage.run()
    assert "web.1c running" in stage.story()
