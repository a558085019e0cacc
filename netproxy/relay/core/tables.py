"""What a new connection is looked up in: by the address it came to, or by what a mesh header
names."""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.base import ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.protocol import Candidate, Key, Listener

_Target = tuple[ServiceId, int]


class Entry:
    """A listener and the state of its balancing. `is_plain`: no PROXY header comes or goes."""

    __slots__ = ("balancer", "is_plain", "listener")

    def __init__(self, listener: Listener, balancer: Balancer) -> None:
        self.listener = listener
        self.balancer = balancer
        self.is_plain = not (listener.sends_proxy or listener.accepts_proxy)


class Tables:
    """Everything that is listened for. A balancer outlives changes of its listener, as long as
    that stays with its service."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Entry] = {}
        self._by_target: dict[_Target, dict[Key, Listener]] = {}
        # The tasks of this node alone: nothing that came by the mesh goes out by it again.
        self._local: dict[_Target, Entry] = {}

    def update(self, changed: Iterable[Listener], removed: Iterable[Key]) -> None:
        """Put these in force. What a removed entry's balancer still held is emptied, so that a
        client who is being connected finds no further candidate there."""
        touched: set[_Target] = set()
        for key in removed:
            self._remove(key, touched)
        for listener in changed:
            before = self._by_key.get(listener.key)
            if before is not None and before.listener.service_id == listener.service_id:
                balancer = before.balancer
                self._unlist(before.listener, touched)
            else:
                self._remove(listener.key, touched)
                balancer = Balancer(listener.balance)
            balancer.update(listener.balance, listener.candidates)
            self._by_key[listener.key] = Entry(listener, balancer)
            self._by_target.setdefault(_target(listener), {})[listener.key] = listener
            touched.add(_target(listener))
        for target in touched:
            self._renew_local(target)

    def service_names(self) -> frozenset[str]:
        """All services that are listened for."""
        return frozenset(entry.listener.service_name for entry in self._by_key.values())

    def at(self, key: Key) -> Entry | None:
        """What is behind an address."""
        return self._by_key.get(key)

    def here(self, service_id: ServiceId, target: int, task_id: TaskId | None) -> Entry | None:
        """The task of that service on this node, or any; None where there is none."""
        entry = self._local.get((service_id, target))
        if entry is None or task_id is None:
            return entry
        named = tuple(c for c in entry.balancer.candidates if c.task_id == task_id)
        return Entry(entry.listener, Balancer(Balance.ROUND_ROBIN, named)) if named else None

    def names(self, service_id: ServiceId, target: int, candidate: Candidate) -> bool:
        """Whether a new connection may still go there."""
        listeners = self._by_target.get((service_id, target), {})
        return any(candidate in listener.candidates for listener in listeners.values())

    def _remove(self, key: Key, touched: set[_Target]) -> None:
        entry = self._by_key.pop(key, None)
        if entry is not None:
            entry.balancer.update(entry.listener.balance, ())
            self._unlist(entry.listener, touched)

    def _unlist(self, listener: Listener, touched: set[_Target]) -> None:
        target = _target(listener)
        del self._by_target[target][listener.key]
        touched.add(target)

    def _renew_local(self, target: _Target) -> None:
        listeners = self._by_target[target]
        here = {
            candidate.task_id: candidate
            for listener in listeners.values()
            for candidate in listener.candidates
            if candidate.mesh_address is None
        }
        before = self._local.pop(target, None)
        if before is not None:
            before.balancer.update(Balance.ROUND_ROBIN, ())
        if here:
            listener = next(iter(listeners.values()))
            balancer = before.balancer if before is not None else Balancer(listener.balance)
            balancer.update(listener.balance, tuple(here.values()))
            self._local[target] = Entry(listener, balancer)
        if not listeners:
            del self._by_target[target]

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        listed = {key for listeners in self._by_target.values() for key in listeners}
        assert listed == set(self._by_key), (listed, self._by_key)
        assert set(self._local) <= set(self._by_target)
        for key, entry in self._by_key.items():
            assert entry.listener.key == key
            entry.balancer.check_invariants()


def _target(listener: Listener) -> _Target:
    return listener.service_id, listener.target
