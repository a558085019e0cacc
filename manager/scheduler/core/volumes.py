"""Where tasks belong whose volumes live on single nodes.

A slot goes where its volume is, for as long as that node exists: what is in the volume is nowhere
else. A service that has no place of its own goes to a node where other services have the volume.
Whoever is free of both may go anywhere, and is at home there from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from skep.domain.base import NodeId
from skep.domain.objects import Task, Volume, VolumePlace
from skep.manager.scheduler.core.filters import Demand, NodeLoad

# As many nodes as a reader can take in.
_TOLD_NODES = 3


class Places:
    """The places of all volumes during one pass, in which each decision counts for the next."""

    def __init__(self, volumes: Iterable[Volume], loads: Mapping[NodeId, NodeLoad]) -> None:
        self._loads = loads
        self._places: dict[str, tuple[VolumePlace, ...]] = {
            volume.name: volume.places for volume in volumes
        }

    def pinned(self, demand: Demand) -> Demand:
        """The demand, with the nodes that its volumes leave and why; the same if they leave all."""
        nodes: frozenset[NodeId] | None = None
        pins: list[str] = []
        for use in demand.volumes:
            homes, whose = self._homes(use.name, demand.task)
            if use.is_movable or not homes:
                continue
            nodes = homes if nodes is None else nodes & homes
            pins.append(f"volume {use.name} of {whose} is on {self._told(homes)}")
        if nodes is None:
            return demand
        return dataclasses.replace(demand, nodes=nodes, pins=tuple(pins))

    def take(self, demand: Demand, node_id: NodeId) -> dict[str, tuple[VolumePlace, ...]]:
        """The task goes to this node: the places of the volumes that are somewhere new by that."""
        task = demand.task
        changed = {}
        for use in demand.volumes:
            before = self._places.get(use.name, ())
            here = VolumePlace(service_name=task.service_name, slot=task.slot, node_id=node_id)
            if here in before:
                continue
            others = tuple(place for place in before if not _is_of(place, task))
            changed[use.name] = self._places[use.name] = (*others, here)
        return changed

    def _homes(self, volume: str, task: Task) -> tuple[frozenset[NodeId], str]:
        """The nodes that a volume holds a task to, and whose volume it is; none if it is free."""
        places = [p for p in self._places.get(volume, ()) if p.node_id in self._loads]
        own = frozenset(place.node_id for place in places if _is_of(place, task))
        if own:
            return own, "this slot"
        if any(place.service_name == task.service_name for place in places):
            return frozenset(), ""
        services = sorted({place.service_name for place in places})
        return frozenset(place.node_id for place in places), ", ".join(services[:_TOLD_NODES])

    def _told(self, nodes: frozenset[NodeId]) -> str:
        names = sorted(self._loads[node_id].node.name for node_id in nodes)
        shown = ", ".join(names[:_TOLD_NODES]) + (", ..." if len(names) > _TOLD_NODES else "")
        return f"node{'s' if len(names) > 1 else ''} {shown}"


def _is_of(place: VolumePlace, task: Task) -> bool:
    return (place.service_name, place.slot) == (task.service_name, task.slot)
