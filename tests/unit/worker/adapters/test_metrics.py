"""What a worker shows of its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from skep.domain.objects import TaskStatus
from skep.domain.session import Assignment
from skep.domain.states import TaskState
from skep.worker.adapters import metrics as metrics_module
from skep.worker.adapters.metrics import TaskMetrics
from skep.worker.core.agent import AgentCore, StrayTask
from skep.worker.core.ledger import Ledger
from skep.worker.engine.docker.core.stats import Usage
from skep.worker.engine.protocol import HeldState
from tests.unit.worker.fakes import assignment
from tests.unit.worker.play import at, held

USAGE = Usage(
    cpu_ns=1_500_000_000,
    memory_bytes=10,
    working_set_bytes=8,
    memory_limit_bytes=100,
    pids=2,
    read_bytes=3,
    written_bytes=4,
)


@dataclass
class Node:
    """An agent with some running tasks, and what these use by pid."""

    usages: dict[int, Usage] = field(default_factory=dict)
    core: AgentCore | None = None

    def hold(self, *assignments: Assignment) -> None:
        """Have these tasks running, with pids from 101 on."""
        ledger = Ledger()
        strays = []
        for number, each in enumerate(assignments, start=101):
            ledger.assignments[each.task.id] = each
            ledger.statuses[each.task.id] = TaskStatus(state=TaskState.RUNNING, pid=number)
            strays.append(StrayTask(held(each.task.id, HeldState.RUNNING, pid=number), "process"))
        self.core = AgentCore(ledger)
        self.core.begin(at(0.0), strays)

    def lines(self, engine: str = "process") -> list[str]:
        """The figures of tasks, as a scraper gets them."""
        agent: Any = SimpleNamespace(view=self)
        registry = CollectorRegistry()
        registry.register(TaskMetrics(agent, engine, self.usages.get))
        text = generate_latest(registry).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]


def test_nothing_is_shown_before_the_agent_runs() -> None:
    assert Node().lines() == []


def test_what_a_task_uses_is_shown_by_service_task_and_slot() -> None:
    node = Node({101: USAGE})
    node.hold(assignment("t1"))
    labels = '{service="web",slot="1",task="t1"}'
    assert node.lines() == [
        f"skep_task_memory_bytes{labels} 10.0",
        f"skep_task_memory_working_set_bytes{labels} 8.0",
        f"skep_task_memory_limit_bytes{labels} 100.0",
        f"skep_task_pids{labels} 2.0",
        f"skep_task_cpu_seconds_total{labels} 1.5",
        f"skep_task_block_read_bytes_total{labels} 3.0",
        f"skep_task_block_written_bytes_total{labels} 4.0",
    ]


def test_a_task_that_has_just_ended_and_those_of_other_engines_are_left_out() -> None:
    node = Node({101: USAGE})
    node.hold(assignment("t1"), assignment("t2"))
    assert {line.partition('task="')[2][:2] for line in node.lines()} == {"t1"}
    assert node.lines("docker") == []


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "TASKS_LIMIT", 2)
    node = Node(dict.fromkeys((101, 102, 103), USAGE))
    node.hold(assignment("t1"), assignment("t2"), assignment("t3"))
    assert len([line for line in node.lines() if "_pids" in line]) == 2
