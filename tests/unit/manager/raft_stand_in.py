"""Raft as the store sees it, with fates that a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skep.manager.raft.core.model import NotLeader
from skep.manager.store.actor import Store


class FakeRaft:
    """Commits what is proposed, after a moment; `fates` says otherwise for the next ones."""

    def __init__(self, store: Store) -> None:
        self.is_leader = True
        self.term = 1
        self.commands: list[bytes] = []
        self.fates: list[Callable[[bytes], None]] = []
        self._index = 0
        self._store = store
        store.attach(self)

    async def propose(self, command: bytes, *, term: int, deadline_s: float) -> object:
        await asyncio.sleep(0.001)
        if not self.is_leader or term != self.term:
            raise NotLeader(None)
        if self.fates:
            self.fates.pop(0)(command)
        return self.commit(command)

    def commit(self, command: bytes) -> int:
        self.commands.append(command)
        self._index += 1
        self._store.apply(self._index, command)
        return self._index

    async def read_index(self, *, deadline_s: float) -> int:
        return self._index
