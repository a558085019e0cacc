"""What a netproxy knows of its cluster: the managers' word at one version, as it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from skep.domain.base import NetworkId, NodeId, ServiceId, TaskId
from skep.domain.endpoints import MeshNode, NetworkEntry, ServiceEndpoints


@dataclass(frozen=True, slots=True)
class World:
    """Nobody changes the mappings of a world; a newer one has its own, in which what hasn't changed
    is the very same object: whoever knows the older one can tell (`steps.changed`). `tasks` are
    those of this node that are attached, `here` the networks that they are on."""

    version: int = 0
    services: Mapping[ServiceId, ServiceEndpoints] = field(default_factory=dict)
    nodes: Mapping[NodeId, MeshNode] = field(default_factory=dict)
    networks: Mapping[NetworkId, NetworkEntry] = field(default_factory=dict)
    here: frozenset[NetworkId] = frozenset()
    tasks: frozenset[TaskId] = frozenset()
