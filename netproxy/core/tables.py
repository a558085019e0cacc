"""What a new connection is looked up in: by published port, or by what a mesh header names."""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.core.balance import Balancer
from skep.netproxy.core.routes import Candidate, Desired, Route


@dataclass(frozen=True, slots=True)
class Entry:
    """A route and the state of its balancing."""

    route: Route
    balancer: Balancer


class Tables:
    """Replaced as a whole by `update`, but for balancers of ports that stay with their service."""

    def __init__(self) -> None:
        self.version = 0
        self._by_port: dict[int, Entry] = {}
        # The tasks of this node alone: nothing that came by the mesh goes out by it again.
        self._local: dict[tuple[ServiceId, int], Entry] = {}

    def update(self, desired: Desired) -> None:
        """Put `desired` in force. What a removed entry's balancer still held is emptied, so that
        a client who is being connected finds no further candidate there."""
        old_ports, old_local = self._by_port, self._local
        self._by_port, self._local = {}, {}
        for route in desired.routes:
            entry = old_ports.get(route.published)
            if entry is not None and entry.route.service_id == route.service_id:
                del old_ports[route.published]
            else:
                entry = None
            self._by_port[route.published] = _renewed(entry, route, route.candidates)
            key = (route.service_id, route.target)
            if key not in self._local:
                here = tuple(c for c in route.candidates if c.mesh_address is None)
                self._local[key] = _renewed(old_local.pop(key, None), route, here)
        for gone in (*old_ports.values(), *old_local.values()):
            gone.balancer.update(gone.route.balance, ())
        self.version = desired.version

    def ports(self) -> dict[int, str]:
        """The published ports, and whose they are."""
        return {port: entry.route.service_name for port, entry in self._by_port.items()}

    def service_names(self) -> frozenset[str]:
        """All services that have a route."""
        return frozenset(entry.route.service_name for entry in self._by_port.values())

    def published(self, port: int) -> Entry | None:
        """What is behind a published port."""
        return self._by_port.get(port)

    def here(self, service_id: ServiceId, target: int, task_id: TaskId | None) -> Entry | None:
        """The task of that service on this node, or any; None where there is none."""
        entry = self._local.get((service_id, target))
        if entry is None or not entry.balancer.candidates:
            return None
        if task_id is None:
            return entry
        named = tuple(c for c in entry.balancer.candidates if c.task_id == task_id)
        return Entry(entry.route, Balancer(Balance.ROUND_ROBIN, named)) if named else None

    def names(self, service_id: ServiceId, target: int, candidate: Candidate) -> bool:
        """Whether a new connection may still go there."""
        return any(
            entry.route.service_id == service_id
            and entry.route.target == target
            and candidate in entry.route.candidates
            for entry in self._by_port.values()
        )


def _renewed(entry: Entry | None, route: Route, candidates: tuple[Candidate, ...]) -> Entry:
    if entry is not None and entry.route is route:
        return entry  # unchanged, like all but one or two of a thousand
    balancer = entry.balancer if entry is not None else Balancer(route.balance)
    balancer.update(route.balance, candidates)
    return Entry(route, balancer)
