"""What all relay workers of a netproxy have counted together, those that are gone included."""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.netproxy.relay.core.counts import LATENCY_BOUNDS_S
from skep.netproxy.relay.core.pipe import CLIENT, TASK
from skep.netproxy.relay.core.protocol import Count, Report

Key = tuple[str, str]
"""A service's name and a way in ("ingress" or "mesh")."""


def _no_latencies() -> list[int]:
    return [0] * (len(LATENCY_BOUNDS_S) + 1)


@dataclass(slots=True)
class Total:
    """The connections of one service on this node, by one way in."""

    connections: int = 0
    active: int = 0
    received: list[int] = field(default_factory=lambda: [0, 0])  # bytes, by the side they came from
    ejections: int = 0
    connect_s: float = 0.0
    latencies: list[int] = field(default_factory=_no_latencies)
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, count: Count) -> None:
        """One more worker's part."""
        self.connections += count.connections
        self.active += count.active
        self.received[CLIENT] += count.from_client
        self.received[TASK] += count.from_task
        self.ejections += count.ejections
        self.connect_s += count.connect_s
        self.latencies = [a + b for a, b in zip(self.latencies, count.latencies, strict=True)]
        for kind, number in count.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + number


@dataclass(slots=True)
class _Held:
    """What one worker says of itself."""

    counts: dict[Key, Count] = field(default_factory=dict)
    connections: int = 0
    buffered_bytes: int = 0


class Totals:
    """Sums over workers, which are known by number. Totals are replaced, never changed, so that
    another thread may read them."""

    def __init__(self) -> None:
        self._now: dict[int, _Held] = {}
        self._gone: dict[Key, Total] = {}
        self.services: dict[Key, Total] = {}

    def reported(self, worker: int, report: Report) -> None:
        """Counts are absolute, since that worker's start."""
        held = self._now.setdefault(worker, _Held())
        held.connections, held.buffered_bytes = report.connections, report.buffered_bytes
        for key in report.forgotten:
            gone = held.counts.pop(key, None)
            if gone is not None:
                self._keep(gone)
        for count in report.counts:
            key = (count.service_name, count.way)
            held.counts[key] = count
            self._sum(key)

    def lost(self, worker: int) -> None:
        """It is gone, and its connections with it."""
        held = self._now.pop(worker, _Held())
        for key, count in held.counts.items():
            self._keep(count)
            self._sum(key)

    def forget(self, present: frozenset[str]) -> None:
        """Drop services that are gone and have no connection left, so that this is bounded by
        what the cluster holds. "" (what belongs to no service) stays."""
        for key in tuple(self.services):
            if key[0] and key[0] not in present and not self.services[key].active:
                del self.services[key]
                self._gone.pop(key, None)

    def of(self, service_name: str, way: str) -> Total:
        """The sums of one service; zeros where nothing was counted."""
        return self.services.get((service_name, way)) or Total()

    @property
    def connections(self) -> int:
        """Open and being made, of all workers."""
        return sum(held.connections for held in self._now.values())

    @property
    def buffered_bytes(self) -> int:
        """What all connections together hold in memory."""
        return sum(held.buffered_bytes for held in self._now.values())

    def _keep(self, count: Count) -> None:
        key = (count.service_name, count.way)
        total = self._gone.setdefault(key, Total())
        total.add(count)
        total.active = 0

    def _sum(self, key: Key) -> None:
        total = Total()
        gone = self._gone.get(key)
        if gone is not None:
            total.add(_as_count(key, gone))
        for held in self._now.values():
            if key in held.counts:
                total.add(held.counts[key])
        self.services[key] = total


def _as_count(key: Key, total: Total) -> Count:
    return Count(
        service_name=key[0],
        way=key[1],
        connections=total.connections,
        from_client=total.received[CLIENT],
        from_task=total.received[TASK],
        ejections=total.ejections,
        connect_s=total.connect_s,
        latencies=tuple(total.latencies),
        errors=total.errors,
    )
