"""One relayed connection: the core as a table, and a playbook of what sockets may do to it."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.adapters import link as link_module
from skep.netproxy.relay.adapters import sockets
from skep.netproxy.relay.adapters.link import Link, Shared
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.counts import Counts
from skep.netproxy.relay.core.pipe import (
    CHUNK_BYTES,
    CLIENT,
    CLOSE,
    END_WRITING,
    NOTHING,
    READ,
    RESET,
    TASK,
    IllegalEvent,
    Pipe,
)

SIDES = (CLIENT, TASK)
Step = Callable[[Pipe], object]


def stuck(to: int, rest: bytes) -> Step:
    return lambda pipe: pipe.stuck(to, rest)


def sent(to: int, count: int) -> Step:
    return lambda pipe: pipe.sent(to, count)


def ended(source: int) -> Step:
    return lambda pipe: pipe.ended(source)


def held(to: int) -> Step:
    return lambda pipe: pipe.held(to)


def passed(to: int) -> Step:
    return lambda pipe: pipe.passed(to)


def broken(pipe: Pipe) -> object:
    return pipe.broken()


def after(pipe: Pipe, *steps: Step) -> object:
    """What the last of these answers."""
    answer: object = None
    for step in steps:
        answer = step(pipe)
        pipe.check_invariants()
    return answer


def test_what_is_stuck_stops_the_other_side_until_it_is_gone() -> None:
    pipe = Pipe()
    after(pipe, stuck(TASK, b"abc"))
    assert pipe.deaf == 1 << CLIENT
    assert after(pipe, sent(TASK, 2)) == NOTHING
    assert bytes(pipe.waiting(TASK) or b"") == b"c"
    assert after(pipe, sent(TASK, 1)) == READ
    assert pipe.deaf == 0
    assert pipe.buffered_bytes() == 0


def test_what_the_kernel_holds_stops_the_other_side_too() -> None:
    pipe = Pipe()
    after(pipe, held(CLIENT))
    assert (pipe.deaf, pipe.is_held(CLIENT), pipe.buffered_bytes()) == (1 << TASK, True, 0)
    assert after(pipe, passed(CLIENT)) == READ
    assert (pipe.deaf, pipe.is_held(CLIENT)) == (0, False)


def test_the_end_is_passed_on_and_the_answer_still_comes() -> None:
    pipe = Pipe()
    assert after(pipe, ended(CLIENT)) == END_WRITING
    assert after(pipe, stuck(CLIENT, b"answer"), sent(CLIENT, 6)) == READ
    assert pipe.deaf == 1 << CLIENT
    assert after(pipe, ended(TASK)) == CLOSE
    assert pipe.is_closed


@pytest.mark.parametrize("before", [(), (ended(CLIENT),), (stuck(CLIENT, b"x"),), (held(TASK),)])
def test_an_error_resets_both(before: tuple[Step, ...]) -> None:
    pipe = Pipe()
    assert after(pipe, *before, broken) == RESET
    assert pipe.is_closed


@pytest.mark.parametrize(
    "steps",
    [
        (stuck(TASK, b"a"), stuck(TASK, b"b")),
        (stuck(TASK, b"a"), ended(CLIENT)),
        (stuck(TASK, b""),),
        (ended(CLIENT), ended(CLIENT)),
        (ended(CLIENT), stuck(TASK, b"a")),
        (sent(TASK, 1),),
        (stuck(TASK, b"a"), sent(TASK, 2)),
        (held(TASK), held(TASK)),
        (held(TASK), stuck(TASK, b"a")),
        (held(TASK), ended(CLIENT)),
        (held(TASK), sent(TASK, 1)),
        (passed(TASK),),
        (broken, ended(CLIENT)),
        (broken, broken),
    ],
)
def test_what_cannot_happen_is_our_own_error(steps: tuple[Step, ...]) -> None:
    with pytest.raises(IllegalEvent):
        after(Pipe(), *steps)


# ---------------------------------------------------------------- a link, on sockets of paper


class PaperSocket:
    """A socket whose peer does as a script says: how much it takes, what it sends, how it ends."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.inbox = bytearray()
        self.peer_has_ended = False
        self.is_broken = False
        self.room = 0
        self.taken = b""
        self.sends: list[tuple[int, int]] = []  # how much was taken, with which flags
        self.keeps_back = False
        self.write_ended = False
        self.is_closed = False
        self.was_reset = False

    def fileno(self) -> int:
        return -1 if self.is_closed else self.number

    def recv_into(self, buffer: memoryview, count: int, flags: int) -> int:
        assert (count, flags) == (0, socket.MSG_DONTWAIT)
        if self.is_broken:
            raise ConnectionResetError
        if not self.inbox:
            if self.peer_has_ended:
                return 0
            raise BlockingIOError
        count = min(len(buffer), len(self.inbox))
        buffer[:count] = self.inbox[:count]
        del self.inbox[:count]
        return count

    def send(self, data: bytes | memoryview, flags: int) -> int:
        assert flags & ~socket.MSG_MORE == socket.MSG_DONTWAIT
        assert not self.write_ended
        if self.is_broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        part = bytes(data[: self.room])
        self.room -= len(part)
        self.taken += part
        self.sends.append((len(part), flags))
        self.keeps_back = bool(flags & socket.MSG_MORE) and len(part) == len(data)
        return len(part)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.write_ended = True
        self.keeps_back = False

    def push(self) -> None:
        self.keeps_back = False

    def close(self) -> None:
        """As set from the start, which is by a reset."""
        self.is_closed = True
        self.was_reset = True

    def close_orderly(self) -> None:
        self.is_closed = True
        self.write_ended = True
        self.keeps_back = False


class PaperLoop:
    """Tells of what changes, once, as an edge-triggered epoll does; or of nothing at all."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.masks: dict[int, int] = {}
        self.put_off: list[Callable[[], object]] = []

    def attach(self, number: int, handler: Callable[[int], object], mask: int) -> None:
        assert mask & select.EPOLLET
        assert number not in self.handlers
        self.handlers[number], self.masks[number] = handler, mask

    def modify(self, number: int, mask: int) -> None:
        assert number in self.handlers
        self.masks[number] = mask

    def forget(self, number: int) -> None:
        del self.handlers[number]

    def soon(self, run: Callable[[], object]) -> None:
        self.put_off.append(run)


class Play:
    """A link between two paper sockets."""

    def __init__(self) -> None:
        self.loop = PaperLoop()
        self.ends = (PaperSocket(1), PaperSocket(2))
        self.sent = [b"", b""]
        self.ended_times = 0
        self.told = [0, 0]
        self.counts = Counts("web", "ingress")
        balancer = Balancer(Balance.ROUND_ROBIN)
        shared = Shared(cast(Any, self.loop), lambda _: self.end())
        client, task = (cast(Any, end) for end in self.ends)
        self.link = Link(shared, client, task, self.counts, (balancer, TaskId("t")))
        self.link.start(b"", is_watched=False)

    def end(self) -> None:
        self.ended_times += 1

    def tell(self, side: int, events: int) -> None:
        """It will be told at the next turn, if it is watched for."""
        self.told[side] |= events

    def run(self) -> None:
        for _ in range(10_000):
            for run in self.loop.put_off:
                run()
            self.loop.put_off.clear()
            for side, end in enumerate(self.ends):
                events, self.told[side] = self.told[side], 0
                handler = self.loop.handlers.get(end.number)
                if handler is not None and (events := events & self._watched(end)):
                    handler(events)
            if not any(self.told) and not self.loop.put_off:
                return
        raise AssertionError("it spins")

    def _watched(self, end: PaperSocket) -> int:
        # Errors and hang-ups can't be masked.
        return self.loop.masks[end.number] | select.EPOLLERR | select.EPOLLHUP

    def act(self, name: str, side: int, amount: int) -> None:
        end = self.ends[side]
        match name:
            case "send" if not end.peer_has_ended:
                data = bytes((amount + place) % 251 for place in range(amount))
                self.sent[side] += data
                end.inbox += data
                self.tell(side, select.EPOLLIN)
            case "take":
                end.room += amount
                self.tell(side, select.EPOLLOUT)
            case "end" if not end.peer_has_ended:
                end.peer_has_ended = True
                self.tell(side, select.EPOLLIN | select.EPOLLRDHUP)
            case "break":
                end.is_broken = True
                self.tell(side, select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP)
                self.tell(side, select.EPOLLERR)
            case "nothing":
                self.tell(side, select.EPOLLIN)  # late, and meant for somebody else
            case "no end":
                self.tell(side, select.EPOLLIN | select.EPOLLRDHUP)  # likewise
            case _:
                pass

    def check(self) -> None:
        for side, end in enumerate(self.ends):
            assert self.sent[side ^ 1].startswith(end.taken), "bytes out = prefix of bytes in"
            assert end.is_closed or not end.keeps_back, "what nothing follows is sent"
            if end.write_ended:
                assert self.ends[side ^ 1].peer_has_ended
                assert end.taken == self.sent[side ^ 1]
        self.link.pipe.check_invariants()
        assert self.link.pipe.buffered_bytes() <= 2 * CHUNK_BYTES
        closed = [end.is_closed for end in self.ends]
        assert closed[0] == closed[1] == (self.ended_times == 1)
        if closed[0]:
            assert not self.loop.handlers
            reset = [end.was_reset for end in self.ends]
            is_clean = all(end.write_ended for end in self.ends) and not any(reset)
            assert reset == [not is_clean] * 2


@pytest.fixture(autouse=True)
def _paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "close_orderly", PaperSocket.close_orderly)
    monkeypatch.setattr(sockets, "push", PaperSocket.push)
    monkeypatch.setattr(link_module, "close_by_reset", PaperSocket.close)
    # A small buffer, so that chunks fill it.
    monkeypatch.setattr(link_module, "CHUNK_BYTES", 100)


MOVE = st.tuples(
    st.sampled_from(["send", "send", "take", "take", "end", "break", "nothing", "no end"]),
    st.sampled_from(SIDES),
    st.integers(1, 300),
    st.booleans(),
)


@settings(max_examples=500)
@given(st.lists(MOVE, max_size=60))
def test_whatever_the_sockets_do(moves: list[tuple[str, int, int, bool]]) -> None:
    play = Play()
    for name, side, amount, runs in moves:
        play.act(name, side, amount)
        if runs:
            play.run()
            play.check()
    # The world heals: everyone reads on, and says all that is left to say.
    for side in SIDES:
        play.act("take", side, 100_000)
        play.act("end", side, 0)
    play.run()
    play.check()
    assert play.ended_times == 1
    if not any(end.is_broken for end in play.ends):
        for side, end in enumerate(play.ends):
            assert end.taken == play.sent[side ^ 1]
            assert not end.was_reset
        assert play.counts.received == [len(sent) for sent in play.sent]


def test_a_slow_reader_stops_the_sender_after_one_chunk() -> None:
    play = Play()
    for _ in range(10):
        play.act("send", CLIENT, 80)
    play.run()
    assert play.link.pipe.buffered_bytes() == 100
    assert len(play.ends[CLIENT].inbox) == 700
    play.act("take", TASK, 10_000)
    play.run()
    play.check()
    assert play.ends[TASK].taken == play.sent[CLIENT]


def test_an_answer_is_kept_back_for_no_more_than_the_end_that_follows_it() -> None:
    play = Play()
    for side in SIDES:
        play.act("take", side, 1_000)
    play.act("send", TASK, 80)
    play.act("end", TASK, 0)
    play.run()
    play.check()
    assert play.ends[CLIENT].sends == [(80, socket.MSG_DONTWAIT | socket.MSG_MORE)]
    play.act("send", CLIENT, 80)
    play.act("no end", CLIENT, 0)
    play.run()
    play.check()
    play.act("send", CLIENT, 70)
    play.run()
    assert play.ends[TASK].sends[1:] == [(70, socket.MSG_DONTWAIT)]


def test_a_reset_of_one_who_has_said_all_is_passed_on() -> None:
    play = Play()
    play.act("end", CLIENT, 0)
    play.run()
    assert play.ended_times == 0
    play.act("break", CLIENT, 0)
    play.run()
    play.check()
    assert [end.was_reset for end in play.ends] == [True, True]
    assert play.counts.errors == {"client_reset": 1}


def test_an_orderly_end_is_told_from_a_reset_by_the_linger_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    listener = socket.create_server(("127.0.0.1", 0))
    for is_orderly in (True, False):
        one, _ = sockets.begin_connect(listener.getsockname(), "127.0.0.1")
        linger = one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert linger == struct.pack("ii", 1, 0)
        other, _ = listener.accept()
        if is_orderly:
            sockets.close_orderly(one)
            assert other.recv(1) == b""
        else:
            one.close()
            with pytest.raises(ConnectionResetError):
                other.recv(1)
        other.close()
    listener.close()


def test_a_task_is_connected_with_the_first_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one, sent = sockets.connect_with(listener.getsockname(), "127.0.0.1", b"hello")
        assert sent == 5
        other, _ = listener.accept()
        other.settimeout(5.0)
        assert other.recv(10) == b"hello"
        other.close()
        one.close()
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect_with(address, "127.0.0.1", b"hello")


def test_nothing_is_sent_to_a_task_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        filling = [sockets.begin_connect(listener.getsockname(), "127.0.0.1") for _ in range(3)]
        waiting, sent = sockets.connect_with(listener.getsockname(), "127.0.0.1", b"hello")
        assert sent is None
        assert not sockets.is_connected(waiting, listener.getsockname())
        waiting.close()
        for one, _ in filling:
            one.close()
