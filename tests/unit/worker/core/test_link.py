"""The link: how a worker finds its leader, keeps its session, and gives it up."""

from __future__ import annotations

import random

from skep.domain.base import ClusterId, NodeId, SessionId
from skep.domain.objects import NodeDescription, NodeRole
from skep.domain.session import (
    SESSION_FORMAT,
    Heartbeat,
    LeaderMessage,
    SessionWelcome,
    StatusesStored,
    WorkerHello,
    WorkerMessage,
)
from skep.worker.core.link import (
    LONGEST_BACKOFF_S,
    WELCOME_DEADLINE_S,
    Begun,
    Connect,
    Connected,
    Described,
    Disconnected,
    HangUp,
    LinkCore,
    LinkEffect,
    MessageReceived,
    Phase,
    Send,
    SessionRefused,
    SetTick,
    TellClosed,
    TellMessage,
    TellWelcome,
    TermRaised,
    Ticked,
)

HELLO = WorkerHello(
    format=SESSION_FORMAT,
    cluster_id=ClusterId("c"),
    node_id=NodeId("w1"),
    name="w1",
    role=NodeRole.WORKER,
    description=NodeDescription(hostname="w1"),
)
S1 = SessionId("s1")
BEAT_S = 2.0


class FirstManager(random.Random):
    """Dice that begin with the first manager and rest as long as they may."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0

    def uniform(self, a: float, b: float) -> float:
        return b


def link(*managers: str) -> LinkCore:
    return LinkCore(HELLO, managers or ("m1", "m2"), FirstManager())


def welcome(term: int = 1, *, format_: int = SESSION_FORMAT) -> LeaderMessage:
    return LeaderMessage(
        welcome=SessionWelcome(
            format=format_, session_id=S1, term=term, heartbeat_period_ns=int(BEAT_S * 1e9)
        )
    )


def in_session(term: int = 1) -> LinkCore:
    core = link()
    core.step(Begun(0.0, 0))
    core.step(Connected(0.0, core.connection))
    core.step(MessageReceived(0.0, core.connection, welcome(term)))
    assert core.phase is Phase.IN_SESSION
    return core


def beat(number: int) -> Send:
    return Send(WorkerMessage(heartbeat=Heartbeat(number=number)))


def addresses(effects: list[LinkEffect]) -> list[str]:
    return [effect.address for effect in effects if isinstance(effect, Connect)]


def test_a_link_does_nothing_before_it_is_told_to() -> None:
    core = link()
    assert core.step(Ticked(100.0)) == []
    assert core.step(TermRaised(0.0, 3)) == []


def test_it_connects_says_hello_and_is_welcomed() -> None:
    core = link()
    [connect, tick] = core.step(Begun(0.0, 7))
    assert isinstance(connect, Connect)
    assert (connect.address, tick) == ("m1", SetTick(WELCOME_DEADLINE_S))
    [send, _] = core.step(Connected(1.0, connect.connection))
    assert isinstance(send, Send)
    assert send.message.hello is not None
    assert send.message.hello.highest_term == 7
    assert core.step(MessageReceived(1.5, connect.connection, welcome(7))) == [
        TellWelcome(S1, 7),
        SetTick(1.5),
    ]
    core.check_invariants()


def test_the_first_heartbeat_goes_out_at_once_and_then_one_a_period() -> None:
    core = in_session()
    assert core.step(Ticked(0.0)) == [beat(1), SetTick(2.0)]
    assert core.step(Ticked(1.0)) == []
    core.step(MessageReceived(1.0, core.connection, LeaderMessage(heartbeat=Heartbeat(number=1))))
    assert core.step(Ticked(2.0)) == [beat(2), SetTick(4.0)]


def test_news_of_the_node_are_told_in_a_new_session_with_the_same_leader() -> None:
    news = NodeDescription(hostname="w1", notes=(("a", "b"),))
    core = in_session()
    [hang_up, closed, connect, _] = core.step(Described(3.0, news))
    assert isinstance(hang_up, HangUp)
    assert isinstance(closed, TellClosed)
    assert isinstance(connect, Connect)
    assert connect.address == "m1"
    [send, _] = core.step(Connected(3.1, connect.connection))
    assert isinstance(send, Send)
    assert send.message.hello is not None
    assert send.message.hello.description == news
    core.check_invariants()


def test_news_of_the_node_before_its_hello_disturb_nothing() -> None:
    news = NodeDescription(hostname="w1", notes=(("a", "b"),))
    core = link()
    assert core.step(Described(0.0, news)) == []
    [connect, _] = core.step(Begun(0.0, 0))
    assert isinstance(connect, Connect)
    assert core.step(Described(0.1, news)) == []
    [send, _] = core.step(Connected(0.2, connect.connection))
    assert isinstance(send, Send)
    assert send.message.hello is not None
    assert send.message.hello.description == news


def test_two_silent_periods_end_a_session() -> None:
    core = in_session()
    for now in (0.0, 2.0):
        assert core.step(Ticked(now))[0] == beat(int(now / 2) + 1)
    assert core.step(Ticked(4.0)) == [
        HangUp("m1 missed 2 heartbeats"),
        TellClosed("m1 missed 2 heartbeats"),
        SetTick(4.1),
    ]


def test_a_silent_manager_is_not_the_next_one_to_be_tried() -> None:
    """A stopped process still takes connections, and would keep the worker waiting once more."""
    for seed in range(20):
        core = LinkCore(HELLO, ("m1", "m2", "m3"), random.Random(seed))
        core.step(Begun(0.0, 0))
        silent = core.address
        core.step(Ticked(WELCOME_DEADLINE_S))
        core.step(Ticked(100.0))
        assert core.phase is Phase.CONNECTING
        assert core.address != silent


def test_a_worker_that_was_stopped_itself_blames_nobody() -> None:
    core = in_session()
    core.step(Ticked(0.0))
    assert core.step(Ticked(60.0)) == [beat(2), SetTick(62.0)]


def test_messages_are_handed_to_the_agent() -> None:
    core = in_session()
    stored = LeaderMessage(stored=StatusesStored(number=3))
    assert core.step(MessageReceived(1.0, core.connection, stored)) == [TellMessage(S1, stored)]


def test_nothing_of_an_earlier_connection_counts() -> None:
    core = in_session()
    old = core.connection
    core.step(Disconnected(1.0, old, "gone"))
    core.step(Ticked(1.1))
    assert core.step(MessageReceived(1.2, old, welcome())) == []
    assert core.step(Connected(1.2, old)) == []
    assert core.step(Disconnected(1.2, old, "gone")) == []


def test_whoever_knows_the_leader_is_followed_at_once() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    effects = core.step(Disconnected(0.1, core.connection, "not the leader", "m7"))
    assert addresses(effects) == ["m7"]


def test_managers_that_point_at_each_other_are_left_for_a_pause() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    for leader in ("m2", "m1", "m2"):
        effects = core.step(Disconnected(0.1, core.connection, "not me", leader))
        assert addresses(effects) == [leader]
    effects = core.step(Disconnected(0.1, core.connection, "not me", "m1"))
    assert effects == [HangUp("not me"), SetTick(0.2)]


def test_a_manager_that_names_itself_is_left_for_a_pause() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    effects = core.step(Disconnected(0.1, core.connection, "not yet", "m1"))
    assert effects == [HangUp("not yet"), SetTick(0.2)]


def test_the_search_goes_round_and_slows_down() -> None:
    core = link()
    tried = addresses(core.step(Begun(0.0, 0)))
    now, pauses = 0.0, []
    for _ in range(7):
        [_, tick] = core.step(Disconnected(now, core.connection, "refused"))
        assert isinstance(tick, SetTick)
        pauses.append(round(tick.due - now, 3))
        now = tick.due
        tried += addresses(core.step(Ticked(now)))
    assert tried == ["m1", "m2"] * 4
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S]


def test_jitter_never_lengthens_a_pause_and_never_halves_it_twice() -> None:
    core = LinkCore(HELLO, ("m1",), random.Random(1))
    core.step(Begun(0.0, 0))
    for _ in range(50):
        [_, tick] = core.step(Disconnected(0.0, core.connection, "refused"))
        assert isinstance(tick, SetTick)
        assert 0.05 <= tick.due <= LONGEST_BACKOFF_S
        core.step(Ticked(tick.due))


def test_a_leader_of_a_lower_term_is_refused() -> None:
    core = link()
    core.step(Begun(0.0, 5))
    core.step(Connected(0.0, core.connection))
    effects = core.step(MessageReceived(0.0, core.connection, welcome(4)))
    assert effects == [HangUp("term 4 is over: 5 was obeyed"), SetTick(0.1)]


def test_a_term_raised_meanwhile_counts() -> None:
    core = in_session(term=5)
    core.step(TermRaised(1.0, 5))
    core.step(Disconnected(1.0, core.connection, "gone"))
    core.step(Ticked(1.1))
    [send, _] = core.step(Connected(1.2, core.connection))
    assert isinstance(send, Send)
    assert send.message.hello is not None
    assert send.message.hello.highest_term == 5


def test_a_format_that_is_not_known_is_refused() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    core.step(Connected(0.0, core.connection))
    effects = core.step(MessageReceived(0.0, core.connection, welcome(format_=9)))
    assert effects == [HangUp("m1 speaks format 9, this is 1"), SetTick(0.1)]


def test_whoever_does_not_welcome_first_is_left() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    core.step(Connected(0.0, core.connection))
    early = LeaderMessage(stored=StatusesStored(number=1))
    assert core.step(MessageReceived(0.0, core.connection, early)) == [
        HangUp("m1 did not welcome us first"),
        SetTick(0.1),
    ]


def test_a_manager_that_accepts_and_says_nothing_is_left() -> None:
    core = link()
    core.step(Begun(0.0, 0))
    core.step(Connected(1.0, core.connection))
    assert core.step(Ticked(WELCOME_DEADLINE_S)) == []
    effects = core.step(Ticked(1.0 + WELCOME_DEADLINE_S))
    assert effects == [HangUp("m1 did not welcome us in time"), SetTick(6.1)]


def test_the_agent_can_leave_its_session_and_no_other() -> None:
    core = in_session()
    assert core.step(SessionRefused(1.0, SessionId("s0"), "late")) == []
    assert core.step(SessionRefused(1.0, S1, "set 2 was due, 3 came")) == [
        HangUp("set 2 was due, 3 came"),
        TellClosed("set 2 was due, 3 came"),
        SetTick(1.1),
    ]


def test_beginning_anew_drops_the_session() -> None:
    core = in_session()
    effects = core.step(Begun(1.0, 1))
    assert effects[:2] == [HangUp("begun anew"), TellClosed("begun anew")]
    assert addresses(effects) == ["m2"]
    assert core.step(Begun(1.0, 2)) == []  # It has said nothing yet.
