"""Asking others: when, whom, and what counts as an answer."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.dns.core import forward, wire
from skep.netproxy.dns.core.forward import (
    Asked,
    DeadlineReached,
    Dropped,
    Effect,
    Event,
    Failed,
    Finished,
    Forwarding,
    Heard,
    Send,
    SetDeadline,
)
from skep.netproxy.dns.core.resolv import Resolver
from skep.netproxy.dns.core.wire import Rcode
from tests.unit.netproxy.dns.support import query, read

FIRST, SECOND = Resolver("10.0.0.1", 53), Resolver("10.0.0.2", 53)
ASKED = query("example.org", identifier=77, udp=1232)


class Play:
    """One query (key 1) and what becomes of it."""

    def __init__(self, *resolvers: Resolver, is_udp: bool = True) -> None:
        self.core = Forwarding(random.Random(1))
        parsed = wire.parse_query(ASKED)
        self.effects = self.step(Asked(100.0, 1, "s", parsed, is_udp, resolvers))
        self.sends: list[Send] = []
        self._note(self.effects)

    def step(self, event: Event) -> list[Effect]:
        effects = self.core.step(event)
        self.core.check_invariants()
        return effects

    def _note(self, effects: list[Effect]) -> None:
        self.sends += [effect for effect in effects if isinstance(effect, Send)]

    def then(self, event: Event) -> list[tuple[object, ...]]:
        """What follows, in short."""
        effects = self.step(event)
        self._note(effects)
        return [short(effect) for effect in effects]

    def reply(self, number: int, flags: int = 0x8180, extra: bytes = b"") -> bytes:
        """An answer to the n-th message that was sent."""
        sent = self.sends[number].message
        return sent[:2] + struct.pack("!H", flags) + sent[4:] + extra


def short(effect: Effect) -> tuple[object, ...]:
    match effect:
        case Send():
            return "send", effect.attempt, effect.resolver, "tcp" if effect.is_tcp else "udp"
        case SetDeadline():
            return "deadline", effect.at
        case Finished():
            return "finished", read(effect.answer).rcode


def test_an_answer_goes_back_under_the_clients_id() -> None:
    play = Play(FIRST)
    [send] = play.sends
    assert send.message[2:] == ASKED[2:]
    assert wire.id_of(send.message) != 77
    [effect] = play.step(Heard(100.1, 1, 0, play.reply(0)))
    assert effect == Finished(1, ASKED[:2] + play.reply(0)[2:])
    assert play.core.outstanding == 0


def test_silence_leads_over_all_resolvers_twice_and_to_a_failure_within_4_s() -> None:
    play = Play(FIRST, SECOND)
    assert list(map(short, play.effects)) == [("send", 0, FIRST, "udp"), ("deadline", 101.0)]
    reached = [play.then(DeadlineReached(now, 1)) for now in (101.0, 102.0, 103.0, 104.0)]
    assert reached == [
        [("send", 1, SECOND, "udp"), ("deadline", 102.0)],
        [("send", 2, FIRST, "udp"), ("deadline", 103.0)],
        [("send", 3, SECOND, "udp"), ("deadline", 104.0)],
        [("finished", Rcode.SERVFAIL)],
    ]
    assert len({wire.id_of(send.message) for send in play.sends}) == 4


def test_one_resolver_is_asked_twice_2_s_apart() -> None:
    play = Play(FIRST)
    assert play.then(DeadlineReached(101.0, 1)) == [("deadline", 102.0)]  # too early: a hint
    assert play.then(DeadlineReached(102.0, 1)) == [("send", 1, FIRST, "udp"), ("deadline", 104.0)]
    assert play.then(DeadlineReached(104.0, 1)) == [("finished", Rcode.SERVFAIL)]


def test_a_late_answer_counts() -> None:
    play = Play(FIRST, SECOND)
    play.then(DeadlineReached(101.0, 1))
    assert play.then(Heard(101.5, 1, 0, play.reply(0))) == [("finished", Rcode.NOERROR)]
    # And what comes after it doesn't.
    assert play.then(Heard(101.6, 1, 1, play.reply(1))) == []
    assert play.then(DeadlineReached(102.0, 1)) == []


def test_what_is_no_answer_is_passed_over() -> None:
    play = Play(FIRST)
    good = play.reply(0)
    for bad in (b"", wire.with_id(good, wire.id_of(good) ^ 1), ASKED, good[:12] + b"\1x\0\0\1\0\1"):
        assert play.then(Heard(100.1, 1, 0, bad)) == []
    assert play.then(Heard(100.2, 1, 7, good)) == []  # there was no such attempt
    assert play.then(Heard(100.2, 1, 0, good)) == [("finished", Rcode.NOERROR)]


def test_no_resolver_is_a_failure_at_once() -> None:
    assert list(map(short, Play().effects)) == [("finished", Rcode.SERVFAIL)]


def test_a_failure_leads_to_the_next_at_once() -> None:
    play = Play(FIRST, SECOND)
    assert play.then(Failed(100.1, 1, 0)) == [("send", 1, SECOND, "udp"), ("deadline", 101.1)]
    failing = play.then(Heard(100.2, 1, 1, play.reply(1, 0x8185)))
    assert failing == [("send", 2, FIRST, "udp"), ("deadline", 101.2)]
    assert play.then(Failed(100.3, 1, 2)) == [("send", 3, SECOND, "udp"), ("deadline", 101.3)]
    # With nobody left, the client is told what a server has said rather than what we think.
    assert play.then(Failed(100.4, 1, 3)) == [("finished", Rcode.REFUSED)]


def test_nxdomain_is_an_answer() -> None:
    play = Play(FIRST, SECOND)
    assert play.then(Heard(100.1, 1, 0, play.reply(0, 0x8183))) == [("finished", Rcode.NXDOMAIN)]


def test_a_truncated_answer_is_passed_on_over_udp() -> None:
    play = Play(FIRST)
    [effect] = play.step(Heard(100.1, 1, 0, play.reply(0, 0x8380)))
    assert isinstance(effect, Finished)
    assert read(effect.answer).is_truncated


def test_for_a_client_on_tcp_it_is_asked_for_over_tcp() -> None:
    play = Play(FIRST, SECOND, is_udp=False)
    again = play.then(Heard(100.1, 1, 0, play.reply(0, 0x8380)))
    assert again == [("send", 1, FIRST, "tcp"), ("deadline", 102.1)]
    assert play.then(Heard(100.2, 1, 1, play.reply(1))) == [("finished", Rcode.NOERROR)]


def test_one_who_fails_over_tcp_leaves_the_next() -> None:
    play = Play(FIRST, SECOND, is_udp=False)
    play.then(Heard(100.1, 1, 0, play.reply(0, 0x8380)))
    assert play.then(Failed(100.2, 1, 1)) == [("send", 2, SECOND, "udp"), ("deadline", 101.2)]


def test_an_answer_that_the_client_has_no_room_for_becomes_a_truncated_one() -> None:
    play = Play(FIRST)
    [effect] = play.step(Heard(100.1, 1, 0, play.reply(0, extra=bytes(1300))))
    assert isinstance(effect, Finished)
    message = read(effect.answer)
    assert (message.is_truncated, message.identifier, message.answers) == (True, 77, ())


def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "OUTSTANDING_LIMIT", 5)
    monkeypatch.setattr(forward, "SCOPE_LIMIT", 3)
    core = Forwarding(random.Random(1))
    parsed = wire.parse_query(ASKED)
    keys = iter(range(100))

    def took(scope_id: str) -> bool:
        effects = core.step(Asked(100.0, next(keys), scope_id, parsed, True, (FIRST,)))
        core.check_invariants()
        return isinstance(effects[0], Send)

    assert [took("greedy") for _ in range(5)] == [True, True, True, False, False]
    assert [took("modest") for _ in range(3)] == [True, True, False]
    core.step(Dropped(0))
    core.step(Dropped(0))
    assert [took("modest") for _ in range(2)] == [True, False]
    assert core.outstanding == 5


EVENTS = st.tuples(
    st.sampled_from(["ask", "hear", "fail", "drop", "deadline", "noise"]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.sampled_from([0x8180, 0x8182, 0x8183, 0x8380]),
)


class Storm:
    """Any number of queries and anything that may happen to them."""

    def __init__(self, resolvers: tuple[Resolver, ...], is_udp: bool) -> None:
        self.core = Forwarding(random.Random(2))
        self.resolvers = resolvers
        self.is_udp = is_udp
        self.now = 0.0
        self.asked = 0
        self.open: list[int] = []
        self.due: dict[int, float] = {}
        self.sent: dict[tuple[int, int], bytes] = {}

    def perform(self, event: Event) -> None:
        for effect in self.core.step(event):
            assert effect.key in self.open
            match effect:
                case Send():
                    self.sent[effect.key, effect.attempt] = effect.message
                case SetDeadline():
                    self.due[effect.key] = effect.at
                case Finished():
                    self.open.remove(effect.key)
                    read(effect.answer)
        self.core.check_invariants()
        assert self.core.outstanding == len(self.open)

    def ask(self, scope_id: str) -> None:
        key, self.asked = self.asked, self.asked + 1
        self.open.append(key)
        parsed = wire.parse_query(ASKED)
        self.perform(Asked(self.now, key, scope_id, parsed, self.is_udp, self.resolvers))

    def drop(self, key: int) -> None:
        if key in self.open:
            self.open.remove(key)
            self.perform(Dropped(key))

    def happen(self, what: str, which: int, attempt: int, flags: int) -> None:
        self.now += 0.1
        key = self.open[which % len(self.open)] if self.open else 99
        match what:
            case "ask":
                self.ask(f"s{which}")
            case "hear":
                sent = self.sent.get((key, attempt), ASKED)
                reply = sent[:2] + struct.pack("!H", flags) + sent[4:]
                self.perform(Heard(self.now, key, attempt, reply))
            case "noise":
                self.perform(Heard(self.now, key, attempt, bytes((which,)) * 20))
            case "fail":
                self.perform(Failed(self.now, key, attempt))
            case "drop":
                self.drop(key)
            case "deadline":
                self.perform(DeadlineReached(self.now, key))


@given(st.lists(EVENTS, max_size=60), st.integers(0, 3), st.booleans())
def test_every_query_ends_once(
    events: list[tuple[str, int, int, int]], resolvers: int, is_udp: bool
) -> None:
    storm = Storm((FIRST, SECOND, Resolver("10.0.0.3", 53))[:resolvers], is_udp)
    for what, which, attempt, flags in events:
        storm.happen(what, which, attempt, flags)
    while storm.open:
        storm.now = max(storm.now, storm.due[storm.open[0]])
        storm.perform(DeadlineReached(storm.now, storm.open[0]))
        assert storm.now < 100.0
