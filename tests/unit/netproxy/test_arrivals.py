"""Clients that have been accepted: when they are served, and with what they have said."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from skep.netproxy.relay.adapters.arrivals import FIRST_BYTES, Arrival, Arrivals
from skep.netproxy.relay.adapters.loop import ENDED, READABLE, WATCH_READING
from skep.netproxy.relay.core.protocol import Key

ADDRESS = Key("127.0.0.1", 80)


class PaperLoop:
    """Its turns are run by the test: first who is told something, then what was put off."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.put_off: list[Callable[[], object]] = []

    def now(self) -> float:
        return 7.0

    def attach(self, fd: int, handler: Callable[[int], object], mask: int) -> None:
        assert mask == WATCH_READING
        self.handlers[fd] = handler

    def forget(self, fd: int) -> None:
        del self.handlers[fd]

    def soon(self, run: Callable[[], object]) -> None:
        self.put_off.append(run)

    def turn(self, told: dict[int, int] | None = None) -> None:
        for fd, events in (told or {}).items():
            self.handlers[fd](events)
        put_off, self.put_off = self.put_off, []
        for run in put_off:
            run()


class Door:
    """Where clients arrive, and who has been served."""

    def __init__(self) -> None:
        self.loop = PaperLoop()
        self.served: list[Arrival] = []
        self.arrivals = Arrivals(cast(Any, self.loop), self.served.append)
        self.sockets: list[socket.socket] = []

    def arrive(self) -> tuple[socket.socket, socket.socket]:
        """A client and the socket that was accepted for it."""
        ours, theirs = socket.socketpair()
        self.sockets += (ours, theirs)
        self.arrivals.add(ADDRESS, ours, ("127.0.0.9", 1))
        return theirs, ours


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    for each in made.sockets:
        each.close()


def test_who_says_nothing_is_served_after_two_turns(door: Door) -> None:
    _, first = door.arrive()
    door.loop.turn()
    _, second = door.arrive()
    assert (door.served, len(door.arrivals)) == ([], 2)
    door.loop.turn()
    assert [each.client for each in door.served] == [first]
    assert (door.served[0].read(), door.served[0].events) == (b"", 0)
    door.loop.turn()
    assert [each.client for each in door.served] == [first, second]
    assert len(door.arrivals) == 0
    door.loop.turn()
    assert not door.loop.put_off


def test_who_speaks_is_served_at_once_with_what_was_said(door: Door) -> None:
    client, accepted = door.arrive()
    client.send(b"hello")
    door.loop.turn({accepted.fileno(): READABLE})
    (arrival,) = door.served
    assert (arrival.read(), arrival.events, len(door.arrivals)) == (b"hello", 0, 0)
    door.loop.turn()
    door.loop.turn()
    assert len(door.served) == 1


@pytest.mark.parametrize(
    ("said", "events", "left"),
    [
        (FIRST_BYTES - 1, READABLE, 0),
        (FIRST_BYTES, READABLE, READABLE),
        (FIRST_BYTES - 1, READABLE | ENDED, ENDED),
        (0, READABLE | ENDED, ENDED),
        (FIRST_BYTES + 1, READABLE | ENDED, READABLE | ENDED),
    ],
)
def test_what_is_left_to_read_is_known(door: Door, said: int, events: int, left: int) -> None:
    client, accepted = door.arrive()
    client.send(b"x" * said)
    client.shutdown(socket.SHUT_WR)
    door.loop.turn({accepted.fileno(): events})
    (arrival,) = door.served
    assert arrival.read() == b"x" * min(said, FIRST_BYTES)
    assert arrival.events == left


def test_an_event_for_nothing_is_borne(door: Door) -> None:
    """It was an earlier socket's, with the same number."""
    _, accepted = door.arrive()
    door.loop.turn({accepted.fileno(): READABLE})
    assert door.served[0].read() == b""


def test_who_is_gone_is_told_of(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, peer = listener.accept()
    door.sockets.append(accepted)
    door.arrivals.add(ADDRESS, accepted, peer)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    door.loop.turn({accepted.fileno(): READABLE | ENDED})
    with pytest.raises(ConnectionResetError):
        door.served[0].read()


def test_all_that_wait_are_cut(door: Door) -> None:
    client, accepted = door.arrive()
    door.arrivals.cut()
    assert (accepted.fileno(), client.recv(1), len(door.arrivals)) == (-1, b"", 0)
    door.loop.turn()
    door.loop.turn()
    assert (door.served, door.loop.handlers) == ([], {})
