"""Work beside the loop and beside whoever asked for it: threads for files, and tasks that end."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from skep.env import Env

T = TypeVar("T")


class Work:
    """What an engine has under way. Must be used on one loop."""

    def __init__(self, env: Env, name: str, threads: int) -> None:
        self._env = env
        self._tasks: set[asyncio.Task[Any]] = set()
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, name)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """What a function that blocks returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def keep(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do it beside everything else."""
        started = self._env.spawn(name, work)
        self._tasks.add(started)
        started.add_done_callback(self._tasks.discard)
        return started

    async def whole(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        """Do all of it, even if nobody waits for it any more."""
        return await asyncio.shield(self.keep(name, work))

    async def all(self, name: str, works: list[Coroutine[Any, Any, None]]) -> None:
        """Do all of these at the same time."""
        kept = [self.keep(name, work) for work in works]
        if kept:
            await asyncio.wait(kept)

    async def close(self, deadline_s: float) -> None:
        """Let what is under way end, within this time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s)
        self._executor.shutdown(wait=False)
