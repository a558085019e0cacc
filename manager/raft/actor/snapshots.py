"""Snapshots: taken, sent, installed, and the journal cut behind them.

A snapshot is durable before anything relies on it, and never replaces what is newer. Taking and
installing exclude each other; while the disk writes, the log goes on.
"""

from __future__ import annotations

import asyncio
import logging

from skep.env import Disk, Fatal
from skep.manager.raft.actor.barrier import Barrier
from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.engine import Engine
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.core import codec, guard, snapshot
from skep.manager.raft.core.model import StateMachine

PATH = "raft/snapshot"

logger = logging.getLogger(__name__)


class SnapshotFailed(Fatal):
    """The disk refused a snapshot, or it doesn't go with the journal."""


class SnapshotStore:
    """The newest snapshot of one node: on its disk and in its state machine."""

    def __init__(self, disk: Disk, state: StateMachine) -> None:
        self.state = state
        self.index = 1
        self._disk = disk

    def recover(self, journal: Journal) -> None:
        """Load what is on disk and fit the journal to it. Raises Fatal errors."""
        first_index = journal.log.first_index
        loaded = self.read()
        if loaded is None:
            if first_index > 1:
                raise SnapshotFailed(
                    f"the journal begins behind entry {first_index}, and the snapshot that holds"
                    " what came before is missing"
                )
            return
        if first_index > loaded.index:
            raise SnapshotFailed(
                f"the snapshot ends at entry {loaded.index}, and the journal begins only behind"
                f" {first_index}"
            )
        if journal.log.term_at(loaded.index) != loaded.term:
            # A crash between an installed snapshot and the journal's reset behind it.
            journal.reset(loaded.index, loaded.term)
        self.state.restore(loaded.index, loaded.state)
        self.index = loaded.index

    def read(self) -> snapshot.Snapshot | None:
        """The snapshot on disk. Raises SnapshotCorrupt."""
        data = self._disk.read(PATH)
        return None if data is None else snapshot.decode_snapshot(data)

    async def replace(self, new: snapshot.Snapshot) -> None:
        """Make a newer one durable. Raises SnapshotFailed."""
        assert new.index >= self.index, (new.index, self.index)
        try:
            await self._disk.replace(PATH, snapshot.encode_snapshot(new))
        except OSError as error:
            raise SnapshotFailed(f"the disk failed under a snapshot: {error}") from error
        self.index = new.index


class Snapshots:
    """The snapshots of one running node."""

    def __init__(
        self,
        context: Context,
        engine: Engine,
        journal: Journal,
        store: SnapshotStore,
        barrier: Barrier,
    ) -> None:
        self._env = context.env
        self._settings = context.settings
        self._stats = context.stats
        self._tasks = context.tasks
        self._engine = engine
        self._journal = journal
        self._store = store
        self._barrier = barrier
        self._last_index = store.index
        self._size_at_last = 0
        self._writing = asyncio.Lock()
        self._is_installing = False
        self._assembly = snapshot.Assembly(context.settings.snapshot_limit_bytes)
        self._sending: dict[int, asyncio.Future[bool]] = {}

    # ---------------------------------------------------------------------------------- taking

    def consider(self) -> None:
        """Take a snapshot if the log has grown enough since the last one."""
        applied, log, settings = self._engine.applied_index, self._journal.log, self._settings
        grown_entries = applied - self._last_index
        grown_bytes = log.size_bytes - self._size_at_last
        # A peer that gets one now needs the entries behind it; but the log has a bound, too.
        patience = 4 if self._sending else 1
        if (
            grown_entries < settings.snapshot_entries * patience
            and grown_bytes < settings.snapshot_bytes * patience
        ):
            return
        if grown_entries <= 0 or self._writing.locked():
            return
        term = log.term_at(applied)
        assert term is not None
        taken = snapshot.Snapshot(applied, term, self._store.state.snapshot())
        self._last_index = applied
        self._tasks.spawn("raft-snapshot", self._save, taken)

    async def _save(self, taken: snapshot.Snapshot) -> None:
        async with self._writing:
            if taken.index < self._store.index:
                return  # A newer one was installed before this one's turn came.
            await self._store.replace(taken)
            self._journal.compact(self._cut(taken.index))
            self._size_at_last = self._journal.log.size_bytes
            self._journal.kick()
        self._stats.snapshots_taken += 1
        logger.info(
            "snapshot node=%s index=%s bytes=%s", self._env.node, taken.index, len(taken.state)
        )

    def _cut(self, index: int) -> int:
        """Where to cut the log: a bounded part of what the snapshot covers is kept."""
        log, kept_bytes = self._journal.log, 0
        entries = log.entries
        lowest = max(log.first_index, index - self._settings.retained_entries)
        while index > lowest:
            kept_bytes += len(entries[index - log.first_index].command)
            if kept_bytes > self._settings.snapshot_bytes // 4:
                break
            index -= 1
        return index

    # --------------------------------------------------------------------------------- sending

    def wanted(self, peer: int) -> None:
        """A peer is so far behind that it needs the snapshot."""
        if peer not in self._sending:
            self._sending[peer] = asyncio.Future()
            self._tasks.spawn(f"raft-snapshot-{peer}", self._send_within_deadline, peer)

    def link_lost(self, peer: int) -> None:
        """What was under way to `peer` is lost."""
        self._settle(peer, is_installed=False)

    def hear_answer(self, peer: int, answer: codec.SnapshotAnswer) -> None:
        """A follower has the snapshot, or wants it from the start."""
        if answer.installed and answer.index <= self._journal.log.last_index:
            self._engine.hear_append_answer(peer, answer.index + 1, matched=True, reset=True)
        self._settle(peer, is_installed=answer.installed)

    def _settle(self, peer: int, *, is_installed: bool) -> None:
        future = self._sending.get(peer)
        if future is not None and not future.done():
            future.set_result(is_installed)

    async def _send_within_deadline(self, peer: int) -> None:
        try:
            deadline_s = self._settings.snapshot_deadline_s
            await self._env.clock.within(deadline_s, self._send_to(peer, self._sending[peer]))
        except TimeoutError:
            logger.warning("snapshot node=%s to=%s why=deadline", self._env.node, peer)
        finally:
            del self._sending[peer]

    async def _send_to(self, peer: int, answered: asyncio.Future[bool]) -> None:
        term = self._engine.term
        loaded = self._store.read()
        assert loaded is not None, "the log was cut without a snapshot"
        logger.info("snapshot node=%s to=%s index=%s", self._env.node, peer, loaded.index)
        for chunk in snapshot.chunks(loaded, term, self._settings.chunk_bytes):
            is_ours = self._engine.is_leader and self._engine.term == term
            if not is_ours or answered.done() or not await self._barrier.room(peer):
                break
            self._barrier.send(peer, chunk)
        else:
            if await answered:
                self._stats.snapshots_sent += 1

    # ------------------------------------------------------------------------------ installing

    def hear_chunk(self, peer: int, chunk: codec.SnapshotChunk) -> None:
        """A piece of the leader's snapshot."""
        if self._is_covered(chunk.index, chunk.index_term):
            self._answer(peer, chunk.index, is_installed=True)
            return
        if self._is_installing:
            # Of an earlier leader's; whoever sends this one would wait for an answer until its
            # deadline.
            if chunk.offset + len(chunk.data) == chunk.size:
                self._answer(peer, chunk.index, is_installed=False)
            return
        result = self._assembly.add(peer, chunk)
        if isinstance(result, str):
            logger.warning("snapshot node=%s from=%s why=%s", self._env.node, peer, result)
            self._answer(peer, chunk.index, is_installed=False)
        elif result is not None:
            self._is_installing = True
            self._tasks.spawn("raft-install", self._install, peer, result)

    async def _install(self, peer: int, new: snapshot.Snapshot) -> None:
        try:
            async with self._writing:
                if not self._is_covered(new.index, new.term):
                    await self._store.replace(new)
                    await self._env.turn()
                    self._last_index = new.index
                # While the disk wrote, the log may have got there by itself.
                if not self._is_covered(new.index, new.term):
                    self._journal.reset(new.index, new.term)
                    self._engine.install(new.index)
                    self._store.state.restore(new.index, new.state)
                    self._size_at_last = 0
                    self._stats.snapshots_installed += 1
                    logger.info("snapshot node=%s installed=%s", self._env.node, new.index)
            self._answer(peer, new.index, is_installed=True)
            self._journal.kick()
        finally:
            self._is_installing = False

    def _is_covered(self, index: int, term: int) -> bool:
        return guard.is_covered(self._journal.log, self._engine.commit_index, index, term)

    def _answer(self, peer: int, index: int, *, is_installed: bool) -> None:
        answer = codec.SnapshotAnswer(self._engine.term, index, installed=is_installed)
        self._barrier.send(peer, answer)
