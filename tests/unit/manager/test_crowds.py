"""What waits in vain, in crowds, neither turns a pass in circles nor hides what can be served."""

from __future__ import annotations

from unittest import mock

from skep.domain.spec import Resources
from skep.domain.states import TaskState
from skep.manager.allocator.core import pools
from tests.trace.support.stage import Stage, spec


def test_tasks_that_fit_nowhere_hide_nobody() -> None:
    stage = Stage()
    stage.register("n1")
    with mock.patch("skep.manager.scheduler.actor.PASS_CHANGES", 2):
        stage.create(spec("big", replicas=9, reservations=Resources(memory_bytes=1 << 40)))
        stage.settle()
        stage.create(spec("small"))
        stage.run()
    assert stage.task("small.1").status.state is TaskState.RUNNING
    assert all("insufficient resources" in task.status.error for task in stage.tasks("big"))


def test_without_a_free_address_every_task_says_so_and_the_allocator_rests() -> None:
    stage = Stage()
    stage.register("n1")
    with (
        mock.patch("skep.manager.allocator.actor.PASS_CHANGES", 20),
        mock.patch.object(pools, "LAST_THIRD_BYTE", pools.FIRST_THIRD_BYTE),
    ):
        stage.create(spec(replicas=300))
        stage.settle()
        waiting = [task for task in stage.tasks() if task.status.state is TaskState.NEW]
        assert len(waiting) == 300 - 254
        assert all("no task address is free" in task.status.error for task in waiting)
        stage.update(spec(replicas=200))
        stage.run()
    assert {task.status.state for task in stage.tasks()} == {TaskState.RUNNING}
    assert len(stage.tasks()) == 200


def test_a_big_service_is_made_in_parts() -> None:
    stage = Stage()
    for number in range(5):
        stage.register(f"n{number}")
    with mock.patch("skep.manager.orchestrator.actor.PASS_CHANGES", 30):
        stage.create(spec(replicas=100))
        stage.run()
        assert sorted(task.slot for task in stage.tasks()) == list(range(1, 101))
        stage.remove("web")
        stage.run()
    assert stage.tasks() == []
