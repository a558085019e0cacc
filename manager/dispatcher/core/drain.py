"""When a task may be stopped: once no netproxy sends it new connections.

Every netproxy's applied version reaches the leader through the manager it follows. A task that has
left the endpoints at version v is drained when every netproxy that is alive has applied v. Of a
netproxy nobody has heard of lately, nothing is known: it holds a task up for one grace period, and
the worker's own deadline bounds that wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skep.domain.base import NodeId

# A netproxy that lost its manager finds another one within a second or two.
UNHEARD_GRACE_S = 6.0


@dataclass(slots=True)
class _Progress:
    version: int
    heard: float


class NetproxyProgress:
    """How far each netproxy is, as last heard through any manager."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._nodes: dict[NodeId, _Progress] = {}

    def heard(self, now: float, node_id: NodeId, version: int) -> None:
        """A netproxy has applied `version`."""
        known = self._nodes.setdefault(node_id, _Progress(version, now))
        # Its word may come over two managers, the older one last.
        known.version = max(known.version, version)
        known.heard = now

    def restarted(self, now: float, node_id: NodeId, version: int) -> None:
        """A netproxy says where it stands at the start of a stream: this may be further back."""
        self._nodes[node_id] = _Progress(version, now)

    def applied_everywhere(self, now: float, nodes: Iterable[NodeId], version: int) -> bool:
        """Whether every netproxy on `nodes` that is alive has applied `version`."""
        return all(self._is_past(now, node_id, version) for node_id in nodes)

    def versions(self) -> dict[NodeId, int]:
        """For metrics and the doctor."""
        return {node_id: known.version for node_id, known in self._nodes.items()}

    def _is_past(self, now: float, node_id: NodeId, version: int) -> bool:
        known = self._nodes.get(node_id)
        if known is None:
            return now - self._started > UNHEARD_GRACE_S
        return known.version >= version or now - known.heard > UNHEARD_GRACE_S
