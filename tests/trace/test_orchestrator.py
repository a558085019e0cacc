"""The life of a replicated service, told as it happens.

Tasks are called by service, slot and attempt: "web.1b" is the second task of slot 1. Workers do at
once what is wanted of them, and time stands still but where a test moves it.
"""

from __future__ import annotations

import textwrap

import pytest

from skep.domain.base import SECOND_NS
from skep.domain.objects import Availability, Revision, Service
from skep.domain.spec import Placement, Resources, RestartCondition, RestartPolicy
from skep.domain.states import TaskState
from tests.trace.support.stage import Stage, spec

GIB = 1 << 30


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.register("n1")
    stage.register("n2")
    return stage


def tells(stage: Stage, expected: str) -> None:
    assert stage.story() == textwrap.dedent(expected).strip("\n")


def test_a_service_is_created_scaled_up_and_scaled_down(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a created, to be running
        0.0 web.2a created, to be running
        0.0 web.1a assigned to n1
        0.0 web.2a assigned to n2
        0.0 web.1a running
        0.0 web.2a running
        """,
    )
    stage.update(spec(replicas=4))
    stage.run()
    tells(
        stage,
        """
        0.0 web.3a created, to be running
        0.0 web.4a created, to be running
        0.0 web.3a assigned to n1
        0.0 web.4a assigned to n2
        0.0 web.3a running
        0.0 web.4a running
        """,
    )
    # The copies that make the spread uneven go first, high numbers before low ones.
    stage.update(spec(replicas=1))
    stage.run()
    tells(
        stage,
        """
        0.0 web.2a to be removed
        0.0 web.3a to be removed
        0.0 web.4a to be removed
        0.0 web.2a shutdown
        0.0 web.3a shutdown
        0.0 web.4a shutdown
        0.0 web.2a forgotten
        0.0 web.3a forgotten
        0.0 web.4a forgotten
        """,
    )


def test_a_failed_task_is_replaced_after_its_delay(stage: Stage) -> None:
    stage.create(spec())
    stage.run()
    stage.story()
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a failed (exit 1)
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n1
        0.0 web.1b ready
        """,
    )
    stage.advance(4.9)
    tells(stage, "")
    stage.advance(0.1)
    stage.run()
    tells(
        stage,
        """
        5.0 web.1b to run
        5.0 web.1b running
        """,
    )


def test_a_delay_outlives_the_leader(stage: Stage) -> None:
    stage.create(spec())
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.advance(3.0)
    stage.story()
    stage.lead()
    stage.run()
    tells(stage, "")
    stage.advance(2.0)
    stage.run()
    tells(
        stage,
        """
        5.0 web.1b to run
        5.0 web.1b running
        """,
    )


def test_a_new_leader_whose_clock_is_behind_still_ends_the_delay_in_time(stage: Stage) -> None:
    stage.create(spec())
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.story()
    stage.clock.wall_offset_s = -3600.0
    stage.lead()
    stage.advance(5.0)
    stage.run()
    tells(
        stage,
        """
        5.0 web.1b to run
        5.0 web.1b running
        """,
    )


def test_a_task_whose_attempts_are_exhausted_is_given_up_until_the_spec_changes(
    stage: Stage,
) -> None:
    restart = RestartPolicy(max_attempts=1, delay_ns=0)
    stage.create(spec(restart=restart))
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a created, to be running
        0.0 web.1a assigned to n1
        0.0 web.1a running
        0.0 web.1a failed (exit 1)
        0.0 web.1a to stop
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n1
        0.0 web.1b running
        0.0 web.1b failed (exit 1)
        0.0 web.1b to stop
        """,
    )
    stage.advance(600.0)
    stage.lead()
    stage.run()
    tells(stage, "")
    stage.update(spec(restart=restart, image="v2"))
    stage.run()
    tells(
        stage,
        """
        600.0 web.1c created, to be running
        600.0 web.1c assigned to n1
        600.0 web.1c running
        """,
    )


def test_more_attempts_are_a_new_chance_too(stage: Stage) -> None:
    stage.create(spec(restart=RestartPolicy(condition=RestartCondition.NONE, delay_ns=0)))
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.story()
    stage.update(spec(restart=RestartPolicy(delay_ns=0)))
    stage.run()
    tells(
        stage,
        """
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n1
        0.0 web.1b running
        """,
    )


def test_attempts_within_a_window_are_forgiven_after_it(stage: Stage) -> None:
    restart = RestartPolicy(max_attempts=1, delay_ns=0, window_ns=10 * SECOND_NS)
    stage.create(spec(restart=restart))
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.advance(11.0)
    stage.story()
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        11.0 web.1b failed (exit 1)
        11.0 web.1b to stop
        11.0 web.1c created, to be running
        11.0 web.1c assigned to n1
        11.0 web.1c running
        """,
    )
    stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        11.0 web.1c failed (exit 1)
        11.0 web.1c to stop
        """,
    )
    # It was too much then, and stays so.
    stage.advance(600.0)
    stage.lead()
    stage.run()
    tells(stage, "")


def test_a_task_that_is_done_is_left_alone(stage: Stage) -> None:
    restart = RestartPolicy(condition=RestartCondition.ON_FAILURE)
    stage.create(spec(restart=restart))
    stage.run()
    stage.story()
    stage.fail("web.1", TaskState.COMPLETE)
    stage.run()
    stage.advance(60.0)
    tells(
        stage,
        """
        0.0 web.1a complete
        0.0 web.1a to stop
        """,
    )


def test_tasks_of_a_lost_node_run_elsewhere_at_once_and_eat_no_attempt(stage: Stage) -> None:
    stage.create(spec(replicas=2, restart=RestartPolicy(max_attempts=1)))
    stage.run()
    stage.story()
    stage.lose("n1")
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is down
        0.0 web.1a to stop
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n2
        0.0 web.1b running
        """,
    )
    assert stage.task("web.1").attempt == 0
    # The node comes back: what it held is not its any more, and nothing is moved back.
    stage.register("n1")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a shutdown
        """,
    )


def test_a_drained_node_is_emptied_and_each_task_waits_for_its_predecessor(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n2
        """,
    )
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a shutdown
        0.0 web.1b ready
        0.0 web.1b to run
        0.0 web.1b running
        """,
    )


def test_a_paused_node_keeps_what_it_has_and_gets_no_more(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.PAUSE)
    stage.update(spec(replicas=3))
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is set to pause
        0.0 web.3a created, to be running
        0.0 web.3a assigned to n2
        0.0 web.3a running
        """,
    )


def test_a_node_that_does_not_stop_its_task_does_not_hold_the_slot_up_for_good(
    stage: Stage,
) -> None:
    stage.create(spec(stop_grace_ns=2 * SECOND_NS))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    stage.report(stage.task("web.1"), TaskState.READY)
    stage.settle()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n2
        0.0 web.1b ready
        """,
    )
    stage.advance(31.9)
    tells(stage, "")
    stage.advance(0.2)
    tells(
        stage,
        """
        32.1 web.1b to run
        """,
    )


def test_a_node_that_loses_its_label_loses_the_task(stage: Stage) -> None:
    stage.label("n1", disk="ssd")
    stage.create(spec(placement=Placement(constraints=("node.labels.disk == ssd",))))
    stage.run()
    stage.story()
    stage.label("n1", disk="spinning")
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is labelled {'disk': 'spinning'}
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b (no suitable node (scheduling constraints not satisfied on 2 nodes))
        0.0 web.1a shutdown
        0.0 web.1b to run
        """,
    )
    stage.label("n2", disk="ssd")
    stage.run()
    tells(
        stage,
        """
        0.0 n2 is labelled {'disk': 'ssd'}
        0.0 web.1b assigned to n2
        0.0 web.1b running
        """,
    )


def test_a_constraint_that_is_added_moves_only_the_tasks_that_break_it(stage: Stage) -> None:
    stage.label("n1", disk="ssd")
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.update(spec(replicas=2, placement=Placement(constraints=("node.labels.disk == ssd",))))
    stage.run()
    tells(
        stage,
        """
        0.0 web.2a to stop
        0.0 web.2b created, to be ready
        0.0 web.2b assigned to n1
        0.0 web.2a shutdown
        0.0 web.2b ready
        0.0 web.2b to run
        0.0 web.2b running
        """,
    )


def test_a_changed_spec_is_rolled_out_one_at_a_time_stop_first(stage: Stage) -> None:
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=3, image="v2"))
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n2
        0.0 web.1a shutdown
        0.0 web.1b ready
        0.0 web.1b to run
        0.0 web.1b running
        0.0 web.2a to stop
        0.0 web.2b created, to be ready
        0.0 web.2b assigned to n1
        0.0 web.2a shutdown
        0.0 web.2b ready
        0.0 web.2b to run
        0.0 web.2b running
        0.0 web.3a to stop
        0.0 web.3b created, to be ready
        0.0 web.3b assigned to n2
        0.0 web.3a shutdown
        0.0 web.3b ready
        0.0 web.3b to run
        0.0 web.3b running
        """,
    )


def test_a_newer_spec_takes_over_one_that_is_stuck(stage: Stage) -> None:
    stage.create(spec(replicas=2, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=2, image="v2", reservations=Resources(memory_bytes=64 * GIB)))
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b (no suitable node (insufficient resources on 2 nodes))
        0.0 web.1a shutdown
        0.0 web.1b to run
        """,
    )
    stage.update(spec(replicas=2, image="v3"))
    stage.run()
    tells(
        stage,
        """
        0.0 web.1b to stop shutdown
        0.0 web.1c created, to be running
        0.0 web.1c assigned to n1
        0.0 web.1c running
        0.0 web.2a to stop
        0.0 web.2b created, to be ready
        0.0 web.2b assigned to n1
        0.0 web.2a shutdown
        0.0 web.2b ready
        0.0 web.2b to run
        0.0 web.2b running
        """,
    )


def test_a_spec_that_fails_for_good_stops_the_rollout(stage: Stage) -> None:
    restart = RestartPolicy(max_attempts=1, delay_ns=0)
    stage.create(spec(replicas=2, image="v1", restart=restart))
    stage.run()
    stage.story()
    stage.update(spec(replicas=2, image="v2", restart=restart))
    stage.settle()
    stage.work()
    for _ in range(2):
        stage.settle()
        stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n1
        0.0 web.1a shutdown
        0.0 web.1b ready
        0.0 web.1b to run
        0.0 web.1b failed (exit 1)
        0.0 web.1b to stop
        0.0 web.1c created, to be running
        0.0 web.1c assigned to n1
        0.0 web.1c failed (exit 1)
        0.0 web.1c to stop
        """,
    )


def test_a_removed_service_is_stopped_and_then_forgotten(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.remove("web")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a to be removed
        0.0 web.2a to be removed
        0.0 web.1a shutdown
        0.0 web.2a shutdown
        0.0 web.1a forgotten
        0.0 web.2a forgotten
        0.0 web is gone
        """,
    )
    assert not list(stage.store.tables.all(Service))
    assert not list(stage.store.tables.all(Revision))


def test_a_removed_service_does_not_wait_for_a_lost_node(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.workers[stage.node("n1").id].is_alive = False
    stage.remove("web")
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a to be removed
        0.0 web.2a to be removed
        0.0 web.2a shutdown
        0.0 web.2a forgotten
        """,
    )
    stage.lose("n1")
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is down
        0.0 web.1a forgotten
        0.0 web is gone
        """,
    )


def test_a_task_removed_by_hand_is_followed_by_another_once_it_has_stopped(stage: Stage) -> None:
    stage.create(spec())
    stage.run()
    stage.fail("web.1")
    stage.run()
    stage.advance(5.0)
    stage.run()
    stage.story()
    # The slot's story has a failed task before this one: it must not be taken for the newest.
    stage.remove_task("web.1")
    stage.run()
    tells(
        stage,
        """
        5.0 web.1b to stop
        5.0 web.1c created, to be ready
        5.0 web.1c assigned to n2
        5.0 web.1b shutdown
        5.0 web.1c ready
        5.0 web.1c to run
        5.0 web.1c running
        """,
    )


def test_a_node_removed_for_good_takes_its_tasks_along(stage: Stage) -> None:
    stage.create(spec())
    stage.run()
    stage.story()
    stage.lose("n1")
    stage.remove_node("n1")
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is down
        0.0 n1 is removed
        0.0 web.1a orphaned (node n1 was removed)
        0.0 web.1a to stop
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n2
        0.0 web.1b running
        """,
    )


def test_a_new_task_waits_for_the_one_before_the_lost_one(stage: Stage) -> None:
    """Its direct predecessor's node is lost, but the one before that still stops elsewhere."""
    stage.create(spec())
    stage.run()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    stage.register("n3")
    stage.story()
    stage.lose("n2")
    stage.settle()
    tells(
        stage,
        """
        0.0 n2 is down
        0.0 web.1b to stop
        0.0 web.1c created, to be ready
        0.0 web.1c assigned to n3
        """,
    )
    stage.run()
    tells(
        stage,
        """
        0.0 web.1a shutdown
        0.0 web.1c ready
        0.0 web.1c to run
        0.0 web.1c running
        """,
    )


def test_history_is_kept_up_to_its_limit(stage: Stage) -> None:
    stage.create(spec(restart=RestartPolicy(delay_ns=0)))
    for _ in range(8):
        stage.run()
        stage.fail("web.1")
    stage.run()
    assert [task.status.state for task in stage.tasks()] == [TaskState.FAILED] * 5 + [
        TaskState.RUNNING
    ]
