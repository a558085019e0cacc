"""One relayed connection: the core as a table, and a playbook of what sockets may do to it."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.netproxy.adapters.pump import Pump, make_buffer
from skep.netproxy.adapters.traffic import ServiceTraffic
from skep.netproxy.relay.core.pipe import (
    CHUNK_BYTES,
    OTHER,
    Action,
    Broken,
    Close,
    Do,
    Effect,
    Ended,
    Event,
    IllegalEvent,
    Pipe,
    Sent,
    Side,
    Stuck,
)

CLIENT, TASK = Side.CLIENT, Side.TASK


def steps(pipe: Pipe, *events: Event) -> list[Effect]:
    effects: list[Effect] = []
    for event in events:
        effects = pipe.step(event)
        pipe.check_invariants()
    return effects


def test_what_is_stuck_stops_the_other_side_until_it_is_gone() -> None:
    pipe = Pipe()
    assert steps(pipe, Stuck(TASK, b"abc")) == [
        Do(Action.STOP_READING, CLIENT),
        Do(Action.START_WRITING, TASK),
    ]
    assert steps(pipe, Sent(TASK, 2)) == []
    assert pipe.waiting(TASK) == b"c"
    assert steps(pipe, Sent(TASK, 1)) == [
        Do(Action.STOP_WRITING, TASK),
        Do(Action.START_READING, CLIENT),
    ]
    assert pipe.buffered_bytes() == 0


def test_the_end_is_passed_on_and_the_answer_still_comes() -> None:
    pipe = Pipe()
    assert steps(pipe, Ended(CLIENT)) == [
        Do(Action.STOP_READING, CLIENT),
        Do(Action.END_WRITING, TASK),
    ]
    assert steps(pipe, Stuck(CLIENT, b"answer"), Sent(CLIENT, 6)) == [
        Do(Action.STOP_WRITING, CLIENT),
        Do(Action.START_READING, TASK),
    ]
    assert steps(pipe, Ended(TASK)) == [Do(Action.END_WRITING, CLIENT), Close(is_reset=False)]
    assert pipe.is_closed


@pytest.mark.parametrize("before", [(), (Ended(CLIENT),), (Stuck(CLIENT, b"x"),)])
@pytest.mark.parametrize("side", Side)
def test_an_error_on_either_side_resets_both(before: tuple[Event, ...], side: Side) -> None:
    assert steps(Pipe(), *before, Broken(side)) == [Close(is_reset=True)]


@pytest.mark.parametrize(
    "events",
    [
        (Stuck(TASK, b"a"), Stuck(TASK, b"b")),
        (Stuck(TASK, b"a"), Ended(CLIENT)),
        (Stuck(TASK, b""),),
        (Ended(CLIENT), Ended(CLIENT)),
        (Ended(CLIENT), Stuck(TASK, b"a")),
        (Sent(TASK, 1),),
        (Broken(TASK), Ended(CLIENT)),
    ],
)
def test_what_cannot_happen_is_our_own_error(events: tuple[Event, ...]) -> None:
    with pytest.raises(IllegalEvent):
        steps(Pipe(), *events)


# ---------------------------------------------------------------- the pump, on sockets of paper


class PaperSocket:
    """A socket whose peer does as a script says: how much it takes, what it sends, how it ends."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.inbox: deque[bytes] = deque()
        self.peer_has_ended = False
        self.is_broken = False
        self.room = 0
        self.taken = b""
        self.write_ended = False
        self.is_closed = False
        self.is_set_to_reset = True  # as all sockets of the relay are from the start
        self.was_reset = False

    def fileno(self) -> int:
        return -1 if self.is_closed else self.number

    def recv_into(self, buffer: memoryview) -> int:
        if self.is_broken:
            raise ConnectionResetError
        if not self.inbox:
            if self.peer_has_ended:
                return 0
            raise BlockingIOError
        data = self.inbox.popleft()
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        assert not self.write_ended
        if self.is_broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        part = bytes(data[: self.room])
        self.room -= len(part)
        self.taken += part
        return len(part)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.write_ended = True

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.is_set_to_reset = struct.unpack("ii", value) == (1, 0)

    def close(self) -> None:
        self.is_closed = True
        self.was_reset = self.is_set_to_reset


class PaperLoop:
    """Calls what is watched when the script says so."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.writers: dict[int, Callable[[], None]] = {}

    def add_reader(self, number: int, callback: Callable[[Side], None], side: Side) -> None:
        assert number >= 0
        self.readers[number] = lambda: callback(side)

    def remove_reader(self, number: int) -> None:
        assert number >= 0
        self.readers.pop(number, None)

    def add_writer(self, number: int, callback: Callable[[Side], None], side: Side) -> None:
        assert number >= 0
        self.writers[number] = lambda: callback(side)

    def remove_writer(self, number: int) -> None:
        assert number >= 0
        self.writers.pop(number, None)


class Play:
    """A pump between two paper sockets."""

    def __init__(self) -> None:
        self.loop = PaperLoop()
        self.ends = {CLIENT: PaperSocket(1), TASK: PaperSocket(2)}
        self.sent = {CLIENT: b"", TASK: b""}
        self.ended_times = 0
        self.pump = Pump(
            cast(Any, self.loop),
            cast(Any, self.ends),
            ServiceTraffic(),
            make_buffer(),
            lambda _: self.end(),
        )
        self.pump.start()

    def end(self) -> None:
        self.ended_times += 1

    def run(self) -> None:
        """What a loop does: call every watcher whose socket is ready, until none is."""
        for _ in range(10_000):
            ready = [
                self.loop.readers[end.number]
                for end in self.ends.values()
                if end.number in self.loop.readers
                and (end.inbox or end.peer_has_ended or end.is_broken)
            ]
            ready += [
                self.loop.writers[end.number]
                for end in self.ends.values()
                if end.number in self.loop.writers and (end.room or end.is_broken)
            ]
            if not ready:
                return
            ready[0]()
        raise AssertionError("it spins")

    def act(self, name: str, side: Side, amount: int) -> None:
        end = self.ends[side]
        match name:
            case "send" if not end.peer_has_ended:
                data = bytes((amount + place) % 251 for place in range(amount))
                self.sent[side] += data
                end.inbox.append(data)
            case "take":
                end.room += amount
            case "end":
                end.peer_has_ended = True
            case "break":
                end.is_broken = True
            case _:
                pass

    def check(self) -> None:
        for side, end in self.ends.items():
            assert self.sent[OTHER[side]].startswith(end.taken), "bytes out = prefix of bytes in"
            if end.write_ended:
                assert self.ends[OTHER[side]].peer_has_ended
                assert end.taken == self.sent[OTHER[side]]
        assert self.pump.buffered_bytes() <= 2 * CHUNK_BYTES
        closed = [end.is_closed for end in self.ends.values()]
        assert closed[0] == closed[1] == (self.ended_times == 1)
        if closed[0]:
            assert not self.loop.readers
            assert not self.loop.writers
            reset = [end.was_reset for end in self.ends.values()]
            is_clean = all(end.write_ended for end in self.ends.values())
            assert reset == [not is_clean] * 2


MOVE = st.tuples(
    st.sampled_from(["send", "send", "take", "take", "end", "break"]),
    st.sampled_from(Side),
    st.integers(1, 300),
    st.booleans(),
)


@settings(max_examples=500)
@given(st.lists(MOVE, max_size=60))
def test_whatever_the_sockets_do(moves: list[tuple[str, Side, int, bool]]) -> None:
    play = Play()
    for name, side, amount, runs in moves:
        play.act(name, side, amount)
        if runs:
            play.run()
            play.check()
    # The world heals: everyone reads on, and says all that is left to say.
    for side in Side:
        play.act("take", side, 100_000)
        play.act("end", side, 0)
    play.run()
    play.check()
    assert play.ended_times == 1
    if not any(end.is_broken for end in play.ends.values()):
        for side, end in play.ends.items():
            assert end.taken == play.sent[OTHER[side]]
            assert not end.was_reset


def test_a_slow_reader_stops_the_sender_after_one_chunk() -> None:
    play = Play()
    for _ in range(10):
        play.act("send", CLIENT, 1000)
    play.run()
    assert play.pump.buffered_bytes() == 1000
    assert len(play.ends[CLIENT].inbox) == 9
    play.act("take", TASK, 10_000)
    play.run()
    play.check()
    assert play.ends[TASK].taken == play.sent[CLIENT]
