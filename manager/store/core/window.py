"""The newest changes, kept so that a watcher can resume where it left off."""

from __future__ import annotations

from collections import deque

from skep.domain.base import replace
from skep.domain.objects import Config, Object, Registry, Secret
from skep.manager.store.core.command import Change

# Some minutes of a busy cluster; a watcher that was away longer reads everything anew.
WINDOW_CHANGES = 10_000


class ChangeWindow:
    """At least the last `WINDOW_CHANGES` changes, whole commits at a time. What configs, secrets
    and registries hold isn't kept: it may be large, and watchers are told none of it."""

    def __init__(self) -> None:
        self._commits: deque[tuple[int, list[Change]]] = deque()
        self._count = 0
        self._floor = 0

    def add(self, version: int, changes: list[Change]) -> None:
        """One commit's changes."""
        self._commits.append((version, [_bare(change) for change in changes]))
        self._count += len(changes)
        while self._commits and self._count - len(self._commits[0][1]) >= WINDOW_CHANGES:
            self._floor, dropped = self._commits.popleft()
            self._count -= len(dropped)

    def reset(self, version: int) -> None:
        """A snapshot took the place of everything up to `version`."""
        self._commits.clear()
        self._count = 0
        self._floor = version

    def since(self, version: int) -> list[Change] | None:
        """Every change after `version`, or None when some of them are gone."""
        if version < self._floor:
            return None
        # From the new end: a watcher that keeps up asks for the last commit of thousands.
        newer = []
        for at, changes in reversed(self._commits):
            if at <= version:
                break
            newer.append(changes)
        return [change for changes in reversed(newer) for change in changes]


def _bare(change: Change) -> Change:
    if not isinstance(change.row, Config | Secret | Registry):
        return change
    old = None if change.old is None else _without_content(change.old)
    return Change(change.version, change.action, _without_content(change.row), old)


def _without_content(row: Object) -> Object:
    match row:
        case Config():
            return replace(row, spec=replace(row.spec, data=b""))
        case Secret():
            return replace(row, spec=replace(row.spec, data=b""))
        case Registry():
            return replace(row, password="")
    return row
