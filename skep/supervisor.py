"""Who restarts actors: one for one, from the store, with back-off, and not for ever.

An actor that dies is built anew by its factory on the same mailbox. More than `RESTART_LIMIT`
deaths within `RESTART_WINDOW_S` mean that restarting doesn't help: the supervisor stops all its
actors and hands the last error upward (a leader then gives up its office).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skep.actor import Actor, Mailbox
from skep.env import Env, Monotonic

log = logging.getLogger(__name__)

RESTART_LIMIT = 5
RESTART_WINDOW_S = 60.0
FIRST_BACKOFF_S = 0.05
# Long enough to let a neighbour recover, short enough that five restarts fit in the window.
LONGEST_BACKOFF_S = 5.0
# An actor that doesn't end within this long of being cancelled is a bug worth a log line.
STOP_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Child:
    """One actor to keep up: a name, its lasting mailbox, and how to build it anew."""

    name: str
    mailbox: Mailbox[Any]
    make: Callable[[], Actor[Any]]


class Supervisor:
    """Keeps `children` running. They start in the order given and stop in the reverse order."""

    def __init__(
        self,
        env: Env,
        name: str,
        children: tuple[Child, ...],
        on_escalate: Callable[[BaseException], None],
    ) -> None:
        assert len({child.name for child in children}) == len(children)
        self._env = env
        self._name = name
        self._children = children
        self._on_escalate = on_escalate
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False
        self.restarts: dict[str, int] = {child.name: 0 for child in children}

    @property
    def mailboxes(self) -> tuple[Mailbox[Any], ...]:
        """Every child's inbox, for metrics."""
        return tuple(child.mailbox for child in self._children)

    def start(self) -> None:
        """Start every child."""
        assert not self._tasks, f"{self._name} was started twice"
        for child in self._children:
            self._tasks[child.name] = self._env.spawn(
                f"{self._name}/{child.name}", self._keep_up(child)
            )

    async def stop(self) -> None:
        """Stop every child, the last one first, each fully before the next. Idempotent."""
        self._is_stopping = True
        for name in reversed(tuple(self._tasks)):
            task = self._tasks.pop(name)
            task.cancel()
            _, late = await asyncio.wait((task,), timeout=STOP_DEADLINE_S)
            if late:
                log.error("supervisor=%s child=%s does not stop", self._name, name)

    async def _keep_up(self, child: Child) -> None:
        deaths: list[Monotonic] = []
        while not self._is_stopping:
            try:
                await child.make().run()
                return
            except asyncio.CancelledError as error:
                # Something that the actor waited for was cancelled: that is its death, not ours.
                if self._is_stopping or _is_cancelled():
                    raise
                died_of: BaseException = error
            except Exception as error:
                if self._is_stopping:
                    log.exception("actor=%s/%s failed to stop", self._name, child.name)
                    return
                died_of = error
            now = self._env.now()
            deaths = [at for at in deaths if now - at < RESTART_WINDOW_S] + [now]
            log.error(
                "actor=%s/%s died deaths=%d",
                self._name,
                child.name,
                len(deaths),
                exc_info=died_of,
            )
            if len(deaths) > RESTART_LIMIT:
                # From outside, since this very task is one of those to be stopped.
                self._on_escalate(died_of)
                return
            self.restarts[child.name] += 1
            backoff_s = FIRST_BACKOFF_S * 2.0 ** (len(deaths) - 1)
            await self._env.clock.sleep(min(backoff_s, LONGEST_BACKOFF_S))


def _is_cancelled() -> bool:
    """Whether the running task itself was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
