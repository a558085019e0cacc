"""The tasks that run, for whoever looks at what they use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skep.domain.objects import Task
from skep.domain.states import TaskState
from skep.worker.core.task import TaskMachine


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that runs, by which engine, and its first process."""

    task: Task
    engine: str
    pid: int


def running_tasks(machines: Iterable[TaskMachine]) -> list[RunningTask]:
    """Those that run and whose first process is known."""
    return [
        RunningTask(machine.assignment.task, machine.assignment.spec.task.engine, pid)
        for machine in machines
        if (pid := machine.status.pid) and machine.status.state is TaskState.RUNNING
    ]
