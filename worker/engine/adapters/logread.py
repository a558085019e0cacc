"""Reading a task's output: both streams, merged by the times of their lines, a page at a time.

A reader goes as far as the keeper has looked, so that every line has a time when it is read. All
but `read`, `more` and `close` happens in the keeper's thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from skep.domain.base import TaskId
from skep.domain.control import LogLine, LogStream
from skep.worker.engine.adapters import logs
from skep.worker.engine.adapters.logkeeper import LogKeeper, Place, StreamFiles, TaskFiles
from skep.worker.engine.core.lines import Line, Splitter, read_position, write_position
from skep.worker.engine.core.timeline import Timeline
from skep.worker.engine.protocol import LogChunk, LogQuery

CHUNK_BYTES = 32 * 1024
# A page is converted and sent in one go; it must not hold the loop for more than a millisecond.
PAGE_BYTES = 32 * 1024
PAGE_LINES = 200
# Lines that are counted backwards before the keeper's thread turns to something else.
STEP_LINES = 2000

STREAMS = (LogStream.STDOUT, LogStream.STDERR)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `begin` to `end` of a stream, in a file where the first of them is at `at`."""

    path: Path
    at: int
    begin: int
    end: int


def parts(files: StreamFiles) -> list[Part]:
    """What is kept of a stream as far as it has been looked at, newest first."""
    tracker = files.tracker
    head = 0
    try:
        with logs.opened(files.live) as fd:
            head = logs.first_byte(fd)
    except OSError:
        pass
    begin = min(tracker.base + head, tracker.end)
    found = [Part(files.live, begin - tracker.base, begin, tracker.end)]
    end = tracker.moved
    for path, size in files.older():
        found.append(Part(path, 0, end - size, end))
        end -= size
    return [part for part in found if part.begin < part.end]


def read_part(part: Part, begin: int, length: int) -> bytes:
    """Bytes of a part from `begin` on; fewer, or none, where the task has truncated its file."""
    try:
        with logs.opened(part.path) as fd:
            return os.pread(fd, min(length, part.end - begin), part.at + begin - part.begin)
    except OSError:
        return b""


def line_begins(files: StreamFiles) -> Iterator[tuple[int, int]]:
    """(begin, end) of each line that is kept, newest first."""
    end: int | None = None
    last = 0
    for part in parts(files):
        if end is None or part.end != last:
            if end is not None and last < end:
                # Bytes are missing in between: a line begins after them.
                yield last, end
            end = part.end
        stop = part.end
        while stop > part.begin:
            start = max(part.begin, stop - CHUNK_BYTES)
            data = read_part(part, start, stop - start)
            place = len(data)
            while (place := data.rfind(b"\n", 0, place)) >= 0:
                begin = start + place + 1
                if begin < end:
                    yield begin, end
                end = begin
            stop = start
        last = part.begin
    if end is not None and last < end:
        yield last, end


@dataclass
class StreamReader:
    """One stream as one reader sees it. `ready` are lines with their times, `place` is after the
    last one that was taken; nothing is read beyond `until`."""

    name: LogStream
    files: StreamFiles
    timeline: Timeline
    splitter: Splitter = field(default_factory=lambda: Splitter(0))
    ready: deque[tuple[int, Line]] = field(default_factory=deque)
    place: int = 0
    since_ns: int = 0
    until: int | None = None
    lost_bytes: int = 0

    def begin(self, offset: int) -> None:
        """Read from this offset on."""
        self.splitter = Splitter(offset)
        self.place = offset

    def fill(self, *, is_final: bool) -> None:
        """Get at least one line ready, if there is one."""
        while not self.ready:
            part = self._next_part()
            data = b"" if part is None else read_part(part, self.splitter.at, CHUNK_BYTES)
            if part is None or not data:
                if is_final:
                    self._dated(self.splitter.rest())
                if part is not None:
                    self.splitter.at = part.end
                    continue
                return
            self._dated(self.splitter.take(self.splitter.at, data))

    def _next_part(self) -> Part | None:
        """The part that holds the next byte. What comes before all that is kept is lost."""
        at = self.splitter.at
        following = [part for part in parts(self.files) if part.end > at]
        if not following:
            return None
        part = following[-1]
        if self.until is not None and max(part.begin, at) >= self.until:
            return None
        if part.begin > at:
            if self.place:
                # What the task has truncated itself is no loss of ours.
                self.lost_bytes += max(0, min(part.begin, self.files.tracker.moved) - at)
            self._dated(self.splitter.rest())
            self.splitter.at = part.begin
        return part if self.until is None else replace(part, end=min(part.end, self.until))

    def _dated(self, found: list[Line]) -> None:
        for line in found:
            time_ns = self.timeline.time_of(line.end, self.files.tracker.last_ns)
            if time_ns >= self.since_ns:
                self.ready.append((time_ns, line))
            else:
                self.place = line.end

    def pop(self) -> LogLine:
        """The next ready line."""
        time_ns, line = self.ready.popleft()
        self.place = line.end
        return LogLine(time_ns=time_ns, stream=self.name, text=line.text)


class TaskReader:
    """See `skep.worker.engine.protocol.LogReader`. `has_ended` says whether the task has: one that
    waits to be started has not."""

    def __init__(
        self, keeper: LogKeeper, task_id: TaskId, query: LogQuery, has_ended: Callable[[], bool]
    ) -> None:
        self._keeper = keeper
        self._has_ended = has_ended
        self._task_id = task_id
        self._query = query
        self._task: TaskFiles
        self._streams: tuple[StreamReader, ...] = ()
        self._changed = asyncio.Event()
        self._position = ""

    async def open(self, place: Place) -> None:
        """Find where to begin."""
        self._task = await self._keeper.task(self._task_id, place)
        self._task.changed.add(self._changed)
        try:
            await self._keeper.run(self._begin)
            scan = self._scan()
            while not await self._keeper.run(next, scan, True):
                pass
            self._position = self._stands()
        except BaseException:
            self.close()
            raise

    @property
    def position(self) -> str:
        """See `LogReader.position`."""
        return self._position

    async def read(self) -> LogChunk:
        """See `LogReader.read`."""
        self._changed.clear()
        # In this order: what a running task writes after the look is for the next time.
        is_over = self._task.is_gone or self._has_ended()
        chunk = await self._keeper.run(self._page, is_over)
        self._position = chunk.position
        return chunk

    async def more(self) -> None:
        """See `LogReader.more`."""
        await self._changed.wait()

    def close(self) -> None:
        """See `LogReader.close`."""
        self._task.changed.discard(self._changed)
        self._keeper.run_later(self._release)

    def _release(self) -> None:
        for stream in self._streams:
            stream.files.listeners.remove(stream.timeline.add)
        self._streams = ()

    def _begin(self) -> None:
        self._streams = tuple(
            StreamReader(name, files, files.load())
            for name, files in zip(STREAMS, self._task.streams, strict=True)
        )
        for stream in self._streams:
            stream.files.listeners.append(stream.timeline.add)
            if not self._query.is_follow:
                stream.until = stream.files.tracker.end
        offsets = read_position(self._query.position)
        for number, stream in enumerate(self._streams):
            if offsets is not None and offsets[number] <= stream.files.tracker.end:
                stream.begin(offsets[number])

    def _scan(self) -> Iterator[bool]:
        """Go to where `tail` and `since_ns` begin, a step at a time: True when that is done."""
        query = self._query
        if read_position(query.position) is not None:
            return
        if query.tail is not None:
            yield from self._scan_tail(query.tail)
        for stream in self._streams:
            if query.since_ns is None:
                continue
            stream.since_ns = query.since_ns
            earliest = stream.timeline.begin_of(query.since_ns)
            if earliest > stream.place:
                # The line that holds this byte may have ended later.
                stream.begin(_line_begin(stream.files, earliest))

    def _scan_tail(self, count: int) -> Iterator[bool]:
        lines = [line_begins(stream.files) for stream in self._streams]
        heads = [next(each, None) for each in lines]
        for stream in self._streams:
            stream.begin(stream.files.tracker.end)
        for number in range(count):
            if number % STEP_LINES == STEP_LINES - 1:
                yield False
            newest = max(
                (
                    (stream.timeline.time_of(head[1], stream.files.tracker.last_ns), place)
                    for place, (stream, head) in enumerate(zip(self._streams, heads, strict=True))
                    if head is not None
                ),
                default=None,
            )
            if newest is None:
                return
            place = newest[1]
            head = heads[place]
            assert head is not None
            self._streams[place].begin(head[0])
            heads[place] = next(lines[place], None)

    def _page(self, is_over: bool) -> LogChunk:
        is_final = is_over or not self._query.is_follow
        lines: list[LogLine] = []
        size = 0
        ready = list(self._streams)
        while size < PAGE_BYTES and len(lines) < PAGE_LINES:
            for stream in ready:
                stream.fill(is_final=is_final)
            # One that has no more has no more until the keeper has looked again.
            ready = [stream for stream in ready if stream.ready]
            if not ready:
                break
            line = min(ready, key=lambda stream: stream.ready[0][0]).pop()
            lines.append(line)
            size += len(line.text)
        lost_bytes = sum(stream.lost_bytes for stream in self._streams)
        for stream in self._streams:
            stream.lost_bytes = 0
            stream.timeline.forget_before(stream.place)
        return LogChunk(
            lines=tuple(lines),
            position=self._stands(),
            lost_bytes=lost_bytes,
            is_end=is_final and not any(stream.ready for stream in self._streams) and not lines,
        )

    def _stands(self) -> str:
        out, err = (stream.place for stream in self._streams)
        return write_position((out, err))


def _line_begin(files: StreamFiles, offset: int) -> int:
    """Where the line begins that holds the byte at `offset`, or the one before it ends."""
    for part in parts(files):
        stop = min(part.end, offset)
        while stop > part.begin:
            start = max(part.begin, stop - CHUNK_BYTES)
            newline = read_part(part, start, stop - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            stop = start
    return 0
