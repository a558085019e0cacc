"""Serving those who read logs, and the nodes that send them: the I/O round `Desk`.

A reader that is slow fills its own stream; then its desk has no room, the nodes' streams are not
read, and the nodes wait. Nothing else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from skep.api import codec
from skep.api.logs import labelled
from skep.domain.base import ClusterId
from skep.domain.control import LogsRequest
from skep.domain.objects import Node, Task
from skep.domain.session import (
    LOGS_FORMAT,
    LeaderMessage,
    LogMessage,
    LogPage,
    LogsCancelled,
)
from skep.env import CallError, Code, Env, Stream, StreamBroken
from skep.manager.hello import receive_hello
from skep.manager.leading import Office, Sessions, catch_up, stream_to_leader
from skep.manager.logs.core.desk import Desk, Order
from skep.manager.logs.core.wanted import select
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change

log = logging.getLogger(__name__)

METHOD = "skep.v1.Control/Logs"
FORWARDED = f"forwarded/{METHOD}"
PUBLISH = "skep.v1.Workers/PublishLogs"

# Each costs a page or two of every node: with these and a hundred nodes, some 400 MiB at the very
# worst. People at terminals are far fewer.
READERS_LIMIT = 64
# A node has a thread for logs, and its real work to do. Below what a worker takes.
ORDERS_OF_NODE_LIMIT = 200
# How late a reader hears of a node that has gone, or that a leader is none any more.
TICK_S = 0.5
# A busy cluster commits hundreds of changes a second; each look goes over a service's tasks.
LOOK_PAUSE_S = 0.1


@dataclass(eq=False)
class _Reading:
    """One reader: its desk, and who is to be woken when something has come."""

    desk: Desk
    is_changed: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class _Opened:
    """An order that a node may send a stream for."""

    reading: _Reading
    order: Order
    is_taken: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LogReaders:
    """Serves Control/Logs and Workers/PublishLogs on one manager."""

    def __init__(self, env: Env, store: Store, office: Office, cluster_id: ClusterId) -> None:
        self._env = env
        self._store = store
        self._office = office
        self._cluster_id = cluster_id
        self._readers = 0
        self._opened: dict[str, _Opened] = {}

    @property
    def reader_count(self) -> int:
        """Who is reading now."""
        return self._readers

    @property
    def order_count(self) -> int:
        """What nodes have been asked for and may still send."""
        return len(self._opened)

    # ---------------------------------------------------------------------- those who read

    async def serve(self, stream: Stream) -> None:
        """One reader at any manager. See `skep.env.StreamHandler`."""
        await self._serve(stream, may_forward=True)

    async def serve_forwarded(self, stream: Stream) -> None:
        """One reader at a manager that was believed to lead."""
        await self._serve(stream, may_forward=False)

    async def _serve(self, stream: Stream, *, may_forward: bool) -> None:
        frame = await stream.receive()
        if frame is None:
            return
        request = codec.decode(LogsRequest, frame)
        if self._readers >= READERS_LIMIT:
            raise CallError(
                Code.RESOURCE_EXHAUSTED, f"{READERS_LIMIT} others are reading logs here already"
            )
        self._readers += 1
        try:
            sessions = self._office.dispatcher
            if not self._office.is_leader or sessions is None:
                await self._forward(stream, frame, may_forward=may_forward)
            else:
                await self._read(stream, request, sessions)
        finally:
            self._readers -= 1

    async def _forward(self, stream: Stream, frame: bytes, *, may_forward: bool) -> None:
        forwarded = stream_to_leader(self._env, self._office, FORWARDED, may_forward=may_forward)
        async with forwarded as source:
            await source.send(frame)
            while (event := await self._next_forwarded(source)) is not None:
                await stream.send(event)

    async def _next_forwarded(self, source: Stream) -> bytes | None:
        try:
            return await source.receive()
        except StreamBroken as error:
            # To its reader, this is no end: it goes on at another manager.
            raise CallError(Code.UNAVAILABLE, f"the leader is gone: {error}") from None

    async def _read(self, stream: Stream, request: LogsRequest, sessions: Sessions) -> None:
        await catch_up(self._store)
        selection = select(self._store.tables, request)
        reading = _Reading(Desk(request, selection, self._env.ids))

        def changed(changes: list[Change]) -> None:
            if request.is_follow and any(isinstance(each.row, Task | Node) for each in changes):
                reading.is_changed = True
                reading.wake.set()

        unsubscribe = self._store.subscribe(changed)
        try:
            await self._run(stream, reading, sessions)
        finally:
            unsubscribe()
            for order in reading.desk.orders:
                self._end(order.message.order_id)
                self._cancel(sessions, order)

    async def _run(self, stream: Stream, reading: _Reading, sessions: Sessions) -> None:
        look_at: float = self._env.now()
        while True:
            reading.wake.clear()
            now = self._env.now()
            if now >= look_at or (reading.is_changed and now >= look_at - TICK_S + LOOK_PAUSE_S):
                reading.is_changed, look_at = False, now + TICK_S
                self._look(reading, sessions)
            if await self._send(stream, reading):
                continue
            if reading.desk.is_over(self._store.tables):
                return
            with contextlib.suppress(TimeoutError):
                pause_s = LOOK_PAUSE_S if reading.is_changed else max(look_at - now, 0.0)
                await self._env.clock.within(pause_s, reading.wake.wait())

    def _look(self, reading: _Reading, sessions: Sessions) -> None:
        if self._office.dispatcher is not sessions or not self._office.is_leader:
            raise CallError(Code.UNAVAILABLE, "leadership has changed")
        before = {order.message.order_id: order for order in reading.desk.orders}
        for order in reading.desk.look(self._env.now(), self._store.tables, sessions.session_of):
            order_id = order.message.order_id
            busy = sum(1 for each in self._opened.values() if each.order.node_id == order.node_id)
            if busy >= ORDERS_OF_NODE_LIMIT:
                raise CallError(
                    Code.RESOURCE_EXHAUSTED,
                    f"{busy} streams of logs come from node {order.node_id} already",
                )
            self._opened[order_id] = _Opened(reading, order)
            log.info("order=%s node=%s logs=wanted", order_id, order.node_id)
            sessions.tell(order.node_id, LeaderMessage(logs=order.message))
        for order_id, order in before.items():
            if order.is_closed:
                self._end(order_id)
                self._cancel(sessions, order)

    def _cancel(self, sessions: Sessions, order: Order) -> None:
        cancelled = LogsCancelled(order_id=order.message.order_id)
        if sessions.session_of(order.node_id) == order.session_id and order.left:
            sessions.tell(order.node_id, LeaderMessage(logs_cancelled=cancelled))

    def _end(self, order_id: str) -> None:
        opened = self._opened.pop(order_id, None)
        if opened is not None:
            opened.ended.set()

    async def _send(self, stream: Stream, reading: _Reading) -> bool:
        outgoing = reading.desk.take(self._env.now())
        if outgoing is None:
            return False
        reading.room.set()
        await stream.send(labelled(outgoing.lines, outgoing.label))
        return True

    # -------------------------------------------------------------------- nodes that send

    async def serve_publish(self, stream: Stream) -> None:
        """One order's lines, from the node that was asked. See `skep.env.StreamHandler`."""
        hello = await receive_hello(
            self._env,
            stream,
            lambda frame: codec.decode(LogMessage, frame).hello,
            LOGS_FORMAT,
            self._cluster_id,
        )
        opened = self._opened.get(hello.order_id)
        if opened is None:
            raise CallError(Code.NOT_FOUND, "nobody reads this order any more")
        if opened.order.node_id != hello.node_id or opened.is_taken:
            log.warning("order=%s node=%s logs=refused", hello.order_id, hello.node_id)
            raise CallError(Code.PERMISSION_DENIED, "this order is another's")
        opened.is_taken = True
        opened.reading.desk.opened(self._env.now(), opened.order)
        receiving = self._env.spawn(
            f"logs/{hello.order_id}", self._receive(stream, opened.reading, opened.order)
        )
        receiving.add_done_callback(lambda _: opened.ended.set())
        try:
            await opened.ended.wait()
        finally:
            receiving.cancel()
            self._opened.pop(hello.order_id, None)
            if not opened.order.is_closed and opened.order.left:
                opened.reading.desk.close(self._env.now(), opened.order)
            opened.reading.wake.set()
        error = None if receiving.cancelled() or not receiving.done() else receiving.exception()
        if error is not None:
            raise error

    async def _receive(self, stream: Stream, reading: _Reading, order: Order) -> None:
        task_ids = frozenset(order.left)
        while order.left and (frame := await stream.receive()) is not None:
            await self._env.turn()
            page = codec.decode(LogMessage, frame).page
            if page is None:
                continue
            if page.task_id not in task_ids:
                raise CallError(Code.PERMISSION_DENIED, "this task is not of this order")
            await self._put(reading, order, page)

    async def _put(self, reading: _Reading, order: Order, page: LogPage) -> None:
        while not order.has_room:
            reading.room.clear()
            await reading.room.wait()
        reading.desk.arrived(self._env.now(), order, page)
        reading.wake.set()
