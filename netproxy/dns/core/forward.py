"""Asking other name servers what Skep doesn't know.

Each query has two tries of two seconds. In each try every resolver is asked, one after the other,
an equal share of the time apart; whoever was asked may still answer later, and the first good
answer is passed on. Four seconds in all is less than the five after which resolvers in tasks give
up, so that they are told of a failure instead of wondering.

An answer counts only from the server that was asked (the adapter connects its sockets), on the
random port it was asked from, under the random id of that one attempt, and for the same question.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skep.netproxy.dns.core import wire
from skep.netproxy.dns.core.resolv import Resolver
from skep.netproxy.dns.core.wire import Query, Rcode

if TYPE_CHECKING:
    # Importing it costs 8 MB, which this process can do without.
    from skep.env import Random

TRY_S = 2.0
TRIES = 2
# Each holds a socket or several; and one scope must not take the places of all others.
OUTSTANDING_LIMIT = 1024
SCOPE_LIMIT = 256

_FAILURES = frozenset((Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP, Rcode.FORMERR))


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's query that is to be passed on. `key` is the caller's, and never used twice."""

    now: float
    key: int
    scope_id: str
    query: Query
    is_udp: bool
    resolvers: tuple[Resolver, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """A message came from the server of an attempt."""

    now: float
    key: int
    attempt: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt has come to nothing: refused, unreachable, cut off."""

    now: float
    key: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The client is gone: forget its query."""

    key: int


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time of a query's last `SetDeadline` has come."""

    now: float
    key: int


Event = Asked | Heard | Failed | Dropped | DeadlineReached


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a resolver, from a socket of this attempt's own."""

    key: int
    attempt: int
    resolver: Resolver
    message: bytes
    is_tcp: bool


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Send `DeadlineReached` at this time, and for this query not at any set before."""

    key: int
    at: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Send the answer to the client, close every attempt's socket, forget the deadline."""

    key: int
    answer: bytes


Effect = Send | SetDeadline | Finished


@dataclass(slots=True)
class _Attempt:
    resolver: Resolver
    identifier: int
    is_tcp: bool


@dataclass(slots=True)
class _Pending:
    asked: Asked
    left: list[Resolver]  # still to be asked, in order
    next_at: float = 0.0
    started: int = 0
    live: dict[int, _Attempt] = field(default_factory=dict)
    failure: bytes | None = None  # the answer of a server that couldn't help, for want of better


class Forwarding:
    """The core. `dice` gives the ids."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._pending: dict[int, _Pending] = {}
        self._by_scope: Counter[str] = Counter()

    @property
    def outstanding(self) -> int:
        """Queries that wait for an answer."""
        return len(self._pending)

    def step(self, event: Event) -> list[Effect]:
        """What follows."""
        match event:
            case Asked():
                return self._begin(event)
            case Dropped(key):
                self._forget(key)
                return []
        pending = self._pending.get(event.key)
        if pending is None:
            return []
        match event:
            case Heard(now, _, attempt, message):
                return self._heard(now, pending, attempt, message)
            case Failed(now, _, attempt):
                pending.live.pop(attempt, None)
                return self._go_on(now, pending)
            case DeadlineReached(now):
                return self._deadline(now, pending)

    def _begin(self, asked: Asked) -> list[Effect]:
        assert asked.key not in self._pending, asked
        is_full = len(self._pending) >= OUTSTANDING_LIMIT
        if not asked.resolvers or is_full or self._by_scope[asked.scope_id] >= SCOPE_LIMIT:
            return [Finished(asked.key, wire.failure(asked.query, Rcode.SERVFAIL))]
        pending = _Pending(asked, left=list(asked.resolvers) * TRIES)
        self._pending[asked.key] = pending
        self._by_scope[asked.scope_id] += 1
        return self._ask_next(asked.now, pending)

    def _ask_next(self, now: float, pending: _Pending) -> list[Effect]:
        send = self._send(pending, pending.left.pop(0), is_tcp=False)
        pending.next_at = now + TRY_S / len(pending.asked.resolvers)
        return [send, SetDeadline(pending.asked.key, pending.next_at)]

    def _send(self, pending: _Pending, resolver: Resolver, *, is_tcp: bool) -> Send:
        identifier = self._dice.getrandbits(16)
        number = pending.started
        pending.started += 1
        pending.live[number] = _Attempt(resolver, identifier, is_tcp)
        message = wire.with_id(pending.asked.query.raw, identifier)
        return Send(pending.asked.key, number, resolver, message, is_tcp)

    def _heard(self, now: float, pending: _Pending, number: int, message: bytes) -> list[Effect]:
        attempt = pending.live.get(number)
        if attempt is None:
            return []
        asked = pending.asked
        reply = wire.read_reply(asked.query, attempt.identifier, message)
        if reply is None:
            # Somebody guesses, or a server is confused: wait on for a true answer.
            return []
        answer = wire.with_id(message, wire.id_of(asked.query.raw))
        if reply.rcode in _FAILURES:
            pending.failure = answer
            del pending.live[number]
            return self._go_on(now, pending)
        if reply.is_truncated and not asked.is_udp and not attempt.is_tcp:
            del pending.live[number]
            # The other tries, over UDP, would bring no more: this one gets the time that is left.
            pending.next_at = max(pending.next_at, now + TRY_S)
            send = self._send(pending, attempt.resolver, is_tcp=True)
            return [send, SetDeadline(asked.key, pending.next_at)]
        if asked.is_udp and len(answer) > asked.query.udp_bytes:
            answer = wire.truncated(asked.query)
        return self._finish(pending, answer)

    def _go_on(self, now: float, pending: _Pending) -> list[Effect]:
        """After an attempt that failed: the next at once, or the end if there is none."""
        if pending.left:
            return self._ask_next(now, pending)
        if pending.live:
            return []
        return self._give_up(pending)

    def _deadline(self, now: float, pending: _Pending) -> list[Effect]:
        if now < pending.next_at:
            return [SetDeadline(pending.asked.key, pending.next_at)]
        return self._ask_next(now, pending) if pending.left else self._give_up(pending)

    def _give_up(self, pending: _Pending) -> list[Effect]:
        query = pending.asked.query
        return self._finish(pending, pending.failure or wire.failure(query, Rcode.SERVFAIL))

    def _finish(self, pending: _Pending, answer: bytes) -> list[Effect]:
        self._forget(pending.asked.key)
        return [Finished(pending.asked.key, answer)]

    def _forget(self, key: int) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            self._by_scope[pending.asked.scope_id] -= 1
            if not self._by_scope[pending.asked.scope_id]:
                del self._by_scope[pending.asked.scope_id]

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert len(self._pending) <= OUTSTANDING_LIMIT
        assert self._by_scope == Counter(p.asked.scope_id for p in self._pending.values())
        for key, pending in self._pending.items():
            assert key == pending.asked.key
            assert pending.live or pending.left or pending.next_at, key
