"""Commands on their way: bounded, and every caller gets an answer."""

from __future__ import annotations

import asyncio
from collections import deque

from skep.manager.raft.core.model import ProposalsFull, ProposalUnknown, Settings


class Proposals:
    """What this leader has appended and not yet applied."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._futures: dict[int, asyncio.Future[object]] = {}
        # A caller may have given up; its command still takes its place in the log.
        self._sizes: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def check_room(self, size: int) -> None:
        """Raises ProposalsFull where a command of `size` bytes must not be appended now."""
        if len(self._sizes) >= self._settings.proposals_limit:
            raise ProposalsFull(f"{len(self._sizes)} commands are waiting to be committed")
        if self._bytes + size > self._settings.proposals_limit_bytes:
            raise ProposalsFull(f"{self._bytes} bytes of commands are waiting to be committed")

    def add(self, index: int, size: int) -> asyncio.Future[object]:
        """A command has been appended; the future gets what applying it returns."""
        future: asyncio.Future[object] = asyncio.Future()
        self._futures[index] = future
        self._sizes.append((index, size))
        self._bytes += size
        return future

    def applied(self, index: int, result: object) -> None:
        """The command at `index` has been applied."""
        while self._sizes and self._sizes[0][0] <= index:
            self._bytes -= self._sizes.popleft()[1]
        future = self._futures.pop(index, None)
        if future is not None and not future.done():
            future.set_result(result)

    def fail_all(self, why: str) -> None:
        """Nobody will learn here what becomes of them."""
        futures, self._futures = self._futures, {}
        self._sizes.clear()
        self._bytes = 0
        for future in futures.values():
            if not future.done():
                future.set_exception(ProposalUnknown(why))
