"""A leader's orders for streams beside its session: logs, and programs inside tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from skep.env import Env

log = logging.getLogger(__name__)

# A leader lets fewer than this of a kind be open on one node; more is a fault of its own.
ORDERS_LIMIT = 256
CONNECT_DEADLINE_S = 5.0


class Orders:
    """Orders of one `kind` that are being carried out, each by a task of its own, until they are
    done, cancelled, or their session ends. Never blocks its caller."""

    def __init__(self, env: Env, kind: str) -> None:
        self._env = env
        self._kind = kind
        self._open: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, order_id: str, carry_out: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Carry out one more, unless it is or there are too many: the leader waits for its stream
        in vain then, and tells who wanted it so."""
        if order_id in self._open or len(self._open) >= ORDERS_LIMIT:
            log.warning("%s=%s of=%d not taken", self._kind, order_id, len(self._open))
            return
        work = self._env.spawn(f"{self._kind}/{order_id}", carry_out())
        self._open[order_id] = work
        work.add_done_callback(lambda _: self._open.pop(order_id, None))

    def cancel(self, order_id: str) -> None:
        """Nobody wants it any more."""
        if order_id in self._open:
            self._open[order_id].cancel()

    def cancel_all(self) -> None:
        """The session that all came by has ended."""
        for work in tuple(self._open.values()):
            work.cancel()
