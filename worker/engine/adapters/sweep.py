"""Killing what is left of ended tasks, many at a time.

Looking through /proc costs milliseconds, so tasks that end together are looked for together: while
one look is under way, the next batch gathers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from skep.env import Env
from skep.worker.engine.adapters import proc
from skep.worker.engine.core.records import MainProcess

log = logging.getLogger(__name__)


class Sweeper:
    """`in_thread` runs a blocking function elsewhere."""

    def __init__(self, env: Env, in_thread: Callable[..., Awaitable[None]]) -> None:
        self._env = env
        self._in_thread = in_thread
        self._waiting: list[tuple[MainProcess, asyncio.Future[None]]] = []
        self._is_busy = False

    async def sweep(self, main: MainProcess) -> None:
        """Kill every process in a task's session; returns once they are gone."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((main, done))
        if not self._is_busy:
            self._is_busy = True
            self._env.spawn("engine-sweep", self._run())
        await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._sweep_all(batch)
        finally:
            self._is_busy = False

    async def _sweep_all(self, batch: list[tuple[MainProcess, asyncio.Future[None]]]) -> None:
        try:
            await self._in_thread(proc.kill_sessions, [main for main, _ in batch])
        except TimeoutError as error:
            log.warning("why=%s", error)
        finally:
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
