"""Linearizable reads on the leader: the futures and frames round `core.readindex`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.engine import Engine
from skep.manager.raft.core import codec
from skep.manager.raft.core.model import NotLeader
from skep.manager.raft.core.readindex import ReadIndex

# A read costs nothing but memory; this many callers at once mean that nobody answers.
READS_LIMIT = 65_536


class Reads:
    """The reads of one term in office."""

    def __init__(
        self, context: Context, engine: Engine, send: Callable[[int, codec.AnyFrame], None]
    ) -> None:
        self._env = context.env
        self._peers = context.peers
        self._repeat_s = context.settings.heartbeat_s
        self._engine = engine
        self._send = send
        self._core = ReadIndex(len(context.peers))
        self._asked_at = 0.0
        self._futures: dict[int, asyncio.Future[int]] = {}
        self._next_read = 0

    def add(self) -> asyncio.Future[int]:
        """A read that comes in now; the result is the index that it may see."""
        if len(self._futures) >= READS_LIMIT:
            raise NotLeader(None, f"{READS_LIMIT} reads are waiting for a majority to answer")
        future: asyncio.Future[int] = asyncio.Future()
        self._next_read += 1
        self._futures[self._next_read] = future
        self._core.add(self._next_read)
        return future

    def pump(self) -> None:
        """Ask the question that is due. Everything committed is applied when this is called."""
        number = self._core.next_round(self._engine.applied_index)
        if number is None and self._env.now() - self._asked_at >= self._repeat_s:
            number = self._core.repeat_round()
        if number is None:
            return
        self._asked_at = self._env.now()
        for peer in self._peers:
            self._send(peer, codec.ReadProbe(self._engine.term, number))
        self._settle()

    def hear_answer(self, peer: int, answer: codec.ReadAnswer) -> None:
        """A peer confirms."""
        self._core.answer(peer, answer.round)
        self._settle()

    def fail_all(self, leader: int | None) -> None:
        """The office is lost."""
        for read in self._core.clear():
            assert isinstance(read, int)
            future = self._futures.pop(read)
            if not future.done():
                future.set_exception(NotLeader(leader))

    def _settle(self) -> None:
        confirmed = self._core.confirmed()
        if confirmed is None:
            return
        index, reads = confirmed
        for read in reads:
            assert isinstance(read, int)
            future = self._futures.pop(read)
            if not future.done():
                future.set_result(index)
