"""The life of a replicated service, told as it happens.

Tasks are called by service, slot and attempt: "web.1b" is the second task of slot 1. Workers do at
once what is wanted of them, and time stands still but where a test moves it.
"""

from __future__ import annotations

from skep.domain.objects import Revision, Service
from skep.domain.spec import RestartPolicy
from skep.domain.states import TaskState
from tests.trace.support.stage import Stage, spec
from tests.trace.support.telling import stage, tells

__all__ = ["stage"]


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
        5.0 web.1c assigned to n1
        5.0 web.1b shutdown
        5.0 web.1c ready
        5.0 web.1c to run
        5.0 web.1c running
        """,
    )


def test_history_is_kept_up_to_its_limit(stage: Stage) -> None:
    stage.create(spec(restart=RestartPolicy(delay_ns=0)))
    for _ in range(8):
        stage.run()
        stage.fail("web.1")
        stage.run()
        # Long enough for what bounds a storm of restarts.
        stage.advance(60.0)
    stage.run()
    assert [task.status.state for task in stage.tasks()] == [TaskState.FAILED] * 5 + [
        TaskState.RUNNING
    ]
