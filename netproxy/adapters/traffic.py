"""What the relay counts. Plain integers, since they change with every chunk; Prometheus reads them
when it asks (`skep.netproxy.adapters.metrics`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from skep.netproxy.core.pipe import Side


@dataclass(slots=True)
class ServiceTraffic:
    """The connections of one service on this node, by one way in ("ingress" or "mesh")."""

    connections: int = 0
    active: int = 0
    received: dict[Side, int] = field(
        default_factory=lambda: {Side.CLIENT: 0, Side.TASK: 0}
    )  # bytes, by the side that they came from
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Traffic:
    """Everything that is counted, by (service name, way in)."""

    services: dict[tuple[str, str], ServiceTraffic] = field(default_factory=dict)

    def of(self, service_name: str, way: str) -> ServiceTraffic:
        """The counters of one service; made where missing."""
        return self.services.setdefault((service_name, way), ServiceTraffic())

    def forget(self, present: frozenset[str]) -> None:
        """Drop services that are gone and have no connection left, so that this is bounded by
        what the cluster holds. "" (what belongs to no service) stays."""
        for key in tuple(self.services):
            if key[0] and key[0] not in present and not self.services[key].active:
                del self.services[key]
