"""What an agent shows of itself, for Prometheus. Read in the scraper's thread, never written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.domain.states import TaskState
from skep.worker.agent import Agent
from skep.worker.core.running import RunningTask
from skep.worker.engine.docker.core.stats import Usage

_NS = 1e-9
# A node runs some hundreds of tasks; a scraper that gets more series than this is in trouble.
TASKS_LIMIT = 1000
_LABELS = ("service", "task", "slot")
# Of each figure of a task: its name, its meaning, and its unit in that of `Usage`.
_GAUGES = (
    ("memory_bytes", "Memory, page cache and all.", "memory_bytes"),
    ("memory_working_set_bytes", "Memory as docker stats shows it.", "working_set_bytes"),
    ("memory_limit_bytes", "Memory it may have.", "memory_limit_bytes"),
    ("pids", "Processes and threads.", "pids"),
)
_COUNTERS = (
    ("cpu_seconds", "CPU time.", "cpu_ns"),
    ("block_read_bytes", "Read from block devices.", "read_bytes"),
    ("block_written_bytes", "Written to block devices.", "written_bytes"),
    ("network_received_bytes", "Come in by its networks.", "received_bytes"),
    ("network_sent_bytes", "Gone out by its networks.", "sent_bytes"),
)


class AgentMetrics(Collector):
    """Tasks by state, the session, saves, and how its actors fare."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        view, supervisor = self._agent.view, self._agent.supervisor
        tasks = GaugeMetricFamily("skep_worker_tasks", "Tasks by state.", labels=("state",))
        counts = view.states()
        for state in TaskState:
            tasks.add_metric((state.value,), counts[state])
        yield tasks
        is_connected = view.session_id is not None
        yield GaugeMetricFamily(
            "skep_worker_session_connected", "Whether a leader is obeyed.", value=is_connected
        )
        yield CounterMetricFamily("skep_worker_moves", "State changes of tasks.", value=view.moves)
        yield CounterMetricFamily("skep_worker_saves", "Disk writes.", value=view.saves)
        yield CounterMetricFamily(
            "skep_worker_save_failures", "Disk writes that failed.", value=view.save_failures
        )
        depth = GaugeMetricFamily("skep_actor_queue_depth", "Messages waiting.", labels=("actor",))
        for mailbox in supervisor.mailboxes:
            depth.add_metric((mailbox.name,), len(mailbox))
        yield depth
        restarts = CounterMetricFamily(
            "skep_actor_restarts", "Deaths of an actor.", labels=("actor",)
        )
        for name, count in supervisor.restarts.items():
            restarts.add_metric((name,), count)
        yield restarts


class TaskMetrics(Collector):
    """What running containers use, by service, task and slot. `usage` reads it by the pid of a
    task's first process; it blocks, and runs in the scraper's thread."""

    def __init__(self, agent: Agent, engine: str, usage: Callable[[int], Usage | None]) -> None:
        self._agent = agent
        self._engine = engine
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        gauges = [
            GaugeMetricFamily(f"skep_task_{name}", text, labels=_LABELS)
            for name, text, _ in _GAUGES
        ]
        counters = [
            CounterMetricFamily(f"skep_task_{name}", text, labels=_LABELS)
            for name, text, _ in _COUNTERS
        ]
        for running in self._running():
            usage = self._usage(running.pid)
            if usage is None:
                continue
            task = running.task
            labels = (task.service_name, task.id, str(task.slot))
            for family, (_, _, field) in zip(gauges, _GAUGES, strict=True):
                if (value := getattr(usage, field)) is not None:
                    family.add_metric(labels, value)
            for total, (_, _, field) in zip(counters, _COUNTERS, strict=True):
                if (value := getattr(usage, field)) is not None:
                    total.add_metric(labels, value * _NS if field == "cpu_ns" else value)
        yield from gauges
        yield from counters

    def _running(self) -> list[RunningTask]:
        core = self._agent.view.core
        if core is None:
            return []
        return [each for each in core.running() if each.engine == self._engine][:TASKS_LIMIT]
