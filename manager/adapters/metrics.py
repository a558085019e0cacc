"""A manager's metrics, read from its parts whenever Prometheus asks."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from skep.domain.objects import Node, Task
from skep.domain.states import TaskState
from skep.manager.node import ManagerNode

_LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_SCHEDULING_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

COMMIT = Histogram(
    "skep_raft_commit_seconds", "From a proposal to its answer.", buckets=_LATENCY_BUCKETS
)
FSYNC = Histogram("skep_raft_fsync_seconds", "One sync of the journal.", buckets=_LATENCY_BUCKETS)
SCHEDULING = Histogram(
    "skep_scheduling_delay_seconds",
    "From a task's creation to its running.",
    buckets=_SCHEDULING_BUCKETS,
)


class ManagerCollector(Collector):
    """Everything that is a reading, not an event."""

    def __init__(self, node: ManagerNode) -> None:
        self._node = node
        node.raft.stats.on_commit_s = COMMIT.observe
        node.raft.stats.on_fsync_s = FSYNC.observe
        node.office.dispatcher_stats.on_scheduled_s = SCHEDULING.observe

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        raft, office, tables = self._node.raft, self._node.office, self._node.store.tables
        yield _gauge("skep_raft_is_leader", "1 on the leader.", float(raft.is_leader))
        yield _gauge("skep_raft_term", "The present term.", raft.term)
        yield _gauge("skep_raft_commit_index", "Entries committed.", raft.commit_index)
        yield _gauge("skep_raft_applied_index", "Entries applied.", raft.applied_index)
        yield _gauge("skep_raft_last_index", "Entries in the log.", raft.last_index)
        tasks = GaugeMetricFamily("skep_tasks", "Tasks by observed state.", labels=["state"])
        tally = Tally(task.status.state for task in tuple(tables.all(Task)))
        for state in TaskState:
            tasks.add_metric([state.value], tally[state])
        yield tasks
        nodes = GaugeMetricFamily(
            "skep_nodes", "Nodes by role and state.", labels=["role", "state"]
        )
        kinds = Tally((node.role.value, node.state.value) for node in tuple(tables.all(Node)))
        for (role, state_name), count in sorted(kinds.items()):
            nodes.add_metric([role, state_name], count)
        yield nodes
        dispatcher = office.dispatcher
        count = 0 if dispatcher is None else dispatcher.session_count
        yield _gauge("skep_sessions", "Workers with a session here.", count)
        followers = len(self._node.endpoints.progress())
        yield _gauge("skep_netproxies", "Netproxies that follow this manager.", followers)
        depth = GaugeMetricFamily("skep_actor_queue_depth", "Waiting messages.", labels=["actor"])
        for mailbox in office.mailboxes:
            depth.add_metric([mailbox.name], len(mailbox))
        yield depth
        restarts = CounterMetricFamily(
            "skep_actor_restarts", "Restarts in this term.", labels=["actor"]
        )
        for name, times in office.restarts.items():
            restarts.add_metric([name], times)
        yield restarts


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def register(node: ManagerNode) -> None:
    """Show a manager's metrics in this process's registry."""
    REGISTRY.register(ManagerCollector(node))
