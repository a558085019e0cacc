"""Changes of the cluster, told in words. Pure.

A watch shows each object as it was written; what has happened to it is the difference from what
it was before. That is known from the stream itself, and for the first change of each object from
a reading at the start, where that reading is older than the change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from skep.cli import tellings
from skep.cli.text import NS_PER_S
from skep.domain.control import WatchAction, WatchEvent
from skep.domain.filecalls import SecretView
from skep.domain.objects import Config, Network, Node, Service, Stack, Task

AnyRow = Node | Service | Task | Stack | Network | Config | SecretView
R = TypeVar("R", Node, Service, Task, Stack, Network, Config, SecretView)

KINDS: dict[type[AnyRow], str] = {
    Node: "node",
    Service: "service",
    Task: "task",
    Stack: "stack",
    Network: "network",
    Config: "config",
    SecretView: "secret",
}
ID_SHOWN = 12


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one object. `time` is Unix time in seconds; `service`, `node` and `stack`
    name what the object is, or is part of. A resync has the kind "resync"."""

    version: int
    time: float
    kind: str
    id: str
    name: str
    what: str
    service: str | None = None
    node: str | None = None
    stack: str | None = None

    @property
    def subject(self) -> str:
        """The object as a person would call it."""
        if self.kind != "task":
            return f"{self.kind} {self.name}".strip()
        where = f" on {self.node}" if self.node else ""
        return f"task {self.name} ({self.id[:ID_SHOWN]}){where}"


class Sight:
    """What is known of the cluster: from a reading, and from all changes since."""

    def __init__(self, rows: Iterable[AnyRow] = ()) -> None:
        self._read: dict[str, AnyRow] = {}
        self._told: dict[str, AnyRow] = {}
        self._last_ns = 0
        self.read(rows)

    def read(self, rows: Iterable[AnyRow]) -> None:
        """Take in a new reading; what was known before it counts no more."""
        self._read = {row.id: row for row in rows}
        self._told = {}

    def all(self, kind: type[R]) -> list[R]:
        """Every object of a kind, as it is now as far as is known."""
        return [row for row in self._read.values() if isinstance(row, kind)]

    def take(self, event: WatchEvent, *, has_steps: bool = True) -> Change | None:
        """What an event of the stream says; None where that is nothing for a person. Without
        `has_steps`, tasks tell that they are new and that they run, and nothing in between."""
        if event.is_resync:
            return Change(
                version=event.version,
                time=self._last_ns / NS_PER_S,
                kind="resync",
                id="",
                name="",
                what=f"changes were lost: the cluster no longer keeps all of those up to version "
                f"{event.version}; what follows is newer",
            )
        row: AnyRow | None = event.node or event.service or event.task or event.stack
        row = row or event.network or event.config or event.secret
        if row is None or event.action is None:
            return None
        old = self._before(row, event.version)
        is_removed = event.action is WatchAction.REMOVE
        # A row that is removed carries no time of its own; stamps never go back along the stream.
        self._last_ns = max(self._last_ns, row.updated_ns)
        what = _removal(row) if is_removed else _words(old, row)
        if event.action is WatchAction.CREATE and not isinstance(row, Task):
            began = "joined" if isinstance(row, Node) else "created"
            what = f"{began}, {what}" if what else began
        self._note(row, event.version, is_removed=is_removed)
        if not has_steps and event.action is WatchAction.UPDATE:
            what = "" if isinstance(row, Task) and tellings.is_step(row) else what
        return None if not what else self._change(row, event.version, what)

    def _before(self, row: AnyRow, version: int) -> AnyRow | None:
        told = self._told.get(row.id)
        if told is not None:
            return told
        # A reading that is newer than the change says nothing of what was before it.
        read = self._read.get(row.id)
        return read if read is not None and read.version < version else None

    def _note(self, row: AnyRow, version: int, *, is_removed: bool) -> None:
        known = self._read.get(row.id)
        if is_removed:
            self._told.pop(row.id, None)
            if known is not None and known.version <= version:
                del self._read[row.id]
            return
        self._told[row.id] = row
        if known is None or known.version <= version:
            self._read[row.id] = row

    def _change(self, row: AnyRow, version: int, what: str) -> Change:
        service, node, stack = self._of(row)
        return Change(
            version=version,
            time=self._last_ns / NS_PER_S,
            kind=KINDS[type(row)],
            id=row.id,
            name=row.name,
            what=what,
            service=service,
            node=node,
            stack=stack,
        )

    def _of(self, row: AnyRow) -> tuple[str | None, str | None, str | None]:
        """The names of the service, node and stack that an object belongs to."""
        if isinstance(row, Node):
            return None, row.name, None
        if isinstance(row, Stack):
            return None, None, row.name
        if isinstance(row, Network):
            return None, None, self._name(row.stack_id)
        if isinstance(row, Config | SecretView):
            return None, None, row.stack or None
        if isinstance(row, Service):
            return row.name, None, self._name(row.stack_id)
        service = self._read.get(row.service_id)
        stack_id = service.stack_id if isinstance(service, Service) else None
        return row.service_name, self._name(row.node_id), self._name(stack_id)

    def _name(self, of: str | None) -> str | None:
        if of is None:
            return None
        row = self._read.get(of)
        return of[:ID_SHOWN] if row is None else row.name


def _words(old: AnyRow | None, row: AnyRow) -> str:
    match row:
        case Task():
            words = tellings.of_task(old if isinstance(old, Task) else None, row)
        case Service():
            words = tellings.of_service(old if isinstance(old, Service) else None, row)
        case Node():
            words = tellings.of_node(old if isinstance(old, Node) else None, row)
        case Stack():
            words = tellings.of_stack(old if isinstance(old, Stack) else None, row)
        case Network():
            words = tellings.of_network(old if isinstance(old, Network) else None, row)
        case Config():
            before = old.spec.labels if isinstance(old, Config) else None
            words = tellings.of_file(before, row.spec.labels)
        case SecretView():
            before = old.labels if isinstance(old, SecretView) else None
            words = tellings.of_file(before, row.labels)
    return "; ".join(words)


def _removal(row: AnyRow) -> str:
    is_history = isinstance(row, Task) and row.is_terminal
    return "forgotten" if is_history else "removed"


def fits(change: Change, filters: dict[str, list[str]]) -> bool:
    """Whether a change is one of those asked for: by each key, one of its values. A resync always
    is: nobody may believe to have seen everything who hasn't."""
    return change.kind == "resync" or all(
        _is_one_of(key, getattr(change, key), values) for key, values in filters.items()
    )


def _is_one_of(key: str, name: str | None, values: list[str]) -> bool:
    if name is None:
        return False
    # A service of a stack also goes by its short name, as everywhere.
    return any(
        name == value or (key == "service" and name.endswith(f"_{value}")) for value in values
    )
