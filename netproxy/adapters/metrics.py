"""What a netproxy shows of itself, read from its parts whenever Prometheus asks.

Prometheus' own thread reads what the loop replaces; a figure may be a moment old, never torn. What
the kernel has counted is asked of it by that same thread, and stops nobody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.netproxy.actor import Progress
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.core.tally import Tally
from skep.netproxy.relay.core.counts import LATENCY_BOUNDS_S
from skep.netproxy.relay.core.pipe import CLIENT, SIDE_NAMES, TASK
from skep.supervisor import Supervisor

# The ways in, as the relay calls the first one.
INGRESS, VIP = "ingress", "vip"


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is shown."""

    progress: Progress
    relay: Relay
    supervisor: Supervisor
    # What the kernel has counted; called on Prometheus' thread.
    tally: Callable[[], Tally] = Tally


def register(sources: Sources) -> None:
    """Show them in this process's registry."""
    REGISTRY.register(collector(sources))


def collector(sources: Sources) -> Collector:
    """The same for any registry."""
    return _Shown(sources)


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
        services = dict(self._sources.relay.totals.services)
        for key, total in services.items():
            active.add_metric(key, total.active)
            for side, name in enumerate(SIDE_NAMES):
                moved.add_metric((*key, name), total.received[side])
            for kind, count in total.errors.items():
                errors.add_metric((*key, kind), count)
            ejections.add_metric(key, total.ejections)
            connects.add_metric(key, list(_buckets(total.latencies)), total.connect_s)
        taken = Counter({key: total.connections for key, total in services.items()})
        tally = self._sources.tally()
        # A port may be served by both: the relay has its clients on the loopback, and of IPv6.
        for port in tally.ports:
            taken[port.service_name, INGRESS] += port.connections
        for service, vip in tally.vips.items():
            taken[service, VIP] += vip.connections
            errors.add_metric((service, VIP, "no_endpoints"), vip.refused)
        for service, traffic in tally.traffic.items():
            moved.add_metric((service, VIP, SIDE_NAMES[CLIENT]), traffic.from_client_bytes)
            moved.add_metric((service, VIP, SIDE_NAMES[TASK]), traffic.from_task_bytes)
        for key, connection_count in taken.items():
            connections.add_metric(key, connection_count)
        yield from (connections, active, moved, errors, ejections, connects)
        yield from _in_kernel(tally)

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


def _in_kernel(tally: Tally) -> Iterator[Metric]:
    """What only the kernel's plane has."""
    labels = ("service", "port")
    packets = CounterMetricFamily(
        "skep_netproxy_port_packets", "Packets of a published port, both ways.", labels=labels
    )
    moved = CounterMetricFamily(
        "skep_netproxy_port_bytes", "The same in bytes, with all headers.", labels=labels
    )
    for port in tally.ports:
        packets.add_metric((port.service_name, port.port), port.packets)
        moved.add_metric((port.service_name, port.port), port.bytes)
    flows = CounterMetricFamily(
        "skep_netproxy_vip_flows", "UDP sockets that were led to a task.", labels=("service",)
    )
    for service, vip in tally.vips.items():
        flows.add_metric((service,), vip.flows)
    trips = SummaryMetricFamily(
        "skep_netproxy_vip_round_trip_seconds",
        "Round trips to tasks, as measured by each connect.",
        labels=("service",),
    )
    for service, traffic in tally.traffic.items():
        trips.add_metric((service,), traffic.established, traffic.round_trip_s)
    strays = _counter("strays", "Packets dropped, since they were not translated.", tally.strays)
    yield from (packets, moved, flows, trips, strays)


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
