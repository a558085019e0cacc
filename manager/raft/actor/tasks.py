"""The tasks of one Raft node: an error in any of them stops the whole node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from skep.env import Env

P = ParamSpec("P")


class Tasks:
    """Starts tasks, reports what fails, ends them together."""

    def __init__(self, env: Env, on_error: Callable[[BaseException], None]) -> None:
        self._env = env
        self._on_error = on_error
        self._running: set[asyncio.Task[None]] = set()

    def spawn(
        self, name: str, work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kw: P.kwargs
    ) -> asyncio.Task[None]:
        """Start `work(*args)` as a task.

        It is called by the task: one that ends before its first step leaves no coroutine behind.
        """
        task = self._env.spawn(name, self._supervise(lambda: work(*args, **kw)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cancel_all(self) -> None:
        """End all but the one that asks."""
        for task in list(self._running):
            if task is not asyncio.current_task():
                task.cancel()

    async def _supervise(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:
            self._on_error(error)
