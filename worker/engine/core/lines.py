"""Bytes of a stream, cut into lines that know where they stand; and a reader's place as text."""

from __future__ import annotations

from dataclasses import dataclass

# A line may be as long as it likes; nobody must hold all of it in memory.
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end (or a piece of a very long one). `end` is the offset after it."""

    end: int
    text: bytes


@dataclass
class Splitter:
    """Cuts a stream from offset `at` on. What follows the last line's end waits for more."""

    at: int
    waiting: bytes = b""

    def take(self, offset: int, data: bytes) -> list[Line]:
        """The lines that these bytes complete. Where bytes before them are lost, what waits is as
        much as there will be of its line."""
        found = self.rest() if offset != self.at else []
        begin = offset - len(self.waiting)
        whole = self.waiting + data
        start = 0
        while start < len(whole):
            # One byte more than a piece: a line that just fills one has its end there.
            stop = whole.find(b"\n", start, start + PIECE_BYTES + 1)
            if stop >= 0:
                found.append(Line(begin + stop + 1, whole[start:stop]))
                start = stop + 1
            elif len(whole) - start > PIECE_BYTES:
                stop = start + PIECE_BYTES
                found.append(Line(begin + stop, whole[start:stop]))
                start = stop
            else:
                break
        self.waiting = whole[start:]
        self.at = offset + len(data)
        return found

    def rest(self) -> list[Line]:
        """What waits, as a line: nothing more comes of it."""
        waiting, self.waiting = self.waiting, b""
        return [Line(self.at, waiting)] if waiting else []


def write_position(offsets: tuple[int, int]) -> str:
    """Where a reader stands in both streams, for others to keep and to hand back."""
    return f"{offsets[0]}.{offsets[1]}"


def read_position(text: str) -> tuple[int, int] | None:
    """What `write_position` wrote; None for anything else."""
    first, dot, second = text.partition(".")
    # More digits than any disk has bytes are no offset.
    if not (dot and first.isdecimal() and second.isdecimal() and len(text) <= 40):
        return None
    return int(first), int(second)
