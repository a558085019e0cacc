"""When the parts of a stream of output were written: marks beside the stream's files.

A task appends to plain files, so no line carries a time. Whoever looks at the file now and then
notes "at this wall time the stream was this long". A line was written between the last mark before
its end and the first mark at or after it; the latter is the line's time.

Offsets are logical: bytes since the stream began. Rotation takes bytes away from the beginning of
the live file, and a task may truncate it; both move the file's base, which is noted as well, so
that an offset names the same byte for ever.

The notes are records of one size with a checksum each. What is torn, missing or out of order is
passed over; then the times are coarser, and that is all.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

TIMELINE_FORMAT = 1

# As much of a file's end as tells whether its task has written the file anew.
TAIL_BYTES = 64

# Ten marks a second make 12 kB a minute; this holds forty minutes at the full rate. Beyond it every
# other mark of the older half goes, so that times grow coarser with age and never run out.
TIMELINE_LIMIT_BYTES = 512 * 1024

_RECORD = struct.Struct("<BqqI")
RECORD_BYTES = _RECORD.size
_HEAD, _MARK, _BASE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Mark:
    """At `wall_ns` the stream was `end` bytes long."""

    wall_ns: int
    end: int


@dataclass(frozen=True, slots=True)
class Base:
    """The live file's first byte is the stream's byte `base`; its older files end at `moved`."""

    base: int
    moved: int


Note = Mark | Base


def encode(notes: Sequence[Note]) -> bytes:
    """Notes as they are appended to the file."""
    parts = []
    for note in notes:
        match note:
            case Mark(wall_ns, end):
                parts.append(_record(_MARK, wall_ns, end))
            case Base(base, moved):
                parts.append(_record(_BASE, base, moved))
    return b"".join(parts)


def header() -> bytes:
    """What a file of notes begins with."""
    return _record(_HEAD, TIMELINE_FORMAT, 0)


def _record(kind: int, first: int, second: int) -> bytes:
    data = _RECORD.pack(kind, first, second, 0)[:-4]
    return data + zlib.crc32(data).to_bytes(4, "little")


@dataclass
class Timeline:
    """The notes of one stream. Marks grow in both their numbers."""

    walls: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    base: int = 0
    moved: int = 0

    @property
    def end(self) -> int:
        """How long the stream was when it was last marked."""
        return max(self.base, self.ends[-1] if self.ends else 0)

    @property
    def last_ns(self) -> int:
        """When it was last marked; 0 for never."""
        return self.walls[-1] if self.walls else 0

    def add(self, note: Note) -> None:
        """Take in the next note; one that contradicts those before it is passed over."""
        match note:
            case Mark(wall_ns, end):
                if wall_ns >= self.last_ns and end > (self.ends[-1] if self.ends else 0):
                    self.walls.append(wall_ns)
                    self.ends.append(end)
            case Base(base, moved):
                if base >= self.base and moved >= self.moved:
                    self.base, self.moved = base, moved

    def time_of(self, end: int, fallback_ns: int) -> int:
        """The wall time of a line that ends at `end`; `fallback_ns` where no mark reaches."""
        place = bisect_left(self.ends, end)
        return self.walls[place] if place < len(self.ends) else max(fallback_ns, self.last_ns)

    def begin_of(self, since_ns: int) -> int:
        """An offset before which everything was written earlier than `since_ns`."""
        place = bisect_left(self.walls, since_ns)
        return self.ends[place - 1] if place else 0

    def notes(self) -> list[Note]:
        """All of it, as notes."""
        marks = map(Mark, self.walls, self.ends)
        return [Base(self.base, self.moved), *marks]

    def forget_before(self, offset: int) -> None:
        """Let go of marks that no byte from `offset` on needs, but for the last mark."""
        place = min(bisect_left(self.ends, offset), max(0, len(self.ends) - 1))
        del self.walls[:place], self.ends[:place]

    def thin(self) -> None:
        """Let go of every other mark of the older half."""
        half = len(self.walls) // 2
        # Of two marks the later one stays: it has a time for the bytes of both.
        self.walls[:half] = self.walls[1:half:2]
        self.ends[:half] = self.ends[1:half:2]


def decode(data: bytes) -> Timeline | None:
    """The notes in a file; None where it is of another format, or no such file at all."""
    if len(data) < RECORD_BYTES or data[:RECORD_BYTES] != header():
        return None
    found = Timeline()
    whole = len(data) // RECORD_BYTES * RECORD_BYTES
    for start in range(RECORD_BYTES, whole, RECORD_BYTES):
        kind, first, second, checksum = _RECORD.unpack_from(data, start)
        if zlib.crc32(data[start : start + RECORD_BYTES - 4]) != checksum:
            continue
        if kind == _MARK:
            found.add(Mark(first, second))
        elif kind == _BASE:
            found.add(Base(first, second))
    return found


@dataclass
class Tracker:
    """One stream as it grows: what each look at its live file tells, as notes to keep.

    `end`, `last_ns`, `base` and `moved` are the timeline's. `size` is the live file's at the last
    look, `tail` its last bytes then, as far as they are known; `changed_ns` its own time, None
    after a start, or after the engine itself has changed the file.
    """

    end: int
    last_ns: int
    base: int
    moved: int
    size: int
    changed_ns: int | None = None
    tail: bytes = b""

    def looked(self, size: int, changed_ns: int, now_ns: int, *, is_same: bool) -> list[Note]:
        """The live file has this size, was last changed then, and it is now; `is_same` says that
        `tail` is still where it was. (Its time alone tells nothing: a write changes it before it
        changes the size, and so does one that fails.)"""
        notes: list[Note] = []
        if size < self.size or not is_same:
            # The task has truncated it: what is there now was written after all that was known.
            self.base, self.size = self.end, 0
            notes.append(Base(self.base, self.moved))
        if size > self.size:
            # A file's time is the moment of its last write, which tells more than the time of this
            # look; but clocks are set, and files touched.
            self.last_ns = max(self.last_ns, min(changed_ns, now_ns))
            self.end = self.base + size
            notes.append(Mark(self.last_ns, self.end))
        self.size, self.changed_ns = size, changed_ns
        return notes

    def rotated(self, moved: int, removed: int) -> list[Note]:
        """What comes before byte `moved` of the live file is in older files (or dropped), and the
        file's first `removed` bytes were taken out of it."""
        self.moved = self.base + moved
        self.base += removed
        kept = max(0, self.size - moved)
        self.tail = self.tail[-kept:] if kept else b""
        self.size = max(0, self.size - removed)
        self.changed_ns = None
        return [Base(self.base, self.moved)]


def tracker(line: Timeline) -> Tracker:
    """Goes on where a timeline ends."""
    size = line.end - line.base
    return Tracker(line.end, line.last_ns, line.base, line.moved, size)
