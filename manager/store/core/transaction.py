"""Transactions: a function's writes over a state, kept apart until they become one command.

A transaction sees its own writes. It may lie over another one: the store runs many callers'
functions one after the other, each over what the ones before it wrote, and commits them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import msgspec

from skep.domain.objects import Object, Revision, Task
from skep.domain.spec import NAMESPACE
from skep.domain.states import desired_order, order
from skep.manager.store.core.command import WireChange, encode_row
from skep.manager.store.core.tables import KINDS, NAMED, View

R = TypeVar("R", bound=Object)

# An object written earlier in the same command: it has no version before the commit.
PENDING_VERSION = -1


class Transaction(View):
    """Writes over `base`. What is read here and written elsewhere meanwhile can't happen: the
    store runs one transaction at a time, on the only leader. `now_ns` is the wall time that the
    commit will stamp on what is written; it grows from commit to commit."""

    def __init__(self, base: View, now_ns: int) -> None:
        self._base = base
        self.now_ns = now_ns
        self._written: dict[tuple[type[Object], str], Any] = {}

    def get(self, kind: type[R], id_: str) -> R | None:
        """See `View.get`."""
        if (kind, id_) in self._written:
            return cast("R | None", self._written[(kind, id_)])
        return self._base.get(kind, id_)

    def all(self, kind: type[R]) -> list[R]:
        """See `View.all`."""
        return self._merge(kind, self._base.all(kind), lambda row: True)

    def named(self, kind: type[R], name: str, namespace: str = NAMESPACE) -> R | None:
        """See `View.named`."""
        for row in self._written_of(kind):
            assert isinstance(row, NAMED)
            if row.name == name and row.namespace == namespace:
                return cast("R", row)
        found = self._base.named(kind, name, namespace)
        return None if found is None or (kind, found.id) in self._written else found

    def tasks_of_service(self, service_id: str) -> list[Task]:
        """See `View.tasks_of_service`."""
        rows = self._base.tasks_of_service(service_id)
        return self._merge(Task, rows, lambda task: task.service_id == service_id)

    def tasks_of_node(self, node_id: str) -> list[Task]:
        """See `View.tasks_of_node`."""
        rows = self._base.tasks_of_node(node_id)
        return self._merge(Task, rows, lambda task: task.node_id == node_id)

    def revisions_of(self, service_id: str) -> list[Revision]:
        """See `View.revisions_of`."""
        rows = self._base.revisions_of(service_id)
        return self._merge(Revision, rows, lambda row: row.service_id == service_id)

    def create(self, row: Object) -> None:
        """Add a new object."""
        assert self.get(type(row), row.id) is None, f"{KINDS[type(row)]}={row.id} exists"
        self._written[(type(row), row.id)] = msgspec.structs.replace(
            row, version=PENDING_VERSION, created_ns=self.now_ns, updated_ns=self.now_ns
        )

    def update(self, row: Object) -> None:
        """Replace an object. A task only moves forward."""
        old = self.get(type(row), row.id)
        assert old is not None, f"{KINDS[type(row)]}={row.id} is gone"
        if isinstance(row, Task) and isinstance(old, Task):
            _check_forward(old, row)
        self._written[(type(row), row.id)] = msgspec.structs.replace(
            row, version=PENDING_VERSION, created_ns=old.created_ns, updated_ns=self.now_ns
        )

    def remove(self, kind: type[Object], id_: str) -> None:
        """Delete an object; a missing one is fine."""
        self._written[(kind, id_)] = None

    def merge(self, inner: Transaction) -> None:
        """Take over what a transaction over this one wrote."""
        assert inner._base is self
        self._written.update(inner._written)

    def changes(self) -> list[WireChange]:
        """The writes, in order, as a command's changes."""
        return [
            encode_row(row) if row is not None else WireChange(kind=KINDS[kind], id=id_)
            for (kind, id_), row in self._written.items()
        ]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not self._written

    def _merge(self, kind: type[R], base: Iterable[R], belongs: Any) -> list[R]:
        if not self._written:
            return list(base)
        rows = [row for row in base if (kind, row.id) not in self._written]
        return rows + [row for row in self._written_of(kind) if belongs(row)]

    def _written_of(self, kind: type[R]) -> list[R]:
        return [
            cast("R", row)
            for (written_kind, _), row in self._written.items()
            if written_kind is kind and row is not None
        ]


def _check_forward(old: Task, new: Task) -> None:
    story = (
        f"task={old.id} state={old.status.state.value}->{new.status.state.value} "
        f"desired={old.desired_state.value}->{new.desired_state.value}"
    )
    assert order(new.status.state) >= order(old.status.state), story
    assert desired_order(new.desired_state) >= desired_order(old.desired_state), story
    assert old.node_id is None or new.node_id == old.node_id, f"{story}: a task never moves"
