"""Endpoints by version: the projection of the store, and what changed in it since when.

Nothing is queued for anybody. A follower at version v gets whatever differs from v at the moment
it is ready for more, so that a slow one skips what came and went and never holds anything up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar

from skep.domain.base import NetworkId, NodeId, ServiceId
from skep.domain.endpoints import (
    EndpointUpdate,
    MeshNode,
    NetworkEntry,
    NetworkPlace,
    ServiceEndpoints,
    project_network,
    project_node,
    project_service,
)
from skep.domain.objects import Network, Node, Service, Task
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import View

# Endpoints of one frame, about 100 bytes each: small beside the heartbeats that must get through.
FRAME_ENDPOINTS = 1000
# Removed services that are remembered, so that a follower hears of them; beyond that, one that was
# away for so long is given the whole.
REMOVED_LIMIT = 10_000
K = TypeVar("K")


class EndpointFeed:
    """The current projection, and for each entry the version at which it last changed;
    `last_change` is the newest of these."""

    def __init__(self) -> None:
        self.version = 0
        self.last_change = 0
        self._floor = 0
        self._services: dict[ServiceId, ServiceEndpoints] = {}
        self._nodes: dict[NodeId, MeshNode] = {}
        self._networks: dict[NetworkId, NetworkEntry] = {}
        # In the order of their versions, so that the newest are found without a look at the rest.
        self._service_changed: dict[ServiceId, int] = {}
        self._node_changed: dict[NodeId, int] = {}
        self._network_changed: dict[NetworkId, int] = {}

    def reset(self, view: View, version: int) -> None:
        """Start over from a whole state: what a follower has from before can't be built upon."""
        self.version = self.last_change = self._floor = version
        self._services = {}
        self._nodes = {}
        self._service_changed = {}
        self._node_changed = {}
        self._networks = {}
        self._network_changed = {}
        for service in view.all(Service):
            projected = _project(view, service)
            if projected is not None:
                self._services[service.id] = projected
        for network in view.all(Network):
            entry = project_network(network)
            if entry is not None:
                self._networks[network.id] = entry
        for node in view.all(Node):
            mesh = project_node(node)
            if mesh is not None:
                self._nodes[node.id] = mesh

    def apply(self, view: View, changes: Iterable[Change], version: int) -> bool:
        """Follow one commit; whether any endpoint or node changed."""
        self.version = version
        services: dict[ServiceId, None] = {}
        is_changed = False
        for change in changes:
            match change.row:
                case Task(service_id=service_id):
                    services[service_id] = None
                case Service(id=service_id):
                    services[service_id] = None
                case Node(id=node_id):
                    is_changed |= self._follow_node(view, node_id)
                case Network(id=network_id, name=name):
                    if self._follow_network(view, network_id):
                        is_changed = True
                        users = (s.id for s in view.all(Service) if _uses(s, name))
                        services.update(dict.fromkeys(users))
        for service_id in services:
            is_changed |= self._follow_service(view, service_id)
        if is_changed:
            self.last_change = version
        if len(self._service_changed) > len(self._services) + REMOVED_LIMIT:
            self._forget_removed()
        return is_changed

    def changed_at(self, service_id: ServiceId) -> int:
        """The version at which a service's endpoints last changed, as far as known."""
        return self._service_changed.get(service_id, self._floor)

    def serves(self, task: Task) -> bool:
        """Whether a task is among the endpoints now."""
        service = self._services.get(task.service_id)
        return service is not None and any(e.task_id == task.id for e in service.endpoints)

    def update_since(self, version: int) -> list[EndpointUpdate]:
        """What takes a follower from `version` to now, in frames; the whole where `version` is
        too old or was never this feed's."""
        if version < self._floor or version > self.version or version == 0:
            return self._frames(0, True, self._services, (), self._nodes, (), self._networks, ())
        services = _newer(self._service_changed, version)
        nodes = _newer(self._node_changed, version)
        networks = _newer(self._network_changed, version)
        return self._frames(
            version,
            False,
            [id_ for id_ in services if id_ in self._services],
            [id_ for id_ in services if id_ not in self._services],
            [id_ for id_ in nodes if id_ in self._nodes],
            [id_ for id_ in nodes if id_ not in self._nodes],
            [id_ for id_ in networks if id_ in self._networks],
            [id_ for id_ in networks if id_ not in self._networks],
        )

    def _forget_removed(self) -> None:
        for service_id, version in tuple(self._service_changed.items()):
            if service_id not in self._services:
                del self._service_changed[service_id]
                self._floor = max(self._floor, version)

    def _follow_service(self, view: View, service_id: ServiceId) -> bool:
        service = view.get(Service, service_id)
        projected = None
        if service is not None:
            projected = _project(view, service)
        if projected == self._services.get(service_id):
            return False
        if projected is None:
            del self._services[service_id]
        else:
            self._services[service_id] = projected
        self._service_changed.pop(service_id, None)
        self._service_changed[service_id] = self.version
        return True

    def _follow_node(self, view: View, node_id: NodeId) -> bool:
        node = view.get(Node, node_id)
        mesh = None if node is None else project_node(node)
        if mesh == self._nodes.get(node_id):
            return False
        if mesh is None:
            del self._nodes[node_id]
        else:
            self._nodes[node_id] = mesh
        self._node_changed.pop(node_id, None)
        self._node_changed[node_id] = self.version
        return True

    def _follow_network(self, view: View, network_id: NetworkId) -> bool:
        network = view.get(Network, network_id)
        entry = None if network is None else project_network(network)
        if entry == self._networks.get(network_id):
            return False
        if entry is None:
            del self._networks[network_id]
        else:
            self._networks[network_id] = entry
        self._network_changed.pop(network_id, None)
        self._network_changed[network_id] = self.version
        return True

    def _frames(  # noqa: PLR0913 - the parts of one update
        self,
        from_version: int,
        is_complete: bool,
        services: Iterable[ServiceId],
        removed_services: Iterable[ServiceId],
        nodes: Iterable[NodeId],
        removed_nodes: Iterable[NodeId],
        networks: Iterable[NetworkId],
        removed_networks: Iterable[NetworkId],
    ) -> list[EndpointUpdate]:
        chunks: list[list[ServiceEndpoints]] = [[]]
        room = FRAME_ENDPOINTS
        for service_id in services:
            entry = self._services[service_id]
            size = 1 + len(entry.endpoints) + len(entry.others)
            if room < size and chunks[-1]:
                chunks.append([])
                room = FRAME_ENDPOINTS
            chunks[-1].append(entry)
            room -= size
        return [
            EndpointUpdate(
                from_version=from_version,
                version=self.version,
                is_complete=is_complete,
                is_partial=place < len(chunks) - 1,
                services=tuple(chunk),
                removed_services=tuple(removed_services) if place == 0 else (),
                nodes=tuple(self._nodes[id_] for id_ in nodes) if place == 0 else (),
                removed_nodes=tuple(removed_nodes) if place == 0 else (),
                networks=tuple(self._networks[id_] for id_ in networks) if place == 0 else (),
                removed_networks=tuple(removed_networks) if place == 0 else (),
            )
            for place, chunk in enumerate(chunks)
        ]


def _newer(changed: dict[K, int], version: int) -> list[K]:
    """What has changed since this version, the oldest first."""
    found = itertools.takewhile(lambda item: item[1] > version, reversed(changed.items()))
    return [key for key, _ in found][::-1]


def _project(view: View, service: Service) -> ServiceEndpoints | None:
    return project_service(service, view.tasks_of_service(service.id), _places(view, service))


def _places(view: View, service: Service) -> Iterable[NetworkPlace]:
    """The networks of the present spec, in its order, as far as netproxies are told of them: two
    managers must say the same, whether they have seen it come or were started later."""
    for use in service.spec.task.networks:
        network = view.named(Network, use.network)
        if network is not None and project_network(network) is not None:
            yield NetworkPlace(network_id=network.id, aliases=use.aliases)


def _uses(service: Service, name: str) -> bool:
    return any(use.network == name for use in service.spec.task.networks)
