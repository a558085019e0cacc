"""What a relay worker counts: plain integers, since they change with every connection and chunk."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container

from skep.netproxy.relay.core.pipe import CLIENT, TASK
from skep.netproxy.relay.core.protocol import Count

# What belongs to no service is counted under this name.
NO_SERVICE = ""
# Upper bounds of the time from accept to connected, in seconds: a local task answers in tens of
# microseconds, one that was passed over costs seconds. A last bucket holds what is above.
LATENCY_BOUNDS_S = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Counts:
    """One service, by one way in ("ingress" or "mesh")."""

    __slots__ = (
        "active", "connect_s", "connections", "ejections", "errors", "latencies", "received",
        "service_name", "way",
    )  # fmt: skip

    def __init__(self, service_name: str, way: str) -> None:
        self.service_name = service_name
        self.way = way
        self.connections = 0
        self.active = 0
        self.received = [0, 0]  # bytes, by the side that they came from
        self.ejections = 0
        self.connect_s = 0.0
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.errors: dict[str, int] = {}

    def failed(self, kind: str) -> None:
        """One error of this kind."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def connected(self, after_s: float) -> None:
        """A client was given its task so long after it was accepted."""
        self.connect_s += after_s
        self.latencies[bisect_left(LATENCY_BOUNDS_S, after_s)] += 1

    def snapshot(self) -> Count:
        """All of it, to be sent."""
        return Count(
            service_name=self.service_name,
            way=self.way,
            connections=self.connections,
            active=self.active,
            from_client=self.received[CLIENT],
            from_task=self.received[TASK],
            ejections=self.ejections,
            connect_s=self.connect_s,
            latencies=tuple(self.latencies),
            errors=dict(self.errors),
        )


class AllCounts:
    """Everything that is counted, and what of it has been reported."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._reported: dict[tuple[str, str], Count] = {}
        self._forgotten: list[tuple[str, str]] = []

    def of(self, service_name: str, way: str) -> Counts:
        """The counters of one service; made where missing."""
        key = (service_name, way)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts(service_name, way)
        return counts

    def forget(self, present: Container[str]) -> None:
        """Drop services that are gone and have no connection left, so that this is bounded by
        what the cluster holds. What belongs to no service stays."""
        for key, counts in tuple(self._counts.items()):
            if key[0] != NO_SERVICE and key[0] not in present and not counts.active:
                del self._counts[key]
                if self._reported.pop(key, None) is not None:
                    self._forgotten.append(key)

    def changed(self) -> tuple[Count, ...]:
        """What differs from when this was asked last."""
        found = []
        for key, counts in self._counts.items():
            snapshot = counts.snapshot()
            if snapshot != self._reported.get(key):
                self._reported[key] = snapshot
                found.append(snapshot)
        return tuple(found)

    def forgotten(self) -> tuple[tuple[str, str], ...]:
        """What was forgotten since this was asked last."""
        keys, self._forgotten = tuple(self._forgotten), []
        return keys
