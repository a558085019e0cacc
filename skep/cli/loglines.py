"""How lines of many tasks are put in order, and how each one looks."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from skep.cli.output import ID_SHOWN
from skep.domain.base import SECOND_NS, TaskId
from skep.domain.control import LogEvent, LogLine

GAP = b"    | "
# Not red, which is for errors, nor black and white, which may be the background.
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


@dataclass
class Merge:
    """Puts lines in the order of their times. Events come in the order of their first lines, so
    what is older than an event's first line can't be preceded by anything any more: what waits is
    at most one event of each node."""

    _waiting: list[tuple[int, int, LogEvent, LogLine]] = field(default_factory=list)
    _serial: int = 0

    def add(self, event: LogEvent) -> Iterator[tuple[LogEvent, LogLine]]:
        """Take an event in; the lines whose turn has come."""
        if event.lines:
            yield from self._until(event.lines[0].time_ns)
        for line in event.lines:
            self._serial += 1
            heapq.heappush(self._waiting, (line.time_ns, self._serial, event, line))

    def rest(self) -> Iterator[tuple[LogEvent, LogLine]]:
        """All that waits."""
        yield from self._until(None)

    def _until(self, time_ns: int | None) -> Iterator[tuple[LogEvent, LogLine]]:
        while self._waiting and (time_ns is None or self._waiting[0][0] <= time_ns):
            _, _, event, line = heapq.heappop(self._waiting)
            yield event, line


@dataclass
class Missing:
    """What can't be had of tasks, and why: where that is the same of many, as with those of a node
    that is down, it is told once."""

    task_ids: set[TaskId | None] = field(default_factory=set)
    _by_reason: dict[str, list[LogEvent]] = field(default_factory=dict)

    def add(self, event: LogEvent) -> None:
        """Take in an event with a problem."""
        self.task_ids.add(event.task_id)
        self._by_reason.setdefault(_shared_reason(event) or event.problem, []).append(event)

    def told_now(self, event: LogEvent) -> str | None:
        """What to say of an event at once, where nobody knows how many more there will be; None
        if that was said, and the node has not been heard of since."""
        reason = _shared_reason(event)
        if event.lines:
            self._by_reason = {
                why: events
                for why, events in self._by_reason.items()
                if events[0].node_name != event.node_name
            }
        if not event.problem:
            return None
        is_new = reason is None or reason not in self._by_reason
        self.add(event)
        if not is_new:
            return None
        return f"{reason}: the output of its tasks can't be had" if reason else event.problem

    def lines(self) -> list[str]:
        """All of it, a line for each reason."""
        return [
            f"{why}: the output of {len(events)} tasks can't be had"
            if len(events) > 1 and _shared_reason(events[0])
            else events[0].problem
            for why, events in self._by_reason.items()
        ]


# What managers say of one task, after what they say of its node.
_OF_ONE_TASK = re.compile(r"(.+?): the (?:rest of the )?output of \S+ can't be had")


def _shared_reason(event: LogEvent) -> str | None:
    found = _OF_ONE_TASK.fullmatch(event.problem)
    return found[1] if found else None


@dataclass
class Looks:
    """How lines look. `titles` are the prefixes by task id; they are padded to one width as far as
    they are known."""

    is_raw: bool = False
    is_timed: bool = False
    is_whole: bool = False
    titles: dict[str, str] = field(default_factory=dict)
    _width: int = 0

    def entitle(self, task_id: str, name: str, node: str) -> None:
        """Lines of this task begin with this."""
        shown = task_id if self.is_whole else task_id[:ID_SHOWN]
        self.titles[task_id] = f"{name}.{shown}@{node}"
        self._width = max(self._width, len(self.titles[task_id]))

    def line(self, event: LogEvent, line: LogLine, *, is_safe: bool, is_coloured: bool) -> bytes:
        """One line with its end. `is_safe` leaves nothing in it that could move a cursor."""
        parts = []
        if self.is_timed:
            parts.append(f"{rfc3339(line.time_ns)} ".encode())
        if not self.is_raw:
            task_id = event.task_id or ""
            if task_id not in self.titles:
                self.entitle(task_id, event.task_name, event.node_name)
            title = self.titles[task_id]
            shown = f"{title:{self._width}}"
            if is_coloured:
                colour = _COLOURS[sum(title.encode()) % len(_COLOURS)]
                shown = f"\x1b[{colour}m{shown}\x1b[0m"
            parts += [shown.encode(), GAP]
        parts += [safe(line.text) if is_safe else line.text, b"\n"]
        return b"".join(parts)


def rfc3339(time_ns: int) -> str:
    """A wall time in UTC, to the nanosecond."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def safe(text: bytes) -> bytes:
    """Text for a terminal: what isn't printable is shown as an escape."""
    # A line that ends as Windows has it is a line as well.
    decoded = text.removesuffix(b"\r").decode(errors="backslashreplace")
    if decoded.isprintable():
        return decoded.encode()
    shown = (
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
        for char in decoded
    )
    return "".join(shown).encode()
