"""One relayed connection: who may still send, what waits for whom, and when it is over.

Bytes that a socket takes at once never come here: only what changes the state does. At most one
chunk waits per direction, since reading stops as soon as one is stuck. There is no idle limit: a
connection lives until its ends say otherwise.

    each direction:  flowing <-> stuck (a chunk waits) -> ended (end of data passed on)

The end of data is passed on by itself (half-close), so that a client that has said all can still
hear the answer. An error on either side is passed on as a reset, never as an orderly end, which
the other side could take for a complete answer.

The answers are small integers and nothing is allocated while bytes flow: new connections per
second are what a relay is measured by.
"""

from __future__ import annotations

from typing import Final

# One read. Larger chunks cost fewer system calls per byte, and memory when stuck.
CHUNK_BYTES = 256 * 1024

# The two ends of a relayed connection. On an owner node the client is another netproxy.
CLIENT: Final = 0
TASK: Final = 1
SIDE_NAMES = ("client", "task")

# What follows an event.
NOTHING: Final = 0
READ: Final = 1  # the other side may be read again
END_WRITING: Final = 2  # pass on the end of data to the other side
CLOSE: Final = 3  # close both: everything has been said
RESET: Final = 4  # close both by a reset

_BOTH: Final = 3


class IllegalEvent(AssertionError):
    """A programmer's error: this can't happen in this state."""


class Pipe:
    """The state of one relayed connection. `deaf` has the bit `1 << side` set while that side must
    not be read: what it sent is stuck, or it has sent all it will ever send."""

    __slots__ = ("_ended", "_for_client", "_for_task", "_held", "deaf", "is_closed")

    def __init__(self) -> None:
        self.deaf = 0
        self.is_closed = False
        self._ended = 0
        self._held = 0
        self._for_client: memoryview | None = None
        self._for_task: memoryview | None = None

    def stuck(self, to: int, rest: bytes) -> None:
        """`rest` is what the socket of `to` did not take of the chunk just read."""
        source = 1 << (to ^ 1)
        if not rest or self.is_closed or self.deaf & source:
            raise IllegalEvent(f"{len(rest)} more bytes for {SIDE_NAMES[to]} in {self._story()}")
        self.deaf |= source
        self._keep(to, memoryview(rest))

    def sent(self, to: int, count: int) -> int:
        """The socket of `to` took `count` of the bytes that waited. NOTHING or READ."""
        waiting = self.waiting(to)
        if waiting is None or not 0 <= count <= len(waiting):
            raise IllegalEvent(f"{count} bytes sent to {SIDE_NAMES[to]} in {self._story()}")
        if count < len(waiting):
            self._keep(to, waiting[count:])
            return NOTHING
        self._keep(to, None)
        self.deaf &= ~(1 << (to ^ 1))
        return READ

    def held(self, to: int) -> None:
        """What was read for `to` waits in the kernel, beyond our memory."""
        source = 1 << (to ^ 1)
        if self.is_closed or self.deaf & source:
            raise IllegalEvent(f"more bytes for {SIDE_NAMES[to]} in {self._story()}")
        self.deaf |= source
        self._held |= 1 << to

    def passed(self, to: int) -> int:
        """`to` took all that waited for it in the kernel. READ."""
        if not self.is_held(to):
            raise IllegalEvent(f"nothing is held for {SIDE_NAMES[to]} in {self._story()}")
        self._held &= ~(1 << to)
        self.deaf &= ~(1 << (to ^ 1))
        return READ

    def is_held(self, to: int) -> bool:
        """Whether bytes for `to` wait in the kernel."""
        return bool(self._held & 1 << to)

    def ended(self, source: int) -> int:
        """`source` has sent all it will ever send. END_WRITING or CLOSE."""
        # Reading stops while a chunk waits, so the end is only ever seen behind all data.
        if self.is_closed or self.deaf & 1 << source:
            raise IllegalEvent(f"end of data from {SIDE_NAMES[source]} in {self._story()}")
        self._ended |= 1 << source
        self.deaf |= 1 << source
        if self._ended == _BOTH:
            self.is_closed = True
            return CLOSE
        return END_WRITING

    def broken(self) -> int:
        """A socket failed. RESET."""
        if self.is_closed:
            raise IllegalEvent(f"broken in {self._story()}")
        self.is_closed = True
        self._for_client = self._for_task = None
        self._held = 0
        return RESET

    def has_ended(self, source: int) -> bool:
        """Whether `source` has sent all it will ever send."""
        return bool(self._ended & 1 << source)

    def waiting(self, to: int) -> memoryview | None:
        """The bytes that wait for `to`."""
        return self._for_task if to else self._for_client

    def buffered_bytes(self) -> int:
        """All that waits."""
        return sum(len(each) for each in (self._for_client, self._for_task) if each is not None)

    def _keep(self, to: int, rest: memoryview | None) -> None:
        if to:
            self._for_task = rest
        else:
            self._for_client = rest

    def _story(self) -> str:
        ended = [SIDE_NAMES[side] for side in (CLIENT, TASK) if self.has_ended(side)]
        waiting = f"waiting={self.buffered_bytes()} held={self._held}"
        return f"{waiting} ended={ended} closed={self.is_closed}"

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        for side in (CLIENT, TASK):
            waiting = self.waiting(side ^ 1)
            is_stuck = waiting is not None or self.is_held(side ^ 1)
            assert not (waiting is not None and self.is_held(side ^ 1)), self._story()
            if waiting is not None:
                assert 0 < len(waiting) <= CHUNK_BYTES, self._story()
                assert not self.has_ended(side), self._story()
            if not self.is_closed:
                assert bool(self.deaf & 1 << side) == (is_stuck or self.has_ended(side))
        if self.is_closed:
            assert not self.buffered_bytes(), self._story()
            assert not self._held, self._story()
