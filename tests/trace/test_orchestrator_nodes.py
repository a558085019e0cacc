"""Nodes that are lost, drained, paused, removed, or fit no longer."""

from __future__ import annotations

from skep.domain.base import SECOND_NS
from skep.domain.objects import Availability
from skep.domain.spec import Placement, RestartPolicy, UpdateOrder, UpdatePolicy
from skep.domain.states import TaskState
from tests.trace.support.stage import Stage, spec
from tests.trace.support.telling import stage, tells

__all__ = ["stage"]


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


def test_a_drained_node_hands_its_task_over_once_another_is_healthy(stage: Stage) -> None:
    stage.create(spec(replicas=2))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n2
        """,
    )
    stage.run()
    tells(
        stage,
        """
        0.0 web.1b running
        0.0 web.1a to stop
        0.0 web.1a shutdown
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


def test_a_drained_node_is_emptied_no_faster_than_an_update_would(stage: Stage) -> None:
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(replicas=3, update=UpdatePolicy(parallelism=2)))
    stage.run()
    stage.set_availability("n2", Availability.ACTIVE)
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1b created, to be running
        0.0 web.2b created, to be running
        0.0 web.1b assigned to n2
        0.0 web.2b assigned to n2
        """,
    )
    stage.run()
    tells(
        stage,
        """
        0.0 web.1b running
        0.0 web.2b running
        0.0 web.1a to stop
        0.0 web.2a to stop
        0.0 web.3b created, to be running
        0.0 web.3b assigned to n2
        0.0 web.1a shutdown
        0.0 web.2a shutdown
        0.0 web.3b running
        0.0 web.3a to stop
        0.0 web.3a shutdown
        """,
    )


def test_a_task_that_can_go_nowhere_else_leaves_a_drained_node_in_the_end(stage: Stage) -> None:
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(update=UpdatePolicy(healthy_deadline_ns=60 * SECOND_NS)))
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1b created, to be running
        0.0 web.1b (no suitable node (2 nodes not available for new tasks))
        """,
    )
    stage.advance(59.9)
    tells(stage, "")
    stage.advance(0.2)
    stage.run()
    tells(
        stage,
        """
        60.1 web.1a to stop
        60.1 web.1a shutdown
        """,
    )


def test_a_task_whose_successor_was_given_up_leaves_a_drained_node_in_the_end(
    stage: Stage,
) -> None:
    stage.create(
        spec(
            restart=RestartPolicy(max_attempts=1, delay_ns=0),
            update=UpdatePolicy(healthy_deadline_ns=60 * SECOND_NS),
        )
    )
    stage.run()
    stage.story()
    stage.set_availability("n1", Availability.DRAIN)
    for _ in range(2):
        stage.settle()
        stage.fail("web.1")
    stage.run()
    tells(
        stage,
        """
        0.0 n1 is set to drain
        0.0 web.1b created, to be running
        0.0 web.1b assigned to n2
        0.0 web.1b failed (exit 1)
        0.0 web.1b to stop
        0.0 web.1c created, to be running
        0.0 web.1c assigned to n2
        0.0 web.1c failed (exit 1)
        0.0 web.1c to stop
        """,
    )
    stage.advance(60.1)
    stage.run()
    tells(
        stage,
        """
        60.1 web.1a to stop
        60.1 web.1a shutdown
        """,
    )


def test_more_replicas_than_a_node_may_have_move_start_first(stage: Stage) -> None:
    stage.set_availability("n2", Availability.PAUSE)
    stage.create(spec(replicas=3))
    stage.run()
    stage.set_availability("n2", Availability.ACTIVE)
    stage.story()
    stage.update(spec(replicas=3, placement=Placement(max_replicas_per_node=2)))
    stage.run()
    tells(
        stage,
        """
        0.0 web.3b created, to be running
        0.0 web.3b assigned to n2
        0.0 web.3b running
        0.0 web.3a to stop
        0.0 web.3a shutdown
        """,
    )


def test_a_task_that_does_not_stop_does_not_hold_the_slot_up_for_good(stage: Stage) -> None:
    stage.create(spec(stop_grace_ns=2 * SECOND_NS))
    stage.run()
    stage.story()
    # How long the old one may take is the old spec's to say.
    stage.update(spec(image="v2", stop_grace_ns=20 * SECOND_NS))
    stage.settle()
    stage.report(stage.task("web.1"), TaskState.READY)
    stage.settle()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n1
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
        0.0 web.1b created, to be running
        0.0 web.1b (no suitable node (scheduling constraints not satisfied on 2 nodes))
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
        0.0 web.1a to stop
        0.0 web.1a shutdown
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
        0.0 web.2b created, to be running
        0.0 web.2b assigned to n1
        0.0 web.2b running
        0.0 web.2a to stop
        0.0 web.2a shutdown
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
    stage.set_availability("n1", Availability.PAUSE)
    stage.update(spec(image="v2"))
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


def test_a_successor_drained_as_it_takes_over_has_its_own_only_once_the_oldest_has_stopped(
    stage: Stage,
) -> None:
    """Else three of one slot would run."""
    policy = UpdatePolicy(order=UpdateOrder.START_FIRST)
    stage.register("n3")
    stage.create(spec(image="v1", update=policy))
    stage.run()
    stage.set_availability("n1", Availability.PAUSE)
    stage.update(spec(image="v2", update=policy))
    stage.settle()
    stage.story()
    stage.set_availability("n2", Availability.DRAIN)
    stage.report(stage.task("web.1"), TaskState.RUNNING)
    stage.settle()
    tells(
        stage,
        """
        0.0 n2 is set to drain
        0.0 web.1b running
        0.0 web.1a to stop
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
        0.0 web.1b to stop
        0.0 web.1b shutdown
        """,
    )


def test_a_task_given_up_with_its_failed_successor_stops_before_the_next_one_starts(
    stage: Stage,
) -> None:
    """Its time on the drained node is over in the very pass that sees its successor's end."""
    stage.register("n3")
    policy = UpdatePolicy(healthy_deadline_ns=60 * SECOND_NS)
    stage.create(spec(restart=RestartPolicy(delay_ns=0), update=policy))
    stage.run()
    stage.set_availability("n1", Availability.DRAIN)
    stage.settle()
    stage.story()
    stage.clock.advance(60.1)
    stage.fail("web.1")
    stage.settle()
    tells(
        stage,
        """
        60.1 web.1b failed (exit 1)
        60.1 web.1a to stop
        60.1 web.1b to stop
        60.1 web.1c created, to be ready
        60.1 web.1c assigned to n2
        """,
    )
