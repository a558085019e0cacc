"""What a netproxy shows of itself, read from its parts whenever Prometheus asks.

Prometheus' own thread reads what the loop replaces; a figure may be a moment old, never torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.netproxy.actor import Progress
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.relay.core.counts import LATENCY_BOUNDS_S
from skep.netproxy.relay.core.pipe import SIDE_NAMES
from skep.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is shown."""

    progress: Progress
    relay: Relay
    supervisor: Supervisor


def register(sources: Sources) -> None:
    """Show them in this process's registry."""
    REGISTRY.register(_Shown(sources))


class _Shown(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._state()
        yield from self._process()

    def _traffic(self) -> Iterator[Metric]:
        labels = ("service", "way")
        connections = CounterMetricFamily(
            "skep_netproxy_connections", "Connections taken.", labels=labels
        )
        active = GaugeMetricFamily(
            "skep_netproxy_connections_active", "Connections open now.", labels=labels
        )
        moved = CounterMetricFamily(
            "skep_netproxy_bytes", "Bytes by the side they came from.", labels=(*labels, "side")
        )
        errors = CounterMetricFamily(
            "skep_netproxy_errors", "Connections that failed.", labels=(*labels, "kind")
        )
        ejections = CounterMetricFamily(
            "skep_netproxy_ejections",
            "Times that a task was passed over for a while, since it had failed.",
            labels=labels,
        )
        connects = HistogramMetricFamily(
            "skep_netproxy_connect_seconds",
            "Time from accepting a client to its connection to a task.",
            labels=labels,
        )
        for key, total in list(self._sources.relay.totals.services.items()):
            connections.add_metric(key, total.connections)
            active.add_metric(key, total.active)
            for side, name in enumerate(SIDE_NAMES):
                moved.add_metric((*key, name), total.received[side])
            for kind, count in total.errors.items():
                errors.add_metric((*key, kind), count)
            ejections.add_metric(key, total.ejections)
            connects.add_metric(key, list(_buckets(total.latencies)), total.connect_s)
        yield from (connections, active, moved, errors, ejections, connects)

    def _state(self) -> Iterator[Metric]:
        progress, relay = self._sources.progress, self._sources.relay
        yield _gauge("held_version", "Version held.", progress.held_version)
        yield _gauge("applied_version", "Version in force.", progress.applied_version)
        yield _gauge("apply_errors", "What could not be put in force.", len(progress.errors))
        yield _gauge("manager_connected", "Whether a manager is followed.", progress.is_connected)
        yield _counter("manager_streams", "Streams opened to managers.", progress.streams)
        yield _gauge("listeners", "Ports listened on.", relay.listener_count)
        yield _gauge("buffered_bytes", "Held for slow readers.", relay.totals.buffered_bytes)
        yield _counter("relay_restarts", "Relay workers started anew.", relay.restarts)

    def _process(self) -> Iterator[Metric]:
        supervisor = self._sources.supervisor
        depth = GaugeMetricFamily("skep_actor_queue_depth", "Waiting messages.", labels=("actor",))
        for mailbox in supervisor.mailboxes:
            depth.add_metric((mailbox.name,), len(mailbox))
        restarts = CounterMetricFamily("skep_actor_restarts", "Restarts.", labels=("actor",))
        for name, count in supervisor.restarts.items():
            restarts.add_metric((name,), count)
        yield from (depth, restarts)


def _buckets(latencies: list[int]) -> Iterator[tuple[str, float]]:
    """Prometheus wants them added up."""
    seen = 0
    for bound, count in zip((*LATENCY_BOUNDS_S, "+Inf"), latencies, strict=True):
        seen += count
        yield str(bound), seen


def _gauge(name: str, text: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"skep_netproxy_{name}", text, value=value)


def _counter(name: str, text: str, value: Any) -> Metric:
    return CounterMetricFamily(f"skep_netproxy_{name}", text, value=value)
