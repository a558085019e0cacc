"""One relayed connection: who may still send, what waits for whom, and when it is over.

Bytes that a socket takes at once never come here: only what changes the state does. At most one
chunk waits per direction, since reading stops as soon as one is stuck. There is no idle limit: a
connection lives until its ends say otherwise.

    each direction:  flowing <-> stuck (a chunk waits) -> ended (end of data passed on)

The end of data is passed on by itself (half-close), so that a client that has said all can still
hear the answer. An error on either side is passed on as a reset, never as an orderly end, which
the other side could take for a complete answer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# One read. Larger chunks cost fewer system calls per byte, and memory when stuck.
CHUNK_BYTES = 256 * 1024


class Side(enum.IntEnum):
    """The two ends of a relayed connection. On an owner node the client is another netproxy.

    An integer, since it is a key that every chunk looks up, and enums hash in Python code.
    """

    CLIENT = 0
    TASK = 1

    @property
    def label(self) -> str:
        """For logs and metrics."""
        return self.name.lower()


OTHER = {Side.CLIENT: Side.TASK, Side.TASK: Side.CLIENT}


@dataclass(frozen=True, slots=True)
class Stuck:
    """`rest` is what the socket of `to` did not take of the chunk just read."""

    to: Side
    rest: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The socket of `to` took `count` of the bytes that waited."""

    to: Side
    count: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`source` has sent all it will ever send."""

    source: Side


@dataclass(frozen=True, slots=True)
class Broken:
    """The socket of `side` failed."""

    side: Side


Event = Stuck | Sent | Ended | Broken


class Action(enum.Enum):
    """What to do with one side's socket."""

    START_READING = "start_reading"
    STOP_READING = "stop_reading"
    START_WRITING = "start_writing"  # call when writable
    STOP_WRITING = "stop_writing"
    END_WRITING = "end_writing"  # pass on the end of data


@dataclass(frozen=True, slots=True)
class Do:
    """Do `action` with the socket of `side`."""

    action: Action
    side: Side


@dataclass(frozen=True, slots=True)
class Close:
    """Close both sockets; by a reset if `is_reset`."""

    is_reset: bool


Effect = Do | Close


class IllegalEvent(AssertionError):
    """A programmer's error: this can't happen in this state."""


class Pipe:
    """The state of one relayed connection."""

    def __init__(self) -> None:
        self._waiting: dict[Side, bytes] = {}
        self._has_ended: dict[Side, bool] = {Side.CLIENT: False, Side.TASK: False}
        self.is_closed = False

    def step(self, event: Event) -> list[Effect]:
        """What follows."""
        if self.is_closed:
            raise IllegalEvent(f"{event} after the end")
        match event:
            case Stuck(to, rest):
                return self._stuck(to, rest)
            case Sent(to, count):
                return self._sent(to, count)
            case Ended(source):
                return self._ended(source)
            case Broken():
                self.is_closed = True
                self._waiting.clear()
                return [Close(is_reset=True)]

    def waiting(self, to: Side) -> bytes:
        """The bytes that wait for `to`."""
        return self._waiting.get(to, b"")

    def buffered_bytes(self) -> int:
        """All that waits."""
        return sum(map(len, self._waiting.values()))

    def _stuck(self, to: Side, rest: bytes) -> list[Effect]:
        if not rest or to in self._waiting or self._has_ended[OTHER[to]]:
            raise IllegalEvent(f"{len(rest)} more bytes for {to} in {self._story()}")
        self._waiting[to] = rest
        return [Do(Action.STOP_READING, OTHER[to]), Do(Action.START_WRITING, to)]

    def _sent(self, to: Side, count: int) -> list[Effect]:
        waiting = self._waiting.get(to, b"")
        if not 0 <= count <= len(waiting):
            raise IllegalEvent(f"{count} bytes sent to {to} in {self._story()}")
        if count < len(waiting):
            self._waiting[to] = waiting[count:]
            return []
        self._waiting.pop(to, None)
        return [Do(Action.STOP_WRITING, to), Do(Action.START_READING, OTHER[to])]

    def _ended(self, source: Side) -> list[Effect]:
        # Reading stops while a chunk waits, so the end is only ever seen behind all data.
        if self._has_ended[source] or OTHER[source] in self._waiting:
            raise IllegalEvent(f"end of data from {source} in {self._story()}")
        self._has_ended[source] = True
        if self._has_ended[OTHER[source]]:
            self.is_closed = True
            return [Do(Action.END_WRITING, OTHER[source]), Close(is_reset=False)]
        return [Do(Action.STOP_READING, source), Do(Action.END_WRITING, OTHER[source])]

    def _story(self) -> str:
        waits = {side.label: len(rest) for side, rest in self._waiting.items()}
        ended = [side.label for side, has_ended in self._has_ended.items() if has_ended]
        return f"waiting={waits} ended={ended}"

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        for to, rest in self._waiting.items():
            assert 0 < len(rest) <= CHUNK_BYTES, self._story()
            assert not self._has_ended[OTHER[to]], self._story()
        if self.is_closed:
            assert not self._waiting, self._story()
