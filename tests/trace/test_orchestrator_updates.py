"""A changed spec, rolled out one task at a time, stop first."""

from __future__ import annotations

from skep.domain.spec import Resources, RestartPolicy
from skep.domain.states import TaskState
from tests.trace.support.stage import Stage, spec
from tests.trace.support.telling import stage, tells

__all__ = ["stage"]

GIB = 1 << 30


def test_a_changed_spec_is_rolled_out_one_at_a_time_stop_first(stage: Stage) -> None:
    stage.create(spec(replicas=3, image="v1"))
    stage.run()
    stage.story()
    stage.update(spec(replicas=3, image="v2"))
    stage.run()
    tells(
        stage,
        """
        0.0 web updating: update in progress
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n1
        0.0 web.1a shutdown
        0.0 web.1b ready
        0.0 web.1b to run
        0.0 web.1b running
        0.0 web.2a to stop
        0.0 web.2b created, to be ready
        0.0 web.2b assigned to n2
        0.0 web.2a shutdown
        0.0 web.2b ready
        0.0 web.2b to run
        0.0 web.2b running
        0.0 web.3a to stop
        0.0 web.3b created, to be ready
        0.0 web.3b assigned to n1
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
        0.0 web updating: update in progress
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
        0.0 web.2b assigned to n2
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
        0.0 web updating: update in progress
        0.0 web.1a to stop
        0.0 web.1b created, to be ready
        0.0 web.1b assigned to n1
        0.0 web.1a shutdown
        0.0 web.1b ready
        0.0 web.1b to run
        0.0 web.1b failed (exit 1)
        0.0 web.1b to stop
        0.0 web.1c created, to be running
        0.0 web paused: update paused due to failure or early termination of task web.1b: exit 1
        0.0 web.1c assigned to n1
        0.0 web.1c failed (exit 1)
        0.0 web.1c to stop
        """,
    )


def test_a_smaller_spec_makes_the_room_that_a_slot_was_waiting_for(stage: Stage) -> None:
    """Two big tasks fill both nodes, the third slot never had one. Waiting for that slot would be
    waiting for room that only the update itself makes."""
    stage.create(spec(replicas=3, image="v1", reservations=Resources(memory_bytes=5 * GIB)))
    stage.run()
    stage.story()
    stage.update(spec(replicas=3, image="v2", reservations=Resources(memory_bytes=4 * GIB)))
    stage.run()
    wanted = [task for task in stage.tasks() if task.is_wanted]
    assert {(task.revision, task.status.state) for task in wanted} == {(2, TaskState.RUNNING)}
    assert len(wanted) == 3
