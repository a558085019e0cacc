"""Who is alive: nodes by their heartbeats, judged with one grace period for every kind of silence.

A leader that has just taken office doesn't know how long anybody has been silent, so it gives each
node a whole grace before judging. A stream that is cut short is silence like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import NodeId

PERIOD_S = 2.0
# Three misses: one lost packet or a short pause must not move anyone's tasks.
MISSED_LIMIT = 3
GRACE_S = PERIOD_S * MISSED_LIMIT


@dataclass(frozen=True, slots=True)
class NodeUp:
    """The node is heard of again, or for the first time."""

    node_id: NodeId
    why: str


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The node has been silent for the whole grace."""

    node_id: NodeId
    why: str


Verdict = NodeUp | NodeDown


@dataclass(slots=True)
class _Known:
    last_heard: float
    is_up: bool | None = None


class Liveness:
    """The core: `expect`, `heard` and `judge` are the events, verdicts the effects."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, _Known] = {}

    def expect(self, now: float, node_id: NodeId) -> None:
        """The database knows this node; it has a grace from now to be heard of, and a period more:
        it may have to notice first that the leader it had is stuck."""
        self._nodes.setdefault(node_id, _Known(now + PERIOD_S))

    def forget(self, node_id: NodeId) -> None:
        """The node was removed from the cluster."""
        self._nodes.pop(node_id, None)

    def heard(self, now: float, node_id: NodeId) -> list[Verdict]:
        """A sign of life."""
        known = self._nodes.setdefault(node_id, _Known(now))
        known.last_heard = now
        if known.is_up:
            return []
        known.is_up = True
        return [NodeUp(node_id, "heartbeat")]

    def judge(self, now: float) -> list[Verdict]:
        """Who has been silent for too long. Called about once a second; a late call is harmless,
        since it looks at when each node was last heard of and at nothing else."""
        verdicts: list[Verdict] = []
        for node_id, known in self._nodes.items():
            silent_s = now - known.last_heard
            if known.is_up is not False and silent_s >= GRACE_S:
                known.is_up = False
                verdicts.append(NodeDown(node_id, f"silent for {silent_s:.1f} s"))
        return verdicts

    def unrecorded(self, node_id: NodeId) -> None:
        """The verdict about this node could not be written down: judge it anew."""
        known = self._nodes.get(node_id)
        if known is not None:
            known.is_up = None

    def check_invariants(self) -> None:
        """Nothing is up that was never heard of."""
        assert all(known.last_heard >= 0 for known in self._nodes.values())
