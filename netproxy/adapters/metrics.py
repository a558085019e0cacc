"""What a netproxy shows of itself, read from its parts whenever Prometheus asks.

Prometheus' own thread reads integers that the loop writes; a figure may be a moment old, never
torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.netproxy.actor import Progress
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.adapters.traffic import Traffic
from skep.netproxy.core.pipe import Side
from skep.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is shown."""

    traffic: Traffic
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
        for (name, way), traffic in list(self._sources.traffic.services.items()):
            connections.add_metric((name, way), traffic.connections)
            active.add_metric((name, way), traffic.active)
            for side in Side:
                moved.add_metric((name, way, side.label), traffic.received[side])
            for kind, count in list(traffic.errors.items()):
                errors.add_metric((name, way, kind), count)
        yield from (connections, active, moved, errors)

    def _state(self) -> Iterator[Metric]:
        progress, relay = self._sources.progress, self._sources.relay
        yield _gauge("held_version", "Version held.", progress.held_version)
        yield _gauge("applied_version", "Version in force.", progress.applied_version)
        yield _gauge("apply_errors", "What could not be put in force.", len(progress.errors))
        yield _gauge("manager_connected", "Whether a manager is followed.", progress.is_connected)
        yield _counter("manager_streams", "Streams opened to managers.", progress.streams)
        yield _gauge("listeners", "Ports listened on.", relay.listener_count)

    def _process(self) -> Iterator[Metric]:
        supervisor = self._sources.supervisor
        depth = GaugeMetricFamily("skep_actor_queue_depth", "Waiting messages.", labels=("actor",))
        for mailbox in supervisor.mailboxes:
            depth.add_metric((mailbox.name,), len(mailbox))
        restarts = CounterMetricFamily("skep_actor_restarts", "Restarts.", labels=("actor",))
        for name, count in supervisor.restarts.items():
            restarts.add_metric((name,), count)
        yield from (depth, restarts)


def _gauge(name: str, text: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"skep_netproxy_{name}", text, value=value)


def _counter(name: str, text: str, value: Any) -> Metric:
    return CounterMetricFamily(f"skep_netproxy_{name}", text, value=value)
