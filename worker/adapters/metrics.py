"""What an agent shows of itself, for Prometheus. Read in the scraper's thread, never written."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.domain.states import TaskState
from skep.worker.agent import Agent


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
