"""Tables and indexes: the state that every manager holds alike.

Objects are frozen and shared: a read copies nothing. Indexes are dicts used as ordered sets, so
that whoever iterates sees the same order on every manager and under every hash seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, ValuesView
from typing import Any, TypeVar, cast

from skep.domain.base import NodeId, ServiceId
from skep.domain.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Object,
    Registry,
    Request,
    Revision,
    Secret,
    Service,
    Stack,
    Task,
    Volume,
)
from skep.domain.spec import NAMESPACE

R = TypeVar("R", bound=Object)

TABLES: Mapping[str, type[Object]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "revision": Revision,
    "task": Task,
    "stack": Stack,
    "network": Network,
    "config": Config,
    "secret": Secret,
    "volume": Volume,
    "registry": Registry,
    "request": Request,
}
"""Every table by its name on disk, in the order in which snapshots hold them."""

KINDS: Mapping[type[Object], str] = {kind: name for name, kind in TABLES.items()}

# Kinds whose name is unique within a namespace.
NAMED = (Node, Service, Stack, Network, Config, Secret, Volume, Registry)


class View:
    """What can be read: the committed state, or a transaction over it."""

    def get(self, kind: type[R], id_: str) -> R | None:
        """The object, or None."""
        raise AssertionError("View.get must be defined")

    def all(self, kind: type[R]) -> Iterable[R]:
        """Every object of a table, in the order of creation."""
        raise AssertionError("View.all must be defined")

    def named(self, kind: type[R], name: str, namespace: str = NAMESPACE) -> R | None:
        """The object with that name, or None."""
        raise AssertionError("View.named must be defined")

    def tasks_of_service(self, service_id: str) -> Iterable[Task]:
        """A service's tasks, ended ones included."""
        raise AssertionError("View.tasks_of_service must be defined")

    def tasks_of_node(self, node_id: str) -> Iterable[Task]:
        """A node's tasks, ended ones included."""
        raise AssertionError("View.tasks_of_node must be defined")

    def revisions_of(self, service_id: str) -> Iterable[Revision]:
        """The specs that a service has had, as far as they are kept."""
        raise AssertionError("View.revisions_of must be defined")


class Tables(View):
    """The committed state."""

    def __init__(self) -> None:
        self._objects: dict[type[Object], dict[str, Any]] = {kind: {} for kind in KINDS}
        self._names: dict[tuple[type[Object], str, str], str] = {}
        self._by_service: dict[ServiceId, dict[str, Task]] = {}
        self._by_node: dict[NodeId, dict[str, Task]] = {}
        self._revisions: dict[ServiceId, dict[str, Revision]] = {}

    def get(self, kind: type[R], id_: str) -> R | None:
        """See `View.get`."""
        return cast("R | None", self._objects[kind].get(id_))

    def all(self, kind: type[R]) -> ValuesView[R]:
        """See `View.all`."""
        return cast("ValuesView[R]", self._objects[kind].values())

    def named(self, kind: type[R], name: str, namespace: str = NAMESPACE) -> R | None:
        """See `View.named`."""
        id_ = self._names.get((kind, namespace, name))
        return None if id_ is None else self.get(kind, id_)

    def tasks_of_service(self, service_id: str) -> ValuesView[Task]:
        """See `View.tasks_of_service`."""
        return self._by_service.get(ServiceId(service_id), {}).values()

    def tasks_of_node(self, node_id: str) -> ValuesView[Task]:
        """See `View.tasks_of_node`."""
        return self._by_node.get(NodeId(node_id), {}).values()

    def revisions_of(self, service_id: str) -> ValuesView[Revision]:
        """See `View.revisions_of`."""
        return self._revisions.get(ServiceId(service_id), {}).values()

    def count(self, kind: type[Object]) -> int:
        """Rows in one table."""
        return len(self._objects[kind])

    def put(self, row: Object) -> None:
        """Write a whole object. Only the applying of commands and snapshots may call this."""
        table = self._objects[type(row)]
        old = table.get(row.id)
        if old is not None:
            self._unindex(old)
        table[row.id] = row
        self._index(row)

    def remove(self, kind: type[Object], id_: str) -> None:
        """Delete an object; a missing one is fine."""
        old = self._objects[kind].pop(id_, None)
        if old is not None:
            self._unindex(old)

    def oldest(self, kind: type[R]) -> R | None:
        """The first row of a table, by creation."""
        return next(iter(self.all(kind)), None)

    def _index(self, row: Object) -> None:
        if isinstance(row, NAMED):
            self._names[(type(row), row.namespace, row.name)] = row.id
        if isinstance(row, Task):
            self._by_service.setdefault(row.service_id, {})[row.id] = row
            if row.node_id is not None:
                self._by_node.setdefault(row.node_id, {})[row.id] = row
        if isinstance(row, Revision):
            self._revisions.setdefault(row.service_id, {})[row.id] = row

    def _unindex(self, row: Object) -> None:
        if isinstance(row, NAMED):
            key = (type(row), row.namespace, row.name)
            if self._names.get(key) == row.id:
                del self._names[key]
        if isinstance(row, Task):
            _drop(self._by_service, row.service_id, row.id)
            if row.node_id is not None:
                _drop(self._by_node, row.node_id, row.id)
        if isinstance(row, Revision):
            _drop(self._revisions, row.service_id, row.id)

    def check_invariants(self) -> None:
        """Indexes agree with the tables. For tests and the simulator."""
        tasks = self._objects[Task]
        assert {id_ for rows in self._by_service.values() for id_ in rows} == set(tasks)
        revisions = {id_ for rows in self._revisions.values() for id_ in rows}
        assert revisions == set(self._objects[Revision])
        placed = {id_ for id_, task in tasks.items() if task.node_id is not None}
        assert {id_ for rows in self._by_node.values() for id_ in rows} == placed
        for (kind, namespace, name), id_ in self._names.items():
            row = self._objects[kind][id_]
            assert (row.namespace, row.name) == (namespace, name)
        assert len(self._names) == sum(len(self._objects[kind]) for kind in NAMED)


def _drop(index: dict[Any, dict[str, Any]], key: Any, id_: str) -> None:
    rows = index[key]
    del rows[id_]
    if not rows:
        del index[key]
