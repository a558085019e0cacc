"""What a netproxy shows of itself, for Prometheus, by HTTP in a thread of its own.

The thread only reads integers that the loop writes; a figure may be a moment old, never torn.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from skep.env import Env
from skep.netproxy.actor import Progress
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.adapters.traffic import Traffic
from skep.netproxy.core.address import Address
from skep.netproxy.core.pipe import Side
from skep.supervisor import Supervisor

# Ten looks a second cost a thousandth of a core; a stall is what delays one by more than this.
LOOK_PERIOD_S = 0.1
STALL_S = 0.05


@dataclass(slots=True)
class Pauses:
    """How often, how long in all and how long at most something held the process up."""

    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0

    def add(self, pause_s: float) -> None:
        """One more."""
        self.count += 1
        self.total_s += pause_s
        self.longest_s = max(self.longest_s, pause_s)


@dataclass(slots=True)
class Health:
    """The process's own well-being."""

    stalls: Pauses = field(default_factory=Pauses)
    collections: Pauses = field(default_factory=Pauses)

    async def watch_loop(self, env: Env) -> None:
        """Notice when the loop is late."""
        while True:
            wanted = env.now() + LOOK_PERIOD_S
            await env.clock.sleep(LOOK_PERIOD_S)
            if (late_s := env.now() - wanted) > STALL_S:
                self.stalls.add(late_s)

    def watch_collector(self) -> None:
        """Time every garbage collection from now on."""
        began_s = 0.0

        def observe(phase: str, _info: dict[str, int]) -> None:
            nonlocal began_s
            if phase == "start":
                began_s = time.perf_counter()
            else:
                self.collections.add(time.perf_counter() - began_s)

        gc.callbacks.append(observe)


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is shown."""

    traffic: Traffic
    progress: Progress
    relay: Relay
    supervisor: Supervisor
    health: Health


def serve(address: Address, sources: Sources) -> None:
    """Answer scrapes at `address` until the process ends. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(_Shown(sources))
    start_http_server(address[1], address[0], registry)


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
        supervisor, health = self._sources.supervisor, self._sources.health
        for name, pauses in (("loop_stalls", health.stalls), ("gc_pauses", health.collections)):
            yield _counter(name, "How often.", pauses.count)
            yield _counter(f"{name}_seconds", "How long in all.", pauses.total_s)
            yield _gauge(f"{name}_longest_seconds", "The longest.", pauses.longest_s)
        depth = GaugeMetricFamily(
            "skep_netproxy_actor_queue_depth", "Messages waiting.", labels=("actor",)
        )
        for mailbox in supervisor.mailboxes:
            depth.add_metric((mailbox.name,), len(mailbox))
        restarts = CounterMetricFamily(
            "skep_netproxy_actor_restarts", "Deaths of an actor.", labels=("actor",)
        )
        for name, count in supervisor.restarts.items():
            restarts.add_metric((name,), count)
        yield from (depth, restarts)


def _gauge(name: str, text: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"skep_netproxy_{name}", text, value=value)


def _counter(name: str, text: str, value: Any) -> Metric:
    return CounterMetricFamily(f"skep_netproxy_{name}", text, value=value)
