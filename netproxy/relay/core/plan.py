"""From what a node must do to what its relay workers are told: only what changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skep.netproxy.relay.core.protocol import Key, Listener


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from what was told before."""

    changed: tuple[Listener, ...] = ()
    removed: tuple[Key, ...] = ()


class Plan:
    """All listeners that the workers have been told of."""

    def __init__(self) -> None:
        self._listeners: dict[Key, Listener] = {}

    def update(self, wanted: Iterable[Listener]) -> Change:
        """From now on these; the first of those that want one address has it."""
        listeners: dict[Key, Listener] = {}
        for listener in wanted:
            listeners.setdefault(listener.key, listener)
        before, self._listeners = self._listeners, listeners
        return Change(
            changed=tuple(
                each for key, each in listeners.items() if not _is_same(before.get(key), each)
            ),
            removed=tuple(key for key in before if key not in listeners),
        )

    def whole(self) -> Change:
        """For a worker that has just been started."""
        return Change(changed=tuple(self._listeners.values()))

    @property
    def listeners(self) -> dict[Key, Listener]:
        """All of them, by address; not to be changed."""
        return self._listeners


def _is_same(before: Listener | None, after: Listener) -> bool:
    return before is after or before == after
