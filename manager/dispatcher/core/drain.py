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
        versions = {each.node_id: each.version for each in netproxies if each.is_connected}
        self._reports[manager_id] = _Report(now, versions)
        for node_id in versions:
            self._last_heard[node_id] = now

    def applied_everywhere(self, now: float, nodes: Iterable[NodeId], version: int) -> bool:
        """Whether every netproxy on `nodes` that is alive has applied `version`."""
        return all(self._is_past(now, node_id, version) for node_id in nodes)

    def versions(self, now: float) -> dict[NodeId, int]:
        """How far each netproxy is, for metrics."""
        found: dict[NodeId, int] = {}
        for report in self._reports.values():
            if now - report.at <= REPORT_VALID_S:
                for node_id, version in report.versions.items():
                    found[node_id] = min(version, found.get(node_id, version))
        return found

    def _is_past(self, now: float, node_id: NodeId, version: int) -> bool:
        known = self.versions(now).get(node_id)
        if known is not None:
            return known >= version
        return now - self._last_heard.get(node_id, self.started) > UNHEARD_GRACE_S
