"""When a task may be stopped: once no netproxy sends it new connections.

Every netproxy's applied version reaches the leader through the manager it follows. A task that has
left the endpoints at version v is drained when every netproxy that is alive has applied v. Of a
netproxy nobody has heard of lately, nothing is known: it holds a task up for one grace period, and
the worker's own deadline bounds that wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from skep.domain.base import NodeId
from skep.domain.control import NetproxyProgress

# A netproxy that lost its manager finds another one within a second or two.
UNHEARD_GRACE_S = 6.0
# Managers report every second; one that misses three says nothing about its netproxies any more.
REPORT_VALID_S = 3.0


@dataclass(slots=True)
class _Report:
    at: float
    versions: dict[NodeId, int]
    errors: dict[NodeId, tuple[str, ...]]


@dataclass(slots=True)
class DrainWatch:
    """How far each netproxy is, by the newest report of each manager.

    A netproxy that two managers claim (its stream has moved, and the old one hasn't noticed yet)
    counts as being where the slower word puts it.
    """

    started: float
    _reports: dict[NodeId, _Report] = field(default_factory=dict)
    _last_heard: dict[NodeId, float] = field(default_factory=dict)

    def reported(
        self, now: float, manager_id: NodeId, netproxies: Iterable[NetproxyProgress]
    ) -> None:
        """All netproxies that follow one manager, and what they have applied."""
        netproxies = tuple(netproxies)
        versions = {each.node_id: each.version for each in netproxies if each.is_connected}
        errors = {each.node_id: each.errors for each in netproxies if each.is_connected}
        self._reports[manager_id] = _Report(now, versions, errors)
        for node_id in versions:
            self._last_heard[node_id] = now

    def applied_everywhere(self, now: float, nodes: Iterable[NodeId], version: int) -> bool:
        """Whether every netproxy that is alive has applied `version`: those on `nodes`, and any
        other that a manager reports, since a netproxy may follow before its node's worker has
        registered."""
        known = self.versions(now)
        return all(version <= applied for applied in known.values()) and all(
            self._is_given_up(now, node_id) for node_id in nodes if node_id not in known
        )

    def versions(self, now: float) -> dict[NodeId, int]:
        """How far each netproxy is, for metrics."""
        found: dict[NodeId, int] = {}
        for report in self._reports.values():
            if now - report.at <= REPORT_VALID_S:
                for node_id, version in report.versions.items():
                    found[node_id] = min(version, found.get(node_id, version))
        return found

    def errors_about(self, now: float, service_name: str) -> dict[NodeId, tuple[str, ...]]:
        """What netproxies can't put in force of one service, by node."""
        prefix = f"{service_name}: "
        found: dict[NodeId, tuple[str, ...]] = {}
        for report in self._reports.values():
            if now - report.at <= REPORT_VALID_S:
                for node_id, errors in report.errors.items():
                    mine = tuple(e.removeprefix(prefix) for e in errors if e.startswith(prefix))
                    if mine:
                        found[node_id] = mine
        return found

    def _is_given_up(self, now: float, node_id: NodeId) -> bool:
        return now - self._last_heard.get(node_id, self.started) > UNHEARD_GRACE_S
