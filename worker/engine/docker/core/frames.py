"""The bytes of an engine's log stream, cut into the messages that its log driver has kept.

Without a terminal, each message comes in a frame: the stream's number, three zeros, the length in
four bytes, the message. With one there are no frames; messages follow each other, and those that a
driver has cut out of a long line have no end of line between them.
"""

from __future__ import annotations

import re

from skep.domain.control import LogStream
from skep.env import Fatal

Message = tuple[LogStream, bytes]

_HEADER = 8
_STREAMS = {1: LogStream.STDOUT, 2: LogStream.STDERR}
# Drivers keep messages of 16 KiB, some of a mebibyte. Beyond this it is no log stream.
FRAME_LIMIT_BYTES = 16 * 1024 * 1024
# Where drivers cut lines.
CUT_BYTES = 16 * 1024
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) ")
_STAMP_BYTES = 36


class Frames:
    """A stream with frames."""

    def __init__(self) -> None:
        self._waiting = b""

    def take(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete. Raises Fatal for what is no such stream."""
        whole = self._waiting + data
        found: list[Message] = []
        place = 0
        while len(whole) - place >= _HEADER:
            length = int.from_bytes(whole[place + 4 : place + _HEADER])
            if whole[place + 1 : place + 4] != b"\0\0\0" or length > FRAME_LIMIT_BYTES:
                raise Fatal("the engine sends something else than the frames of a log")
            begin = place + _HEADER
            if len(whole) < begin + length:
                break
            stream = _STREAMS.get(whole[place])
            # The others are the engine's own affairs.
            if stream is not None:
                found.append((stream, whole[begin : begin + length]))
            place = begin + length
        self._waiting = whole[place:]
        return found

    def rest(self) -> list[Message]:
        """At the end of the stream: half a frame is of no use."""
        return []


class TerminalFrames:
    """A stream without frames: all of it is the terminal's, which is stdout."""

    def __init__(self) -> None:
        self._waiting = b""
        self._was_cut = False

    def take(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        whole = self._waiting + data
        found: list[Message] = []
        place = 0
        while (end := self._end(whole, place)) is not None:
            found.append(self._message(whole[place:end]))
            place = end
        self._waiting = whole[place:]
        return found

    def rest(self) -> list[Message]:
        """What waits, at the end of the stream."""
        waiting, self._waiting = self._waiting, b""
        return [self._message(waiting)] if waiting else []

    def _message(self, text: bytes) -> Message:
        if not self._was_cut:
            text = text.removesuffix(b"\n").removesuffix(b"\r") + b"\n"
        return LogStream.STDOUT, text

    def _end(self, whole: bytes, place: int) -> int | None:
        """Where the message ends that begins at `place`; None while that can't be said."""
        stamp = _STAMP.match(whole, place, place + _STAMP_BYTES)
        begin = stamp.end() if stamp else place
        cut = begin + CUT_BYTES
        newline = whole.find(b"\n", begin, cut + 1)
        if self._was_cut:
            # Some drivers keep the last message of a line that was cut without the line's end.
            following = _STAMP.search(whole, begin, cut if newline < 0 else newline)
            if following:
                self._was_cut = False
                return following.start()
        if newline < 0 and len(whole) < cut + _STAMP_BYTES:
            return None
        self._was_cut = newline < 0 and bool(_STAMP.match(whole, cut, cut + _STAMP_BYTES))
        if newline >= 0:
            return newline + 1
        if self._was_cut:
            return cut
        # A driver that cuts elsewhere, or not at all.
        newline = whole.find(b"\n", cut)
        if newline >= 0:
            return newline + 1
        return len(whole) if len(whole) - place > FRAME_LIMIT_BYTES else None
