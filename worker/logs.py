"""Sending tasks' output to the leader: one stream for each order, apart from the session.

A slow reader of logs fills its own stream, whose sender then waits; heartbeats, statuses and
assignments travel on another. What waits here is at most a page of each task of each order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from skep.api import codec
from skep.domain.base import ClusterId, NodeId, TaskId
from skep.domain.control import LogEvent
from skep.domain.session import LOGS_FORMAT, LogHello, LogMessage, LogOrder, LogPage, LogWanted
from skep.env import CallError, Env, Fatal, Rejected, Retryable, Stream, StreamBroken
from skep.worker.engine.protocol import Engine, LogChunk, LogQuery, LogReader
from skep.worker.orders import CONNECT_DEADLINE_S, Orders

log = logging.getLogger(__name__)

METHOD = "skep.v1.Workers/PublishLogs"


class LogPublisher:
    """Carries out a leader's orders for logs, until they are done, cancelled, or their session
    ends. Never blocks its caller."""

    def __init__(
        self, env: Env, cluster_id: ClusterId, node_id: NodeId, engines: Mapping[str, Engine]
    ) -> None:
        self._env = env
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._engines = engines
        self._orders = Orders(env, "logs")

    @property
    def open_orders(self) -> int:
        """How many orders are being carried out."""
        return len(self._orders)

    def begin(self, address: str, order: LogOrder) -> None:
        """Carry out an order of the leader at `address`."""
        self._orders.begin(order.order_id, partial(self._publish, address, order))

    def cancel(self, order_id: str) -> None:
        """Nobody reads it any more."""
        self._orders.cancel(order_id)

    def cancel_all(self) -> None:
        """The session that all orders came by has ended."""
        self._orders.cancel_all()

    async def _publish(self, address: str, order: LogOrder) -> None:
        channel = self._env.transport.channel(address)
        stream: Stream | None = None
        sender: asyncio.Task[None] | None = None
        try:
            stream = await channel.open(METHOD, deadline_s=CONNECT_DEADLINE_S)
            hello = LogHello(
                format=LOGS_FORMAT,
                cluster_id=self._cluster_id,
                node_id=self._node_id,
                order_id=order.order_id,
            )
            await stream.send(codec.encode(LogMessage(hello=hello)))
            work = _Order(self._env, self._engines, order, stream)
            sender = self._env.spawn(f"logs/{order.order_id}/send", work.run())
            # The leader says nothing, and ends the stream: then nobody wants more.
            while await stream.receive() is not None:
                pass
        except (CallError, StreamBroken, OSError) as error:
            log.info("order=%s to=%s ended why=%s", order.order_id, address, error)
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.wait((sender,))
            if stream is not None:
                await stream.close()
            await channel.close()


class _Order:
    """One order being sent: what is there already in the order of time, then what comes."""

    def __init__(
        self, env: Env, engines: Mapping[str, Engine], order: LogOrder, stream: Stream
    ) -> None:
        self._env = env
        self._engines = engines
        self._order = order
        self._stream = stream
        self._readers: dict[TaskId, LogReader] = {}
        # One write at a time, as gRPC wants it.
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Send all of it. What goes wrong with the stream is for its receiver to see."""
        following: list[asyncio.Task[None]] = []
        try:
            for wanted in self._order.tasks:
                await self._guarded(wanted.task_id, partial(self._open, wanted))
            await self._send_history()
            for task_id in tuple(self._readers):
                work = self._guarded(task_id, partial(self._follow, task_id))
                following.append(self._env.spawn(f"logs/{task_id}", work))
            if following:
                await asyncio.wait(following)
        except (CallError, StreamBroken):
            pass
        finally:
            for each in following:
                each.cancel()
            for reader in self._readers.values():
                reader.close()

    async def _guarded(self, task_id: TaskId, work: partial[Any]) -> Any:
        """Do something for one task; what can't be had of it must not end the others."""
        try:
            return await work()
        except (CallError, StreamBroken):
            raise
        except (Rejected, Retryable, Fatal, OSError) as error:
            await self._end(task_id, str(error))
            return None

    async def _open(self, wanted: LogWanted) -> None:
        query = LogQuery(
            tail=self._order.tail,
            since_ns=self._order.since_ns,
            position=wanted.position,
            is_follow=self._order.is_follow,
        )
        problem = "its node has no such task"
        for engine in self._engines.values():
            try:
                reader = await engine.logs(wanted.task_id, query)
            except Rejected as error:
                problem = str(error)
                continue
            self._readers[wanted.task_id] = reader
            # From now on a broken stream is taken up where this one stood.
            await self._send(LogPage(task_id=wanted.task_id, position=reader.position))
            return
        await self._end(wanted.task_id, problem)

    async def _send_history(self) -> None:
        heads: dict[TaskId, LogChunk] = {}
        for task_id in tuple(self._readers):
            await self._guarded(task_id, partial(self._advance, task_id, heads))
        while heads:
            task_id = min(heads, key=lambda each: heads[each].lines[0].time_ns)
            await self._send(_page(task_id, heads.pop(task_id)))
            await self._guarded(task_id, partial(self._advance, task_id, heads))

    async def _advance(self, task_id: TaskId, heads: dict[TaskId, LogChunk]) -> None:
        chunk = await self._readers[task_id].read()
        if chunk.lines:
            heads[task_id] = chunk
        elif chunk.is_end:
            await self._end(task_id, _loss(chunk))
        elif chunk.lost_bytes:
            await self._send(_page(task_id, chunk))

    async def _follow(self, task_id: TaskId) -> None:
        reader = self._readers[task_id]
        while True:
            await reader.more()
            while not (chunk := await reader.read()).is_end and chunk.lines:
                await self._send(_page(task_id, chunk))
            if chunk.is_end:
                await self._end(task_id, _loss(chunk))
                return

    async def _end(self, task_id: TaskId, problem: str) -> None:
        reader = self._readers.pop(task_id, None)
        if reader is not None:
            reader.close()
        await self._send(LogPage(task_id=task_id, problem=problem, is_last=True))

    async def _send(self, page: LogPage) -> None:
        data = codec.encode(LogMessage(page=page))
        async with self._sending:
            await self._env.turn()
            await self._stream.send(data)


def _page(task_id: TaskId, chunk: LogChunk) -> LogPage:
    return LogPage(
        task_id=task_id,
        first_ns=chunk.lines[0].time_ns if chunk.lines else 0,
        position=chunk.position,
        lines=codec.encode(LogEvent(lines=chunk.lines)),
        problem=_loss(chunk),
    )


def _loss(chunk: LogChunk) -> str:
    if not chunk.lost_bytes:
        return ""
    return f"{chunk.lost_bytes} bytes were dropped by rotation before they could be read"
