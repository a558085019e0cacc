"""The journal: term, vote and entries, durable by group commit.

Everything is recorded in memory first and written by one task: what has gathered while the disk was
busy goes out as one batch with one sync. `sequence` counts the records made and `durable` those
that are on disk; whoever promises something to another node waits until `durable` has reached the
`sequence` of the promise. An error of the disk is fatal and never retried: after a failed sync
nobody knows what the disk holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from skep.env import Fatal, File
from skep.manager.raft.actor.context import Context
from skep.manager.raft.core import records
from skep.manager.raft.core.log import Log, LogEntry

PATH = "raft/journal"

logger = logging.getLogger(__name__)


class JournalFailed(Fatal):
    """The disk refused a write or a sync."""


class Journal:
    """One node's journal. `open` first; then `run` as a task."""

    def __init__(self, context: Context, on_durable: Callable[[], None]) -> None:
        self.log = Log()
        self.term = 0
        self.voted_for: int | None = None
        self.sequence = 0
        self.durable = 0
        self.durable_index = 1
        self._env = context.env
        self._stats = context.stats
        self._opened = records.Opened(records.FORMAT, context.cluster, context.me)
        self._on_durable = on_durable
        self._file: File | None = None
        self._pending: list[bytes] = []
        self._rewrite_wanted = False
        self._writing_index = 1
        self._work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def open(self) -> None:
        """Read what is on disk, without an unfinished write. Raises JournalCorrupt, JournalFailed.

        All of it is written anew. What was read may be in the kernel's memory only: after a failed
        sync the kernel shows pages that it will never write, and says no more about them.
        """
        data = self._env.disk.read(PATH) or b""
        replayed = records.replay(data)
        records.check_owner(replayed.opened, self._opened.cluster, self._opened.raft_id)
        self.log, self.term, self.voted_for = replayed.log, replayed.term, replayed.voted_for
        if torn_bytes := len(data) - replayed.size:
            logger.warning("journal node=%s cut=%d why=torn tail", self._env.node, torn_bytes)
        try:
            await self._rewrite()
        except OSError as error:
            raise JournalFailed(f"can't write the journal: {error}") from error
        self.durable_index = self._writing_index = self.log.last_index

    # ------------------------------------------------------------------------------- recording

    def add(self, entry: LogEntry) -> None:
        """Record the next entry."""
        self.log.add(entry)
        self._record(records.Appended(entry.index, entry.term, entry.command))

    def truncate(self, index: int) -> None:
        """Record that the entry at `index` and all after it are gone."""
        if index > self.log.last_index:
            return
        self.log.truncate(index)
        self._record(records.Truncated(index))
        self.durable_index = min(self.durable_index, index - 1)
        self._writing_index = min(self._writing_index, index - 1)

    def set_hard_state(self, term: int, voted_for: int | None) -> None:
        """Record the term and the vote."""
        if (term, voted_for) != (self.term, self.voted_for):
            self.term, self.voted_for = term, voted_for
            self._record(records.HardState(term, voted_for))

    def reset(self, index: int, term: int) -> None:
        """Record that a snapshot, durable already, replaces all entries."""
        self.log.reset(index, term)
        self._record(records.Reset(index, term))
        self.durable_index = self._writing_index = index

    def compact(self, index: int) -> None:
        """Cut off everything up to `index`, which a durable snapshot covers."""
        if index > self.log.first_index:
            self.log.drop_before(index)
            self._rewrite_wanted = True
            self.sequence += 1

    def _record(self, record: records.AnyRecord) -> None:
        self._pending.append(records.encode_body(record))
        self.sequence += 1

    # --------------------------------------------------------------------------------- writing

    def kick(self) -> None:
        """Write what has gathered, now."""
        if self.sequence > self.durable:
            self._is_idle.clear()
            self._work.set()

    async def run(self) -> None:
        """Write batches for ever. Raises JournalFailed."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self.sequence > self.durable:
                try:
                    await self._write_batch()
                except OSError as error:
                    raise JournalFailed(f"the disk failed under the journal: {error}") from error
            self._is_idle.set()

    async def idle(self) -> None:
        """Wait until nothing is left to write."""
        self.kick()
        await self._is_idle.wait()

    def close(self) -> None:
        """Give the file back; what wasn't synced may be lost."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _write_batch(self) -> None:
        started = self._env.now()
        bodies, self._pending = self._pending, []
        sequence, self._writing_index = self.sequence, self.log.last_index
        if self._rewrite_wanted:
            self._rewrite_wanted = False
            await self._rewrite()
        else:
            assert self._file is not None
            self._file.append(records.encode_batch(bodies, self._file.size()))
            await self._file.sync()
        await self._env.turn()
        self._stats.on_fsync_s(self._env.now() - started)
        self.durable = sequence
        self.durable_index = max(self.durable_index, self._writing_index)
        self._on_durable()

    async def _rewrite(self) -> None:
        """Replace the file by one that holds what is in memory, which includes every record."""
        whole = records.snapshot_of(self.log, self._opened, self.term, self.voted_for)
        self.close()
        await self._env.disk.replace(PATH, whole)
        self._file = self._env.disk.open(PATH)
