"""The cluster as a tree, by the labels that a service is spread over.

Each task goes to the branch with the fewest active tasks of its service among those where there is
a node for it, level by level, and there to the best node. Since this is decided for one task after
the other, branches stay even when some of them are full. (Swarm divides all tasks among the
branches beforehand, and what a full one leaves over makes the others uneven.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from skep.domain.base import NodeId, ServiceId
from skep.domain.constraints import branch_of
from skep.manager.scheduler.core.filters import Demand, NodeLoad, SlotCount, first_refusal

# A node on which so many tasks of one kind failed a short while ago comes after all others: it is
# rather the node than the tasks. Swarm's number.
FAULTY_FAILURES = 5

Rank = tuple[int, int, int, str, NodeId]


def rank(load: NodeLoad, service_id: ServiceId, revision: int, slot: int | None) -> Rank:
    """How little suited a node is that passes every filter; no two ranks are the same. In the eyes
    of a task of `slot`, what is in that slot doesn't count."""
    failures = load.failures.get((service_id, revision), 0)
    active = load.active(service_id)
    own = 0 if slot is None else active.by_slot.get(slot, 0)
    return (
        failures if failures >= FAULTY_FAILURES else 0,
        active.total - own,
        load.tasks - own,
        load.node.name,
        load.node.id,
    )


class Division:
    """Nodes divided by the values of labels: alike for all services that name the same ones."""

    def __init__(self, loads: Sequence[NodeLoad], preferences: Sequence[str]) -> None:
        self.loads = loads
        self.preference = preferences[0] if preferences else None
        self.parts: dict[str, Division] = {}
        if self.preference is not None:
            groups: dict[str, list[NodeLoad]] = {}
            for load in loads:
                groups.setdefault(branch_of(self.preference, load.node), []).append(load)
            for value, group in groups.items():
                self.parts[value] = Division(group, preferences[1:])


class Branch:
    """Some nodes, as the tasks of one service and revision see them during one pass, in which
    nodes only fill up."""

    def __init__(self, division: Division, service_id: ServiceId, revision: int) -> None:
        self._service_id = service_id
        self._revision = revision
        self._division = division
        self._children = {
            value: Branch(part, service_id, revision) for value, part in division.parts.items()
        }
        self._tasks = 0
        self._active = SlotCount()
        self._by_slot: dict[int, list[NodeLoad]] = {}
        # Ranks as they were when a node was last looked at: they only grow, so that the first one
        # that is still right is the best. A node that was refused is not asked again.
        self._heap: list[tuple[Rank, NodeLoad]] | None = None
        for child in self._children.values():
            self._tasks += child._tasks
            for slot, count in child._active.by_slot.items():
                self._active.add(slot, count)
        if division.preference is None:
            self._count_nodes()

    def _count_nodes(self) -> None:
        for load in self._division.loads:
            self._tasks += load.tasks
            for slot, count in load.active(self._service_id).by_slot.items():
                self._active.add(slot, count)
                self._by_slot.setdefault(slot, []).append(load)

    def best(self, demand: Demand) -> NodeLoad | None:
        """The node for one more task; None where none will do."""
        if self._division.preference is None:
            return self._best_node(demand)
        slot = demand.task.slot
        ranked = sorted(self._children.items(), key=lambda item: (*item[1]._usage(slot), item[0]))
        for _, child in ranked:
            best = child.best(demand)
            if best is not None:
                return best
        return None

    def count(self, demand: Demand, load: NodeLoad) -> None:
        """A task was put on one of the nodes: its own way down the tree counts it."""
        slot = demand.task.slot
        self._tasks += 1
        self._active.add(slot)
        if self._division.preference is not None:
            self._children[branch_of(self._division.preference, load.node)].count(demand, load)
        elif load not in self._by_slot.setdefault(slot, []):
            self._by_slot[slot].append(load)

    def _usage(self, slot: int) -> tuple[int, float]:
        """Tasks of the service, and where these are even, all tasks of a node on average: as of
        when the tree was made, and what the service has got since."""
        return self._active.others(slot), self._tasks / len(self._division.loads)

    def _rank(self, load: NodeLoad, slot: int | None = None) -> Rank:
        return rank(load, self._service_id, self._revision, slot)

    def _best_node(self, demand: Demand) -> NodeLoad | None:
        # Where its slot is already, the task is seen with other eyes than the heap's.
        slot = demand.task.slot
        fitting = [
            load for load in self._by_slot.get(slot, ()) if first_refusal(load, demand) is None
        ]
        first = self._first(demand)
        if first is not None:
            fitting.append(first)
        return min(fitting, key=lambda load: self._rank(load, slot), default=None)

    def _first(self, demand: Demand) -> NodeLoad | None:
        if self._heap is None:
            self._heap = [(self._rank(load), load) for load in self._division.loads]
            heapq.heapify(self._heap)
        while self._heap:
            known, load = self._heap[0]
            present = self._rank(load)
            if present != known:
                heapq.heapreplace(self._heap, (present, load))
            elif first_refusal(load, demand) is not None:
                heapq.heappop(self._heap)
            else:
                return load
        return None
