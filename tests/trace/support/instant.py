"""A clock and a store that never wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from skep.domain.base import SECOND_NS
from skep.env import Monotonic, Timer, WallNs
from skep.manager.store.core.command import Change, Database, encode_command
from skep.manager.store.core.transaction import Transaction

T = TypeVar("T")

EPOCH_NS = 1_700_000_000 * SECOND_NS


@dataclass
class _Timer:
    at: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class InstantClock:
    """`skep.env.Clock`, without waiting."""

    at: float = 0.0
    wall_offset_s: float = 0.0
    timers: list[_Timer] = field(default_factory=list)

    def now(self) -> Monotonic:
        return Monotonic(self.at)

    def wall(self) -> WallNs:
        return WallNs(EPOCH_NS + int((self.at + self.wall_offset_s) * SECOND_NS))

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(_Timer(when, callback))
        return self.timers[-1]

    async def sleep(self, delay_s: float) -> None:
        raise AssertionError("no reconciler waits")

    async def within(self, deadline_s: float, awaitable: Awaitable[T]) -> T:
        raise AssertionError("no reconciler waits")

    def advance(self, seconds: float) -> None:
        until = self.at + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.is_cancelled]
            due = [timer for timer in self.timers if timer.at <= until]
            if not due:
                break
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.at = max(self.at, first.at)
            first.callback()
        self.at = until


class InstantStore:
    """What passes need of `skep.manager.store.actor.Store`; every commit is checked."""

    def __init__(self, clock: InstantClock) -> None:
        self.database = Database()
        self._stamped_at = clock.now()
        self._clock = clock
        self._subscribers: list[Callable[[list[Change]], None]] = []
        self.on_commit: Callable[[list[Change]], None] = lambda changes: None

    @property
    def tables(self) -> Any:
        return self.database.tables

    @property
    def wall_ns(self) -> int:
        since_ns = int((self._clock.now() - self._stamped_at) * SECOND_NS)
        return max(self._clock.wall(), self.database.wall_ns + since_ns)

    def subscribe(self, callback: Callable[[list[Change]], None]) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def update(self, fn: Callable[[Transaction], T], *, term: int | None = None) -> T:
        return self.commit(fn)

    def commit(self, fn: Callable[[Transaction], T]) -> T:
        now_ns = max(self.wall_ns, self.database.wall_ns + 1)
        tx = Transaction(self.database.tables, now_ns)
        result = fn(tx)
        if not tx.is_empty:
            command = encode_command(now_ns, tx.changes())
            changes = self.database.apply(self.database.version + 1, command)
            self._stamped_at = self._clock.now()
            self.on_commit(changes)
            for subscriber in tuple(self._subscribers):
                subscriber(changes)
        return result
