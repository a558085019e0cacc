"""One worker's session: what it is told, in order, and what it says.

The writer computes what the worker lacks whenever it is ready to send: nothing is queued for a slow
worker but the fact that there is something. The reader takes one frame after the other, and commits
statuses before it reads on, so that a worker can't report faster than the database takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from skep.api import codec
from skep.domain.base import NodeId, SessionId, TaskId
from skep.domain.session import (
    AssignmentSet,
    Drained,
    Heartbeat,
    LeaderMessage,
    StatusBatch,
    StatusesStored,
    WorkerMessage,
)
from skep.env import CallError, Code, Env, Stream
from skep.manager.dispatcher.core.assignments import WorkerSet

# Answers that wait to be sent; a worker that lets so many pile up does not read.
ANSWERS_LIMIT = 256
# Changes that come within this time travel together.
COALESCE_S = 0.005


@dataclass
class SessionHooks:
    """What a session needs of its dispatcher."""

    heard: Callable[[], None]
    store: Callable[[StatusBatch], Awaitable[None]]
    sets: Callable[[WorkerSet], list[AssignmentSet]]
    drained: Callable[[set[TaskId]], tuple[TaskId, ...]]


@dataclass
class Session:
    """A registered worker's stream, until it breaks or another takes its place."""

    env: Env
    node_id: NodeId
    session_id: SessionId
    stream: Stream
    hooks: SessionHooks
    heard_at: float
    told: WorkerSet = field(default_factory=WorkerSet)
    _answers: deque[LeaderMessage] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _is_changed: bool = False
    _drained: set[TaskId] = field(default_factory=set)
    _end: CallError | None = None

    def changed(self) -> None:
        """Something that concerns this worker has changed."""
        self._is_changed = True
        self._wake.set()

    def tell(self, message: LeaderMessage) -> None:
        """Send a message after what waits already; a worker that reads nothing is cut off."""
        try:
            self._answer(message)
        except CallError as error:
            self.end(error)

    def end(self, why: CallError) -> None:
        """Close the stream, telling the worker why."""
        self._end = why
        self._wake.set()

    async def run(self) -> None:
        """Serve until the worker goes. Raises CallError to tell it why it must."""
        reader = self.env.spawn(f"session/read/{self.node_id}", self._read())
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not reader.done() and self._end is None:
                await self._wake.wait()
                self._wake.clear()
                await self._write()
                await self.env.clock.sleep(COALESCE_S)
        finally:
            reader.cancel()
        if self._end is not None:
            raise self._end
        error = reader.exception() if reader.done() and not reader.cancelled() else None
        if error is not None:
            raise error

    async def _write(self) -> None:
        while self._answers:
            await self._send(self._answers.popleft())
        if not self._is_changed:
            return
        self._is_changed = False
        for each in self.hooks.sets(self.told):
            await self._send(LeaderMessage(assignments=each))
        self._drained &= set(self.told.told)
        drained = self.hooks.drained(self._drained)
        if drained:
            await self._send(LeaderMessage(drained=Drained(task_ids=drained)))
            self._drained |= set(drained)

    async def _read(self) -> None:
        while (frame := await self.stream.receive()) is not None:
            await self.env.turn()
            message = codec.decode(WorkerMessage, frame)
            if message.heartbeat is not None:
                self.hooks.heard()
                self._answer(LeaderMessage(heartbeat=Heartbeat(number=message.heartbeat.number)))
            elif message.statuses is not None:
                self.hooks.heard()
                await self.hooks.store(message.statuses)
                stored = StatusesStored(number=message.statuses.number)
                self._answer(LeaderMessage(stored=stored))

    def _answer(self, message: LeaderMessage) -> None:
        if len(self._answers) >= ANSWERS_LIMIT:
            raise CallError(Code.RESOURCE_EXHAUSTED, "this worker does not read its answers")
        self._answers.append(message)
        self._wake.set()

    async def _send(self, message: LeaderMessage) -> None:
        await self.stream.send(codec.encode(message))
