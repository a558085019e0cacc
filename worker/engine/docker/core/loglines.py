"""Messages of a container's log, made into lines; and where in the log a reader stands.

Engines know no offsets: a place is the time of a message, and how many of that very time there are
up to it. Messages of two streams may be kept in another order than their times say, by a fraction
of a second, so that a log that is taken up again is read from a little earlier on, until the
message comes that was read last.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from skep.domain.base import SECOND_NS
from skep.domain.control import LogLine, LogStream
from skep.worker.engine.core.lines import PIECE_BYTES
from skep.worker.engine.docker.core.frames import CUT_BYTES, Message
from skep.worker.engine.docker.core.times import parse_time_ns

# Two copiers of one engine stamp a message and then queue to write it.
DISORDER_NS = SECOND_NS
# Messages that may have been read before; more than this in so short a time, and the one that was
# read last has been rotated away.
HELD_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Mark:
    """After the `count`-th message of this time; or, where that is 0, before all of them."""

    time_ns: int = 0
    count: int = 0

    @property
    def since_ns(self) -> int:
        """From when on to read to find it."""
        return max(0, self.time_ns - DISORDER_NS) if self.count else self.time_ns


@dataclass(slots=True)
class _Part:
    number: int
    mark: Mark
    text: bytes


@dataclass(slots=True)
class _Ready:
    number: int
    mark: Mark
    line: LogLine


@dataclass
class LogLines:
    """Lines after a mark. `mark` is after the last line that was taken out by `pop`.

    `read_anew` goes before a stream that begins at `mark.since_ns` again, and `finish` after its
    end. In between come its messages.
    """

    mark: Mark
    ready: deque[_Ready] = field(default_factory=deque)
    _parts: dict[LogStream, list[_Part]] = field(default_factory=dict)
    _number: int = 0
    _popped: int = 0
    _last: Mark = field(default_factory=Mark)
    _sought: Mark | None = None
    _held: list[Message] = field(default_factory=list)

    def read_anew(self) -> None:
        """What was not taken out yet comes again."""
        self.ready.clear()
        for stream, parts in self._parts.items():
            # What stands before the mark does not.
            self._parts[stream] = [part for part in parts if part.number < self._popped]
        self._last = Mark(self.mark.time_ns, 0)
        self._sought = self.mark if self.mark.count else None
        self._held.clear()

    def take(self, message: Message) -> None:
        """One more message, as the engine sends it: with its time before it."""
        if self._sought is None:
            self._add(message)
            return
        time_ns, _ = _read(message[1], self._last.time_ns)
        if time_ns == self._sought.time_ns:
            self._last = Mark(time_ns, self._last.count + 1)
            if self._last.count == self._sought.count:
                # Whatever came before it was read before it.
                self._sought = None
                self._held.clear()
        elif time_ns > self._sought.time_ns:
            self._held.append(message)
            is_late = time_ns > self._sought.time_ns + DISORDER_NS
            if is_late or len(self._held) > HELD_LIMIT:
                self._give_up()

    def finish(self, *, is_final: bool) -> None:
        """The stream is at its end. Where that `is_final`, what waits is as much as there is."""
        if self._sought is not None:
            self._give_up()
        if is_final:
            for stream, parts in self._parts.items():
                if parts:
                    self._complete(stream, parts)

    def pop(self) -> LogLine:
        """The next line."""
        ready = self.ready.popleft()
        self.mark, self._popped = ready.mark, ready.number
        return ready.line

    def _give_up(self) -> None:
        """The message that was read last is gone, and all that are younger are new."""
        self._sought = None
        held, self._held = self._held, []
        for message in held:
            self._add(message)

    def _add(self, message: Message) -> None:
        stream, data = message
        time_ns, text = _read(data, self._last.time_ns)
        if time_ns < self.mark.time_ns and not self.mark.count:
            return
        count = self._last.count + 1 if time_ns == self._last.time_ns else 1
        self._last = Mark(time_ns, count)
        self._number += 1
        parts = self._parts.setdefault(stream, [])
        # Drivers cut long lines; some leave out the end of what is left of one.
        is_whole = text.endswith(b"\n") or len(text) < CUT_BYTES
        parts.append(_Part(self._number, self._last, text.removesuffix(b"\n")))
        size = sum(len(part.text) for part in parts)
        if is_whole or size + CUT_BYTES > PIECE_BYTES:
            self._complete(stream, parts)

    def _complete(self, stream: LogStream, parts: list[_Part]) -> None:
        text = b"".join(part.text for part in parts)
        first, last = parts[0], parts[-1]
        for begin in range(0, max(1, len(text)), PIECE_BYTES):
            piece = text[begin : begin + PIECE_BYTES]
            line = LogLine(time_ns=first.mark.time_ns, stream=stream, text=piece)
            self.ready.append(_Ready(last.number, last.mark, line))
        parts.clear()


def _read(data: bytes, unless_ns: int) -> tuple[int, bytes]:
    """A message's time and text. One without a time has that of the one before it."""
    stamp, space, text = data.partition(b" ")
    time_ns = parse_time_ns(stamp.decode("ascii", "replace")) if space else None
    return (unless_ns, data) if time_ns is None else (time_ns, text)
