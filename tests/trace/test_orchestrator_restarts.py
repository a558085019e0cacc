"""Tasks that fail, and when they are replaced or given up."""

from __future__ import annotations

import pytest

from skep.domain.base import SECOND_NS
from skep.domain.spec import RestartCondition, RestartPolicy
from skep.domain.states import TaskState
from tests.trace.support.stage import Stage, spec
from tests.trace.support.telling import stage, tells

__all__ = ["stage"]


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
        600.0 web updating: update in progress
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


@pytest.mark.parametrize(("delay_s", "attempts"), [(5, 6), (0, 6)])
def test_what_is_rejected_is_not_tried_in_a_hot_loop(
    stage: Stage, delay_s: int, attempts: int
) -> None:
    """A replacement is made ready while its delay still runs, and may be rejected at once."""
    stage.create(spec(replicas=1, restart=RestartPolicy(delay_ns=delay_s * SECOND_NS)))
    tried = set()
    for _ in range(250):
        stage.settle()
        newest = max(stage.tasks(), key=lambda task: (task.created_ns, task.attempt))
        tried.add(newest.id)
        if not newest.is_terminal:
            stage.fail("web.1", TaskState.REJECTED, "no such program")
        stage.advance(0.1)
    assert len(tried) == attempts
