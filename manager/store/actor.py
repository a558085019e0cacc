"""The store: one writer, many readers.

`update(fn)` runs `fn` over the current state and commits what it wrote. Functions that wait at the
same time are run one over the other and become one Raft command (group commit), so that many
clients share one disk sync and yet nobody ever works on a state that another is changing.

Readers look at `tables` directly: between two awaits nothing moves. Change events reach subscribers
synchronously, in commit order, at the moment the commit is applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from skep.domain.base import SECOND_NS
from skep.env import CallError, Code, Env, Fatal, Rejected, Retryable
from skep.manager.raft.core.model import NotLeader, ProposalUnknown
from skep.manager.store.core.command import (
    COMMAND_BYTES_LIMIT,
    COMMAND_CHANGES_LIMIT,
    Change,
    Database,
    WireChange,
    encode_command,
    wire_size,
)
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction
from skep.manager.store.core.window import ChangeWindow

T = TypeVar("T")

# Writers that may wait; the next is told to slow down, since more would only wait longer.
WRITERS_LIMIT = 1024
COMMIT_DEADLINE_S = 5.0


class NotLeading(Retryable):
    """This manager does not lead, or no longer in the term the caller acts under."""


class WriterQueueFull(Retryable):
    """Too many writers wait; try again in a moment."""


class Unsettled(Retryable):
    """Nothing was done: the outcome of an earlier write has to be known first."""


class OutcomeUnknown(CallError):
    """The write may or may not have been committed; a retry needs the same request id."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.UNKNOWN, message)


class Consensus(Protocol):
    """What the store needs of Raft."""

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads and has applied its first entry of the term."""
        ...

    @property
    def term(self) -> int:
        """The present term."""
        ...

    async def propose(self, command: bytes, *, term: int, deadline_s: float) -> object:
        """Commit and apply a command under exactly `term`. Raises NotLeader (a Retryable) when
        nothing was done, ProposalUnknown when nobody knows."""
        ...

    async def read_index(self, *, deadline_s: float) -> int:
        """Wait until everything committed before the call is applied here."""
        ...


@dataclass
class _Write(Generic[T]):
    fn: Callable[[Transaction], T]
    term: int | None
    done: asyncio.Future[T]


class Store:
    """The database of one manager, and its state machine for Raft."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._database = Database()
        self._consensus: Consensus | None = None
        self._writes: deque[_Write[Any]] = deque()
        self._is_writing = False
        self._unsettled_term: int | None = None
        self._stamped_at = env.now()
        self._subscribers: dict[int, Callable[[list[Change]], None]] = {}
        self._next_subscriber = 0
        self.window = ChangeWindow()
        self.on_restored: Callable[[], None] = lambda: None

    @property
    def tables(self) -> Tables:
        """The committed state, for reading."""
        return self._database.tables

    @property
    def version(self) -> int:
        """The commit index that `tables` are at."""
        return self._database.version

    @property
    def wall_ns(self) -> int:
        """Wall time, never earlier than any stamp in the database. Where this machine's clock is
        behind those stamps, time goes on from them: else every delay would wait until it caught up.
        """
        since_ns = int((self._env.now() - self._stamped_at) * SECOND_NS)
        return max(self._env.wall(), self._database.wall_ns + since_ns)

    def attach(self, consensus: Consensus) -> None:
        """Say who replicates this store."""
        self._consensus = consensus

    # ------------------------------------------------------------------- the state machine

    def apply(self, index: int, command: bytes) -> object:
        """Raft has committed a command."""
        changes = self._database.apply(index, command)
        self._stamped_at = self._env.now()
        self.window.add(index, changes)
        for subscriber in tuple(self._subscribers.values()):
            subscriber(changes)
        return index

    def snapshot(self) -> bytes:
        """The whole state, for Raft's snapshots."""
        return self._database.snapshot()

    def restore(self, index: int, data: bytes) -> None:
        """Raft replaces the whole state."""
        self._database.restore(index, data)
        self._stamped_at = self._env.now()
        self.window.reset(self._database.version)
        self.on_restored()

    # -------------------------------------------------------------------------- for readers

    def subscribe(self, callback: Callable[[list[Change]], None]) -> Callable[[], None]:
        """Call back with each commit's changes; returns how to stop that."""
        number = self._next_subscriber
        self._next_subscriber += 1
        self._subscribers[number] = callback
        return lambda: self._subscribers.pop(number, None) and None

    async def read_barrier(self, deadline_s: float) -> None:
        """After this, `tables` hold every write acknowledged before the call."""
        assert self._consensus is not None
        await self._consensus.read_index(deadline_s=deadline_s)

    # -------------------------------------------------------------------------- for writers

    async def update(self, fn: Callable[[Transaction], T], *, term: int | None = None) -> T:
        """Run `fn` in a transaction, commit what it wrote, and return what it returned.

        `fn` must be a pure function of the transaction; what it raises is raised here, with
        nothing written. With `term`, only under that very term: an actor of a deposed leader
        can't write into a later one. Raises NotLeading, WriterQueueFull, OutcomeUnknown.
        """
        if len(self._writes) >= WRITERS_LIMIT:
            raise WriterQueueFull(f"{WRITERS_LIMIT} writes are waiting; try again in a moment")
        done: asyncio.Future[T] = asyncio.Future()
        self._writes.append(_Write(fn, term, done))
        if not self._is_writing:
            self._is_writing = True
            self._env.spawn("store/writer", self._write_all())
        return await done

    async def _write_all(self) -> None:
        try:
            while self._writes:
                await self._env.turn()
                await self._settle()
                await self._write_some()
        except Exception as error:
            self._fail_waiting(Fatal(f"the store's writer died: {error}"))
            raise
        finally:
            self._is_writing = False

    async def _settle(self) -> None:
        """After a write whose fate nobody knows, let a barrier follow it through the log: what is
        written next must be decided over a state that has it, or never will. A new term is such
        a barrier by itself: a leader of it has applied all that came before."""
        assert self._consensus is not None
        term = self._consensus.term
        if self._unsettled_term != term or not self._consensus.is_leader:
            self._unsettled_term = None
            return
        try:
            barrier = encode_command(self._next_stamp(), [])
            await self._consensus.propose(barrier, term=term, deadline_s=COMMIT_DEADLINE_S)
        except Retryable as error:
            self._fail_waiting(Unsettled(f"an earlier write is still under way: {error}"))
            return
        self._unsettled_term = None

    def _next_stamp(self) -> int:
        """Strictly growing, so that creation times tell the order of any two commits."""
        return max(self.wall_ns, self._database.wall_ns + 1)

    async def _write_some(self) -> None:
        """Run waiting functions until the command is full, and commit it."""
        assert self._consensus is not None
        term = self._consensus.term
        batch: list[tuple[_Write[Any], Any]] = []
        changes: list[WireChange] = []
        size = 0
        now_ns = self._next_stamp()
        outer = Transaction(self._database.tables, now_ns)
        while self._writes:
            write = self._writes[0]
            inner = Transaction(outer, now_ns)
            try:
                if not self._consensus.is_leader or write.term not in (None, term):
                    raise NotLeading("this manager does not lead (any more)")
                result = write.fn(inner)
                added = inner.changes()
                added_size = sum(wire_size(change) for change in added)
                if _is_too_big(len(added), added_size):
                    raise Rejected("the change is too big for one command; split it")
            except Exception as error:
                self._writes.popleft()
                _fail(write.done, error)
                continue
            if _is_too_big(len(changes) + len(added), size + added_size):
                break
            self._writes.popleft()
            outer.merge(inner)
            changes += added
            size += added_size
            batch.append((write, result))
        if batch:
            await self._commit(batch, encode_command(now_ns, changes) if changes else None, term)

    async def _commit(
        self, batch: list[tuple[_Write[Any], Any]], command: bytes | None, term: int
    ) -> None:
        assert self._consensus is not None
        if command is not None:
            try:
                await self._consensus.propose(command, term=term, deadline_s=COMMIT_DEADLINE_S)
            except Exception as error:
                failure = _outcome(error)
                if isinstance(failure, OutcomeUnknown):
                    self._unsettled_term = term
                for write, _ in batch:
                    _fail(write.done, failure)
                if not isinstance(error, Retryable):
                    raise
                return
        for write, result in batch:
            if not write.done.done():
                write.done.set_result(result)

    def _fail_waiting(self, error: Exception) -> None:
        while self._writes:
            _fail(self._writes.popleft().done, error)


def _outcome(error: Exception) -> Exception:
    """Raft's word on a proposal, in the store's terms."""
    match error:
        case ProposalUnknown():
            return OutcomeUnknown(f"the write may or may not have happened: {error}")
        case NotLeader():
            return NotLeading(str(error))
    return error


def _is_too_big(changes: int, size_bytes: int) -> bool:
    return changes > COMMAND_CHANGES_LIMIT or size_bytes > COMMAND_BYTES_LIMIT


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
