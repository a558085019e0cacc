"""The log in memory: what guard, engine and journal all look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# The first byte of an entry says what it is, with the numbers that PySyncObj gives them.
COMMAND = b"\x00"
NOTHING = b"\x01"


class LogEntry(NamedTuple):
    """One entry, in the order of fields that PySyncObj's log has."""

    command: bytes
    index: int  # type: ignore[assignment]  # nobody calls tuple.index of one
    term: int


class Log:
    """Entries without a gap. The first stands for all that came before it, and is committed.

    Every log begins with the same entry (index 1, term 0), so that an empty one has a last entry
    too. After compaction the first is the last one that was cut off.
    """

    def __init__(self, index: int = 1, term: int = 0) -> None:
        self._entries = [LogEntry(NOTHING, index, term)]
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first_index(self) -> int:
        """Index of the entry that stands for what was cut off."""
        return self._entries[0].index

    @property
    def first_term(self) -> int:
        """Its term."""
        return self._entries[0].term

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""
        return self._entries[-1].index

    @property
    def last_term(self) -> int:
        """Its term."""
        return self._entries[-1].term

    @property
    def entries(self) -> list[LogEntry]:
        """All of them, the first included; not to be changed."""
        return self._entries

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, or None where the log doesn't hold it."""
        place = index - self._entries[0].index
        return self._entries[place].term if 0 <= place < len(self._entries) else None

    def add(self, entry: LogEntry) -> None:
        """Append the next entry."""
        assert entry.index == self.last_index + 1, (entry.index, self.last_index)
        assert entry.term >= self.last_term, (entry.term, self.last_term)
        self._entries.append(entry)
        self.size_bytes += len(entry.command)

    def truncate(self, index: int) -> None:
        """Remove the entry at `index` and all after it."""
        assert index > self.first_index, (index, self.first_index)
        place = index - self.first_index
        self._forget(self._entries[place:])
        del self._entries[place:]

    def drop_before(self, index: int) -> None:
        """Cut off everything up to `index`, which becomes the first entry."""
        place = index - self.first_index
        assert 0 <= place < len(self._entries), (index, self.first_index, self.last_index)
        self._forget(self._entries[1 : place + 1])
        self._entries[: place + 1] = [LogEntry(NOTHING, index, self._entries[place].term)]

    def reset(self, index: int, term: int) -> None:
        """Forget everything; a snapshot holds all up to `index`."""
        self._entries = [LogEntry(NOTHING, index, term)]
        self.size_bytes = 0

    def check_invariants(self) -> None:
        """Called by tests and the simulator."""
        for earlier, later in zip(self._entries, self._entries[1:], strict=False):
            assert later.index == earlier.index + 1, (earlier, later)
            assert later.term >= earlier.term, (earlier, later)
        assert self.size_bytes == sum(len(entry.command) for entry in self._entries[1:])

    def _forget(self, entries: Iterable[LogEntry]) -> None:
        self.size_bytes -= sum(len(entry.command) for entry in entries)
